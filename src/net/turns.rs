//! Tasks of a thread that share it fairly.

use super::buffers::FAIR_BYTES;
use futures::task::{ArcWake, AtomicWaker};
use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// How much a task has passed on since the thread last had a look at its sockets for it.
#[derive(Debug, Default)]
pub struct Turn {
    bytes: usize,
    /// It is over, until then.
    over: Option<Arc<Look>>,
}

impl Turn {
    pub fn passes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Pending when the turn is over: until the other tasks that are ready have been polled and the sockets have been looked at. A task that
    /// simply woke itself would be polled again and again before any socket is, and so would two that wake each other: whoever wakes
    /// this one meanwhile does not begin its next turn.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over.is_none() && self.bytes >= FAIR_BYTES {
            self.bytes = 0;
            let look = Arc::new(Look::default());
            let waker = futures::task::waker(look.clone());
            let _pending = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
            self.over = Some(look);
        }
        if let Some(look) = &self.over {
            look.task.register(cx.waker());
            if !look.is_done.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            self.over = None;
        }
        Poll::Ready(())
    }
}

/// What tokio's `yield_now` wakes: it does so when the thread has looked at its sockets.
#[derive(Debug, Default)]
struct Look {
    is_done: AtomicBool,
    task: AtomicWaker,
}

impl ArcWake for Look {
    fn wake_by_ref(look: &Arc<Self>) {
        look.is_done.store(true, Ordering::Release);
        look.task.wake();
    }
}
