//! The log of a node: the names of its fields, its form, and what is never in it.

use crate::harness::configuration::DB_TOKEN;
use crate::harness::{Cluster, Form, Kind, PATIENCE};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn source_files(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            found.push(text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned());
        }
    }
}

/// The fields of a call that logs, of what follows its opening parenthesis: they stand before the text.
fn fields(call: &str) -> Vec<String> {
    let (mut depth, mut is_text, mut part, mut names) = (0, false, String::new(), Vec::new());
    for letter in call.chars() {
        match letter {
            '"' => is_text = !is_text,
            '(' | '[' | '{' if !is_text => depth += 1,
            ',' | ')' if !is_text && depth == 0 => {
                let field = part.trim();
                if field.starts_with('"') || field.is_empty() {
                    return names;
                }
                if !field.starts_with("target:") {
                    let name = field.split('=').next().unwrap_or_default().trim();
                    names.push(name.trim_start_matches(['%', '?']).to_owned());
                }
                part.clear();
                continue;
            }
            ')' | ']' | '}' if !is_text => depth -= 1,
            _ => {}
        }
        part.push(letter);
    }
    names
}

#[test]
fn every_field_of_the_log_is_in_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    source_files(&root.join("src"), &mut sources);
    let start = regex::Regex::new(r"tracing::(?:error|warn|info|debug|trace)!\(").expect("a pattern");
    let mut used = BTreeSet::new();
    for source in &sources {
        let calls = start.find_iter(source).map(|found| &source[found.end()..]);
        used.extend(calls.flat_map(fields));
    }
    assert!(used.len() > 30 && used.contains("error"), "{used:?}");
    let page = std::fs::read_to_string(root.join("docs/operating.md")).expect("the page");
    let section = page.split("## The log of a node").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    let named = regex::Regex::new("`([a-z_]+)`").expect("a pattern");
    let listed: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once(" | "))
        .flat_map(|(names, _)| {
            named
                .captures_iter(&format!("`{names}"))
                .map(|found| found[1].to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    let unlisted: Vec<_> = used.difference(&listed).collect();
    let unused: Vec<_> = listed.difference(&used).collect();
    assert!(
        unlisted.is_empty() && unused.is_empty(),
        "not in docs/operating.md: {unlisted:?}; only there: {unused:?}"
    );
}

/// What people type, and what they prove who they are with.
const STATEMENT: &str = "select 'a statement of nobody else'";

#[test]
fn no_line_at_any_level_has_a_statement_or_a_secret() {
    let mut cluster = Cluster::start(Form::OneProcess);
    let node = cluster.node_mut(Kind::Auth);
    node.config = node
        .config
        .clone()
        .with_process("  log: {severity: trace, format: {output: json}}\n");
    node.process().send(Signal::SIGTERM);
    node.wait(PATIENCE);
    node.start();
    let rows = cluster.client("alice", "app", "app").psql(STATEMENT).ok();
    assert!(rows.contains("a statement of nobody else"));
    cluster.audited("alice", "TDB02I", |event| event["db_query"] == STATEMENT);
    let log = cluster.node(Kind::Auth).process().log_text();
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect();
    let opened = lines.iter().find(|line| line["message"] == "session open");
    let opened = opened.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(
        (&opened["user"], &opened["database"]),
        (&"alice".into(), &"orders".into())
    );
    assert!(lines.iter().any(|line| line["level"] == "debug"), "{log}");
    assert!(
        lines
            .iter()
            .flat_map(|line| line.as_object())
            .flatten()
            .all(|(_, value)| !value.is_object())
    );
    for secret in ["a statement of nobody else", "PRIVATE KEY", DB_TOKEN] {
        assert!(!log.contains(secret), "{secret}");
    }
}
