//! The spool: where every event of this node goes first. `enter` costs a lock and a push; one thread writes.
//!
//! Order: the events of one caller are numbered in the order in which it entered them. What is dropped before it has entered
//! (a future that is cancelled) was never there; what has entered is written.

use super::disk::{open_dir, write_new_id};
use super::segment::{Lines, MAX_FRAMED_BYTES};
use super::spool_shared::{Shared, lock, permits};
use super::spool_writer::Writer;
use super::{AuditError, Entropy, MAX_LINE_BYTES};
use crate::model::{SharedClock, Timestamp};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// The spool's bounds. The times are the promises of the audit log, the bytes what a node can spare.
#[derive(Debug, Clone)]
pub struct SpoolLimits {
    /// Events in memory that are not known to be on disk; at least the largest event.
    pub queue_bytes: usize,
    /// A segment is ended when it has reached this size.
    pub segment_bytes: u64,
    /// Events on disk that auth has not confirmed; at least twice the queue, so that a full queue always finds room again.
    pub disk_bytes: u64,
    /// Within this time an event is written (it survives the process).
    pub write_every: Duration,
    /// Within this time it is fsynced (it survives the machine).
    pub sync_every: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            // A second of some ten thousand statements, or a disk's hiccup.
            queue_bytes: 8 << 20,
            // Small beside the disk bound, so that confirmed space is given back soon.
            segment_bytes: 8 << 20,
            // An hour of a thousand statements a second while auth is away.
            disk_bytes: 1 << 30,
            // Half of the promised 200 ms: the other half is for the disk and the scheduler.
            write_every: Duration::from_millis(100),
            // Likewise, of 1 s.
            sync_every: Duration::from_millis(500),
        }
    }
}

/// The name of the thread that writes, as the views of the process have it.
pub const WRITER_THREAD: &str = "audit-spool";

/// Whether events can enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolState {
    Open,
    /// The disk is full or broken. It is tried again all the time.
    Blocked {
        why: String,
        since: Timestamp,
    },
    /// The thread that writes has panicked, and nobody knows what it left half done: no event enters any more, what is fsynced is
    /// there, and the node has to end.
    Failed {
        why: String,
    },
}

/// Why an event did not enter at once. The event comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The queue in memory has no room at the moment; `enter` waits for it.
    Queue,
    Blocked,
    Closed,
    /// The line has a line feed or is too long; `enter` says which.
    NotAnEvent,
}

/// What was there when the spool was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Events of before that auth has not confirmed, as far as that was written down.
    pub events: u64,
    /// Bytes after the last whole event, cut off: written in the last second before a crash.
    pub torn_bytes: u64,
}

/// Consecutive events to ship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub first_seq: u64,
    pub last_seq: u64,
    pub lines: Vec<String>,
}

/// A handle; clones are the same spool. When the last is dropped, what has entered is written and fsynced (which blocks).
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    id: Mutex<String>,
    entropy: Entropy,
    recovered: Recovered,
    /// The last number when it was opened.
    opened_at: u64,
    /// Whether the log has said since then how far it has this spool.
    has_met_the_log: AtomicBool,
    /// Where the last batch that was read from a file ended: number and byte.
    reading: Mutex<(u64, u64)>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Opens the directory, or makes it (mode 0700), recovers what a crash left, and starts the writer thread. Blocks.
    ///
    /// # Errors
    /// `Io` where the directory cannot be used; `Corrupt` where files are missing or damaged other than by a crash.
    pub fn open(dir: &Path, limits: SpoolLimits, clock: SharedClock, entropy: Entropy) -> Result<Self, AuditError> {
        let mut limits = limits;
        limits.queue_bytes = limits.queue_bytes.clamp(MAX_FRAMED_BYTES, u32::MAX as usize);
        limits.disk_bytes = limits.disk_bytes.max(2 * limits.queue_bytes as u64);
        let mut opened = open_dir(dir, entropy)?;
        let last = opened.disk.last();
        if last > opened.disk.acknowledged {
            opened.disk.ages.reached(last, clock.now());
        }
        let recovered = Recovered {
            events: last - opened.disk.acknowledged,
            torn_bytes: opened.torn_bytes,
        };
        let woken = Arc::new(Condvar::new());
        let wake = {
            let woken = Arc::clone(&woken);
            Box::new(move || woken.notify_one())
        };
        let shared = Arc::new(Shared::new(dir, limits, clock, opened.disk, wake));
        let writer = Writer::new(Arc::clone(&shared), woken, last + 1)?;
        let thread = std::thread::Builder::new()
            .name(WRITER_THREAD.into())
            .spawn(move || writer.run())
            .map_err(AuditError::io(dir, "starting the spool's thread"))?;
        Ok(Self::over(shared, (opened.id, entropy), recovered, Some(thread)))
    }

    pub(super) fn over(
        shared: Arc<Shared>,
        (id, entropy): (String, Entropy),
        recovered: Recovered,
        writer: Option<JoinHandle<()>>,
    ) -> Self {
        let opened_at = *shared.synced.borrow();
        Self {
            inner: Arc::new(Inner {
                shared,
                id: Mutex::new(id),
                entropy,
                recovered,
                opened_at,
                has_met_the_log: AtomicBool::new(false),
                reading: Mutex::new((0, 0)),
                writer: Mutex::new(writer),
            }),
        }
    }

    /// 32 hex digits, made with the directory: a spool that was wiped is another one, and so is one that was set back, see [`Spool::meet`].
    pub fn id(&self) -> String {
        lock(&self.inner.id).clone()
    }

    pub fn recovered(&self) -> Recovered {
        self.inner.recovered
    }

    pub fn state(&self) -> SpoolState {
        self.inner.shared.state.borrow().clone()
    }

    /// The state, to be told of changes.
    pub fn watch_state(&self) -> watch::Receiver<SpoolState> {
        self.inner.shared.state.subscribe()
    }

    /// Events that auth has not confirmed, and their bytes on disk.
    pub fn backlog(&self) -> (u64, u64) {
        let disk = lock(&self.inner.shared.disk);
        (disk.last() - disk.acknowledged, disk.bytes)
    }

    /// Bytes of events in memory, which are not fsynced.
    pub fn queued_bytes(&self) -> u64 {
        let shared = &self.inner.shared;
        shared
            .limits
            .queue_bytes
            .saturating_sub(shared.room.available_permits()) as u64
    }

    /// When the oldest event that auth has not confirmed was fsynced; those of an earlier process count from this one's start.
    pub fn oldest_unshipped(&self) -> Option<Timestamp> {
        let disk = lock(&self.inner.shared.disk);
        (disk.last() > disk.acknowledged).then(|| disk.ages.oldest()).flatten()
    }

    /// Enters an event if there is room at once; never waits.
    pub fn try_enter(&self, line: String) -> Result<(), (String, Full)> {
        let shared = &self.inner.shared;
        if check(&line).is_err() {
            return Err((line, Full::NotAnEvent));
        }
        if shared.blocked.load(Ordering::Acquire) {
            return Err((line, Full::Blocked));
        }
        match shared.room.try_acquire_many(permits(&line)) {
            Ok(room) => room.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err((line, Full::Queue)),
            Err(tokio::sync::TryAcquireError::Closed) => return Err((line, Full::Closed)),
        }
        shared.push(line, None).map_err(|line| (line, Full::Closed))
    }

    /// Enters an event, waiting for room in memory. `Ok`: it is written within `write_every` and fsynced within `sync_every`.
    ///
    /// # Errors
    /// `Blocked` while the disk is full or broken; `Closed`; `LineTooLong` or `NotAnEvent` for a bad line.
    pub async fn enter(&self, line: String) -> Result<(), AuditError> {
        check(&line)?;
        self.inner.shared.make_room(&line).await?;
        let entered = self.inner.shared.push(line, None);
        entered.map_err(|_| self.inner.shared.why_closed())
    }

    /// Enters an event and waits until it is fsynced, together with all that others have entered.
    ///
    /// # Errors
    /// As `enter`. `Blocked` can also come after the event has entered: then it is not known to be on disk, and may still be
    /// written later.
    pub async fn enter_synced(&self, line: String) -> Result<(), AuditError> {
        check(&line)?;
        self.inner.shared.make_room(&line).await?;
        let (answer, answered) = oneshot::channel();
        let entered = self.inner.shared.push(line, Some(answer));
        entered.map_err(|_| self.inner.shared.why_closed())?;
        answered.await.map_err(|_| self.inner.shared.why_closed())?
    }

    /// The first events that are fsynced and not confirmed, at most `max_lines` and, beyond the first, `max_bytes` of them;
    /// `None` when there are none. Asking again without `acknowledge` gives the same events, though not always as many. Reads a file
    /// where memory has them no more: not for a thread that must not block.
    pub fn next_batch(&self, max_lines: usize, max_bytes: usize) -> Result<Option<Batch>, AuditError> {
        let shared = &self.inner.shared;
        let mut reading = lock(&self.inner.reading);
        let (first_seq, last, segment) = {
            let disk = lock(&shared.disk);
            let next = disk.acknowledged + 1;
            match disk.segments.iter().find(|segment| segment.last >= next) {
                Some(segment) => (next, disk.last(), segment.clone()),
                None => return Ok(None),
            }
        };
        let remembered = lock(&shared.recent).take(first_seq, last, (max_lines, max_bytes));
        if !remembered.is_empty() {
            return Ok(Some(Batch {
                first_seq,
                last_seq: first_seq + remembered.len() as u64 - 1,
                lines: remembered,
            }));
        }
        let damaged = |offset| AuditError::corrupt(&segment.path, offset, "an event that was fsynced cannot be read");
        let failed = AuditError::io(&segment.path, "reading a spool segment");
        let (number, offset) = match *reading {
            // Of this segment: numbers of an earlier one are not above its first.
            (number, offset) if number <= first_seq && number > segment.first => (number, offset),
            _ => (segment.first, 0),
        };
        let mut lines = Lines::open(&segment.path, offset, number)?;
        while lines.number < first_seq {
            lines.next_event().map_err(&failed)?.ok_or_else(|| damaged(offset))?;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while lines.number <= segment.last && batch.len() < max_lines.max(1) {
            let before = (lines.number, lines.offset);
            let line = lines.next_event().map_err(&failed)?.ok_or_else(|| damaged(before.1))?;
            bytes += line.len();
            if bytes > max_bytes && !batch.is_empty() {
                (lines.number, lines.offset) = before;
                break;
            }
            batch.push(line);
        }
        *reading = (lines.number, lines.offset);
        Ok(Some(Batch {
            first_seq,
            last_seq: lines.number - 1,
            lines: batch,
        }))
    }

    pub fn has_met_the_log(&self) -> bool {
        self.inner.has_met_the_log.load(Ordering::Acquire)
    }

    /// The log has this spool up to `log_has`: asked before the first events of this process are shipped. That can be more than was written down here,
    /// and need not come again. Where it is more than the spool had when it was opened, the spool was set back, by a restored snapshot
    /// or a damaged segment; its new events have numbers that the log has, which would pass over them. They are shipped under
    /// a new id, and what the log has may come a second time with them. Blocks for an fsync then.
    pub fn meet(&self, log_has: u64) -> Result<(), AuditError> {
        let inner = &self.inner;
        if log_has <= inner.opened_at {
            self.acknowledge(log_has)?;
        } else {
            let id = write_new_id(&inner.shared.dir, inner.entropy)?;
            tracing::error!(
                log_has,
                had = inner.opened_at,
                new_id = id,
                "the audit spool was set back: the log has more of it than it had as this node started; its events are shipped under a new id, and some may be on the log twice"
            );
            *lock(&inner.id) = id;
        }
        inner.has_met_the_log.store(true, Ordering::Release);
        Ok(())
    }

    /// Auth has everything up to this number on its disk. Segments that are confirmed as a whole are deleted. The number is written down before
    /// that, and as the spool closes; after a crash, [`Spool::meet`] tells it. Blocks for an fsync when a segment is done.
    ///
    /// # Errors
    /// `AcknowledgedAhead` for a number that this spool has not reached.
    pub fn acknowledge(&self, last_seq: u64) -> Result<(), AuditError> {
        let shared = &self.inner.shared;
        let last = *shared.synced.borrow();
        if last_seq > last {
            return Err(AuditError::AcknowledgedAhead {
                dir: shared.dir.clone(),
                claimed: last_seq,
                last,
            });
        }
        {
            let mut disk = lock(&shared.disk);
            if last_seq > disk.acknowledged {
                disk.acknowledged = last_seq;
                disk.ages.confirmed(last_seq);
            }
        }
        shared.delete_done_or_say();
        if shared.blocked.load(Ordering::Acquire) {
            lock(&shared.queue).retry = true;
            (shared.wake)();
        }
        Ok(())
    }

    /// Waits until `next_batch` has something. `false`: the spool is closed and there will be nothing more.
    pub async fn wait_for_more(&self) -> bool {
        let shared = &self.inner.shared;
        let mut synced = shared.synced.subscribe();
        loop {
            // The order matters: what is fsynced after this line ends the wait below.
            let last = *synced.borrow_and_update();
            if last > lock(&shared.disk).acknowledged {
                return true;
            }
            if shared.room.is_closed() || synced.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Writes and fsyncs what has entered and ends the writer thread; events that come later are refused. Blocks.
    ///
    /// # Errors
    /// `Blocked` and `WriterFailed` when events in memory could not be written; the spool keeps nothing of them.
    pub fn close(&self) -> Result<(), AuditError> {
        self.inner.close();
        match self.state() {
            SpoolState::Blocked { why, .. } => Err(AuditError::Blocked { why }),
            SpoolState::Failed { why } => Err(AuditError::WriterFailed { why }),
            SpoolState::Open => Ok(()),
        }
    }
}

impl Inner {
    fn close(&self) {
        lock(&self.shared.queue).closing = true;
        self.shared.room.close();
        (self.shared.wake)();
        if let Some(thread) = lock(&self.writer).take() {
            // Its panics are caught inside.
            drop(thread.join());
        }
        // Wakes whoever waits for more.
        self.shared.synced.send_modify(|_| {});
        let acknowledged = lock(&self.shared.disk).acknowledged;
        if let Err(error) = self
            .shared
            .write_down(&mut lock(&self.shared.written_down), acknowledged)
        {
            // Nothing is lost by it: the log is asked at the next start.
            tracing::info!(%error, "it is not written down how far auth has the audit spool");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(line: &str) -> Result<(), AuditError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(AuditError::LineTooLong { bytes: line.len() });
    }
    if memchr::memchr(b'\n', line.as_bytes()).is_some() || !line.starts_with('{') || !line.ends_with('}') {
        return Err(AuditError::NotAnEvent {
            why: "a line feed inside, or no object".into(),
        });
    }
    Ok(())
}
