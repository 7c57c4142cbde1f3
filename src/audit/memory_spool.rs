//! A spool without a disk and without a thread of its own, for tests that run on virtual time: whoever opens it is its
//! writer, and decides when what has entered is on disk.

use super::disk::Disk;
use super::spool_shared::{Shared, Waiter, cost, lock};
use super::{Recovered, Spool, SpoolLimits};
use crate::model::SharedClock;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// The writer's end.
pub struct MemoryWriter {
    shared: Arc<Shared>,
    woken: Arc<Notify>,
}

/// Events that have entered and are not on disk yet.
pub struct Entered {
    pub lines: Vec<String>,
    waiters: Vec<Waiter>,
    bytes: usize,
}

pub fn open(clock: SharedClock) -> (Spool, MemoryWriter) {
    let woken = Arc::new(Notify::new());
    let wake = {
        let woken = woken.clone();
        Box::new(move || woken.notify_one())
    };
    let limits = SpoolLimits::default();
    let shared = Arc::new(Shared::new(Path::new(""), limits, clock, Disk::default(), wake));
    let recovered = Recovered {
        events: 0,
        torn_bytes: 0,
    };
    let spool = Spool::over(
        shared.clone(),
        ("memory".to_owned(), |bytes| bytes.fill(0)),
        recovered,
        None,
    );
    (spool, MemoryWriter { shared, woken })
}

impl MemoryWriter {
    /// Waits for events and takes what there is; `None` when the spool is closed and empty.
    pub async fn next(&self) -> Option<Entered> {
        loop {
            let entered = self.take();
            if !entered.lines.is_empty() {
                return Some(entered);
            }
            if lock(&self.shared.queue).closing {
                return None;
            }
            self.woken.notified().await;
        }
    }

    fn take(&self) -> Entered {
        let mut queue = lock(&self.shared.queue);
        queue.bytes = 0;
        let lines = std::mem::take(&mut queue.lines);
        Entered {
            bytes: lines.iter().map(|line| cost(line)).sum(),
            waiters: std::mem::take(&mut queue.waiters),
            lines,
        }
    }

    /// They are on disk.
    pub fn synced(&self, entered: Entered) {
        let last = *self.shared.synced.borrow() + entered.lines.len() as u64;
        self.shared.synced.send_replace(last);
        self.shared.room.add_permits(entered.bytes);
        for waiter in entered.waiters {
            drop(waiter.send(Ok(())));
        }
    }
}
