//! What the observer of a node asks at each look that no seat and no gauge says.
//!
//! It is asked from the thread of the debug socket, which has to answer whatever else stands still: so nothing here waits.

use crate::actors::auth_link::AUTH_SILENT_AFTER;
use crate::actors::databases::DatabasesView;
use crate::actors::peers::AUTH;
use crate::actors::sessions_stock::SessionsWatch;
use crate::actors::tunnel::PEER_SILENT_AFTER;
use crate::model::SessionId;
use crate::net::mux::INBOUND_QUEUED;
use crate::protocol::tunnel::HealthState;
use crate::telemetry::look::{DatabaseFact, Facts, RuntimeFact, TunnelFact};
use crate::telemetry::{pulse, tunnels};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

pub(crate) struct FactSources {
    databases: DatabasesView,
    /// One for each service of the node.
    sessions: Mutex<Vec<SessionsWatch>>,
}

impl FactSources {
    pub fn new(databases: DatabasesView) -> Self {
        Self {
            databases,
            sessions: Mutex::default(),
        }
    }

    pub fn has_sessions(&self, of_a_service: SessionsWatch) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(of_a_service);
    }

    pub fn facts(&self) -> Facts {
        Facts {
            databases: self.databases(),
            tunnels: tunnels(),
            runtimes: runtimes(),
            sessions: self.sessions(),
        }
    }

    fn databases(&self) -> Vec<DatabaseFact> {
        let looked = self.databases.health().into_iter();
        looked
            .filter(|health| health.state != HealthState::Unknown)
            .map(|health| DatabaseFact {
                database: health.service.to_string(),
                healthy: health.state == HealthState::Healthy,
                detail: health.detail,
            })
            .collect()
    }

    /// `None` while one of the lists is being written: at the next look it will not be.
    fn sessions(&self) -> Option<HashSet<SessionId>> {
        let services = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = HashSet::new();
        for service in services.iter() {
            all.extend(service.ids()?);
        }
        (!services.is_empty()).then_some(all)
    }
}

fn runtimes() -> Vec<RuntimeFact> {
    let runtimes = pulse::all().into_iter();
    runtimes.map(|(name, still)| RuntimeFact { name, still }).collect()
}

fn tunnels() -> Vec<TunnelFact> {
    let open = tunnels::all().into_iter();
    open.filter_map(|gauge| {
        let spec = gauge.spec()?;
        let is_auth = &*spec.peer == AUTH;
        Some(TunnelFact {
            path: spec.path.to_string(),
            peer: spec.peer.to_string(),
            heard: gauge.heard(),
            given_up_after: if is_auth { AUTH_SILENT_AFTER } else { PEER_SILENT_AFTER },
            inbound: gauge.waiting()?,
            inbound_bound: u32::try_from(INBOUND_QUEUED).unwrap_or(u32::MAX),
        })
    })
    .collect()
}
