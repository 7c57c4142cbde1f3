//! From the arguments of the process to the command that is meant, under each of the program's names.

use super::ctl::CtlArgs;
use super::db_service::DbVerb;
use super::names::Program;
use super::people::{PeopleCommand, PeopleDbVerb};
use super::{Cli, Command, DbCommand, Failure, NodeCommand, refused_flags};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// Runs the services of a Postern node.
#[derive(Debug, Parser)]
#[command(name = "teleport", version, max_term_width = 100, arg_required_else_help = true)]
struct NodeCli {
    #[command(subcommand)]
    command: NodeLine,
}

#[derive(Debug, Subcommand)]
enum NodeLine {
    #[command(flatten)]
    Node(NodeCommand),
    /// The database service: an agent of one database.
    #[command(subcommand)]
    Db(DbVerb),
}

/// Use databases through Postern.
#[derive(Debug, Parser)]
#[command(name = "tsh", version, max_term_width = 100, arg_required_else_help = true)]
struct PeopleCli {
    #[command(subcommand)]
    command: PeopleLine,
}

#[derive(Debug, Subcommand)]
enum PeopleLine {
    #[command(flatten)]
    People(PeopleCommand),
    /// Databases: list them, log in to them, connect.
    #[command(subcommand)]
    Db(PeopleDbVerb),
    /// Print the version.
    #[command(after_help = "Example:\n  postern version")]
    Version,
}

/// Verbs of Teleport's for people that are known and refused: which, and the sentence about them.
const REFUSED_VERBS: &[(&[&str], &str)] = &[
    (
        &["proxy"],
        "is not there yet: clients of your own connect by themselves, with what `db config` prints",
    ),
    (
        &["mfa"],
        "is not there yet: a new one-time code is set by the link of `ctl users reset`",
    ),
    (
        &["request", "requests"],
        "is not there yet: ask a cluster administrator for the role",
    ),
    (
        &["play", "recordings"],
        "is not there yet: `ctl audit ls` lists what was run, on the auth node",
    ),
    (
        &["exec"],
        "is not there yet: `db connect` runs psql, which reads a script from its standard input",
    ),
    (
        &["clusters", "sessions", "headless", "vnet", "bench", "device", "config"],
        "is not supported by this version of Postern",
    ),
    (
        &[
            "ssh",
            "scp",
            "sftp",
            "ls",
            "join",
            "resolve",
            "kube",
            "kubectl",
            "app",
            "apps",
            "aws",
            "az",
            "gcloud",
            "git",
            "workload-identity",
            "desktop",
        ],
        "is of another kind of access, which Postern does not have: it is for PostgreSQL",
    ),
];

/// Flags that the reference takes before the verb too.
const FLAGS_OF_ALL_VERBS: [&str; 5] = ["--proxy", "--user", "--ttl", "--ca-pin", "--insecure"];

/// The command that `arguments` (the first is the program's name) ask for. Help, the version and a mistake of the command line
/// end the process, as clap has it.
///
/// # Errors
/// A flag of Teleport's that is refused, or a verb of `tsh`, with a sentence of its own.
pub fn read(program: Program, arguments: &[OsString]) -> Result<Command, Failure> {
    let arguments = &global_flags_last(arguments);
    let read = match program {
        Program::Postern => parse::<Cli>(program, arguments).map(|cli| cli.command),
        Program::Teleport => parse::<NodeCli>(program, arguments).map(|cli| match cli.command {
            NodeLine::Node(command) => Command::Node(command),
            NodeLine::Db(verb) => Command::Db(DbCommand::Node(verb)),
        }),
        Program::Tctl => tctl(arguments),
        Program::Tsh => parse::<PeopleCli>(program, &verb_first(arguments)).map(|cli| match cli.command {
            PeopleLine::People(command) => Command::People(command),
            PeopleLine::Db(verb) => Command::Db(DbCommand::People(verb)),
            PeopleLine::Version => Command::Node(NodeCommand::Version),
        }),
    };
    let refused = |error: &clap::Error| {
        refused_verb(program, error).or_else(|| refused_flags::sentence(program, arguments, error))
    };
    read.map_err(|error| refused(&error).unwrap_or_else(|| error.exit()))
}

/// Global flags that stand before the verb, behind everything: each verb takes those that it has.
fn global_flags_last(arguments: &[OsString]) -> Vec<OsString> {
    let Some((name, mut rest)) = arguments.split_first() else {
        return Vec::new();
    };
    let mut flags = Vec::new();
    while let Some((flag, after)) = rest.split_first() {
        let text = flag.to_string_lossy();
        let with_value = matches!(text.as_ref(), "-c" | "--config" | "--data-dir");
        let alone = matches!(text.as_ref(), "-d" | "--debug")
            || ["--config=", "--data-dir="].iter().any(|begin| text.starts_with(begin));
        let taken = match (with_value, alone) {
            (true, _) if !after.is_empty() => 2,
            (_, true) => 1,
            _ => break,
        };
        let (these, others) = rest.split_at(taken);
        flags.extend_from_slice(these);
        rest = others;
    }
    let mut all = vec![name.clone()];
    all.extend_from_slice(rest);
    // What follows a bare `--` would not be read as flags; help of the program itself is asked for without a verb.
    let place = all.iter().position(|word| word == "--").unwrap_or(all.len());
    all.splice(place..place, flags);
    all
}

fn parse<C: CommandFactory + FromArgMatches>(program: Program, arguments: &[OsString]) -> Result<C, clap::Error> {
    let mut command = program.name_in_examples(C::command());
    let matches = command.try_get_matches_from_mut(arguments)?;
    C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The verbs of `postern ctl`, and `version`.
fn tctl(arguments: &[OsString]) -> Result<Command, clap::Error> {
    let command = clap::Command::new("tctl")
        .about("Administer a Postern cluster, on the machine of its auth service")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(100)
        .arg_required_else_help(true);
    let command = CtlArgs::augment_args(command).subcommand(version_verb());
    let mut command = Program::Tctl.name_in_examples(command);
    let matches = command.try_get_matches_from_mut(arguments)?;
    if matches.subcommand_name() == Some("version") {
        return Ok(Command::Node(NodeCommand::Version));
    }
    let arguments = CtlArgs::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok(Command::Ctl(arguments))
}

/// `tsh --proxy=… login` as `tsh login --proxy=…`.
fn verb_first(arguments: &[OsString]) -> Vec<OsString> {
    let mut words = arguments.iter();
    let mut line: Vec<OsString> = words.next().cloned().into_iter().collect();
    let mut flags = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.peek() {
        let text = word.to_string_lossy();
        let (flag, value) = text
            .split_once('=')
            .map_or((text.as_ref(), false), |(flag, _)| (flag, true));
        if !FLAGS_OF_ALL_VERBS.contains(&flag) {
            break;
        }
        let takes_next = !value && flag != "--insecure";
        flags.extend(words.next().cloned());
        if takes_next {
            flags.extend(words.next().cloned());
        }
    }
    line.extend(words.cloned());
    line.extend(flags);
    line
}

/// The sentence about a verb of Teleport's, where `error` is about one.
fn refused_verb(program: Program, error: &clap::Error) -> Option<Failure> {
    if !matches!(program, Program::Postern | Program::Tsh) || error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let (_, sentence) = REFUSED_VERBS.iter().find(|(verbs, _)| verbs.contains(&verb.as_str()))?;
    Some(Failure::usage(format!("`{program} {verb}` {sentence}")))
}

fn version_verb() -> clap::Command {
    clap::Command::new("version")
        .about("Print the version")
        .after_help("Example:\n  postern version")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn parsed(line: &str) -> String {
        let arguments = arguments(line);
        let program = Program::called_by(arguments.first().map(OsString::as_os_str));
        read(program, &arguments).map_or_else(|refused| refused.to_string(), |command| format!("{command:?}"))
    }

    #[test]
    fn every_command_line_is_declared_without_contradiction() {
        Cli::command().debug_assert();
        NodeCli::command().debug_assert();
        PeopleCli::command().debug_assert();
        CtlArgs::augment_args(clap::Command::new("tctl"))
            .subcommand(version_verb())
            .debug_assert();
    }

    #[test]
    fn examples_fit_a_terminal_of_80_columns_under_every_name() {
        fn fits(line: &str, command: &clap::Command) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for example in examples.lines() {
                assert!(example.chars().count() <= 80, "{line}: {example}");
            }
            for verb in command.get_subcommands() {
                fits(&format!("{line} {}", verb.get_name()), verb);
            }
        }
        let tctl = CtlArgs::augment_args(clap::Command::new("tctl"));
        for (program, command) in [
            (Program::Postern, Cli::command()),
            (Program::Teleport, NodeCli::command()),
            (Program::Tctl, tctl),
            (Program::Tsh, PeopleCli::command()),
        ] {
            fits(program.label(), &program.name_in_examples(command));
        }
    }

    #[test]
    fn tctl_takes_what_postern_ctl_takes_with_global_flags_before_or_after_the_verb() {
        for verb in [
            "status --format json",
            "create -f x.yaml",
            "get role/access",
            "rm user/alice",
            "db ls",
            "db ls env=dev,team=x --search=a -v",
            "nodes ls",
            "edit role/access",
            "auth export --type=db-client",
            "audit ls --since 1h",
            "auth sign --format=db --host=a,b --out=server --ttl=2190h",
        ] {
            assert_eq!(parsed(&format!("tctl {verb}")), parsed(&format!("postern ctl {verb}")));
            let after = parsed(&format!("tctl {verb} --data-dir /d"));
            assert!(after.starts_with("Ctl(") && after.contains("/d"), "{after}");
            assert_eq!(parsed(&format!("tctl --data-dir /d {verb}")), after);
            assert_eq!(parsed(&format!("postern ctl --data-dir /d {verb}")), after);
        }
    }

    #[test]
    fn global_flags_stand_before_or_after_the_verb_of_every_program() {
        assert_eq!(parsed("teleport -d -c /x start"), parsed("teleport start -c /x -d"));
        assert_eq!(parsed("postern --config=/x start"), parsed("postern start -c /x"));
        assert_eq!(
            parsed("tctl -d -c /x status"),
            parsed("postern ctl status -c /x --debug")
        );
        assert_eq!(
            parsed("postern --data-dir /d ctl status"),
            parsed("tctl status --data-dir=/d")
        );
    }

    #[test]
    fn teleport_takes_what_postern_takes_of_nodes() {
        assert_eq!(parsed("teleport start -c /x"), parsed("postern start -c /x"));
        for name in ["postern", "teleport", "tctl", "tsh"] {
            assert_eq!(parsed(&format!("{name} version")), "Node(Version)");
        }
    }

    #[test]
    fn tsh_takes_what_postern_takes_of_people_with_flags_before_or_after_the_verb() {
        for line in [
            "login --proxy=p:443 --user=alice --ttl=60",
            "logout",
            "status -f json",
            "db ls env=dev -v",
            "db login -u reader -n app orders",
            "db connect orders",
            "db config --format=cmd orders",
        ] {
            let read = parsed(&format!("tsh {line}"));
            assert!(read.starts_with("People(") || read.starts_with("Db(People("), "{read}");
            assert_eq!(read, parsed(&format!("postern {line}")));
        }
        let after = parsed("tsh login --proxy=p:443 --user alice --insecure");
        assert_eq!(parsed("tsh --proxy=p:443 --user alice --insecure login"), after);
        assert_eq!(parsed("tsh --proxy p:443 login --user alice --insecure"), after);
    }

    #[test]
    fn a_verb_of_teleport_s_that_is_not_there_is_refused_in_a_sentence() {
        for (line, reason) in [
            ("tsh proxy db x", "db config"),
            ("tsh --proxy=p:443 ssh host", "PostgreSQL"),
            ("postern mfa ls", "users reset"),
            ("tsh db exec x", "db connect"),
            ("tsh play x", "audit ls"),
            ("tsh request ls", "administrator"),
        ] {
            let said = parsed(line);
            assert!(said.starts_with('`') && said.contains(reason), "{line}: {said}");
        }
    }

    #[test]
    fn a_flag_of_teleport_that_postern_does_not_have_is_refused_by_name_and_with_the_reason() {
        let refused = [
            ("teleport start --fips", "FIPS"),
            ("postern start --permit-user-env", "SSH"),
            ("teleport start --insecure-no-tls", "TLS"),
            ("teleport start --advertise-ip=10.0.0.1", "tunnel"),
            ("teleport configure --insecure", "--ca-pin"),
            ("teleport start --app-name=x --app-uri=y", "application service"),
            ("postern start --aws-region=eu-west-1", "cloud"),
            ("postern start --ad-domain x", "Active Directory"),
            ("teleport start --labels=env=dev", "static_labels"),
            ("teleport start --skip-version-check", "any version"),
            ("postern start --bootstrap=state.yaml", "ctl create -f"),
            ("teleport start --apply-on-startup=x.yaml", "ctl create -f"),
            ("teleport start --config-string=eA==", "--config"),
            ("teleport version --raw", "first line"),
            ("tctl status --auth-server=a:3025", "--data-dir"),
            ("postern ctl --insecure status", "socket"),
        ];
        for (line, reason) in refused {
            let said = parsed(line);
            let flag = line.split(' ').find(|word| word.starts_with('-'));
            let flag = flag.and_then(|flag| flag.split('=').next()).unwrap_or_default();
            assert!(said.starts_with(flag) && said.contains(reason), "{line}: {said}");
        }
    }
}
