//! The signals of a process that runs a node.
//!
//! SIGQUIT, SIGTERM and SIGINT are passed to the node as long as it listens; one that comes when it does not any more, because it
//! is at its last steps, ends the process. SIGHUP has the configuration read again; where there is none that could be, it means
//! what it meant first: the terminal is gone.

use super::Failure;
use super::deadline;
use crate::config::{Config, ConfigError, Settings};
use crate::node::{END_DEADLINE, Order};
use crate::telemetry::{logging, panics};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;
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
        // A fault over the file is not to end the listening.
        let read = catch_unwind(AssertUnwindSafe(|| self.read().map_err(|error| error.to_string())));
        match read.unwrap_or_else(|panic| Err(panics::text(panic.as_ref()))) {
            Ok(config) => Some(Order::Reload(Box::new(config))),
            Err(error) => {
                tracing::error!(error, "SIGHUP: the configuration is refused; the node goes on as it is");
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
///
/// They are heard on a thread of their own: an actor that blocks the thread of the control runtime does not keep the node from
/// ending, at the latest when `grace` and the time of an orderly end are over.
pub fn orders(source: Option<ConfigSource>, grace: Duration) -> Result<mpsc::Receiver<Order>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    let mut signals = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).map_err(Failure::internal);
        Signals {
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        }
    };
    let (sender, receiver) = mpsc::channel(ORDERS);
    let mut grace = Some(grace);
    let listen = async move {
        loop {
            let Some(order) = signals.next(source.as_ref()).await else {
                continue;
            };
            if matches!(order, Order::Stop) {
                // Whether the node hears it or not.
                deadline::end_within(grace.take().unwrap_or_default() + END_DEADLINE, 1);
            }
            let stops = !matches!(order, Order::Reload(_));
            if sender.try_send(order).is_err() && stops {
                tracing::warn!("told to stop once more: ending at once");
                std::process::exit(1);
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread
        .spawn(move || runtime.block_on(listen))
        .map_err(Failure::internal)?;
    Ok(receiver)
}
