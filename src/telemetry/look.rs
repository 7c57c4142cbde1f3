//! One look at the process: everybody's seat and every relay at one moment, as plain values, and what a look remembers of
//! the looks before it. A look copies no text, so that it costs little with as many relays as a node can have.

use super::label::Label;
use super::registry::{Failure, InHand, Seat, Wait};
use super::relays::{Gauge, WaitsFor, Way};
use super::view::{Side, Whose};
use crate::model::{ConnectionId, Moment, SessionId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Each runtime says every second that it turns, and the process is looked at as often: one turn was missed, and more.
pub const STANDS_AFTER: Duration = Duration::from_millis(2500);

/// A mailbox counts as crowded from nine tenths of its bound.
const fn is_crowded(queued: u32, bound: u32) -> bool {
    bound > 0 && queued as u64 * 10 >= bound as u64 * 9
}

/// What the process knows that is neither a seat nor a gauge.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub databases: Vec<DatabaseFact>,
    pub tunnels: Vec<TunnelFact>,
    pub runtimes: Vec<RuntimeFact>,
    /// The sessions that can be ended, where somebody keeps a list of them.
    pub sessions: Option<HashSet<SessionId>>,
}

/// A runtime of this process.
#[derive(Debug, Clone)]
pub struct RuntimeFact {
    pub name: String,
    /// How long ago it turned.
    pub still: Duration,
}

/// What the agent's own looks at a database say.
#[derive(Debug, Clone)]
pub struct DatabaseFact {
    /// The database service.
    pub database: String,
    pub healthy: bool,
    /// Why not.
    pub detail: String,
}

/// A connection to another node, as this one sees it.
#[derive(Debug, Clone)]
pub struct TunnelFact {
    /// The path of its actor.
    pub path: String,
    /// `agent NAME`, `proxy NAME`, or `auth`.
    pub peer: String,
    /// When the peer said something last.
    pub heard: Moment,
    /// After so long without a word it is given up.
    pub given_up_after: Duration,
    /// Streams that wait to be taken, and how many may.
    pub inbound: u32,
    pub inbound_bound: u32,
}

/// One actor, or thread, at one moment.
#[derive(Debug, Clone)]
pub struct ActorLook {
    pub path: Arc<str>,
    pub rule: &'static str,
    pub runtime: Option<Arc<str>>,
    pub state: Label,
    pub state_since: Moment,
    pub since: Moment,
    pub queued: u32,
    pub bound: u32,
    /// Since when its mailbox is crowded, as far as anybody looked.
    pub crowded_since: Option<Moment>,
    /// Since when messages wait and it has taken none, as far as anybody looked.
    pub stalled_since: Option<Moment>,
    pub in_hand: Option<InHand>,
    pub waits: Vec<Wait>,
    /// Further waits, which are only counted.
    pub uncounted: u32,
    pub handled: u64,
    pub busy: Duration,
    pub restarts: u32,
    pub last_failure: Option<Failure>,
    pub connection: Option<ConnectionId>,
    pub whose: Option<Arc<Whose>>,
}

impl ActorLook {
    fn of(seat: &Seat) -> Self {
        let (state, state_since) = seat.state();
        let (waits, uncounted) = seat.open_waits();
        let restarts = seat.restarts();
        Self {
            path: seat.path().clone(),
            rule: seat.rule(),
            runtime: seat.runtime(),
            state,
            state_since,
            since: seat.since(),
            queued: seat.queued(),
            bound: seat.bound(),
            crowded_since: None,
            stalled_since: None,
            in_hand: seat.in_hand(),
            waits,
            uncounted,
            handled: seat.handled(),
            busy: seat.busy(),
            restarts,
            last_failure: if restarts > 0 { seat.last_failure() } else { None },
            connection: seat.connection(),
            whose: seat.whose(),
        }
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The name without what tells it from its like.
    pub fn kind(&self) -> &str {
        kind_of(&self.path)
    }

    pub fn is_thread(&self) -> bool {
        self.rule == "thread"
    }

    fn may_be_stalled(&self) -> bool {
        self.queued > 0 && self.in_hand.is_none() && !self.is_thread()
    }

    /// It works for this connection, as a whole or just now.
    pub fn works_for(&self, connection: ConnectionId) -> bool {
        let connection = Some(connection);
        self.connection == connection
            || self.in_hand.is_some_and(|in_hand| in_hand.connection == connection)
            || self.waits.iter().any(|wait| wait.connection == connection)
    }
}

/// One direction of a relay at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayLook {
    pub bytes: u64,
    pub waits_for: WaitsFor,
    /// Since when it has been so, as far as anybody looked.
    pub since: Moment,
}

impl WayLook {
    /// A way of a relay that nobody has looked at before. One that never moved has been so from its beginning.
    fn first(way: &Way, begun: Moment, now: Moment) -> Self {
        let (bytes, waits_for) = (way.bytes(), way.waits_for());
        let never_moved = bytes == 0 && waits_for == WaitsFor::Source;
        Self {
            bytes,
            waits_for,
            since: if never_moved { begun } else { now },
        }
    }

    fn again(self, way: &Way, now: Moment) -> Self {
        let (bytes, waits_for) = (way.bytes(), way.waits_for());
        let is_still = bytes == self.bytes && waits_for == self.waits_for;
        Self {
            bytes,
            waits_for,
            since: if is_still { self.since } else { now },
        }
    }
}

/// What a relay lacks that it cannot be without for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacks {
    Actor,
    Session,
}

/// One relay at one moment.
#[derive(Debug, Clone)]
pub struct RelayLook {
    pub gauge: Arc<Gauge>,
    pub state: &'static str,
    pub state_since: Moment,
    pub to_upstream: WayLook,
    pub to_client: WayLook,
    /// The other side has said something since the client did.
    pub answered: bool,
    pub lacks: Option<(Lacks, Moment)>,
}

impl RelayLook {
    /// Since when neither direction has moved.
    pub fn still_since(&self) -> Moment {
        self.to_upstream.since.max(self.to_client.since)
    }
}

/// One runtime at one moment.
#[derive(Debug, Clone)]
pub struct RuntimeLook {
    pub name: String,
    /// How long it has not turned, while this process ran.
    pub still: Duration,
    /// Since when its actors can have seen what others send, as far as anybody looked.
    pub attends_since: Moment,
}

impl RuntimeLook {
    pub fn stands(&self) -> bool {
        self.still > STANDS_AFTER
    }
}

/// The process at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub now: Moment,
    /// In the order of their start.
    pub actors: Vec<ActorLook>,
    pub relays: Vec<RelayLook>,
    pub runtimes: Vec<RuntimeLook>,
    /// When the process went on after it had been stopped, as far as anybody looked.
    pub woke: Moment,
    pub facts: Facts,
}

impl Snapshot {
    pub fn actor(&self, path: &str) -> Option<&ActorLook> {
        self.actors.iter().find(|actor| &*actor.path == path)
    }

    fn runtime_of(&self, actor: &ActorLook) -> Option<&RuntimeLook> {
        let name = actor.runtime.as_deref()?;
        self.runtimes.iter().find(|runtime| runtime.name == name)
    }

    /// Its runtime, where that does not turn.
    pub fn stands_with(&self, actor: &ActorLook) -> Option<&RuntimeLook> {
        self.runtime_of(actor).filter(|runtime| runtime.stands())
    }

    /// Since when this actor can have seen what others send. What it missed before is nobody's silence.
    pub fn attends_since(&self, actor: Option<&ActorLook>) -> Moment {
        let runtime = actor.and_then(|actor| self.runtime_of(actor));
        runtime.map_or(self.woke, |runtime| runtime.attends_since)
    }

    /// How many other actors share its thread.
    pub fn neighbours(&self, actor: &ActorLook) -> usize {
        let Some(runtime) = &actor.runtime else { return 0 };
        let shares = |other: &&ActorLook| other.runtime.as_ref() == Some(runtime) && other.path != actor.path;
        self.actors.iter().filter(shares).count()
    }
}

/// What was seen of one relay by the look before.
#[derive(Debug, Clone, Copy)]
struct Seen {
    state: &'static str,
    state_since: Moment,
    to_upstream: WayLook,
    to_client: WayLook,
    lacks: Option<(Lacks, Moment)>,
}

/// What is remembered between two looks: as much as there are relays, runtimes, and mailboxes in which something waits.
#[derive(Debug, Default)]
pub struct Memory {
    relays: HashMap<u64, Seen>,
    crowded: HashMap<Arc<str>, Moment>,
    /// How many messages each had handled, and since when it is as many.
    stalled: HashMap<Arc<str>, (u64, Moment)>,
    last: Option<Moment>,
    woke: Moment,
    /// When each runtime was last seen not to turn.
    stood: HashMap<String, Moment>,
}

impl Memory {
    /// Looks at these relays and seats. Relays are to be listed before seats: an actor outlives its relay.
    pub fn look(&mut self, gauges: Vec<Arc<Gauge>>, seats: &[Arc<Seat>], facts: Facts, now: Moment) -> Snapshot {
        let mut actors: Vec<ActorLook> = seats.iter().map(|seat| ActorLook::of(seat)).collect();
        self.note_crowded(&mut actors, now);
        self.note_stalled(&mut actors, now);
        let served: HashSet<(Side, ConnectionId)> = actors.iter().filter_map(serves_side).collect();
        let mut seen = HashMap::with_capacity(gauges.len());
        let relays = gauges
            .into_iter()
            .map(|gauge| {
                let missing = missing(&gauge, &served, facts.sessions.as_ref());
                let look = Self::look_at(self.relays.get(&gauge.number()), gauge, missing, now);
                seen.insert(look.gauge.number(), Seen::of(&look));
                look
            })
            .collect();
        self.relays = seen;
        let runtimes = self.note_turns(&facts.runtimes, now);
        Snapshot {
            now,
            actors,
            relays,
            runtimes,
            woke: self.woke,
            facts,
        }
    }

    fn look_at(before: Option<&Seen>, gauge: Arc<Gauge>, missing: Option<Lacks>, now: Moment) -> RelayLook {
        let state = gauge.state();
        let begun = gauge.since;
        let lacked = before.and_then(|seen| seen.lacks);
        let lacks = missing.map(|what| match lacked {
            Some((same, since)) if same == what => (what, since),
            _ => (what, now),
        });
        let (state_since, to_upstream, to_client) = match before {
            Some(seen) => (
                if seen.state == state { seen.state_since } else { now },
                seen.to_upstream.again(&gauge.to_upstream, now),
                seen.to_client.again(&gauge.to_client, now),
            ),
            None => (
                now,
                WayLook::first(&gauge.to_upstream, begun, now),
                WayLook::first(&gauge.to_client, begun, now),
            ),
        };
        RelayLook {
            answered: gauge.has_answered(),
            gauge,
            state,
            state_since,
            to_upstream,
            to_client,
            lacks,
        }
    }

    fn note_crowded(&mut self, actors: &mut [ActorLook], now: Moment) {
        let mut crowded = HashMap::new();
        for actor in actors.iter_mut().filter(|actor| is_crowded(actor.queued, actor.bound)) {
            let since = self.crowded.get(&actor.path).copied().unwrap_or(now);
            actor.crowded_since = Some(since);
            crowded.insert(actor.path.clone(), since);
        }
        self.crowded = crowded;
    }

    fn note_turns(&mut self, facts: &[RuntimeFact], now: Moment) -> Vec<RuntimeLook> {
        // Whoever looks each second and did not was stopped, and all runtimes with it.
        if self.last.is_some_and(|last| now.since(last) > STANDS_AFTER) {
            self.woke = now;
        }
        self.last = Some(now);
        let mut runtimes = Vec::with_capacity(facts.len());
        for fact in facts {
            let mut runtime = RuntimeLook {
                name: fact.name.clone(),
                still: fact.still.min(now.since(self.woke)),
                attends_since: self.woke,
            };
            if runtime.stands() {
                self.stood.insert(fact.name.clone(), now);
            }
            if let Some(stood) = self.stood.get(&fact.name) {
                runtime.attends_since = self.woke.max(*stood);
            }
            runtimes.push(runtime);
        }
        runtimes
    }

    fn note_stalled(&mut self, actors: &mut [ActorLook], now: Moment) {
        let mut stalled = HashMap::new();
        for actor in actors.iter_mut().filter(|actor| actor.may_be_stalled()) {
            let since = match self.stalled.get(&actor.path) {
                Some((handled, since)) if *handled == actor.handled => *since,
                _ => now,
            };
            actor.stalled_since = Some(since);
            stalled.insert(actor.path.clone(), (actor.handled, since));
        }
        self.stalled = stalled;
    }
}

impl Seen {
    fn of(look: &RelayLook) -> Self {
        Self {
            state: look.state,
            state_since: look.state_since,
            to_upstream: look.to_upstream,
            to_client: look.to_client,
            lacks: look.lacks,
        }
    }
}

/// The last part of a path, without what tells it from its like.
pub fn kind_of(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.split('#').next().unwrap_or_default()
}

/// Which side's relay lives in a task of this actor.
pub fn side_of(kind: &str) -> Option<Side> {
    match kind {
        "connection" => Some(Side::Proxy),
        "upstream" => Some(Side::Agent),
        _ => None,
    }
}

fn serves_side(actor: &ActorLook) -> Option<(Side, ConnectionId)> {
    Some((side_of(actor.kind())?, actor.connection?))
}

fn missing(
    gauge: &Gauge,
    served: &HashSet<(Side, ConnectionId)>,
    sessions: Option<&HashSet<SessionId>>,
) -> Option<Lacks> {
    let spec = &gauge.spec;
    if !served.contains(&(spec.side, spec.connection)) {
        Some(Lacks::Actor)
    } else if sessions.is_some_and(|sessions| !sessions.contains(&spec.session)) {
        Some(Lacks::Session)
    } else {
        None
    }
}
