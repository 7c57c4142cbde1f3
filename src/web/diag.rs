//! The diagnostic port: whether the process lives, whether it is ready, and its metrics, for load balancers, supervisors and
//! Prometheus. It tells nothing but this node's state to whoever can reach it.
//!
//! It is no actor: it has a thread and a runtime of its own, so that it answers while a runtime of the node does not turn, and
//! says so. It reads the node's phase, when auth was last heard, and what is counted; it writes nothing, and ends last. Where it fails
//! itself, it goes on with the same socket.

use super::metrics::{self, CONTENT_TYPE, Sources};
use crate::actors::phase::{Phase, PhaseView};
use crate::audit::SpoolState;
use crate::model::Moment;
use crate::net::socket::{self, Listener};
use crate::telemetry::fault::Trap;
use crate::telemetry::metrics::METRICS;
use crate::telemetry::registry::{self, InHand};
use crate::telemetry::{panics, pulse};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Probes of one node; one more waits.
const CONNECTIONS_MAX: usize = 64;
/// A probe is one short request. Whoever sends none must not hold a place.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// When the system has no more file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between a fault of the thread's own and its next beginning.
const REBUILD_PAUSE: Duration = Duration::from_millis(100);

/// A write of the store takes milliseconds. One that takes longer than any pause of a disk holds up whoever wants a login, a
/// certificate or a change.
const STORE_STANDS_AFTER: Duration = Duration::from_secs(3);
/// After an error of the store's own it is to be believed again: as long as two probes of a load balancer.
const STORE_FAILED_FOR: Duration = Duration::from_secs(10);

/// What the node's state is read from.
#[derive(Clone)]
pub struct Health {
    pub phase: PhaseView,
    pub sources: Sources,
}

impl Health {
    /// Why nobody new is served here.
    fn not_ready(&self) -> Option<&'static str> {
        match self.phase.now() {
            Phase::Starting => return Some("starting"),
            Phase::Draining => return Some("draining"),
            Phase::Ready => {}
        }
        // As for a session: auth may be away for as long as the rules that it gave may be relied on.
        if self.sources.policy.current().is_err() {
            return Some("no connection to auth");
        }
        let parts = self.sources.parts.get()?;
        lacks(&Has {
            spool: parts.spool.state(),
            store: store_in_hand(),
            store_failed: METRICS.store_failed.ago(Moment::now()),
            tunnel: !parts.needs_tunnel || METRICS.dialers.get() > 0,
        })
    }
}

/// What somebody new needs, as it is.
struct Has {
    spool: SpoolState,
    /// How long the store has been at what it has in hand, where it has something.
    store: Option<Duration>,
    /// How long ago it failed.
    store_failed: Option<Duration>,
    tunnel: bool,
}

fn lacks(has: &Has) -> Option<&'static str> {
    match has.spool {
        SpoolState::Open => {}
        SpoolState::Blocked { .. } => return Some("the audit spool is blocked"),
        SpoolState::Failed { .. } => return Some("the audit spool has failed"),
    }
    if has.store.is_some_and(|age| age > STORE_STANDS_AFTER) {
        return Some("the store does not answer");
    }
    if has.store_failed.is_some_and(|ago| ago < STORE_FAILED_FOR) {
        return Some("the store fails");
    }
    (!has.tunnel).then_some("no tunnel")
}

/// The longest of the store's threads; a node without the auth service has none.
fn store_in_hand() -> Option<Duration> {
    let now = Moment::now();
    let age = |in_hand: InHand| now.since(in_hand.since);
    let seats = registry::seats();
    let store = seats
        .iter()
        .filter(|seat| seat.rule() == "thread" && seat.name().starts_with("store-"));
    store.filter_map(|seat| seat.in_hand().map(age)).max()
}

/// The port, served until this is dropped.
pub struct Diag {
    pub listening: SocketAddr,
    /// Dropped before the thread is waited for, which ends it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Diag {
    /// Serves the socket that `listen` opens; it is called on the thread that serves, whose runtime the socket belongs to.
    ///
    /// # Errors
    /// `listen`'s own, or the system has no thread for it.
    pub fn start<E: From<std::io::Error> + Send + 'static>(
        listen: impl FnOnce() -> Result<(Listener, SocketAddr), E> + Send + 'static,
        health: Health,
    ) -> Result<Self, E> {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::sync_channel(1);
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(E::from(error)))),
            };
            runtime.block_on(async move {
                match listen() {
                    Ok((socket, listening)) => {
                        drop(tell.send(Ok(listening)));
                        tokio::select! {
                            () = accept_always(&socket, &health) => {}
                            _ = stopped => {}
                        }
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        };
        let thread = std::thread::Builder::new().name("diag".to_owned()).spawn(serve)?;
        // The thread answers once, in any case.
        let listening = told.recv().map_err(std::io::Error::other)??;
        Ok(Self {
            listening,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Diag {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panics are caught inside.
            let _panicked = thread.join();
        }
    }
}

/// Whatever fails in it, it begins again: nobody else would notice that it is gone.
async fn accept_always(socket: &Listener, health: &Health) {
    let trap = Trap::at("diag");
    loop {
        if let Err(panic) = AssertUnwindSafe(accept(socket, health, &trap)).catch_unwind().await {
            let why = panics::text(panic.as_ref());
            tracing::error!(reason = why, "the diagnostic port failed; it begins again");
            tokio::time::sleep(REBUILD_PAUSE).await;
        }
    }
}

async fn accept(socket: &Listener, health: &Health, trap: &Trap) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = router(health.clone());
    // The semaphore is never closed.
    while let Ok(place) = room.clone().acquire_owned().await {
        match socket.accept().await {
            Ok((stream, _)) => {
                trap.spring();
                let served = serve(stream, router.clone());
                // A task of its own: a fault in one request ends that request.
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "the diagnostic port failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: std::net::TcpStream, router: Router) {
    let stream = match socket::adopt(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a probe's connection could not be used"),
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a probe was not finished"),
        Err(_) => tracing::debug!("a probe was not done in time"),
    }
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(health)
}

async fn healthz() -> (StatusCode, Json<Value>) {
    match pulse::stuck() {
        None => (StatusCode::OK, Json(json!({ "status": "ok" }))),
        Some((runtime, still)) => {
            let why = format!("the runtime {runtime} has not turned for {} s", still.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": why })))
        }
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    match health.not_ready() {
        None => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": why }))),
    }
}

async fn show_metrics(State(health): State<Health>) -> Response {
    match metrics::text(&health.sources) {
        Ok(text) => ([(CONTENT_TYPE_HEADER, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::phase::NodePhase;
    use crate::actors::policy::PolicyStock;
    use crate::audit::{Spool, SpoolLimits};
    use crate::model::SystemClock;
    use crate::pki::entropy;
    use crate::telemetry::observe::{About, Observer};
    use std::io::{Read as _, Write as _};

    fn health(phase: &NodePhase) -> Health {
        Health {
            phase: phase.view(),
            sources: Sources {
                policy: PolicyStock::default().view(SystemClock::shared()),
                observer: Observer::new(About::default()).shared(),
                parts: Arc::default(),
            },
        }
    }

    #[test]
    fn a_node_is_not_ready_while_it_starts_without_auth_and_while_it_drains() {
        let phase = NodePhase::default();
        let health = health(&phase);
        assert_eq!(health.not_ready(), Some("starting"));
        phase.ready();
        assert_eq!(health.not_ready(), Some("no connection to auth"));
        phase.drain();
        assert_eq!(health.not_ready(), Some("draining"));
    }

    fn well() -> Has {
        Has {
            spool: SpoolState::Open,
            store: Some(STORE_STANDS_AFTER),
            store_failed: Some(STORE_FAILED_FOR),
            tunnel: true,
        }
    }

    #[test]
    fn a_node_that_would_let_nobody_in_is_not_ready_and_says_for_want_of_what() {
        assert_eq!(lacks(&well()), None);
        let without = |change: fn(&mut Has)| {
            let mut has = well();
            change(&mut has);
            lacks(&has)
        };
        assert_eq!(without(|has| has.tunnel = false), Some("no tunnel"));
        let stands = |has: &mut Has| has.store = Some(STORE_STANDS_AFTER + Duration::from_millis(1));
        assert_eq!(without(stands), Some("the store does not answer"));
        let fails = |has: &mut Has| has.store_failed = Some(Duration::from_secs(1));
        assert_eq!(without(fails), Some("the store fails"));
        let failed = |has: &mut Has| has.spool = SpoolState::Failed { why: String::new() };
        assert_eq!(without(failed), Some("the audit spool has failed"));
    }

    #[tokio::test]
    async fn a_node_whose_audit_spool_takes_no_more_is_not_ready() {
        let directory = tempfile::tempdir().expect("a directory");
        let limits = SpoolLimits {
            disk_bytes: 0,
            ..SpoolLimits::default()
        };
        let clock = SystemClock::shared();
        let spool = Spool::open(directory.path(), limits, clock, entropy::fill).expect("opened");
        let says = |spool: &Spool| {
            let spool = spool.state();
            lacks(&Has { spool, ..well() })
        };
        assert_eq!(says(&spool), None);
        let mut state = spool.watch_state();
        while spool.enter("{}".to_owned()).await.is_ok() {
            if *state.borrow_and_update() != SpoolState::Open {
                break;
            }
        }
        assert_eq!(says(&spool), Some("the audit spool is blocked"));
    }

    fn ask(diag: &Diag, path: &str) -> String {
        let mut socket = std::net::TcpStream::connect(diag.listening).expect("it listens");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// What `/healthz` says of a runtime is shown with a node of its own (`tests/it/threads.rs`): here it would be that of other tests, too.
    #[tokio::test]
    async fn the_port_answers_while_a_runtime_does_not_turn() {
        let listen = || {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let socket = Listener::bind(any, "diagnostic").map_err(std::io::Error::other)?;
            let listening = socket.local_addr()?;
            Ok::<_, std::io::Error>((socket, listening))
        };
        let diag = Diag::start(listen, health(&NodePhase::default())).expect("a port");
        // This thread's runtime does not turn during these answers: they are waited for on it.
        assert!(ask(&diag, "/metrics").contains("\npostern_build_info{"));
        assert!(ask(&diag, "/readyz").starts_with("HTTP/1.1 503 "));
        let listening = diag.listening;
        drop(diag);
        assert!(std::net::TcpStream::connect(listening).is_err(), "it has ended");
    }
}
