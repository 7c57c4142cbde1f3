//! `postern db start` and `postern db configure create`: an agent from flags, run or written as a file.

use super::configure::{self, Output, Version};
use super::names::Program;
use super::node_flags::{self, JoinFlags};
use super::signals::ConfigSource;
use super::start::{self, ProcessFlags};
use super::{Failure, Outcome};
use crate::config::{DatabaseSetting, Settings};
use crate::model::{Labels, NodeKind};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum DbVerb {
    /// Run the database service for one database, without a configuration file or beside what one says.
    #[command(
        after_help = "Example:\n  postern db start --token=/tmp/token --ca-pin=sha256:… \\\n     \
        --auth-server=proxy.example.com:443 --name=orders --protocol=postgres \\\n     \
        --uri=db.example.com:5432 --labels=env=dev"
    )]
    Start(Box<DbStartArgs>),
    /// Make the database service's configuration.
    #[command(subcommand)]
    Configure(DbConfigureVerb),
}

#[derive(Debug, Subcommand)]
pub enum DbConfigureVerb {
    /// Write the configuration of an agent with one database.
    #[command(
        after_help = "Example:\n  postern db configure create --output=file --token=/tmp/token \\\n     \
        --ca-pin=sha256:… --proxy=proxy.example.com:443 --name=orders \\\n     \
        --protocol=postgres --uri=db.example.com:5432 --labels=env=dev"
    )]
    Create(Box<DbCreateArgs>),
}

#[derive(Debug, Args)]
pub struct DbStartArgs {
    /// A configuration file; its database service runs, with the database of the flags beside its own.
    #[arg(short, long, value_name = "FILE", required_unless_present = "name")]
    config: Option<PathBuf>,
    /// The proxy to join and to serve through, host:port.
    #[arg(
        long,
        visible_alias = "proxy",
        value_name = "ADDRESS",
        required_unless_present = "config"
    )]
    auth_server: Option<String>,
    #[command(flatten)]
    join: JoinFlags,
    /// The name that people connect to the database by.
    #[arg(long, requires = "uri")]
    name: Option<String>,
    #[command(flatten)]
    database: DatabaseFlags,
    /// Where PostgreSQL listens, host:port.
    #[arg(long, value_name = "ADDRESS", requires = "name")]
    uri: Option<String>,
    #[command(flatten)]
    process: ProcessFlags,
}

#[derive(Debug, Args)]
pub struct DbCreateArgs {
    /// The proxy to join and to serve through, host:port.
    #[arg(long, visible_alias = "auth-server", value_name = "ADDRESS")]
    proxy: String,
    #[command(flatten)]
    join: JoinFlags,
    /// The name that people connect to the database by.
    #[arg(long)]
    name: String,
    #[command(flatten)]
    database: DatabaseFlags,
    /// Where PostgreSQL listens, host:port.
    #[arg(long, value_name = "ADDRESS")]
    uri: String,
    #[command(flatten)]
    output: Output,
}

/// What is said of a database beside its name and address.
#[derive(Debug, Args)]
struct DatabaseFlags {
    /// What people read beside the name.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The database's protocol; Postern speaks postgres.
    #[arg(long, default_value = "postgres")]
    protocol: String,
    /// Labels that roles select the database by: env=dev,team=orders.
    #[arg(long, value_name = "LABELS", value_parser = labels, default_value = "", hide_default_value = true)]
    labels: Labels,
    /// The authority of PostgreSQL's certificate, as PEM, where it is not the cluster's.
    #[arg(long, visible_alias = "ca-cert-file", value_name = "FILE")]
    ca_cert: Option<String>,
}

impl DatabaseFlags {
    fn setting(&self, name: &str, uri: &str) -> Result<DatabaseSetting, Failure> {
        Ok(DatabaseSetting {
            name: name.to_owned(),
            description: self.description.clone(),
            protocol: self.protocol.clone(),
            uri: uri.to_owned(),
            labels: self.labels.clone(),
            ca_cert_file: node_flags::absolute(self.ca_cert.as_ref())?,
        })
    }
}

/// Labels that are what they say. Teleport's `[period:command]` makes a label anew again and again; taken for a text, it would
/// let in whom a role does not mean.
fn labels(text: &str) -> Result<Labels, String> {
    let labels = Labels::parse(text)?;
    match labels.0.iter().find(|(_, value)| value.starts_with('[')) {
        Some((key, _)) => Err(format!(
            "the label {key:?} is made by a command, which this version of Postern does not run; write {key}=value"
        )),
        None => Ok(labels),
    }
}

pub fn run(program: Program, verb: &DbVerb) -> Outcome {
    match verb {
        DbVerb::Start(args) => {
            let source = ConfigSource {
                settings: args.settings()?,
                file: args.config.clone(),
            };
            start::run_services(source.read().map_err(Failure::usage)?, source, &args.process)
        }
        DbVerb::Configure(DbConfigureVerb::Create(args)) => {
            configure::write_out(program, &args.settings()?, Version::V3, &args.output)
        }
    }
}

impl DbStartArgs {
    fn settings(&self) -> Result<Settings, Failure> {
        let named = self.name.as_ref().zip(self.uri.as_ref());
        self.process.complete(Settings {
            join: node_flags::join_at("--auth-server", self.auth_server.as_ref(), true),
            services: Some(vec![NodeKind::Db]),
            database: named.map(|(name, uri)| self.database.setting(name, uri)).transpose()?,
            ..self.join.settings()
        })
    }
}

impl DbCreateArgs {
    fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings {
            join: node_flags::join_at("--proxy", Some(&self.proxy), true),
            services: Some(vec![NodeKind::Db]),
            database: Some(self.database.setting(&self.name, &self.uri)?),
            ..self.join.settings()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Written};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: DbVerb,
    }

    const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn read(line: &str) -> Result<Config, String> {
        let line = format!("db {line} --ca-pin={PIN} --nodename=agent");
        let verb = Line::try_parse_from(line.split(' '))
            .map_err(|error| error.to_string())?
            .verb;
        match verb {
            DbVerb::Start(args) => {
                let settings = args.settings().map_err(|failure| failure.to_string())?;
                settings.load(None).map_err(|error| error.to_string())
            }
            DbVerb::Configure(DbConfigureVerb::Create(args)) => {
                let settings = args.settings().map_err(|failure| failure.to_string())?;
                let words = Written {
                    version: "v3",
                    process: "teleport",
                };
                let (text, _) = settings.write(words).map_err(|error| error.to_string())?;
                Config::parse(&text, "x").map_err(|error| error.to_string())
            }
        }
    }

    #[test]
    fn both_verbs_make_the_configuration_that_a_file_would() {
        let flags =
            "--token=/tmp/token --name=test --protocol=postgres --uri=postgres://db:5433 --labels=env=dev,team=a";
        let file = format!(
            "version: v3\npostern: {{nodename: agent, proxy_server: 'p.example.com:443', auth_token: /tmp/token, ca_pin: '{PIN}'}}\n\
             db_service: {{databases: [{{name: test, protocol: postgres, uri: 'db:5433', static_labels: {{env: dev, team: a}}}}]}}\n"
        );
        let file = format!("{:?}", Config::parse(&file, "x").expect("valid"));
        for line in [
            "start --auth-server=p.example.com:443",
            "start --proxy=p.example.com:443",
            "configure create --proxy=p.example.com:443",
        ] {
            let read = read(&format!("{line} {flags}")).expect(line);
            assert_eq!(format!("{read:?}"), file, "{line}");
        }
    }

    #[test]
    fn a_protocol_that_postern_does_not_speak_is_refused() {
        for line in ["start --auth-server=p", "configure create --proxy=p"] {
            let said = read(&format!("{line} --name=a --uri=b --protocol=mysql")).expect_err(line);
            assert!(
                said.starts_with("--protocol: ") && said.contains("Postern speaks postgres"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_database_needs_its_name_its_address_and_a_proxy() {
        for line in [
            "start",
            "start --auth-server=p",
            "start --auth-server=p --name=a",
            "start --auth-server=p --uri=b",
            "start --name=a --uri=b",
        ] {
            assert!(read(line).expect_err(line).contains("required"), "{line}");
        }
    }

    #[test]
    fn a_label_that_a_command_makes_is_refused_and_not_taken_for_its_text() {
        assert_eq!(
            labels("env=dev, team=orders").expect("labels").to_string(),
            "env=dev,team=orders"
        );
        assert!(
            labels("host=[1m:hostname]")
                .expect_err("a command")
                .contains("does not run")
        );
        assert!(labels("env").is_err());
    }
}
