//! The signals of a process that runs a node.
//!
//! SIGQUIT, SIGTERM and SIGINT are passed to the node as long as it listens; one that comes when it does not any more, because it
//! is at its last steps, ends the process. SIGHUP has the configuration read again; where there is none that could be, it means
//! what it meant first: the terminal is gone.

use super::Failure;
use crate::actors::host::spawn_detached;
use crate::config::{Config, ConfigError, Settings};
use crate::node::Order;
use crate::telemetry::logging;
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Orders that the node has not taken yet; it takes them at once, but at its start.
const ORDERS: usize = 4;

/// What the configuration was read from.
pub struct ConfigSource {
    pub settings: Settings,
    /// `None`: flags alone.
    pub file: Option<PathBuf>,
}

impl ConfigSource {
    pub fn read(&self) -> Result<Config, ConfigError> {
        self.settings.load(self.file.as_deref())
    }

    /// A file that is refused is logged, and nothing changes.
    fn read_again(&self) -> Option<Order> {
        if let Err(error) = logging::reopen() {
            tracing::error!(%error, "SIGHUP: the log goes on in the file that it had");
        }
        if self.file.is_none() {
            tracing::info!("SIGHUP: this node runs without a configuration file; there is nothing to read again");
            return None;
        }
        match self.read() {
            Ok(config) => Some(Order::Reload(Box::new(config))),
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the configuration is refused; the node goes on as it is");
                None
            }
        }
    }
}

struct Signals {
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// The order that the next signal stands for; `None` where there is none.
    async fn next(&mut self, source: Option<&ConfigSource>) -> Option<Order> {
        tokio::select! {
            _ = self.quit.recv() => Some(Order::Drain),
            _ = self.terminate.recv() => Some(Order::Stop),
            _ = self.interrupt.recv() => Some(Order::Stop),
            _ = self.hang_up.recv() => source.map_or(Some(Order::Stop), ConfigSource::read_again),
        }
    }
}

/// The orders to a node that the signals of this process are, from now on. Without a source, as for `postern dev`, SIGHUP stops
/// the node.
pub fn orders(source: Option<ConfigSource>) -> Result<mpsc::Receiver<Order>, Failure> {
    let listen = |kind| signal(kind).map_err(Failure::internal);
    let mut signals = Signals {
        quit: listen(SignalKind::quit())?,
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
        hang_up: listen(SignalKind::hangup())?,
    };
    let (sender, receiver) = mpsc::channel(ORDERS);
    spawn_detached(async move {
        loop {
            let Some(order) = signals.next(source.as_ref()).await else {
                continue;
            };
            let stops = !matches!(order, Order::Reload(_));
            if sender.try_send(order).is_err() && stops {
                tracing::warn!("told to stop once more: ending at once");
                std::process::exit(1);
            }
        }
    });
    Ok(receiver)
}
