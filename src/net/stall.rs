//! The end of a wait for somebody who takes nothing any more.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// A connection of which one side is closed, and whose other takes nothing for so long, is gone. Without it a client that died in the
/// middle of a result would hold PostgreSQL's session: a stream that is closed by halves is not reset by yamux when it is dropped.
pub(super) const HALF_CLOSED_STALL: Duration = Duration::from_secs(10);

/// Measures how long nothing has moved.
#[derive(Default)]
pub(super) struct Stall {
    since: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Stall {
    /// Ready with the error when `total` has been the same for too long.
    pub fn poll(&mut self, total: u64, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.since.as_ref().is_none_or(|(then, _)| *then != total) {
            self.since = Some((total, Box::pin(tokio::time::sleep(HALF_CLOSED_STALL))));
        }
        let Some((_, sleep)) = &mut self.since else {
            return Poll::Pending;
        };
        ready!(sleep.as_mut().poll(cx));
        let why = format!("one side is closed, and the other took nothing for {HALF_CLOSED_STALL:?}");
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why))
    }
}
