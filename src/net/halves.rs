//! Halves of one task that wait for different things: what wakes one is no reason to poll the other.

use futures::task::{ArcWake, AtomicWaker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

/// The task that its halves wake.
#[derive(Debug, Default)]
pub struct Whole(Arc<AtomicWaker>);

impl Whole {
    /// At the beginning of each of its turns, before a half is asked whether it was woken.
    pub fn polled(&self, cx: &Context<'_>) {
        self.0.register(cx.waker());
    }

    pub fn half(&self) -> Half {
        let woken = Arc::new(Woken {
            // Nobody wakes what was never polled.
            is: AtomicBool::new(true),
            task: self.0.clone(),
        });
        Half {
            waker: futures::task::waker(woken.clone()),
            woken,
        }
    }
}

#[derive(Debug)]
pub struct Half {
    waker: Waker,
    woken: Arc<Woken>,
}

impl Half {
    /// Whether it was woken since this was asked last; at first it was.
    pub fn was_woken(&self) -> bool {
        self.woken.is.load(Ordering::Relaxed) && self.woken.is.swap(false, Ordering::Acquire)
    }

    /// What it is polled with.
    pub fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

#[derive(Debug)]
struct Woken {
    is: AtomicBool,
    task: Arc<AtomicWaker>,
}

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.is.store(true, Ordering::Release);
        woken.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;

    #[test]
    fn a_half_knows_its_own_wakes_and_each_wakes_the_task() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl ArcWake for Count {
            fn wake_by_ref(count: &Arc<Self>) {
                count.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(0.into()));
        let task = futures::task::waker(count.clone());
        let whole = Whole::default();
        let (left, right) = (whole.half(), whole.half());
        assert!(left.was_woken() && right.was_woken(), "neither was polled yet");
        assert!(!left.was_woken() && !right.was_woken());
        for (half, other) in [(&left, &right), (&right, &left)] {
            whole.polled(&Context::from_waker(&task));
            half.context().waker().wake_by_ref();
            assert!(half.was_woken() && !other.was_woken() && !half.was_woken());
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        whole.polled(&Context::from_waker(&noop_waker()));
        left.context().waker().wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 2, "another task has it now");
        assert!(left.was_woken());
    }
}
