//! The diagnostic port of a node, where one is configured.

use super::StartError;
use super::proxy::listen;
use super::roots::Roots;
use crate::actors::host::Spec;
use crate::actors::phase::NodePhase;
use crate::actors::policy::PolicyView;
use crate::config::Config;
use crate::web::diag::{Diag, DiagPort, Health};
use std::net::SocketAddr;
use std::sync::Arc;

/// First of all actors, so that a node that waits for something can be asked, and last to end.
pub(super) fn start(
    config: &Config,
    phase: &NodePhase,
    policy: &PolicyView,
    roots: &mut Roots,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(address) = &config.diag_addr else {
        return Ok(None);
    };
    let (socket, listening) = listen(address, "diagnostic")?;
    let port = Arc::new(DiagPort::new(socket));
    let health = Health {
        phase: phase.view(),
        policy: policy.clone(),
    };
    roots.start(Spec::permanent("diag"), move || Diag::new(port.clone(), health.clone()));
    tracing::info!(%listening, "diagnostics: /healthz and /readyz");
    Ok(Some(listening))
}
