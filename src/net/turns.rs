//! Tasks of a thread that share it fairly.

use std::future::Future as _;
use std::pin::pin;
use std::task::Context;

/// Has the task that is being polled polled again, once the others that are ready have been and the sockets have been looked at. A task
/// that simply wakes itself is polled again and again before any socket is.
pub fn go_last(cx: &mut Context<'_>) {
    let _pending = pin!(tokio::task::yield_now()).poll(cx);
}
