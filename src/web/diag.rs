//! The diagnostic port: whether the process lives, and whether it is ready, for load balancers and supervisors.
//!
//! **Owns** a listening socket with plain HTTP, which tells nothing but this node's state to whoever can reach it.
//! **Hears** nothing; requests come from the socket.
//! **Tells** nobody; it reads the node's phase and when auth was last heard.
//! **Never** serves more than `CONNECTIONS_MAX` at a time.
//! **Ends** with the node, as the last one. Permanent.

use crate::actors::auth_link::AUTH_SILENT_AFTER;
use crate::actors::host::{Behavior, Ctx, spawn_detached};
use crate::actors::phase::{Phase, PhaseView};
use crate::actors::policy::PolicyView;
use crate::net::socket::{self, Listener};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Probes of one node; one more waits.
const CONNECTIONS_MAX: usize = 64;
/// A probe is one short request. Whoever sends none must not hold a place.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// When the system has no more file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the node's state is read from.
#[derive(Clone)]
pub struct Health {
    pub phase: PhaseView,
    pub policy: PolicyView,
}

impl Health {
    /// Why the node is not ready.
    fn not_ready(&self) -> Option<&'static str> {
        match self.phase.now() {
            Phase::Starting => Some("starting"),
            Phase::Draining => Some("draining"),
            Phase::Ready if !self.policy.confirmed_within(AUTH_SILENT_AFTER) => Some("no connection to auth"),
            Phase::Ready => None,
        }
    }
}

/// The socket, and room for those who use it: made once, outside of the actor, so that a request is not cut off by a failure
/// that is not its own.
pub struct DiagPort {
    socket: Listener,
    room: Arc<Semaphore>,
}

impl DiagPort {
    pub fn new(socket: Listener) -> Self {
        Self {
            socket,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

pub struct Diag {
    port: Arc<DiagPort>,
    health: Health,
}

impl Diag {
    pub fn new(port: Arc<DiagPort>, health: Health) -> Self {
        Self { port, health }
    }

    fn accept_next(&self, ctx: &mut Ctx<'_, Self>) {
        let port = self.port.clone();
        let accepted = async move {
            // The semaphore is never closed.
            let permit = port.room.clone().acquire_owned().await.ok();
            (port.socket.accept().await, permit)
        };
        ctx.run(accepted, |diag, (accepted, permit), ctx| match accepted {
            Ok((stream, _)) => {
                let served = serve(stream, diag.health.clone());
                // A task of its own: a fault in one request ends that request, and one of this actor ends none.
                spawn_detached(async move {
                    served.await;
                    drop(permit);
                });
                diag.accept_next(ctx);
            }
            Err(error) => {
                tracing::error!(%error, "the diagnostic port failed");
                ctx.after(ACCEPT_PAUSE, |diag, ctx| diag.accept_next(ctx));
            }
        });
    }
}

async fn serve(stream: std::net::TcpStream, health: Health) {
    let stream = match socket::adopt(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a probe's connection could not be used"),
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router(health)));
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a probe was not finished"),
        Err(_) => tracing::debug!("a probe was not done in time"),
    }
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(readyz))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    match health.not_ready() {
        None => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": why }))),
    }
}

impl Behavior for Diag {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.accept_next(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::phase::NodePhase;
    use crate::actors::policy::PolicyStock;
    use crate::model::SystemClock;

    #[test]
    fn a_node_is_not_ready_while_it_starts_without_auth_and_while_it_drains() {
        let (phase, stock) = (NodePhase::default(), PolicyStock::default());
        let health = Health {
            phase: phase.view(),
            policy: stock.view(SystemClock::shared()),
        };
        assert_eq!(health.not_ready(), Some("starting"));
        phase.ready();
        assert_eq!(health.not_ready(), Some("no connection to auth"));
        phase.drain();
        assert_eq!(health.not_ready(), Some("draining"));
    }
}
