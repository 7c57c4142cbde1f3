//! What the callers of a spool and its writer thread share: the queue, what is on disk, and how far the log has confirmed it.

use super::AuditError;
use super::disk::{Disk, remove, write_acknowledged};
use super::recent::Recent;
use super::segment::FRAME_BYTES;
use super::spool::{SpoolLimits, SpoolState, WRITER_THREAD};
use crate::model::SharedClock;
use crate::telemetry::registry::Seat;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot, watch};

pub(super) struct Shared {
    pub dir: PathBuf,
    pub limits: SpoolLimits,
    pub clock: SharedClock,
    /// Where everybody sees the writer.
    pub seat: Arc<Seat>,
    /// Free bytes of the queue; the seat's.
    pub room: Arc<Semaphore>,
    pub queue: Mutex<Queue>,
    /// Tells the writer that the queue has something for it.
    pub wake: Box<dyn Fn() + Send + Sync>,
    pub blocked: AtomicBool,
    pub state: watch::Sender<SpoolState>,
    /// The last fsynced number.
    pub synced: watch::Sender<u64>,
    pub disk: Mutex<Disk>,
    /// Up to which number it is on disk that auth has confirmed it. Locked before `disk`.
    pub written_down: Mutex<u64>,
    /// The last events, so that what is shipped soon is not read from the disk again.
    pub recent: Mutex<Recent>,
}

pub(super) type Waiter = oneshot::Sender<Result<(), AuditError>>;

#[derive(Default)]
pub(super) struct Queue {
    pub lines: Vec<String>,
    pub bytes: usize,
    /// Whoever waits for the fsync of what has entered so far.
    pub waiters: Vec<Waiter>,
    /// Room was made on disk.
    pub retry: bool,
    pub closing: bool,
}

impl Queue {
    /// Whether the writer should not wait for more.
    pub fn is_urgent(&self, limits: &SpoolLimits) -> bool {
        self.closing || self.retry || !self.waiters.is_empty() || self.bytes >= limits.queue_bytes / 4
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks that could leave half a state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) const fn cost(line: &str) -> usize {
    line.len() + FRAME_BYTES
}

impl Shared {
    pub fn new(
        dir: &Path,
        limits: SpoolLimits,
        clock: SharedClock,
        disk: Disk,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let seat = Seat::of_thread(WRITER_THREAD, u32::try_from(limits.queue_bytes).unwrap_or(u32::MAX));
        Self {
            dir: dir.to_owned(),
            room: Arc::clone(seat.room()),
            seat,
            limits,
            clock,
            queue: Mutex::default(),
            wake,
            blocked: AtomicBool::new(false),
            state: watch::Sender::new(SpoolState::Open),
            synced: watch::Sender::new(disk.last()),
            written_down: Mutex::new(disk.acknowledged),
            disk: Mutex::new(disk),
            recent: Mutex::default(),
        }
    }

    /// Deletes the segments that are confirmed as a whole, once it is on disk that they are: without either, the numbers would begin again, and auth
    /// would take new events for repeated ones. A number that cannot be written down is tried again with the next; a segment that
    /// cannot be deleted goes when the spool is opened again.
    pub fn delete_done(&self) -> Result<(), AuditError> {
        let mut written_down = lock(&self.written_down);
        let acknowledged = {
            let disk = lock(&self.disk);
            if !disk.is_first_done(disk.acknowledged) {
                return Ok(());
            }
            disk.acknowledged
        };
        self.write_down(&mut written_down, acknowledged)?;
        let done = lock(&self.disk).take_done(*written_down);
        done.iter().map(|path| remove(path)).fold(Ok(()), Result::and)
    }

    /// As [`Shared::delete_done`], for those whom its failure does not stop.
    pub fn delete_done_or_say(&self) {
        if let Err(error) = self.delete_done() {
            tracing::warn!(%error, "audit events that auth has confirmed stay on the disk");
        }
    }

    pub fn write_down(&self, written_down: &mut u64, acknowledged: u64) -> Result<(), AuditError> {
        if acknowledged > *written_down {
            write_acknowledged(&self.dir, acknowledged)?;
            *written_down = acknowledged;
        }
        Ok(())
    }

    /// Takes the line's bytes of the queue; the writer gives them back.
    pub async fn make_room(&self, line: &str) -> Result<(), AuditError> {
        if !self.blocked.load(Ordering::Acquire)
            && let Ok(room) = self.room.try_acquire_many(permits(line))
        {
            room.forget();
            return Ok(());
        }
        let mut state = self.state.subscribe();
        tokio::select! {
            biased;
            blocked = state.wait_for(|state| *state != SpoolState::Open) => match blocked.as_deref() {
                Ok(SpoolState::Blocked { why, .. }) => Err(AuditError::Blocked { why: why.clone() }),
                Ok(SpoolState::Failed { why }) => Err(AuditError::WriterFailed { why: why.clone() }),
                _ => Err(AuditError::Closed),
            },
            room = self.room.acquire_many(permits(line)) => {
                room.map_err(|_| AuditError::Closed)?.forget();
                Ok(())
            }
        }
    }

    /// Why nothing enters any more.
    pub fn why_closed(&self) -> AuditError {
        match &*self.state.borrow() {
            SpoolState::Failed { why } => AuditError::WriterFailed { why: why.clone() },
            _ => AuditError::Closed,
        }
    }

    pub fn push(&self, line: String, waiter: Option<Waiter>) -> Result<(), String> {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err(line);
        }
        let (was_empty, was_urgent) = (queue.lines.is_empty(), queue.is_urgent(&self.limits));
        queue.bytes += cost(&line);
        queue.lines.push(line);
        queue.waiters.extend(waiter);
        // One wake-up for a whole group: the writer gathers until it is urgent or `write_every` has passed.
        let wake = was_empty || (!was_urgent && queue.is_urgent(&self.limits));
        drop(queue);
        if wake {
            (self.wake)();
        }
        Ok(())
    }
}

pub(super) fn permits(line: &str) -> u32 {
    // `check` has bounded the line.
    u32::try_from(cost(line)).unwrap_or(u32::MAX)
}
