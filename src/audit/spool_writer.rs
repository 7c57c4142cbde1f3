//! The spool's thread: takes what is queued, writes it, fsyncs it, gives the room back.
//!
//! Everything since the last fsync stays in memory and is written at its place in the file (`pwrite`): after any failure the
//! same bytes are written to the same place again, so that no error of write or fsync loses or doubles an event.
//!
//! A panic is another matter: whether numbers, memory and file still agree is not known then. The thread ends, whoever waits is told,
//! and [`SpoolState::Failed`] ends the node; what was fsynced, and so answered, is recovered by the next one.

use super::AuditError;
use super::disk::{Segment, create_private};
use super::segment::{push_framed, segment_path};
use super::spool::{SpoolState, WRITER_THREAD};
use super::spool_shared::{Queue, Shared, Waiter, lock};
use crate::telemetry::fault::Trap;
use crate::telemetry::label::Label;
use crate::telemetry::metrics::{EventClass, METRICS};
use crate::telemetry::panics;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often a full or broken disk is tried again.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A thread with nothing to do looks up once a minute, which costs nothing.
const IDLE: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Notified by `Shared::wake`.
    woken: Arc<Condvar>,
    active: Option<Active>,
    /// The number of the next event.
    next: u64,
    /// Framed events that are not fsynced.
    tail: Vec<u8>,
    /// How many bytes of the tail are in the file, and the number of their last event.
    written: usize,
    written_last: u64,
    /// When the oldest of them was written.
    written_since: Option<Instant>,
    waiters: Vec<Waiter>,
    trap: Trap,
}

struct Active {
    file: File,
    path: PathBuf,
    synced_bytes: u64,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, woken: Arc<Condvar>, next: u64) -> Result<Self, AuditError> {
        let active = {
            let mut disk = lock(&shared.disk);
            let last = disk
                .segments
                .back()
                .filter(|s| s.bytes < shared.limits.segment_bytes)
                .cloned();
            disk.last_is_active = last.is_some();
            last
        };
        let active = match active {
            None => None,
            Some(Segment { path, bytes, .. }) => {
                let file = OpenOptions::new().write(true).open(&path);
                Some(Active {
                    file: file.map_err(AuditError::io(&path, "opening a spool segment"))?,
                    path,
                    synced_bytes: bytes,
                })
            }
        };
        Ok(Self {
            shared,
            woken,
            active,
            next,
            tail: Vec::new(),
            written: 0,
            written_last: next - 1,
            written_since: None,
            waiters: Vec::new(),
            trap: Trap::at(WRITER_THREAD),
        })
    }

    pub fn run(mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write_until_closed())) {
            self.fail(panics::text(panic.as_ref()));
        }
    }

    /// Nothing is written from here on.
    fn fail(&mut self, why: String) {
        let shared = &self.shared;
        tracing::error!(
            reason = why,
            "the thread that writes the audit spool failed; the node ends"
        );
        shared.seat.enter(Label::of("failed"), None, None);
        shared.blocked.store(true, Ordering::Release);
        // Before the waiters: who hears of it asks for the state.
        shared.state.send_replace(SpoolState::Failed { why: why.clone() });
        let entered = {
            let mut queue = lock(&shared.queue);
            queue.closing = true;
            std::mem::take(&mut queue.waiters)
        };
        for waiter in self.waiters.drain(..).chain(entered) {
            drop(waiter.send(Err(AuditError::WriterFailed { why: why.clone() })));
        }
    }

    fn write_until_closed(&mut self) {
        loop {
            let closing = self.take();
            let outcome = self.write_and_sync(closing);
            self.publish(outcome);
            if closing {
                return;
            }
        }
    }

    /// Waits for something to do and takes the queue. True when this is the last time.
    fn take(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let limits = &shared.limits;
        let pause = if shared.blocked.load(Ordering::Acquire) {
            RETRY_EVERY
        } else {
            self.written_since
                .map_or(IDLE, |since| limits.sync_every.saturating_sub(since.elapsed()))
        };
        let mut queue = lock(&shared.queue);
        queue = wait_while(&self.woken, queue, pause, |q| {
            q.lines.is_empty() && !q.is_urgent(limits)
        });
        if !queue.lines.is_empty() {
            queue = wait_while(&self.woken, queue, limits.write_every, |q| !q.is_urgent(limits));
        }
        let lines = std::mem::take(&mut queue.lines);
        self.waiters.append(&mut queue.waiters);
        queue.bytes = 0;
        queue.retry = false;
        let closing = queue.closing;
        drop(queue);
        let mut recent = lock(&shared.recent);
        for line in lines {
            METRICS.audit_events.of(class_of(&line)).one_more();
            push_framed(&mut self.tail, self.next, &line);
            recent.remember(self.next, line);
            self.next += 1;
        }
        closing
    }

    fn write_and_sync(&mut self, closing: bool) -> Result<(), String> {
        if self.tail.len() > self.written {
            self.make_disk_room()?;
            self.write()?;
        }
        let late = self
            .written_since
            .is_some_and(|since| since.elapsed() >= self.shared.limits.sync_every);
        // A blocked spool opens again only after an fsync that worked.
        let blocked = self.shared.blocked.load(Ordering::Acquire);
        if closing
            || late
            || blocked
            || !self.waiters.is_empty()
            || self.tail.len() >= self.shared.limits.queue_bytes / 4
        {
            self.sync()?;
        }
        Ok(())
    }

    /// Refuses to go over the disk's bound. The segment is ended, so that it can be deleted when it is confirmed.
    fn make_disk_room(&mut self) -> Result<(), String> {
        let bound = self.shared.limits.disk_bytes;
        let fits = |bytes: u64, tail: usize| bytes + tail as u64 <= bound;
        if fits(lock(&self.shared.disk).bytes, self.tail.len()) {
            return Ok(());
        }
        self.sync()?;
        self.end_segment();
        let deleted = self.shared.seat.does("deleting", || self.shared.delete_done());
        deleted.map_err(|error| error.to_string())?;
        let bytes = lock(&self.shared.disk).bytes;
        if fits(bytes, self.tail.len()) {
            return Ok(());
        }
        Err(format!(
            "{bytes} of at most {bound} bytes on disk are not confirmed by auth"
        ))
    }

    fn write(&mut self) -> Result<(), String> {
        if self.active.is_none() {
            self.active = Some(self.begin_segment()?);
        }
        let Some(active) = &self.active else {
            return Ok(());
        };
        let at = active.synced_bytes + self.written as u64;
        let write = || active.file.write_all_at(&self.tail[self.written..], at);
        self.shared
            .seat
            .does("write", write)
            .map_err(|e| format!("writing {}: {e}", active.path.display()))?;
        self.trap.spring();
        self.written = self.tail.len();
        self.written_last = self.next - 1;
        self.written_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(active) = self.active.as_mut().filter(|_| self.written > 0) else {
            return Ok(());
        };
        let before = Instant::now();
        let synced = self.shared.seat.does("fsync", || active.file.sync_data());
        METRICS.audit_fsync.took(before.elapsed());
        if let Err(e) = synced {
            // After a failed fsync the kernel may have dropped the pages and call the next one good: write them again.
            self.written = 0;
            self.written_since = None;
            return Err(format!("fsync of {}: {e}", active.path.display()));
        }
        active.synced_bytes += self.written as u64;
        let full = active.synced_bytes >= self.shared.limits.segment_bytes;
        let bytes = self.written;
        {
            let mut disk = lock(&self.shared.disk);
            disk.bytes += bytes as u64;
            disk.ages.reached(self.written_last, self.shared.clock.now());
            if let Some(segment) = disk.segments.back_mut() {
                segment.bytes += bytes as u64;
                segment.last = self.written_last;
            }
        }
        self.tail.drain(..bytes);
        self.written = 0;
        self.written_since = None;
        self.shared.synced.send_replace(self.written_last);
        self.shared.room.add_permits(bytes);
        if full {
            self.end_segment();
            self.shared.seat.does("deleting", || self.shared.delete_done_or_say());
        }
        Ok(())
    }

    fn begin_segment(&self) -> Result<Active, String> {
        // The first number that is not in an earlier segment: everything fsynced is, and nothing else can be.
        let first = *self.shared.synced.borrow() + 1;
        let path = segment_path(&self.shared.dir, first);
        let file = create_private(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
        let mut disk = lock(&self.shared.disk);
        disk.last_is_active = true;
        disk.segments.push_back(Segment {
            first,
            last: first - 1,
            bytes: 0,
            path: path.clone(),
        });
        Ok(Active {
            file,
            path,
            synced_bytes: 0,
        })
    }

    /// Ends the active segment, so that it can be deleted when it is confirmed. An empty one goes on.
    fn end_segment(&mut self) {
        if let Some(active) = self.active.take_if(|active| active.synced_bytes > 0) {
            // After a failed fsync more may be in it; the next segment will have it. If cutting fails, a reader stops before it too.
            drop(active.file.set_len(active.synced_bytes));
            lock(&self.shared.disk).last_is_active = false;
        }
    }

    /// Tells the callers, and sets the state.
    fn publish(&mut self, outcome: Result<(), String>) {
        let shared = &self.shared;
        match outcome {
            Ok(()) => {
                if shared.blocked.swap(false, Ordering::AcqRel) {
                    shared.state.send_replace(SpoolState::Open);
                    shared.seat.enter(Label::of("running"), None, None);
                }
                // The callers may have gone.
                self.waiters.drain(..).for_each(|waiter| drop(waiter.send(Ok(()))));
            }
            Err(why) => {
                let blocked = AuditError::Blocked { why: why.clone() };
                if !shared.blocked.swap(true, Ordering::AcqRel) {
                    shared.seat.enter(Label::of("blocked"), None, None);
                }
                shared.state.send_if_modified(|state| match state {
                    SpoolState::Blocked { why: before, .. } => std::mem::replace(before, why.clone()) != why,
                    _ => {
                        let since = shared.clock.now();
                        *state = SpoolState::Blocked { why, since };
                        true
                    }
                });
                for waiter in self.waiters.drain(..) {
                    drop(waiter.send(Err(blocked.clone())));
                }
            }
        }
    }
}

/// An event begins with its name and its code, as `EventBuilder` writes them; the code ends with the class.
fn class_of(line: &str) -> EventClass {
    // `{"event":"NAME","code":"CODE"`: the eighth quote is behind the code, and no name or code has one.
    let behind_code = memchr::memchr_iter(b'"', line.as_bytes()).nth(7);
    match behind_code.and_then(|at| line.as_bytes().get(at.wrapping_sub(1))) {
        Some(b'W') => EventClass::Warning,
        Some(b'E') => EventClass::Error,
        _ => EventClass::Information,
    }
}

fn wait_while<'a>(
    wake: &Condvar,
    queue: MutexGuard<'a, Queue>,
    at_most: Duration,
    quiet: impl Fn(&Queue) -> bool,
) -> MutexGuard<'a, Queue> {
    wake.wait_timeout_while(queue, at_most, |queue| quiet(queue))
        .unwrap_or_else(PoisonError::into_inner)
        .0
}
