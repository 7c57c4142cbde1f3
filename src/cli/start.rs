//! `postern start`: the services of a configuration file, or of the flags, until a signal.

use super::node_flags::{self, JoinFlags};
use super::signals::{self, ConfigSource};
use super::{Failure, Outcome, deadline, first_contact};
use crate::actors::host::run_system;
use crate::config::{
    Config, LogFormat as ConfigLogFormat, LogOutput as ConfigLogOutput, Settings, default_config_path,
};
use crate::model::{NodeKind, SystemClock};
use crate::node::{self, InProcess, Node, NodeEnd, Order};
use crate::telemetry::logging::{self, LogFormat, LogOutput};
use clap::Args;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What is said to whoever asks for a public certificate, by `configure` once and by `start` every time.
pub const NO_ACME: &str = "this version of Postern has no ACME yet: proxy_service.acme is not acted on, and the proxy serves a \
                           certificate of the cluster's own host authority, which clients and nodes have to be given";

#[derive(Debug, Args)]
pub struct StartArgs {
    /// The configuration file; /etc/postern.yaml, else /etc/teleport.yaml, when none is given. Flags come before what it says.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which services run, with commas between them: auth, proxy, db.
    #[arg(short, long, value_name = "ROLES", value_delimiter = ',', value_parser = node_flags::role)]
    roles: Vec<NodeKind>,
    /// Where to join, host:port: auth for a proxy, a proxy for an agent.
    #[arg(long, value_name = "ADDRESS")]
    auth_server: Option<String>,
    #[command(flatten)]
    join: JoinFlags,
    /// The address that auth and proxy listen on.
    #[arg(short, long, value_name = "IP")]
    listen_ip: Option<IpAddr>,
    #[command(flatten)]
    process: ProcessFlags,
}

/// What is about the process, and in `start` and `db start` the same.
#[derive(Debug, Args)]
pub struct ProcessFlags {
    /// Where the process id is written to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<String>,
    /// Where /healthz, /readyz and /metrics are served, over plain HTTP: 127.0.0.1:3000 in most cases.
    #[arg(long, value_name = "ADDRESS")]
    diag_addr: Option<String>,
    /// At the first contact with a cluster, through a proxy and without a CA pin, believe whatever answers. What has joined
    /// knows its cluster, and the flag has no effect.
    #[arg(long)]
    insecure: bool,
    /// Log more.
    #[arg(short, long)]
    debug: bool,
}

impl StartArgs {
    fn settings(&self) -> Result<Settings, Failure> {
        let settings = Settings {
            join: node_flags::join_at("--auth-server", self.auth_server.as_ref(), false),
            services: (!self.roles.is_empty()).then(|| self.roles.clone()),
            listen_ip: self.listen_ip,
            ..self.join.settings()
        };
        self.process.complete(settings)
    }

    fn say_where_or_how_to_join(&self) -> bool {
        self.auth_server.is_some() || self.join.say_token_or_pin()
    }

    /// Flags without a file are a configuration by themselves: of auth and proxy, where no roles are named.
    fn without_a_file(&self, mut settings: Settings) -> Result<Settings, Failure> {
        if settings.services.is_some() {
            return Ok(settings);
        }
        if self.say_where_or_how_to_join() {
            return Err(Failure::usage(
                "there is no configuration file, and a node that joins has to know what it runs: name it with --roles=proxy, \
                 or start an agent with `postern db start`",
            ));
        }
        if settings.says_nothing() {
            return Err(Failure::usage(
                "there is no configuration file at /etc/postern.yaml or /etc/teleport.yaml; name one with --config FILE, make \
                 one with `postern configure`, or try `postern dev`",
            ));
        }
        settings.services = Some(vec![NodeKind::Auth, NodeKind::Proxy]);
        Ok(settings)
    }
}

impl ProcessFlags {
    /// `settings` with the process's own, and with paths that are meant from where they were typed.
    pub fn complete(&self, settings: Settings) -> Result<Settings, Failure> {
        Ok(Settings {
            pid_file: node_flags::absolute(self.pid_file.as_ref())?,
            diag_addr: self.diag_addr.clone(),
            data_dir: node_flags::absolute(settings.data_dir.as_ref())?,
            ..settings
        })
    }
}

pub fn run(args: &StartArgs) -> Outcome {
    let mut settings = args.settings()?;
    let path = args.config.clone().or_else(default_config_path);
    if let Some(named) = path.as_ref().filter(|path| matches!(path.try_exists(), Ok(false))) {
        return Err(Failure::usage(not_there(named, default_config_path().as_deref())));
    }
    if path.is_none() {
        settings = args.without_a_file(settings)?;
    }
    let source = ConfigSource { settings, file: path };
    let config = source.read().map_err(Failure::usage)?;
    node_flags::refuse_to_join_as_auth(config.auth.is_some(), args.say_where_or_how_to_join())?;
    run_services(config, source, &args.process)
}

/// A file that was written elsewhere than it is started from is the likeliest mistake.
fn not_there(named: &Path, usual: Option<&Path>) -> String {
    let next = match usual {
        Some(usual) => format!("there is one at {}: name that one", usual.display()),
        None => "name the path that it was written to".to_owned(),
    };
    format!(
        "cannot read the configuration file {}: there is no such file; {next}, or make one with `postern configure` or, for a \
         database, `postern db configure create`",
        named.display()
    )
}

/// Runs the services of a configuration until a signal.
pub fn run_services(mut config: Config, mut source: ConfigSource, flags: &ProcessFlags) -> Outcome {
    let severity = if flags.debug {
        "debug"
    } else {
        config.log.severity.label()
    };
    let format = match config.log.format {
        ConfigLogFormat::Text => LogFormat::Text,
        ConfigLogFormat::Json => LogFormat::Json,
    };
    let output = match &config.log.output {
        ConfigLogOutput::Stderr => LogOutput::Stderr,
        ConfigLogOutput::Stdout => LogOutput::Stdout,
        ConfigLogOutput::File(path) => LogOutput::File(path.clone()),
    };
    logging::start(severity, format, output).map_err(Failure::usage)?;
    if config.proxy.as_ref().is_some_and(|proxy| proxy.acme.is_some()) {
        tracing::warn!("{NO_ACME}");
    }
    let (pid_file, insecure, grace) = (config.pid_file.clone(), flags.insecure, config.shutdown_grace);
    run_system(config.worker_threads.unwrap_or_else(workers), |runtimes| async move {
        if let Some(pins) = first_contact::pins(&config, insecure).await? {
            source.settings.ca_pins = pins;
            config = source.read().map_err(Failure::usage)?;
        }
        let node = node::start(config, InProcess::Direct, runtimes, SystemClock::shared()).await?;
        let _removed_at_the_end = pid_file.map(PidFile::write).transpose()?;
        run_to_end(node, signals::orders(Some(source), grace)?).await
    })
}

/// The file that says which process this is, for whoever sends it signals.
struct PidFile(PathBuf);

impl PidFile {
    /// After the data directory's lock is taken: what is there is of a process that is gone.
    fn write(path: PathBuf) -> Result<Self, Failure> {
        std::fs::write(&path, format!("{}\n", std::process::id()))
            .map_err(|error| Failure::failed(format!("the pid_file {} cannot be written: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the pid_file was not removed");
        }
    }
}

/// Threads for connections: one per core but one, which the control runtime, the spool's writer and what the kernel does for the network
/// have, and PostgreSQL or a client where they share the machine. On two cores a second one would cost a quarter more CPU for a statement, as
/// two threads that have half of the sessions each are woken twice and write twice.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

async fn run_to_end(mut node: Node, orders: mpsc::Receiver<Order>) -> Outcome {
    let end = node.run(orders).await;
    let outcome = match end {
        NodeEnd::Stopped => Ok(()),
        NodeEnd::Condemned(why) => Err(Failure::failed(why)),
        NodeEnd::Exhausted(why) => Err(Failure::internal(why)),
    };
    if let Err(failure) = &outcome {
        // In the log, too, and before anything that may not come to its end.
        tracing::error!(error = %failure, "the node cannot go on");
    }
    // An end that has to be made is a failure, too.
    let code = outcome.as_ref().map_or_else(|failure| i32::from(failure.code), |()| 1);
    deadline::end_within(node::END_DEADLINE, code);
    node.stop().await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: StartArgs,
    }

    /// The configuration of flags alone.
    fn alone(line: &str) -> Result<Config, String> {
        let line = format!("start {line}");
        let args = Line::try_parse_from(line.trim().split(' '))
            .map_err(|error| error.to_string())?
            .args;
        let settings = args.settings().and_then(|settings| args.without_a_file(settings));
        let settings = settings.map_err(|failure| failure.to_string())?;
        settings.load(None).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_alone_are_a_configuration_of_auth_and_proxy() {
        let config = alone("--nodename=one --data-dir=/data -l 127.0.0.1 -d").expect("valid");
        assert_eq!(config.services(), [NodeKind::Auth, NodeKind::Proxy]);
        assert_eq!(config.auth.expect("on").listen_addr.to_string(), "127.0.0.1:3025");
        assert_eq!(config.proxy.expect("on").web_listen_addr.to_string(), "127.0.0.1:3080");
    }

    #[test]
    fn a_node_that_joins_says_what_it_runs() {
        let config = alone("--roles=proxy --auth-server=auth.internal --token=/tmp/token --nodename=p").expect("valid");
        assert_eq!(config.services(), [NodeKind::Proxy]);
        assert_eq!(
            config.join,
            Some(crate::config::JoinAddress::Auth(vec![crate::model::Endpoint {
                host: "auth.internal".to_owned(),
                port: 3025
            }]))
        );
        for line in ["--token=x", "--auth-server=a", "--ca-pin=/pin"] {
            assert!(alone(line).expect_err(line).contains("--roles=proxy"), "{line}");
        }
        assert!(
            alone("--roles=db --auth-server=p")
                .expect_err("none")
                .contains("\"databases\"")
        );
    }

    #[test]
    fn a_file_that_is_not_where_it_is_started_from_is_named_with_the_one_that_is_there() {
        let named = Path::new("/path/to/teleport-db.yaml");
        let said = not_there(named, Some(Path::new("/etc/teleport.yaml")));
        assert!(
            said.starts_with(
                "cannot read the configuration file /path/to/teleport-db.yaml: there is no such file; there is one at \
                              /etc/teleport.yaml"
            ),
            "{said}"
        );
        let said = not_there(named, None);
        assert!(
            said.contains("that it was written to") && said.contains("`postern db configure create`"),
            "{said}"
        );
    }

    #[test]
    fn a_start_that_is_told_nothing_asks_for_a_file() {
        assert!(alone("").expect_err("nothing").contains("--config FILE"));
        assert!(alone("-d").expect_err("nothing").contains("--config FILE"));
    }
}
