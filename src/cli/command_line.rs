//! From the arguments of the process to the command that is meant, under each of the program's names.

use super::ctl::CtlArgs;
use super::names::Program;
use super::{Cli, Command, Failure, NodeCommand, refused_flags};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;

/// Runs the services of a Postern node.
#[derive(Debug, Parser)]
#[command(name = "teleport", version, max_term_width = 100, arg_required_else_help = true)]
struct NodeCli {
    #[command(subcommand)]
    command: NodeCommand,
}

/// The command that `arguments` (the first is the program's name) ask for. Help, the version and a mistake of the command line
/// end the process, as clap has it.
///
/// # Errors
/// A flag of Teleport's that is refused, or a verb of `tsh`, with a sentence of its own.
pub fn read(program: Program, arguments: &[OsString]) -> Result<Command, Failure> {
    let arguments = &global_flags_last(arguments);
    let read = match program {
        Program::Postern => parse::<Cli>(program, arguments).map(|cli| cli.command),
        Program::Teleport => parse::<NodeCli>(program, arguments).map(|cli| Command::Node(cli.command)),
        Program::Tctl => tctl(arguments),
        Program::Tsh => return tsh(arguments),
    };
    read.map_err(|error| refused_flags::sentence(program, arguments, &error).unwrap_or_else(|| error.exit()))
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

fn tsh(arguments: &[OsString]) -> Result<Command, Failure> {
    let command = clap::Command::new("tsh")
        .about("Use databases through Postern. This version has no login of people yet.")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(100)
        .arg_required_else_help(true)
        .allow_external_subcommands(true)
        .subcommand(version_verb());
    let matches = Program::Tsh.name_in_examples(command).try_get_matches_from(arguments);
    match matches {
        Ok(matches) if matches.subcommand_name() == Some("version") => Ok(Command::Node(NodeCommand::Version)),
        Ok(matches) => Err(no_login(matches.subcommand_name().unwrap_or_default())),
        // `tsh --proxy=… login`: the flags of verbs that there are not are not known either.
        Err(error) if error.kind() == ErrorKind::UnknownArgument => {
            Err(no_login(&refused_flags::invalid_argument(&error)))
        }
        Err(error) => error.exit(),
    }
}

fn version_verb() -> clap::Command {
    clap::Command::new("version")
        .about("Print the version")
        .after_help("Example:\n  postern version")
}

fn no_login(asked: &str) -> Failure {
    Failure::usage(format!(
        "`tsh {asked}` is not there yet: this version of Postern has no login of people; an administrator makes the certificate \
         for psql, with `tctl auth sign --format=file --user=NAME --db-service=DATABASE --out=NAME`"
    ))
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
        CtlArgs::augment_args(clap::Command::new("tctl"))
            .subcommand(version_verb())
            .debug_assert();
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
    fn a_verb_of_tsh_that_is_not_there_is_refused_in_a_sentence() {
        for line in ["tsh login", "tsh --proxy=p:443 login", "tsh db ls"] {
            let said = parsed(line);
            assert!(
                said.contains("no login of people") && said.contains("tctl auth sign"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_flag_of_teleport_that_postern_does_not_have_is_refused_by_name_and_with_the_reason() {
        let refused = [
            ("teleport start --fips", "FIPS"),
            ("postern start --permit-user-env", "SSH"),
            ("teleport start --insecure-no-tls", "TLS"),
            ("teleport start --advertise-ip=10.0.0.1", "tunnel"),
            ("teleport start --insecure", "--ca-pin"),
            ("teleport start --app-name=x --app-uri=y", "application service"),
            ("postern start --aws-region=eu-west-1", "cloud"),
            ("postern start --ad-domain x", "Active Directory"),
            ("teleport start --labels=env=dev", "static_labels"),
            ("teleport start --skip-version-check", "any version"),
            ("postern start --bootstrap=state.yaml", "ctl create -f"),
            ("teleport start --apply-on-startup=x.yaml", "ctl create -f"),
            ("teleport start --config-string=eA==", "--config"),
            ("teleport version --raw", "first line"),
            ("tctl status --auth-server=a:3025", "auth node"),
            ("postern ctl --insecure status", "socket"),
            ("tctl status -i key", "auth node"),
        ];
        for (line, reason) in refused {
            let said = parsed(line);
            let flag = line.split(' ').find(|word| word.starts_with('-'));
            let flag = flag.and_then(|flag| flag.split('=').next()).unwrap_or_default();
            assert!(said.starts_with(flag) && said.contains(reason), "{line}: {said}");
        }
    }
}
