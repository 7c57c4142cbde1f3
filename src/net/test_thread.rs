//! A thread as the tests of this room have it.

use std::future::Future;
use std::time::Duration;

/// Whatever a test waits for is there by then, on a loaded machine too.
const SOON: Duration = Duration::from_secs(20);

/// Runs on one thread, as actix runs the tasks of a node's.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async { tokio::time::timeout(SOON, future).await.expect("in time") }))
}

/// A thread whose time passes when nothing else does.
pub fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
}
