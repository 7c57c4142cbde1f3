//! A page of `docs/` as what a reader types: fenced blocks whose info string says on which host they are typed.
//!
//! ` ```console host=auth,db ` has commands behind `$ `, and below each the output that is expected, if any. In it, `...` is any
//! text (alone on a line: any lines), and `<name>` is what the reader keeps and puts into later blocks; blanks count once.
//! ` ```text file=/path host=db ` is a file, ` ```text form host=client ` an address that is opened in a browser. Blocks that name no
//! host are not for typing.
//!
//! What a command asks for at a terminal is in the page, too, and is not printed where there is none: the reader's answers, which
//! the page does not have (`answers`), and what is typed behind the prompt of psql.

use std::collections::BTreeMap;

/// What is said of a block after its language.
#[derive(Debug, Default, Clone)]
pub struct Block {
    /// Of the opening fence, from 1.
    pub line: usize,
    pub hosts: Vec<String>,
    /// The path, where it is a file.
    pub file: Option<String>,
    /// `beginning` or `end`, where the file is there already.
    pub at: Option<String>,
    /// One of several ways to the same end.
    pub way: Option<String>,
    /// Every line is one that a command printed, but for the path of the files in it.
    pub printed: bool,
    /// The command goes on running.
    pub keeps_running: bool,
    /// What runs on the host, if anything, is ended by Ctrl-C before.
    pub after_ctrl_c: bool,
    /// The output comes true a moment later.
    pub eventually: bool,
    /// A form that is filled in in a browser.
    pub form: bool,
    /// The command asks for password and one-time code.
    pub answers: bool,
    /// The command fails.
    pub fails: bool,
    pub body: Vec<String>,
}

/// A command and what it prints.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    pub command: String,
    /// What is typed into the command while it runs.
    pub typed: Vec<String>,
    pub expected: Vec<String>,
}

impl Block {
    fn opened_by(line: usize, info: &str) -> Self {
        let mut block = Self {
            line,
            ..Self::default()
        };
        for word in info.split_whitespace().skip(1) {
            match word.split_once('=') {
                Some(("host", hosts)) => block.hosts = hosts.split(',').map(str::to_owned).collect(),
                Some(("file", path)) => block.file = Some(path.to_owned()),
                Some(("at", place @ ("beginning" | "end"))) => block.at = Some(place.to_owned()),
                Some(("way", way)) => block.way = Some(way.to_owned()),
                Some(("after", "ctrl-c")) => block.after_ctrl_c = true,
                None if word == "printed" => block.printed = true,
                None if word == "keeps-running" => block.keeps_running = true,
                None if word == "eventually" => block.eventually = true,
                None if word == "form" => block.form = true,
                None if word == "answers" => block.answers = true,
                None if word == "fails" => block.fails = true,
                _ => panic!("line {line}: {word} is not known of a block"),
            }
        }
        block
    }

    /// The commands of a block that is no file.
    pub fn commands(&self) -> Vec<Typed> {
        let mut commands: Vec<Typed> = Vec::new();
        let mut goes_on = false;
        for line in &self.body {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push(Typed {
                    command: command.to_owned(),
                    typed: Vec::new(),
                    expected: Vec::new(),
                });
                goes_on = command.ends_with('\\');
                continue;
            }
            let last = commands.last_mut();
            let last = last.unwrap_or_else(|| panic!("line {}: the block does not begin with a command", self.line));
            if goes_on {
                last.command += &format!("\n{line}");
                goes_on = line.ends_with('\\');
            } else if let Some(sql) = behind_prompt(line) {
                last.typed.push(sql.to_owned());
            } else if !(self.answers && line.starts_with("Enter ")) {
                last.expected.push(line.clone());
            }
        }
        commands
    }
}

/// What is typed behind psql's prompt, which is `postgres=#`, or `postgres=>` for whoever is no superuser.
fn behind_prompt(line: &str) -> Option<&str> {
    let (database, typed) = line.split_once("=# ").or_else(|| line.split_once("=> "))?;
    database.chars().all(char::is_alphanumeric).then_some(typed)
}

/// The blocks that name a host.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in page.lines().enumerate() {
        match (open.take(), line.strip_prefix("```")) {
            (None, Some(info)) => open = Some(Block::opened_by(index + 1, info)),
            (Some(block), Some("")) => blocks.push(block),
            (Some(mut block), _) => {
                block.body.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the last block is not closed");
    blocks.retain(|block| !block.hosts.is_empty());
    blocks
}

/// What the reader keeps of what was printed.
#[derive(Debug, Default, Clone)]
pub struct Kept(BTreeMap<String, String>);

impl Kept {
    /// `text` with what was kept in place of its names.
    pub fn put_into(&self, text: &str) -> String {
        let put = |text: String, (name, value): (&String, &String)| text.replace(&format!("<{name}>"), value);
        self.0.iter().fold(text.to_owned(), put)
    }

    /// Whether `actual` is what is expected; keeps what is named in it.
    pub fn compare(&mut self, expected: &[String], actual: &str) -> Result<(), String> {
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let actual: Vec<String> = actual.lines().map(squeezed).collect();
        let mut rest = actual.as_slice();
        let mut any_lines = expected.is_empty();
        for line in expected {
            if line == "..." {
                any_lines = true;
                continue;
            }
            let pattern = squeezed(&self.put_into(line));
            let mut found = Vec::new();
            let mut fits = |line: &String| {
                found.clear();
                matches(&pattern, line, &mut found)
            };
            let place = if any_lines {
                rest.iter().position(&mut fits)
            } else {
                rest.first().and_then(|line| fits(line).then_some(0))
            };
            let place =
                place.ok_or_else(|| format!("{line:?} is expected next, and there is:\n{}", rest.join("\n")))?;
            self.0.extend(found);
            rest = &rest[place + 1..];
            any_lines = false;
        }
        if any_lines || rest.is_empty() {
            Ok(())
        } else {
            Err(format!("nothing more is expected, and there is:\n{}", rest.join("\n")))
        }
    }
}

fn matches(pattern: &str, text: &str, found: &mut Vec<(String, String)>) -> bool {
    if let Some(rest) = pattern.strip_prefix("...") {
        return (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..], found));
    }
    if let Some((name, rest)) = pattern.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        let word = text.split(' ').next().unwrap_or_default();
        return (1..=word.len()).rev().any(|at| {
            let fits = word.is_char_boundary(at) && matches(rest, &text[at..], found);
            if fits {
                found.push((name.to_owned(), word[..at].to_owned()));
            }
            fits
        });
    }
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => matches(&pattern[a.len_utf8()..], &text[b.len_utf8()..], found),
        _ => false,
    }
}

#[test]
fn a_block_is_read_as_commands_with_what_they_print() {
    let page =
        "x\n```sh\nnot typed\n```\n```console host=a,b eventually\n$ one \\\n   two\n<name> is\n...\n$ three\n```\n";
    let blocks = blocks(page);
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].hosts.len(), blocks[0].eventually), (2, true));
    let commands = blocks[0].commands();
    assert_eq!(commands[0].command, "one \\\n   two");
    assert_eq!(commands[0].expected, ["<name> is", "..."]);
    assert_eq!((commands[1].command.as_str(), commands[1].expected.len()), ("three", 0));
}

#[test]
fn what_is_typed_into_a_command_is_not_what_it_prints() {
    let page = "```console host=a answers\n$ psql\nEnter password:\npostgres=# select 1;\n 1\nother=> \\q\n```\n";
    let commands = blocks(page)[0].commands();
    assert_eq!(commands[0].typed, ["select 1;", "\\q"]);
    assert_eq!(commands[0].expected, [" 1"]);
}

#[test]
fn what_is_printed_is_compared_and_what_is_named_is_kept() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut kept = Kept::default();
    kept.compare(
        &lines("token: <token> \\\n...\nend...3"),
        "token:  abc \\\n1\n2\nend 3\n",
    )
    .expect("it is as expected");
    assert_eq!(kept.put_into("--token=<token>"), "--token=abc");
    for actual in ["token: abd", "token: abc\nmore", ""] {
        kept.compare(&lines("token: <token>"), actual).expect_err(actual);
    }
    kept.compare(&[], "anything\nat all").expect("nothing is expected");
}
