//! The debug socket: what this process does at the moment, for whoever runs it.
//!
//! It has a thread and a runtime of its own, no actor: it answers while every runtime of the node is blocked, and that is when
//! it is needed. The same thread looks at the node each second, so that what is stuck is in the log without anybody's asking.

mod routes;

pub use routes::{ConnectionsQuery, LogLevel};

use crate::model::{ConnectionId, Moment};
use crate::net::Stream;
use crate::net::socket::{OwnersListener, OwnersSocket};
use crate::telemetry::fault::Trap;
use crate::telemetry::label::Label;
use crate::telemetry::observe::{LOOK_EVERY, SharedObserver};
use crate::telemetry::panics;
use crate::telemetry::registry::{self, Seat, SeatSpec};
use crate::telemetry::view::{MissingPart, TracePart};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// People and their scripts on one machine; one more waits.
const CONNECTIONS_MAX: usize = 32;
/// A question to other processes has its own, shorter deadline; whoever asks nothing must not hold a place.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
/// Whoever asks writes the head of a request at once; the places are few, and others wait for them.
const HEAD_DEADLINE: Duration = Duration::from_secs(3);
/// When the system has no more file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between a fault of the thread's own and its next beginning.
const REBUILD_PAUSE: Duration = Duration::from_millis(100);
/// Its turns are short: beyond this it is left to the end of the process.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Asks the other processes that a connection passes for their parts of its trace.
pub type AskOthers = Arc<dyn Fn(ConnectionId) -> BoxFuture<'static, Vec<Result<TracePart, MissingPart>>> + Send + Sync>;

/// There are no others, or none is known.
pub fn nobody() -> AskOthers {
    Arc::new(|_| async { Vec::new() }.boxed())
}

/// What the answers are made of.
pub struct DebugParts {
    pub observer: SharedObserver,
    /// Known when the node's services are up.
    pub others: watch::Receiver<AskOthers>,
}

/// The thread, for as long as this is kept.
pub struct DebugService {
    path: PathBuf,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl DebugService {
    /// Binds the socket, in place of one that an earlier process left, and starts the thread.
    pub fn start(path: &Path, parts: DebugParts) -> io::Result<Self> {
        let socket = OwnersSocket::bind(path)?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("debug".to_owned())
            .spawn(move || live(&socket, &Arc::new(parts), &stopped))?;
        Ok(Self {
            path: path.to_owned(),
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for DebugService {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "not removed");
        }
        let Some(thread) = self.thread.take() else { return };
        let pause = Duration::from_millis(5);
        let mut left = END_DEADLINE;
        while !thread.is_finished() && !left.is_zero() {
            std::thread::sleep(pause);
            left = left.saturating_sub(pause);
        }
        if thread.is_finished() {
            // Its panics are caught inside.
            let _ended = thread.join();
        } else {
            tracing::warn!("the debug thread has not ended in time");
        }
    }
}

/// Whatever fails in it, the thread begins again: nobody else would notice that it is gone.
fn live(socket: &OwnersSocket, parts: &Arc<DebugParts>, stop: &watch::Receiver<bool>) {
    registry::name_runtime("debug");
    let seat = Seat::take(SeatSpec {
        path: "debug".into(),
        rule: "thread",
        bound: 0,
    });
    seat.sits_here();
    seat.enter(Label::of("serving"), None, None);
    let trap = Trap::at("debug");
    loop {
        let why = match catch_unwind(AssertUnwindSafe(|| run(socket, parts, stop.clone(), &trap))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panics::text(panic.as_ref()),
        };
        seat.restarts_after(&why);
        tracing::error!(reason = why, "the debug thread failed; it begins again");
        std::thread::sleep(REBUILD_PAUSE);
    }
}

/// Serves until it is told to stop.
fn run(socket: &OwnersSocket, parts: &Arc<DebugParts>, stop: watch::Receiver<bool>, trap: &Trap) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = socket.listen()?;
        serve(&listener, parts, stop, trap).await;
        Ok(())
    })
}

async fn serve(listener: &OwnersListener, parts: &Arc<DebugParts>, mut stop: watch::Receiver<bool>, trap: &Trap) {
    let mut served = JoinSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            // Also when nobody is there to say it any more.
            _ = stop.wait_for(|stop| *stop) => return,
            _ = look.tick() => {
                trap.spring();
                // Announcing must not take the answers with it.
                let _panicked = catch_unwind(AssertUnwindSafe(|| parts.observer.observer().watch_at(Moment::now())));
            }
            Some(ended) = served.join_next() => if let Err(error) = ended {
                let error = panics::of_task(error);
                tracing::error!(error, "a question at the debug socket failed");
            },
            accepted = listener.accept(), if served.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, uid)) => {
                    served.spawn(answer(stream, uid, parts.clone()));
                }
                Err(error) => {
                    tracing::error!(%error, "the debug socket failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// The node's own account and root, whatever the modes of file and directory have become.
fn may_look(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

async fn answer(stream: impl Stream, uid: u32, parts: Arc<DebugParts>) {
    let router = if may_look(uid) {
        routes::router(parts, uid)
    } else {
        tracing::warn!(
            uid,
            "refused at the debug socket: it is for root and the account of the node"
        );
        routes::refusing(uid)
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a question at the debug socket was not finished"),
        Err(_) => tracing::warn!("a question at the debug socket was not done in time"),
    }
}

#[cfg(test)]
mod tests;
