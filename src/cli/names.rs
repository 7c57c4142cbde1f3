//! One program, four names: by the base name that it is called by, it takes the command lines of `postern`, or those that the
//! guide types after `teleport`, `tctl` and `tsh`.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

/// The name that the program was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Every command; also under any name that is none of the others.
    Postern,
    /// Runs nodes.
    Teleport,
    /// What `postern ctl` does.
    Tctl,
    /// For people who use databases.
    Tsh,
}

impl Program {
    /// Reads the first argument of a process: a name, or the path of a link.
    pub fn called_by(first_argument: Option<&OsStr>) -> Self {
        let name = first_argument.and_then(|path| Path::new(path).file_name());
        match name.and_then(OsStr::to_str) {
            Some("teleport") => Self::Teleport,
            Some("tctl") => Self::Tctl,
            Some("tsh") => Self::Tsh,
            _ => Self::Postern,
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::Postern => "postern",
            Self::Teleport => "teleport",
            Self::Tctl => "tctl",
            Self::Tsh => "tsh",
        }
    }

    /// What an administrator types before a verb, where the program is called so.
    pub const fn ctl(self) -> &'static str {
        match self {
            Self::Tctl | Self::Teleport => "tctl",
            Self::Postern | Self::Tsh => "postern ctl",
        }
    }

    /// What a person types before `login`, where the program is called so.
    pub const fn of_people(self) -> &'static str {
        match self {
            Self::Tctl | Self::Teleport | Self::Tsh => "tsh",
            Self::Postern => "postern",
        }
    }

    /// An example of this program as it is typed under the name that it was called by.
    fn example(self, text: &str) -> String {
        let mut text = text.to_owned();
        // Where a command begins: a line, a pipe, a substitution.
        for begin in ["  ", "| ", "$("] {
            let named = format!("{begin}{self} ");
            if self == Self::Tctl {
                text = text.replace(&format!("{begin}postern ctl "), &named);
            }
            text = text.replace(&format!("{begin}postern "), &named);
        }
        if self == Self::Teleport {
            text.replace("/etc/postern.yaml", "/etc/teleport.yaml")
        } else {
            text
        }
    }

    /// Puts the name into the examples of a command and of all its verbs. A command of verbs has the first example of each.
    pub fn name_in_examples(self, command: clap::Command) -> clap::Command {
        let examples = command.get_after_help().map(|text| self.example(&text.to_string()));
        let command = command.mut_subcommands(|verb| self.name_in_examples(verb));
        let of_verbs: Vec<String> = command.get_subcommands().filter_map(first_example).collect();
        match examples {
            Some(text) => command.after_help(text),
            None if of_verbs.is_empty() => command,
            None => command.after_help(format!("Examples:\n{}", of_verbs.join("\n"))),
        }
    }
}

/// The first of a command's examples, with the lines that it goes on over.
fn first_example(command: &clap::Command) -> Option<String> {
    let text = command.get_after_help()?.to_string();
    let mut lines = Vec::new();
    for line in text.lines().skip(1) {
        lines.push(line);
        if !line.ends_with('\\') {
            break;
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_name_of_the_first_argument_says_what_the_program_is() {
        let called = |name: &str| Program::called_by(Some(OsStr::new(name)));
        assert_eq!(called("/usr/local/bin/teleport"), Program::Teleport);
        assert_eq!(called("./tctl"), Program::Tctl);
        assert_eq!(called("tsh"), Program::Tsh);
        for name in ["postern", "/teleport/postern", "teleport-9", "", ".."] {
            assert_eq!(called(name), Program::Postern, "{name:?}");
        }
        assert_eq!(Program::called_by(None), Program::Postern);
    }

    #[test]
    fn examples_are_typed_under_the_name_of_the_program() {
        let command = || {
            clap::Command::new("x")
                .after_help("Example:\n  postern start --config /etc/postern.yaml")
                .subcommand(clap::Command::new("status").after_help("Example:\n  postern ctl status"))
        };
        let teleport = Program::Teleport.name_in_examples(command());
        let help = teleport.get_after_help().map(ToString::to_string);
        assert_eq!(
            help.as_deref(),
            Some("Example:\n  teleport start --config /etc/teleport.yaml")
        );
        let tctl = Program::Tctl.name_in_examples(command());
        let status = tctl.find_subcommand("status").and_then(clap::Command::get_after_help);
        assert_eq!(
            status.map(ToString::to_string).as_deref(),
            Some("Example:\n  tctl status")
        );
        let group = clap::Command::new("g").subcommand(command()).subcommand(
            clap::Command::new("long").after_help("Examples:\n  postern long \\\n     --flag\n  postern other"),
        );
        let group = Program::Postern.name_in_examples(group);
        assert_eq!(
            group.get_after_help().map(ToString::to_string).as_deref(),
            Some("Examples:\n  postern start --config /etc/postern.yaml\n  postern long \\\n     --flag"),
            "the first of each verb"
        );
    }
}
