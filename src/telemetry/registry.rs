//! Who lives in this process: every actor, and every thread that does work for actors.
//!
//! Each has a [`Seat`], which it writes with a few atomic stores and anybody may read from any thread. So an actor whose thread
//! is blocked is seen as well as any other.

use super::label::Label;
use super::record::{self, Record, RecordKind};
use super::view::Whose;
use crate::model::{ConnectionId, MessageId, Moment};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Ends of actors that are remembered.
const EXITS_MAX: usize = 256;
/// Asks of one actor that can be told apart; more are only counted.
const WAITS_MAX: usize = 1024;

/// What is fixed when a seat is taken.
#[derive(Debug, Clone)]
pub struct SeatSpec {
    /// The parent's path, `/`, and the name; of an actor of the root, the name.
    pub path: Arc<str>,
    /// `permanent`, `transient`, `temporary`, or `thread`.
    pub rule: &'static str,
    /// How many messages may wait; of a thread whose queue is counted in bytes, bytes.
    pub bound: u32,
}

/// One actor's place in the registry.
pub struct Seat {
    number: u64,
    spec: SeatSpec,
    since: Moment,
    /// The places of the mailbox that are free.
    room: Arc<Semaphore>,
    runtime: OnceLock<Arc<str>>,
    state: AtomicU32,
    state_since: AtomicU64,
    /// The label of the message in hand in the upper 16 bits (plus one; zero is none), microseconds of its start below.
    in_hand: AtomicU64,
    /// Its connection; zero is none.
    in_hand_for: AtomicU64,
    /// The connection that the whole actor serves; zero is none.
    serves: AtomicU64,
    whose: OnceLock<Arc<Whose>>,
    handled: AtomicU64,
    busy_ns: AtomicU64,
    restarts: AtomicU32,
    failure: Mutex<Option<Failure>>,
    waits: Mutex<Waits>,
}

/// The last failure of an actor that was built anew.
#[derive(Debug, Clone)]
pub struct Failure {
    pub at: Moment,
    pub why: Arc<str>,
}

/// An actor that is no more.
#[derive(Debug, Clone)]
pub struct Exit {
    pub path: Arc<str>,
    pub at: Moment,
    pub connection: Option<ConnectionId>,
    pub whose: Option<Arc<Whose>>,
    /// `finished`, or what it says of its end (`agent lost: 08006`); `stopped`, or what it failed with.
    pub why: Arc<str>,
    pub failed: bool,
}

/// A message that is being handled.
#[derive(Debug, Clone, Copy)]
pub struct InHand {
    pub what: Label,
    pub since: Moment,
    pub connection: Option<ConnectionId>,
}

/// Something that an actor waits for: the answer of an ask, of another process, or of a peer.
#[derive(Debug, Clone)]
pub struct Wait {
    pub what: Label,
    pub for_whom: Arc<str>,
    pub since: Moment,
    pub within: Duration,
    pub connection: Option<ConnectionId>,
    number: u64,
}

#[derive(Default)]
struct Waits {
    open: Vec<Wait>,
    uncounted: u32,
    next: u64,
}

#[derive(Default)]
struct Everyone {
    seats: BTreeMap<u64, Weak<Seat>>,
    exits: VecDeque<Exit>,
    next: u64,
}

static EVERYONE: LazyLock<Mutex<Everyone>> = LazyLock::new(Mutex::default);

thread_local! {
    static RUNTIME: OnceLock<Arc<str>> = const { OnceLock::new() };
}

/// Names the runtime of the calling thread, as the views show it.
pub fn name_runtime(name: &str) {
    RUNTIME.with(|runtime| {
        let _named = runtime.set(name.into());
    });
}

fn everyone() -> MutexGuard<'static, Everyone> {
    EVERYONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that live now, in the order of their start.
pub fn seats() -> Vec<Arc<Seat>> {
    everyone().seats.values().filter_map(Weak::upgrade).collect()
}

/// The actors that ended last, oldest first.
pub fn exits() -> Vec<Exit> {
    everyone().exits.iter().cloned().collect()
}

fn some_connection(number: u64) -> Option<ConnectionId> {
    (number != 0).then(|| ConnectionId::from_random(number.to_be_bytes()))
}

fn number_of(connection: Option<ConnectionId>) -> u64 {
    connection.map_or(0, ConnectionId::as_u64)
}

const MICROS_BITS: u32 = 48;

impl Seat {
    /// Takes a seat that everybody sees; it is free again when it is dropped.
    pub fn take(spec: SeatSpec) -> Arc<Self> {
        let mut everyone = everyone();
        everyone.next += 1;
        let seat = Arc::new(Self::new(everyone.next, spec));
        everyone.seats.insert(seat.number, Arc::downgrade(&seat));
        seat
    }

    /// The seat of a thread that works for actors; its queue's places are [`room`](Self::room).
    pub fn of_thread(path: impl Into<Arc<str>>, bound: u32) -> Arc<Self> {
        let seat = Self::take(SeatSpec {
            path: path.into(),
            rule: "thread",
            bound,
        });
        seat.enter(Label::of("running"), None, None);
        seat
    }

    /// A thread's piece of work, in hand for as long as it takes. `what` is an operation's name.
    pub fn does<T>(&self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let begin = Moment::now();
        self.takes(Label::of(what), None, begin);
        let done = work();
        self.is_done(Moment::now().since(begin));
        done
    }

    /// The seat of somebody who is no actor: a signal, a person's request, a test. Nobody sees it.
    pub fn outside(name: &str) -> Arc<Self> {
        let spec = SeatSpec {
            path: name.into(),
            rule: "outside",
            bound: 0,
        };
        Arc::new(Self::new(0, spec))
    }

    fn new(number: u64, spec: SeatSpec) -> Self {
        let now = Moment::now();
        Self {
            number,
            since: now,
            room: Arc::new(Semaphore::new(spec.bound as usize)),
            runtime: OnceLock::new(),
            state: AtomicU32::new(u32::from(Label::of("starting").number())),
            state_since: AtomicU64::new(now.as_nanos()),
            in_hand: AtomicU64::new(0),
            in_hand_for: AtomicU64::new(0),
            serves: AtomicU64::new(0),
            whose: OnceLock::new(),
            handled: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            restarts: AtomicU32::new(0),
            failure: Mutex::new(None),
            waits: Mutex::default(),
            spec,
        }
    }

    pub fn path(&self) -> &Arc<str> {
        &self.spec.path
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.spec.path.rsplit('/').next().unwrap_or_default()
    }

    /// What sort of actor it is: the name without what tells it from its like.
    pub fn kind(&self) -> &str {
        self.name().split('#').next().unwrap_or_default()
    }

    pub fn rule(&self) -> &'static str {
        self.spec.rule
    }

    pub fn bound(&self) -> u32 {
        self.spec.bound
    }

    /// The places of its mailbox.
    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    pub fn queued(&self) -> u32 {
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        self.spec.bound.saturating_sub(free)
    }

    pub fn since(&self) -> Moment {
        self.since
    }

    pub fn runtime(&self) -> Option<Arc<str>> {
        self.runtime.get().cloned()
    }

    /// It lives on the runtime of the calling thread.
    pub fn sits_here(&self) {
        if let Some(name) = RUNTIME.with(|runtime| runtime.get().cloned()) {
            let _set = self.runtime.set(name);
        }
    }

    pub fn state(&self) -> (Label, Moment) {
        let number = u16::try_from(self.state.load(Ordering::Relaxed)).unwrap_or(u16::MAX);
        let state = Label::numbered(number).unwrap_or_else(|| Label::of("starting"));
        (state, Moment::from_nanos(self.state_since.load(Ordering::Relaxed)))
    }

    /// From here on it is in this state; that is recorded.
    pub fn enter(&self, state: Label, cause: Option<MessageId>, connection: Option<ConnectionId>) {
        let now = Moment::now();
        self.state.store(u32::from(state.number()), Ordering::Relaxed);
        self.state_since.store(now.as_nanos(), Ordering::Relaxed);
        record::write(Record {
            at: now,
            kind: RecordKind::State,
            what: state,
            id: MessageId::next(),
            cause,
            connection,
            from: None,
            to: self.spec.path.clone(),
            queued_ns: 0,
            busy_ns: 0,
        });
    }

    pub fn in_hand(&self) -> Option<InHand> {
        let packed = self.in_hand.load(Ordering::Acquire);
        let number = u16::try_from(packed >> MICROS_BITS).ok()?.checked_sub(1)?;
        Some(InHand {
            what: Label::numbered(number)?,
            since: Moment::from_nanos((packed & ((1 << MICROS_BITS) - 1)).saturating_mul(1000)),
            connection: some_connection(self.in_hand_for.load(Ordering::Relaxed)),
        })
    }

    /// A handler takes a message in hand.
    pub fn takes(&self, what: Label, connection: Option<ConnectionId>, now: Moment) {
        let micros = (now.as_nanos() / 1000) & ((1 << MICROS_BITS) - 1);
        self.in_hand_for.store(number_of(connection), Ordering::Relaxed);
        self.in_hand.store(
            (u64::from(what.number()) + 1) << MICROS_BITS | micros,
            Ordering::Release,
        );
    }

    /// The handler has done its turn with a message.
    pub fn is_done(&self, busy: Duration) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.sets_down(busy);
    }

    /// It has nothing in hand any more.
    pub fn sets_down(&self, busy: Duration) {
        self.in_hand.store(0, Ordering::Release);
        let busy = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(busy, Ordering::Relaxed);
    }

    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    /// The whole actor works for this connection.
    pub fn serves(&self, connection: ConnectionId) {
        self.serves.store(connection.as_u64(), Ordering::Relaxed);
    }

    pub fn connection(&self) -> Option<ConnectionId> {
        some_connection(self.serves.load(Ordering::Relaxed))
    }

    /// Whose the connection that it serves is, once that is known.
    pub fn is_for(&self, whose: Whose) {
        let _known_already = self.whose.set(Arc::new(whose));
    }

    pub fn whose(&self) -> Option<Arc<Whose>> {
        self.whose.get().cloned()
    }

    /// Its state was lost and it is built anew.
    pub fn restarts_after(&self, why: &str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(Failure {
            at: Moment::now(),
            why: why.into(),
        });
    }

    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub fn last_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is no more.
    pub fn ends(&self, why: &str, failed: bool) {
        let mut everyone = everyone();
        if everyone.exits.len() >= EXITS_MAX {
            everyone.exits.pop_front();
        }
        everyone.exits.push_back(Exit {
            path: self.spec.path.clone(),
            at: Moment::now(),
            connection: self.connection(),
            whose: self.whose(),
            why: why.into(),
            failed,
        });
    }

    /// It waits for an answer, until the guard is dropped.
    pub fn waits(
        self: &Arc<Self>,
        what: Label,
        for_whom: Arc<str>,
        within: Duration,
        connection: Option<ConnectionId>,
        since: Moment,
    ) -> WaitGuard {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.open.len() >= WAITS_MAX {
            waits.uncounted += 1;
            return WaitGuard {
                seat: self.clone(),
                number: None,
            };
        }
        waits.next += 1;
        let number = waits.next;
        waits.open.push(Wait {
            what,
            for_whom,
            since,
            within,
            connection,
            number,
        });
        WaitGuard {
            seat: self.clone(),
            number: Some(number),
        }
    }

    /// What it waits for, the oldest first, and how much more there is that is only counted.
    pub fn open_waits(&self) -> (Vec<Wait>, u32) {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = waits.open.clone();
        open.sort_by_key(|wait| wait.since);
        (open, waits.uncounted)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.number != 0 {
            everyone().seats.remove(&self.number);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec.path)
    }
}

/// Somebody waits for as long as it lives.
#[derive(Debug)]
pub struct WaitGuard {
    seat: Arc<Seat>,
    /// `None` of a wait that is only counted.
    number: Option<u64>,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let mut waits = self.seat.waits.lock().unwrap_or_else(PoisonError::into_inner);
        match self.number {
            Some(number) => {
                if let Some(at) = waits.open.iter().position(|wait| wait.number == number) {
                    waits.open.swap_remove(at);
                }
                if waits.open.is_empty() {
                    // An actor at rest holds no memory for what it asked at its start.
                    waits.open = Vec::new();
                }
            }
            None => waits.uncounted = waits.uncounted.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(path: &str) -> Arc<Seat> {
        Seat::take(SeatSpec {
            path: path.into(),
            rule: "permanent",
            bound: 8,
        })
    }

    fn is_seen(path: &str) -> bool {
        seats().iter().any(|seat| &**seat.path() == path)
    }

    #[test]
    fn a_seat_is_seen_from_its_taking_to_its_drop() {
        let taken = seat("registry-tests/one#7");
        assert!(is_seen("registry-tests/one#7"));
        assert_eq!((taken.name(), taken.kind()), ("one#7", "one"));
        drop(taken);
        assert!(!is_seen("registry-tests/one#7"));
        let _nobody = Seat::outside("registry-tests/outside");
        assert!(!is_seen("registry-tests/outside"));
    }

    #[test]
    fn the_message_in_hand_is_named_with_its_start_and_its_connection() {
        let seat = seat("registry-tests/two");
        assert!(seat.in_hand().is_none());
        let connection = ConnectionId::from_random(*b"12345678");
        let start = Moment::from_nanos(5_000_000);
        seat.takes(Label::of("Tested"), Some(connection), start);
        let in_hand = seat.in_hand().expect("in hand");
        assert_eq!((in_hand.what.name(), in_hand.since), ("Tested", start));
        assert_eq!(in_hand.connection, Some(connection));
        seat.is_done(Duration::from_millis(3));
        assert!(seat.in_hand().is_none());
        assert_eq!((seat.handled(), seat.busy()), (1, Duration::from_millis(3)));
    }

    #[test]
    fn a_wait_is_seen_for_as_long_as_its_guard_lives() {
        let seat = seat("registry-tests/three");
        let wait = |name| seat.waits(Label::of(name), "x".into(), Duration::from_secs(1), None, Moment::now());
        let first = wait("First");
        let second = wait("Second");
        let names = |seat: &Seat| {
            seat.open_waits()
                .0
                .iter()
                .map(|wait| wait.what.name())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&seat), ["First", "Second"]);
        drop(first);
        assert_eq!(names(&seat), ["Second"]);
        drop(second);
        assert!(names(&seat).is_empty());
    }

    #[test]
    fn more_waits_than_can_be_told_apart_are_counted() {
        let seat = seat("registry-tests/four");
        let wait = |_| seat.waits(Label::of("Many"), "x".into(), Duration::ZERO, None, Moment::now());
        let guards: Vec<_> = (0..WAITS_MAX + 3).map(wait).collect();
        assert_eq!((seat.open_waits().0.len(), seat.open_waits().1), (WAITS_MAX, 3));
        drop(guards);
        assert_eq!((seat.open_waits().0.len(), seat.open_waits().1), (0, 0));
    }
}
