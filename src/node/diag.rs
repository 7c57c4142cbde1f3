//! The diagnostic port of a node, where one is configured, and the beat of the node's runtimes.

use super::StartError;
use super::proxy::listen;
use crate::actors::host::Runtimes;
use crate::config::Config;
use crate::telemetry::{process, pulse};
use crate::web::diag::{Diag, Health};

/// Before everything else, so that a node that waits for something can be asked.
pub(super) fn start(config: &Config, runtimes: &Runtimes, health: Health) -> Result<Option<Diag>, StartError> {
    let _now = process::started();
    runtimes.control.spawn(pulse::beat("control"));
    for (index, worker) in runtimes.workers.iter().enumerate() {
        worker.spawn(pulse::beat(&format!("worker-{index}")));
    }
    let Some(address) = config.diag_addr.clone() else {
        return Ok(None);
    };
    let diag = Diag::start(move || listen(&address, "diagnostic"), health)?;
    tracing::info!(listening = %diag.listening, "diagnostics: /healthz, /readyz and /metrics");
    Ok(Some(diag))
}
