//! `postern configure`: makes a configuration file of flags, or checks one.

use super::names::Program;
use super::node_flags::{self, JoinFlags};
use super::start::NO_ACME;
use super::{Failure, Outcome};
use crate::config::{AcmeSetting, Config, DEFAULT_DATA_DIR, KeyPairSetting, Settings, Written};
use crate::model::{Endpoint, NodeKind};
use crate::pki::pem::create_private;
use clap::{Args, ValueEnum};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The port of HTTPS, which the challenge of ACME comes to (RFC 8737, section 3) and people leave out.
const HTTPS_PORT: u16 = 443;

/// What is said to whoever writes a configuration that joins nothing yet; Teleport's guides leave the flag out.
const NO_PIN: &str = "--ca-pin was not given, and without it the node joins only through a proxy with a certificate that its machine \
                      trusts: else set ca_pin to what `postern ctl status` prints on the auth node, or give --ca-pin to `start`";

#[derive(Debug, Args)]
pub struct ConfigureArgs {
    /// The cluster's name: a domain name, and in every certificate for ever.
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// Ask for a public certificate by ACME, on port 443 of the cluster's name.
    #[arg(long, requires = "cluster_name")]
    acme: bool,
    /// Where the issuer of the certificate writes to.
    #[arg(long, value_name = "ADDRESS", requires = "acme")]
    acme_email: Option<String>,
    /// The certificate that the proxy presents to people, with its chain, PEM.
    #[arg(long, value_name = "FILE", requires = "key_file", conflicts_with = "acme")]
    cert_file: Option<String>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<String>,
    /// What clients and agents connect to, host:port; 443 when no port is given.
    #[arg(long, value_name = "ADDRESS")]
    public_addr: Option<String>,
    /// Which services the node runs, with commas between them; auth and proxy when none is named.
    #[arg(long, value_name = "ROLES", value_delimiter = ',', value_parser = node_flags::role)]
    roles: Vec<NodeKind>,
    /// Where a proxy without auth joins, host:port.
    #[arg(long, value_name = "ADDRESS")]
    auth_server: Option<String>,
    /// Refused: an agent joins through a proxy, and `db configure create` makes its configuration.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    proxy: Option<String>,
    #[command(flatten)]
    join: JoinFlags,
    /// The version of the file's format.
    #[arg(long, value_enum, default_value_t)]
    version: Version,
    #[command(flatten)]
    output: Output,
    /// Check this file, and write nothing.
    #[arg(long, value_name = "FILE", exclusive = true)]
    test: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Version {
    V1,
    V2,
    #[default]
    V3,
}

impl Version {
    const fn label(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

/// Where a configuration is written to.
#[derive(Debug, Args)]
pub struct Output {
    /// `stdout`; `file`, which is where `start` looks for it; or `file:///` and a path.
    #[arg(short, long, value_name = "WHERE", default_value = "stdout")]
    output: String,
}

impl Output {
    /// The file to write, or `None` for standard output.
    fn path(&self, program: Program) -> Result<Option<PathBuf>, Failure> {
        let text = self.output.as_str();
        match (text, text.strip_prefix("file://")) {
            ("stdout", _) => Ok(None),
            ("file", _) => Ok(Some(usual_path(program).into())),
            (_, Some(path)) if path.starts_with('/') && !path.ends_with('/') => Ok(Some(path.into())),
            _ => Err(Failure::usage(format!(
                "--output {text:?} is neither `stdout` nor `file` nor `file:///` and an absolute path"
            ))),
        }
    }
}

const fn usual_path(program: Program) -> &'static str {
    match program {
        Program::Teleport => "/etc/teleport.yaml",
        Program::Postern | Program::Tctl | Program::Tsh => "/etc/postern.yaml",
    }
}

pub fn run(program: Program, args: &ConfigureArgs) -> Outcome {
    if let Some(path) = &args.test {
        return test(path);
    }
    let settings = args.settings(program)?;
    write_out(program, &settings, args.version, &args.output)
}

fn test(path: &Path) -> Outcome {
    let config = Config::load(path).map_err(Failure::usage)?;
    let services: Vec<&str> = config.services().into_iter().map(NodeKind::label).collect();
    println!("OK {}: a node with {}", path.display(), services.join(", "));
    warn_of_acme(&config);
    Ok(())
}

fn warn_of_acme(config: &Config) {
    if config.proxy.as_ref().is_some_and(|proxy| proxy.acme.is_some()) {
        eprintln!("note: {NO_ACME}");
    }
}

impl ConfigureArgs {
    fn settings(&self, program: Program) -> Result<Settings, Failure> {
        if self.proxy.is_some() {
            return Err(Failure::usage(format!(
                "--proxy is where an agent joins, and this makes no configuration of one: make it with `{program} db configure \
                 create --proxy=…`; a proxy without auth joins at auth itself, by --auth-server"
            )));
        }
        let join = node_flags::join_at("--auth-server", self.auth_server.as_ref(), false);
        let services = if self.roles.is_empty() {
            vec![NodeKind::Auth, NodeKind::Proxy]
        } else {
            self.roles.clone()
        };
        if services.contains(&NodeKind::Db) {
            return Err(Failure::usage(format!(
                "a database service needs a database; make the configuration of an agent with `{program} db configure create`"
            )));
        }
        for (flag, said, needs) in [
            ("--cluster-name", self.cluster_name.is_some(), NodeKind::Auth),
            ("--acme", self.acme, NodeKind::Proxy),
            ("--cert-file", self.cert_file.is_some(), NodeKind::Proxy),
            ("--public-addr", self.public_addr.is_some(), NodeKind::Proxy),
        ] {
            // A proxy alone takes its cluster's name from auth; the flag then is the name of the certificate that ACME asks for.
            let for_acme = flag == "--cluster-name" && self.acme;
            if said && !services.contains(&needs) && !for_acme {
                return Err(Failure::usage(format!(
                    "{flag} is of the {needs} service, which --roles does not name; leave it out or add {needs}"
                )));
            }
        }
        node_flags::refuse_to_join_as_auth(
            services.contains(&NodeKind::Auth),
            join.is_some() || self.join.say_token_or_pin(),
        )?;
        let public = self.public_addr()?;
        let settings = Settings {
            join,
            cluster_name: self.cluster_name.clone().filter(|_| services.contains(&NodeKind::Auth)),
            services: Some(services),
            web_listen_addr: public.as_ref().map(|public| format!(":{}", public.port)),
            public_addr: public.map(|public| public.to_string()),
            acme: self.acme.then(|| AcmeSetting {
                email: self.acme_email.clone(),
            }),
            keypair: self.keypair()?,
            ..self.join.settings()
        };
        Ok(settings)
    }

    /// A certificate comes with its key, or not at all: clap sees to that.
    fn keypair(&self) -> Result<Option<KeyPairSetting>, Failure> {
        let paths = (
            node_flags::absolute(self.cert_file.as_ref())?,
            node_flags::absolute(self.key_file.as_ref())?,
        );
        Ok(match paths {
            (Some(cert_file), Some(key_file)) => Some(KeyPairSetting { cert_file, key_file }),
            _ => None,
        })
    }

    /// As in Teleport: the proxy listens on the port of its public address, and with ACME that is port 443 of the cluster's name.
    fn public_addr(&self) -> Result<Option<Endpoint>, Failure> {
        let by_acme = self
            .cluster_name
            .as_ref()
            .filter(|_| self.acme)
            .map(|name| ("--cluster-name", name));
        let said = self
            .public_addr
            .as_ref()
            .map(|address| ("--public-addr", address))
            .or(by_acme);
        said.map(|(flag, address)| {
            Endpoint::parse(address, HTTPS_PORT).map_err(|error| Failure::usage(format!("{flag}: {error}")))
        })
        .transpose()
    }
}

/// The settings with the directory named that a node keeps its state in: it is what people look for in the file.
fn whole(settings: &Settings) -> Settings {
    let data_dir = settings.data_dir.clone();
    Settings {
        data_dir: data_dir.or_else(|| Some(DEFAULT_DATA_DIR.to_owned())),
        ..settings.clone()
    }
}

/// Writes the configuration that `settings` are to where `output` says, and says what to type next.
pub fn write_out(program: Program, settings: &Settings, version: Version, output: &Output) -> Outcome {
    let path = output.path(program)?;
    let words = Written {
        version: version.label(),
        process: match program {
            Program::Teleport => "teleport",
            Program::Postern | Program::Tctl | Program::Tsh => "postern",
        },
    };
    let (yaml, config) = whole(settings).write(words).map_err(Failure::usage)?;
    let text = format!("# Check this file after a change: {program} configure --test FILE\n{yaml}");
    match &path {
        None => std::io::stdout()
            .write_all(text.as_bytes())
            .and_then(|()| std::io::stdout().flush())
            .map_err(|error| {
                Failure::failed(format!(
                    "the configuration cannot be written to standard output: {error}"
                ))
            })?,
        Some(path) => {
            // It may hold a token, so it is for its owner only.
            if !create_private(path, text.as_bytes()).map_err(Failure::failed)? {
                return Err(Failure::failed(format!(
                    "{} exists already and is not overwritten; move it away and try again, or write to another file",
                    path.display()
                )));
            }
            println!(
                "The configuration has been written to {}; only its owner may read it.",
                path.display()
            );
            println!("Start it with:\n\n> {program} start --config {}", path.display());
        }
    }
    warn_of_acme(&config);
    if config.join.is_some() && config.ca_pins.is_empty() {
        eprintln!("note: {NO_PIN}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ConfigureArgs,
    }

    fn written(line: &str) -> Result<String, String> {
        let line = format!("configure {line}");
        let args = Line::try_parse_from(line.trim().split(' '))
            .map_err(|error| error.to_string())?
            .args;
        let settings = args
            .settings(Program::Teleport)
            .map_err(|failure| failure.to_string())?;
        let words = Written {
            version: args.version.label(),
            process: "teleport",
        };
        let (text, config) = whole(&settings).write(words).map_err(|error| error.to_string())?;
        let read = Config::parse(&text, "x").map_err(|error| error.to_string())?;
        assert_eq!(format!("{read:?}"), format!("{config:?}"), "{text}");
        Ok(text)
    }

    #[test]
    fn the_guide_s_line_makes_a_proxy_on_port_443_of_the_cluster_s_name() {
        let text = written("--acme --acme-email=a@example.com --cluster-name=gate.example.com").expect("valid");
        let config = Config::parse(&text, "x").expect("valid");
        assert_eq!(config.services(), [NodeKind::Auth, NodeKind::Proxy]);
        assert_eq!(config.auth.expect("on").cluster_name.as_str(), "gate.example.com");
        let proxy = config.proxy.expect("on");
        assert_eq!(proxy.web_listen_addr.to_string(), ":443");
        assert_eq!(proxy.public_addr[0].to_string(), "gate.example.com:443");
        assert_eq!(proxy.acme.expect("on").email.as_deref(), Some("a@example.com"));
    }

    #[test]
    fn the_proxy_listens_on_the_port_of_its_public_address() {
        let proxy = |line: &str| {
            Config::parse(&written(line).expect(line), "x")
                .expect("valid")
                .proxy
                .expect("on")
        };
        assert_eq!(
            proxy("--public-addr=a.example.com:8443").web_listen_addr.to_string(),
            ":8443"
        );
        assert_eq!(
            proxy("--public-addr=a.example.com").public_addr[0].to_string(),
            "a.example.com:443"
        );
        assert_eq!(proxy("").web_listen_addr.to_string(), "0.0.0.0:3080");
    }

    #[test]
    fn every_version_of_the_format_says_where_a_proxy_joins() {
        for version in ["v1", "v2", "v3"] {
            let text = written(&format!(
                "--version={version} --roles=proxy --auth-server=auth:3025 --token=/t"
            ))
            .expect(version);
            assert!(Config::parse(&text, "x").expect("valid").join.is_some(), "{text}");
        }
    }

    #[test]
    fn flags_that_do_not_fit_together_are_refused_with_what_to_do() {
        for (line, reason) in [
            ("--roles=db", "db configure create"),
            ("--roles=node", "SSH"),
            ("--token=x", "joins none"),
            ("--proxy=p:443", "db configure create --proxy"),
            ("--roles=proxy", "needs \"auth_server\""),
            ("--roles=proxy --auth-server=a --cluster-name=x", "leave it out"),
            ("--roles=auth --public-addr=x", "leave it out"),
            ("--acme --acme-email=a@b", "--cluster-name"),
            ("--acme-email=a@b", "--acme"),
            ("--acme --cluster-name=x --acme-email=b", "--acme-email: "),
            ("--data-dir=relative", "absolute"),
            ("--test=x --acme", "cannot be used with"),
        ] {
            let said = written(line).expect_err(line);
            assert!(said.contains(reason), "{line}: {said}");
        }
    }

    #[test]
    fn a_file_is_named_by_an_address_or_is_the_usual_one() {
        let path = |text: &str, program| {
            let output = Output {
                output: text.to_owned(),
            };
            output.path(program).map_err(|failure| failure.to_string())
        };
        assert_eq!(path("stdout", Program::Postern), Ok(None));
        assert_eq!(path("file", Program::Postern), Ok(Some("/etc/postern.yaml".into())));
        assert_eq!(path("file", Program::Teleport), Ok(Some("/etc/teleport.yaml".into())));
        assert_eq!(
            path("file:///a/b.yaml", Program::Teleport),
            Ok(Some("/a/b.yaml".into()))
        );
        for text in ["", "file://a/b", "file:///a/", "/a/b", "s3://x/y"] {
            assert!(path(text, Program::Postern).is_err(), "{text}");
        }
    }
}
