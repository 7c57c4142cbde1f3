//! What a proxy asks an agent to cancel: one of the sessions that this proxy opened, or whichever session a client's key is for.

use super::{CancelKey, FindUpstreamKey, UpstreamTarget};
use crate::actors::address::Origin;
use crate::actors::admission::unavailable;
use crate::actors::agent::AgentParts;
use crate::audit::EventKind;
use crate::model::{ConnectionId, NodeId, Refusal, RefusalKind};
use crate::net::upstream;
use crate::net::upstream_tls::UpstreamClient;
use crate::protocol::tunnel::{DbToProxy, KeyDigest};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const ASK_DEADLINE: Duration = Duration::from_secs(15);

/// What is to be cancelled.
pub enum Wanted {
    Connection(ConnectionId),
    ByKey { process_id: u32, key: KeyDigest },
}

/// A proxy's question. `client_address` is where the CancelRequest came from, where the proxy says it.
pub struct Ask {
    pub wanted: Wanted,
    pub client_address: Option<String>,
    pub proxy: Option<NodeId>,
}

/// The answer for the proxy.
pub async fn cancel(parts: &AgentParts, ask: Ask, origin: &Origin) -> DbToProxy {
    let asked_by = match ask.client_address.as_deref().map(str::parse::<SocketAddr>).transpose() {
        Ok(asked_by) => asked_by,
        Err(_) => return declined("the proxy did not say where this cancel comes from"),
    };
    let (find, where_none) = match ask.wanted {
        Wanted::Connection(connection) => (
            FindUpstreamKey::OfConnection(connection, ask.proxy),
            declined("the connection is not there any more"),
        ),
        Wanted::ByKey { process_id, key } => {
            let key = CancelKey {
                process_id,
                digest: key,
                is_short: true,
            };
            (FindUpstreamKey::ByKey(key), DbToProxy::KeyUnknown)
        }
    };
    match parts.find_key.ask(origin, find, ASK_DEADLINE).await {
        Ok(Some((connection, target))) => {
            let origin = &origin.clone().for_connection(connection);
            carry_out(parts, &target, asked_by, origin).await.unwrap_or(where_none)
        }
        Ok(None) => where_none,
        Err(error) => DbToProxy::Declined(unavailable(&error)),
    }
}

fn declined(why: &str) -> DbToProxy {
    DbToProxy::Declined(Refusal::new(RefusalKind::ProtocolViolation, why))
}

/// `None` where the session is over by now.
async fn carry_out(
    parts: &AgentParts,
    target: &UpstreamTarget,
    asked_by: Option<SocketAddr>,
    origin: &Origin,
) -> Option<DbToProxy> {
    let session = target.session.upgrade()?;
    let peer: Arc<str> = format!("PostgreSQL at {}", target.endpoint).into();
    let waits = |step, within| origin.waits_for(step, peer.clone(), within);
    let sent = match UpstreamClient::anonymous(&target.trust, &parts.clock) {
        Ok(tls) => upstream::cancel(parts.dial.as_ref(), &target.endpoint, &tls, &target.key, &waits).await,
        Err(error) => Err(Refusal::new(
            RefusalKind::Internal,
            format!("a cancel could not be prepared: {error}"),
        )),
    };
    let mut event = parts
        .trail
        .session_event(EventKind::SessionCancelled, &session)
        .field("success", sent.is_ok());
    if let Some(asked_by) = asked_by {
        event = event.field("addr.remote", asked_by.to_string());
    }
    parts.trail.note(event).await;
    Some(match sent {
        Ok(()) => DbToProxy::CancelForwarded,
        Err(refusal) => DbToProxy::Declined(refusal),
    })
}
