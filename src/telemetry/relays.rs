//! The relays of this process: for each connection whose bytes are on their way, how far they have come and what they wait for.
//!
//! A relay writes a few plain atomic stores for each of its turns, and never asks the time; whoever looks at it now and then
//! sees since when nothing has moved.

use super::view::{Side, Whose};
use crate::model::{ConnectionId, Moment, SessionId};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Relays that ended last: as many as ends of actors are kept.
const ENDED_MAX: usize = 256;

/// What is known of a relay from its beginning. Names only.
#[derive(Debug, Clone)]
pub struct RelaySpec {
    pub connection: ConnectionId,
    pub session: SessionId,
    pub side: Side,
    pub whose: Whose,
    /// `agent NAME`, or `PostgreSQL at HOST:PORT`.
    pub upstream: String,
    /// PostgreSQL's process id of the session: what `pg_stat_activity` calls it.
    pub process_id: u32,
}

#[cfg(test)]
impl RelaySpec {
    /// Alice's, on an agent.
    pub fn of_a_test(connection: ConnectionId) -> Self {
        Self {
            connection,
            session: SessionId::from_random([4; 16]),
            side: Side::Agent,
            whose: Whose {
                user: "alice".into(),
                database: "aurora".into(),
                db_user: "alice".into(),
                db_name: "postgres".into(),
                client: "127.0.0.1:5000".into(),
            },
            upstream: "PostgreSQL at localhost:5432".into(),
            process_id: 7,
        }
    }
}

/// What one direction of a relay is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum WaitsFor {
    /// There is nothing to read.
    #[default]
    Source = 0,
    /// What was read is held back until the audit spool has room.
    Audit = 1,
    /// The reader takes no more.
    Sink = 2,
    /// Its source has closed, and all is passed on.
    Done = 3,
}

impl WaitsFor {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Audit => "audit",
            Self::Sink => "sink",
            Self::Done => "done",
        }
    }

    const fn numbered(number: u8) -> Self {
        match number {
            1 => Self::Audit,
            2 => Self::Sink,
            3 => Self::Done,
            _ => Self::Source,
        }
    }
}

/// Whose turn it is in the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Turn {
    /// An answer is owed to the client: PostgreSQL's turn. So it begins, with the answer to the start-up.
    #[default]
    Busy = 0,
    /// Everything is answered.
    Idle = 1,
    /// Everything is answered, and a transaction is open: the client's turn.
    InTransaction = 2,
    /// The client is in the middle of a request, or of the data of a COPY.
    Sending = 3,
    /// A replication: either side speaks when it has something to say.
    Streaming = 4,
}

impl Turn {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::InTransaction => "idle in transaction",
            Self::Sending => "sending",
            Self::Streaming => "streaming",
        }
    }

    const fn numbered(number: u8) -> Self {
        match number {
            1 => Self::Idle,
            2 => Self::InTransaction,
            3 => Self::Sending,
            4 => Self::Streaming,
            _ => Self::Busy,
        }
    }
}

/// One direction, as the relay writes it.
#[derive(Debug, Default)]
pub struct Way {
    bytes: AtomicU64,
    waits_for: AtomicU8,
    /// The number of its last move among those of its thread: of the two ways of a relay the greater moved last.
    moved: AtomicU64,
}

thread_local! {
    static MOVES: Cell<u64> = const { Cell::new(0) };
}

fn next_move() -> u64 {
    MOVES.with(|moves| {
        moves.set(moves.get().wrapping_add(1));
        moves.get()
    })
}

impl Way {
    /// At the end of a turn: how many bytes have passed in all, and what it waits for.
    pub fn stands(&self, bytes: u64, waits_for: WaitsFor) {
        if self.bytes.load(Ordering::Relaxed) != bytes {
            self.bytes.store(bytes, Ordering::Relaxed);
            self.moved.store(next_move(), Ordering::Relaxed);
        }
        self.waits_for.store(waits_for as u8, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn waits_for(&self) -> WaitsFor {
        WaitsFor::numbered(self.waits_for.load(Ordering::Relaxed))
    }
}

/// One relay, as everybody sees it. It is off the list when the relay drops it.
#[derive(Debug)]
pub struct Gauge {
    number: u64,
    pub spec: Arc<RelaySpec>,
    pub since: Moment,
    pub to_upstream: Way,
    pub to_client: Way,
    turn: AtomicU8,
    /// Its last words are being said.
    closing: AtomicBool,
}

/// A relay as it was when it ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub spec: Arc<RelaySpec>,
    pub lasted: Duration,
    /// The label of the last [`Turn`].
    pub state: &'static str,
    pub to_upstream: u64,
    pub to_client: u64,
}

#[derive(Default)]
struct Gauges {
    open: BTreeMap<u64, Weak<Gauge>>,
    ended: VecDeque<Ended>,
    next: u64,
}

static GAUGES: LazyLock<Mutex<Gauges>> = LazyLock::new(Mutex::default);

fn gauges() -> MutexGuard<'static, Gauges> {
    GAUGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All relays of this process, in the order of their beginning.
pub fn all() -> Vec<Arc<Gauge>> {
    gauges().open.values().filter_map(Weak::upgrade).collect()
}

/// The relays that ended last, oldest first.
pub fn ended() -> Vec<Ended> {
    gauges().ended.iter().cloned().collect()
}

impl Gauge {
    pub fn begin(spec: RelaySpec) -> Arc<Self> {
        let mut gauges = gauges();
        gauges.next += 1;
        let gauge = Arc::new(Self {
            number: gauges.next,
            spec: Arc::new(spec),
            since: Moment::now(),
            to_upstream: Way::default(),
            to_client: Way::default(),
            turn: AtomicU8::new(Turn::default() as u8),
            closing: AtomicBool::new(false),
        });
        gauges.open.insert(gauge.number, Arc::downgrade(&gauge));
        gauge
    }

    /// Tells relays apart, also two of one connection.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Both directions are polled by one task, so that there is one writer.
    pub fn turn(&self, turn: Turn) {
        self.turn.store(turn as u8, Ordering::Relaxed);
    }

    /// Something has come for the client since it spoke last.
    pub fn has_answered(&self) -> bool {
        self.to_client.moved.load(Ordering::Relaxed) > self.to_upstream.moved.load(Ordering::Relaxed)
    }

    pub fn is_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// The label of its [`Turn`], or `closing`.
    pub fn state(&self) -> &'static str {
        if self.closing.load(Ordering::Relaxed) {
            "closing"
        } else {
            Turn::numbered(self.turn.load(Ordering::Relaxed)).label()
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        let ended = Ended {
            spec: self.spec.clone(),
            lasted: Moment::now().since(self.since),
            state: Turn::numbered(self.turn.load(Ordering::Relaxed)).label(),
            to_upstream: self.to_upstream.bytes(),
            to_client: self.to_client.bytes(),
        };
        let mut gauges = gauges();
        gauges.open.remove(&self.number);
        if gauges.ended.len() >= ENDED_MAX {
            gauges.ended.pop_front();
        }
        gauges.ended.push_back(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_seen_with_what_it_wrote_last_until_it_is_dropped() {
        let connection = ConnectionId::from_random(*b"relayset");
        let seen = || all().into_iter().find(|gauge| gauge.spec.connection == connection);
        assert!(seen().is_none());
        let gauge = Gauge::begin(RelaySpec {
            connection,
            session: SessionId::from_random([1; 16]),
            side: Side::Proxy,
            whose: Whose::default(),
            upstream: "agent db-1".into(),
            process_id: 7,
        });
        gauge.to_client.stands(42, WaitsFor::Sink);
        assert_eq!(gauge.state(), "busy", "the start-up is to be answered");
        assert!(gauge.has_answered());
        gauge.to_upstream.stands(7, WaitsFor::Source);
        gauge.to_client.stands(42, WaitsFor::Sink);
        assert!(!gauge.has_answered(), "the client spoke last");
        gauge.turn(Turn::InTransaction);
        let other = seen().expect("begun");
        assert_eq!(
            (other.to_client.bytes(), other.to_client.waits_for()),
            (42, WaitsFor::Sink)
        );
        assert_eq!(other.state(), "idle in transaction");
        gauge.is_closing();
        assert_eq!(other.state(), "closing");
        drop((gauge, other));
        // Whoever looks at all relays just now, as other tests do, has this one for that moment, and ends it.
        let remembered = || ended().into_iter().find(|ended| ended.spec.connection == connection);
        let began = Moment::now();
        let ended = loop {
            match remembered() {
                Some(ended) => break ended,
                None => assert!(Moment::now().since(began) < Duration::from_secs(20), "it is remembered"),
            }
            std::thread::yield_now();
        };
        assert!(seen().is_none());
        assert_eq!(
            (ended.state, ended.to_client, ended.to_upstream),
            ("idle in transaction", 42, 7)
        );
    }
}
