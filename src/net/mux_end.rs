//! The end of a multiplexed connection, and whoever waits on its streams meanwhile.
//!
//! yamux wakes the tasks that wait on its streams when the connection ends in any way but a panic: that takes them with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

/// Known to the driver, to whoever opens streams, and to each stream.
#[derive(Debug, Default)]
pub struct End {
    is_over: AtomicBool,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waker>>,
}

impl End {
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn over(&self) {
        self.is_over.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_values().for_each(Waker::wake);
    }
}

/// The connection is over when this is dropped, whatever its driver came to.
#[derive(Debug)]
pub struct OverAtTheEnd(pub Arc<End>);

impl Drop for OverAtTheEnd {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// The place of one way of a stream among those that wait.
#[derive(Debug)]
pub struct Waits {
    end: Arc<End>,
    number: u64,
    wakes: Option<Waker>,
}

impl Waits {
    pub fn on(end: &Arc<End>) -> Self {
        Self {
            end: end.clone(),
            number: end.next.fetch_add(1, Ordering::Relaxed),
            wakes: None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.end.is_over()
    }

    /// The task waits; it is woken at the end. False where the end has come already.
    pub fn wait(&mut self, cx: &Context<'_>) -> bool {
        if !self.wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.wakes = Some(cx.waker().clone());
            let mut waiting = self.end.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert(self.number, cx.waker().clone());
        }
        // After it has its place: whoever ends the connection from here on finds it there.
        !self.end.is_over()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if self.wakes.is_some() {
            let mut waiting = self.end.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.remove(&self.number);
        }
    }
}
