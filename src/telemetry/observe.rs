//! Who looks at the process: once a second by a thread of its own, so that it is known since when nothing has moved, and
//! whenever somebody asks.
//!
//! The thread is no actor and shares no runtime with any: what blocks them does not block it.

use super::announce::{Announcer, RuleCount};
use super::drawn;
use super::look::{Facts, Memory, Snapshot, side_of};
use super::part;
use super::record;
use super::stuck::{self, Found, StuckRule};
use super::view::{ActorView, ConnectionView, LeftOut, NodeView, RecordView, Side, TracePart, WAITS_SHOWN, Whose};
use super::{registry, relays};
use crate::model::{ConnectionId, Moment};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the process is looked at: stuck is what lasts for seconds.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Records of one actor that an answer has, the newest: more than a screen, and less than a busy actor's whole ring.
const ACTOR_RECORDS: usize = 200;

/// Which process this is.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub node: String,
    pub node_id: String,
    pub version: String,
    pub services: Vec<String>,
}

/// Which connections are asked for; what is not set does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionFilter {
    pub user: Option<String>,
    /// A database service, or a database's name.
    pub database: Option<String>,
    pub state: Option<String>,
    pub side: Option<Side>,
}

/// The answer about one actor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one answer at a time, moved once")]
pub enum ActorAnswer {
    One {
        actor: ActorView,
        /// What it did lately, oldest first.
        records: Vec<RecordView>,
    },
    /// The name fits several; these are their paths.
    Several(Vec<String>),
    Nobody,
}

/// Looks at the process and remembers what it has to.
pub struct Observer {
    about: About,
    facts: Box<dyn Fn() -> Facts + Send>,
    memory: Memory,
    announcer: Announcer,
}

impl Observer {
    pub fn new(about: About) -> Self {
        Self {
            about,
            facts: Box::new(Facts::default),
            memory: Memory::default(),
            announcer: Announcer::default(),
        }
    }

    /// Where that comes from which no seat and no gauge says. It is asked at each look.
    #[must_use]
    pub fn with_facts(mut self, facts: impl Fn() -> Facts + Send + 'static) -> Self {
        self.facts = Box::new(facts);
        self
    }

    /// The same, where that is known only when the node is put together.
    pub fn knows(&mut self, facts: impl Fn() -> Facts + Send + 'static) {
        self.facts = Box::new(facts);
    }

    /// Which node of the cluster it is, where that is known only when it has joined.
    pub fn is_node(&mut self, node_id: String) {
        self.about.node_id = node_id;
    }

    pub fn shared(self) -> SharedObserver {
        SharedObserver(Arc::new(Mutex::new(self)))
    }

    fn snapshot(&mut self, now: Moment) -> Snapshot {
        // Relays first: one that is listed has its actor for as long.
        let gauges = relays::all();
        self.memory.look(gauges, &registry::seats(), (self.facts)(), now)
    }

    /// The look of each second: what has moved is remembered, and what began or ended to be stuck is logged.
    pub fn watch_at(&mut self, now: Moment) {
        let found = stuck::findings(&self.snapshot(now));
        for said in self.announcer.hear(&found, now) {
            said.log();
        }
    }

    pub fn look(&mut self) -> NodeView {
        self.look_at(Moment::now())
    }

    pub fn look_at(&mut self, now: Moment) -> NodeView {
        let look = self.snapshot(now);
        let ended = relays::ended();
        let mut actors: Vec<ActorView> = look.actors.iter().map(|actor| drawn::actor(actor, now)).collect();
        actors.sort_by(|a, b| drawn::in_tree_order(&a.path, &b.path));
        NodeView {
            node: self.about.node.clone(),
            node_id: self.about.node_id.clone(),
            version: self.about.version.clone(),
            services: self.about.services.clone(),
            at: now.to_timestamp().to_string(),
            uptime_us: now.as_nanos() / 1000,
            actors,
            exits: registry::exits()
                .iter()
                .rev()
                .map(|exit| drawn::exit(exit, &ended))
                .collect(),
            relays: look.relays.iter().map(|relay| drawn::relay(relay, now)).collect(),
            findings: stuck::findings(&look)
                .iter()
                .map(|found| found.to_finding(now))
                .collect(),
            records: record::written(),
            left_out: LeftOut::default(),
        }
    }

    /// What is stuck now, the deepest cause first.
    pub fn findings_at(&mut self, now: Moment) -> Vec<Found> {
        stuck::findings(&self.snapshot(now))
    }

    pub fn connections(&mut self, filter: &ConnectionFilter) -> Vec<ConnectionView> {
        self.connections_at(filter, Moment::now())
    }

    pub fn connections_at(&mut self, filter: &ConnectionFilter, now: Moment) -> Vec<ConnectionView> {
        let look = self.snapshot(now);
        let node = &self.about.node;
        let relayed = look.relays.iter().map(|relay| ConnectionView {
            connection: relay.gauge.spec.connection.to_string(),
            node: node.clone(),
            side: relay.gauge.spec.side,
            relay: Some(drawn::relay(relay, now)),
            whose: Some(relay.gauge.spec.whose.clone()),
            waits_for: Vec::new(),
            state: relay.state.to_owned(),
            age_us: drawn::micros(now.since(relay.gauge.since)),
        });
        let has_relay: HashSet<(Side, ConnectionId)> = look
            .relays
            .iter()
            .map(|relay| (relay.gauge.spec.side, relay.gauge.spec.connection))
            .collect();
        let early = look.actors.iter().filter_map(|actor| {
            let (side, connection) = (side_of(actor.kind())?, actor.connection?);
            (!has_relay.contains(&(side, connection))).then(|| ConnectionView {
                connection: connection.to_string(),
                node: node.clone(),
                side,
                relay: None,
                whose: actor.whose.as_deref().cloned(),
                waits_for: actor
                    .waits
                    .iter()
                    .take(WAITS_SHOWN)
                    .map(|wait| wait.for_whom.to_string())
                    .collect(),
                state: actor.state.name().to_owned(),
                age_us: drawn::micros(now.since(actor.since)),
            })
        });
        relayed.chain(early).filter(|view| filter.fits(view)).collect()
    }

    /// What this process has of a connection; `None` when it knows nothing of it.
    pub fn part(&mut self, connection: ConnectionId) -> Option<TracePart> {
        self.part_at(connection, Moment::now())
    }

    pub fn part_at(&mut self, connection: ConnectionId, now: Moment) -> Option<TracePart> {
        let look = self.snapshot(now);
        part::of(&self.about.node, connection, &look)
    }

    /// One actor by its path, the end of its path, or the beginning of its name.
    pub fn actor(&mut self, name: &str) -> ActorAnswer {
        self.actor_at(name, Moment::now())
    }

    pub fn actor_at(&mut self, name: &str, now: Moment) -> ActorAnswer {
        let look = self.snapshot(now);
        let name = name.trim_matches('/');
        let fits: [&dyn Fn(&str) -> bool; 3] = [
            &|path| path == name,
            &|path| path.strip_suffix(name).is_some_and(|before| before.ends_with('/')),
            &|path| path.rsplit('/').next().is_some_and(|last| last.starts_with(name)),
        ];
        for fits in fits {
            let named: Vec<_> = look.actors.iter().filter(|actor| fits(&actor.path)).collect();
            match named.as_slice() {
                [] => {}
                [actor] => {
                    return ActorAnswer::One {
                        actor: drawn::actor(actor, now),
                        records: part::records_of(&actor.path, ACTOR_RECORDS),
                    };
                }
                several => {
                    let mut paths: Vec<String> = several.iter().map(|actor| actor.path.to_string()).collect();
                    paths.sort_by(|a, b| drawn::in_tree_order(a, b));
                    return ActorAnswer::Several(paths);
                }
            }
        }
        ActorAnswer::Nobody
    }

    /// How often each rule has found something, and what of it is open.
    pub fn counts(&self) -> Vec<(StuckRule, RuleCount)> {
        self.announcer.counts()
    }
}

impl ConnectionFilter {
    fn fits(&self, view: &ConnectionView) -> bool {
        let of_whom = Whose::fits(view.whose.as_ref(), self.user.as_deref(), self.database.as_deref());
        let in_state = self.state.as_ref().is_none_or(|wanted| *wanted == view.state);
        of_whom && in_state && self.side.is_none_or(|side| side == view.side)
    }
}

/// An observer that several threads may ask.
#[derive(Clone)]
pub struct SharedObserver(Arc<Mutex<Observer>>);

impl SharedObserver {
    pub fn observer(&self) -> MutexGuard<'_, Observer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that looks each second; it ends when the watch is dropped.
    pub fn watch(&self) -> io::Result<Watch> {
        let (until, ended) = mpsc::channel::<()>();
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("observer".to_owned()).spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                shared.observer().watch_at(Moment::now());
            }
        })?;
        Ok(Watch {
            until: Some(until),
            thread: Some(thread),
        })
    }
}

/// The thread that looks each second.
#[derive(Debug)]
pub struct Watch {
    until: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.until.take();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
