//! The runtimes of a node, and tasks on them.

use super::schedule;
use crate::telemetry::{panics, registry};
use futures::FutureExt as _;
use std::ffi::CString;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;

/// One single-threaded runtime: an arbiter and its thread.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(super) arbiter: actix::ArbiterHandle,
}

impl Runtime {
    /// The runtime that the caller is on.
    pub fn current() -> Self {
        Self {
            arbiter: actix::Arbiter::current(),
        }
    }

    /// Runs a task on this runtime. False when the runtime is gone.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.arbiter.spawn(task)
    }
}

/// Spawns a task on the runtime that the caller is on; it ends when the guard is dropped.
pub fn spawn_here<T: 'static>(task: impl Future<Output = T> + 'static) -> TaskGuard<T> {
    // Caught where it happens: there it is known where that was.
    let contained = AssertUnwindSafe(schedule::shuffled(task)).catch_unwind();
    TaskGuard(actix::spawn(
        contained.map(|done| done.map_err(|panic| panics::text(panic.as_ref()))),
    ))
}

/// Spawns a task on the runtime that the caller is on; it ends by itself.
pub fn spawn_detached(task: impl Future<Output = ()> + 'static) {
    actix::spawn(task);
}

/// A task that ends with its owner. Awaiting it gives the result, or the text of its panic.
#[derive(Debug)]
pub struct TaskGuard<T>(tokio::task::JoinHandle<Result<T, String>>);

impl<T> TaskGuard<T> {
    pub async fn join(mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(panics::of_task)?
    }
}

impl<T> Drop for TaskGuard<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Gives the calling thread the name by which the views call it, for debuggers and `ps -L`. The main thread keeps the process's.
fn name_thread(name: &str) {
    let named = CString::new(name)
        .map_err(|error| error.to_string())
        .and_then(|name| nix::sys::prctl::set_name(&name).map_err(|error| error.to_string()));
    if let Err(error) = named {
        tracing::debug!(thread = name, error, "a thread keeps its name");
    }
}

/// The runtimes of a node: one for control on the calling thread, and one per worker thread for connections.
#[derive(Debug, Clone)]
pub struct Runtimes {
    pub control: Runtime,
    pub workers: Vec<Runtime>,
}

impl Runtimes {
    /// For the permanent actors that every connection asks. Where all connections are on one thread, they are there, too, and no message wakes
    /// another: of a connection's set-up and end that is ten on each node. Where there are more threads, one that is blocked must not hold the
    /// connections of the others, and they are on the control runtime.
    pub fn beside_connections(&self) -> &Runtime {
        match self.workers.as_slice() {
            [only] => only,
            _ => &self.control,
        }
    }
}

/// Runs `main` on a new actix system; `main` gets its runtimes.
pub fn run_system<T, F: Future<Output = T>>(workers: usize, main: impl FnOnce(Runtimes) -> F) -> T {
    let system = actix::System::new();
    system.block_on(async move {
        let arbiters: Vec<_> = (0..workers.max(1)).map(|_| actix::Arbiter::new()).collect();
        registry::name_runtime("control");
        for (number, arbiter) in arbiters.iter().enumerate() {
            arbiter.spawn_fn(move || {
                let name = format!("worker-{number}");
                registry::name_runtime(&name);
                name_thread(&name);
            });
        }
        let runtimes = Runtimes {
            control: Runtime::current(),
            workers: arbiters
                .iter()
                .map(|arbiter| Runtime {
                    arbiter: arbiter.handle(),
                })
                .collect(),
        };
        let result = main(runtimes).await;
        for arbiter in &arbiters {
            arbiter.stop();
        }
        join_all(arbiters);
        result
    })
}

/// How long the threads have for their end. One that is blocked ends with the process.
const JOIN_DEADLINE: Duration = Duration::from_secs(5);

fn join_all(arbiters: Vec<actix::Arbiter>) {
    let (say, joined) = std::sync::mpsc::channel();
    let count = arbiters.len();
    for (number, arbiter) in arbiters.into_iter().enumerate() {
        let say = say.clone();
        std::thread::spawn(move || {
            let _panicked = arbiter.join();
            // Nobody waits any more for one that is late.
            let _late = say.send(number);
        });
    }
    let deadline = Instant::now() + JOIN_DEADLINE;
    let mut late: Vec<usize> = (0..count).collect();
    while !late.is_empty() {
        match joined.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(number) => late.retain(|other| *other != number),
            Err(_) => break,
        }
    }
    for number in late {
        tracing::warn!(thread = %format_args!("worker-{number}"), at_most = ?JOIN_DEADLINE, "thread did not end in time");
    }
}
