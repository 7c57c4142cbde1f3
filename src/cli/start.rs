//! `postern start`: the services of a configuration file, until a signal.

use super::{Failure, Outcome};
use crate::actors::host::run_system;
use crate::config::{Config, LogFormat as ConfigLogFormat, LogOutput as ConfigLogOutput, default_config_path};
use crate::model::SystemClock;
use crate::node::{self, InProcess, Node, NodeEnd};
use crate::telemetry::logging::{self, LogFormat, LogOutput};
use clap::Args;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub struct StartArgs {
    /// The configuration file; /etc/postern.yaml, else /etc/teleport.yaml, when none is given.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more.
    #[arg(short, long)]
    debug: bool,
}

pub fn run(args: &StartArgs) -> Outcome {
    let path = args.config.clone().or_else(default_config_path).ok_or_else(|| {
        Failure::usage(
            "there is no configuration file at /etc/postern.yaml or /etc/teleport.yaml; name one with --config FILE, or \
             try `postern dev`",
        )
    })?;
    let config = Config::load(&path).map_err(Failure::usage)?;
    let severity = if args.debug {
        "debug"
    } else {
        config.log.severity.label()
    };
    let format = match config.log.format {
        ConfigLogFormat::Text => LogFormat::Text,
        ConfigLogFormat::Json => LogFormat::Json,
    };
    let output = match config.log.output {
        ConfigLogOutput::Stderr => LogOutput::Stderr,
        ConfigLogOutput::Stdout => LogOutput::Stdout,
    };
    logging::start(severity, format, output).map_err(Failure::usage)?;
    let pid_file = config.pid_file.clone();
    run_system(workers(), |runtimes| async move {
        let node = node::start(config, InProcess::Direct, runtimes, SystemClock::shared()).await?;
        let _removed_at_the_end = pid_file.map(PidFile::write).transpose()?;
        run_to_end(node, stop_signal()?).await
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

/// One runtime for connections per core.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Resolves at the first SIGINT or SIGTERM; a second one ends the process at once.
pub fn stop_signal() -> Result<impl Future<Output = ()> + 'static, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::internal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::internal)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        crate::actors::host::spawn_detached(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("second signal: ending at once");
            std::process::exit(1);
        });
    })
}

pub async fn run_to_end(mut node: Node, stop: impl Future<Output = ()>) -> Outcome {
    let end = node.run(stop).await;
    node.stop().await;
    match end {
        NodeEnd::Stopped => Ok(()),
        NodeEnd::Exhausted(why) => Err(Failure::internal(why)),
    }
}
