//! The flight recorder: what happened between the actors of this process, lately.
//!
//! Always on. Each thread writes into rings of its own, so that writing never waits for another thread's turn, and a ring is
//! never longer than its bound. Ids and names only; nothing of what a message says. Whatever is done for a connection has a
//! ring apart, so that heartbeats and timers do not push it out.

use super::label::Label;
use crate::model::{ConnectionId, MessageId, Moment};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Records of one thread that belong to connections: some 25 for each, so the last 600 connections of each thread.
pub const CONNECTION_RECORDS: usize = 16_384;
/// The others of one thread: a node at rest makes some ten in a second.
pub const OTHER_RECORDS: usize = 4096;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A message was put into a mailbox, or onto the way to another process.
    Sent,
    /// A handler has done its turn with it.
    Handled,
    /// It will never be handled: the mailbox was full, or its actor is gone.
    Dropped,
    /// The answer of an ask reached its asker, or its deadline did.
    Answered,
    /// It came from another process; its cause is a message there.
    Arrived,
    /// An actor began, or began anew.
    Started,
    /// An actor ended; one that is rebuilt has not.
    Exited,
    /// An actor went into another state.
    State,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Record {
    pub at: Moment,
    pub kind: RecordKind,
    /// A message's name, or a state's.
    pub what: Label,
    pub id: MessageId,
    pub cause: Option<MessageId>,
    pub connection: Option<ConnectionId>,
    pub from: Option<Arc<str>>,
    pub to: Arc<str>,
    /// How long it waited in the mailbox; of an answer, how long its asker waited.
    pub queued_ns: u64,
    /// How long the handler's turn was.
    pub busy_ns: u64,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Record>,
    overwritten: u64,
}

impl Ring {
    fn push(&mut self, record: Record, bound: usize) {
        if self.records.len() >= bound {
            self.records.pop_front();
            self.overwritten += 1;
        }
        self.records.push_back(record);
    }
}

#[derive(Default)]
struct Rings {
    connections: Ring,
    others: Ring,
}

static ALL: Mutex<Vec<Weak<Mutex<Rings>>>> = Mutex::new(Vec::new());
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static PAUSED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static MINE: RefCell<Option<Arc<Mutex<Rings>>>> = const { RefCell::new(None) };
}

fn new_rings() -> Arc<Mutex<Rings>> {
    let rings = Arc::<Mutex<Rings>>::default();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|other| other.strong_count() > 0);
    all.push(Arc::downgrade(&rings));
    rings
}

/// Writes one record into the rings of the calling thread.
pub fn write(record: Record) {
    if PAUSED.load(Ordering::Relaxed) {
        return;
    }
    // Only while the thread ends is there no ring.
    let _ends = MINE.try_with(|mine| {
        let mut mine = mine.borrow_mut();
        let rings = mine.get_or_insert_with(new_rings);
        let mut rings = rings.lock().unwrap_or_else(PoisonError::into_inner);
        match record.connection {
            Some(_) => rings.connections.push(record, CONNECTION_RECORDS),
            None => rings.others.push(record, OTHER_RECORDS),
        }
    });
    WRITTEN.fetch_add(1, Ordering::Relaxed);
}

/// Stops and resumes recording, so that its cost can be measured against nothing.
pub fn pause(paused: bool) {
    PAUSED.store(paused, Ordering::Relaxed);
}

/// How many records were ever made.
pub fn written() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

/// What was kept of those that fit, in the order of time.
pub fn find(fits: impl Fn(&Record) -> bool) -> Vec<Record> {
    let mut found = Vec::new();
    for_each_rings(|rings| {
        let all = rings.connections.records.iter().chain(&rings.others.records);
        found.extend(all.filter(|record| fits(record)).cloned());
    });
    found.sort_by_key(|record| (record.at, record.id));
    found
}

/// Shows each record that was kept, in no order. Whoever looks keeps the writers of one thread waiting.
pub fn for_each(mut look: impl FnMut(&Record)) {
    for_each_rings(|rings| {
        let all = rings.connections.records.iter().chain(&rings.others.records);
        all.for_each(&mut look);
    });
}

/// From when on the record of connections is whole: before it, some thread has overwritten what it had.
pub fn whole_since() -> Option<Moment> {
    let mut since = None;
    for_each_rings(|rings| {
        if rings.connections.overwritten > 0 {
            let oldest = rings.connections.records.front().map(|record| record.at);
            since = since.max(oldest);
        }
    });
    since
}

fn for_each_rings(mut look: impl FnMut(&Rings)) {
    let all: Vec<_> = {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    };
    for rings in all {
        look(&rings.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(connection: Option<u64>, id: u64) -> Record {
        Record {
            at: Moment::from_nanos(id),
            kind: RecordKind::Sent,
            what: Label::of("Tested"),
            id: MessageId(id),
            cause: None,
            connection: connection.map(|id| ConnectionId::from_random(id.to_be_bytes())),
            from: None,
            to: "record-tests".into(),
            queued_ns: 0,
            busy_ns: 0,
        }
    }

    #[test]
    fn a_ring_keeps_the_last_and_never_more_than_its_bound() {
        let mut ring = Ring::default();
        for id in 0..10 {
            ring.push(record(None, id), 4);
        }
        let kept: Vec<u64> = ring.records.iter().map(|record| record.id.0).collect();
        assert_eq!(kept, [6, 7, 8, 9]);
        assert_eq!(ring.overwritten, 6);
    }

    #[test]
    fn a_full_ring_takes_no_more_memory_however_much_is_written() {
        for bound in [CONNECTION_RECORDS, OTHER_RECORDS] {
            let mut ring = Ring::default();
            let mut write = |count: usize| {
                (0..count).for_each(|id| ring.push(record(None, id as u64), bound));
                (ring.records.len(), ring.records.capacity())
            };
            let full = write(bound);
            assert_eq!(full, (bound, bound), "nothing is set aside");
            assert_eq!(write(9 * bound), full);
        }
        // With its room, some 2 MiB for the rings of a thread.
        assert!(size_of::<Record>() <= 112, "{}", size_of::<Record>());
    }

    #[test]
    fn what_is_done_for_a_connection_is_not_pushed_out_by_what_is_not() {
        const MINE: u64 = 0xa_5eed;
        write(record(Some(MINE), 1));
        for id in 2..2 * OTHER_RECORDS as u64 {
            write(record(None, id));
        }
        let mine = Some(ConnectionId::from_random(MINE.to_be_bytes()));
        assert_eq!(find(|record| record.connection == mine).len(), 1);
    }
}
