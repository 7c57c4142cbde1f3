//! What is shown of a process: its actors, its relays, what is wrong, and the trace of one connection. These types are the
//! JSON of the debug service and of the API, and what the tables of the command line are drawn from.
//!
//! Times are of this process: `at` is what its clock showed, `..._us` is a length in microseconds. An `age_us` is how long
//! something has lasted when the view was made.

use super::record::RecordKind;
use serde::{Deserialize, Serialize};

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub node: String,
    pub node_id: String,
    pub version: String,
    pub services: Vec<String>,
    /// RFC 3339.
    pub at: String,
    pub uptime_us: u64,
    /// In the order of their paths: a parent before its children.
    pub actors: Vec<ActorView>,
    /// Those that ended last, newest first.
    pub exits: Vec<ExitView>,
    pub relays: Vec<RelayView>,
    pub findings: Vec<Finding>,
    /// Records ever made in this process.
    pub records: u64,
    /// What did not fit into an answer for another machine; those at rest are left out first.
    #[serde(default)]
    pub left_out: LeftOut,
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub actors: usize,
    pub exits: usize,
    pub relays: usize,
    pub findings: usize,
}

/// Whose a connection is, and what it is to. It is known from when the person's certificate is verified, long before there is a
/// relay; what is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Whose {
    pub user: String,
    /// The database service.
    pub database: String,
    pub db_user: String,
    pub db_name: String,
    /// Where the client is.
    pub client: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorView {
    pub path: String,
    pub kind: String,
    /// `permanent`, `transient`, `temporary`; `thread` of what is no actor but works for them.
    pub rule: String,
    pub runtime: Option<String>,
    pub state: String,
    pub state_age_us: u64,
    pub age_us: u64,
    pub queued: u32,
    pub bound: u32,
    pub in_hand: Option<InHandView>,
    /// The oldest first, at most [`WAITS_SHOWN`].
    pub waits: Vec<WaitView>,
    /// How many there are.
    pub waiting: u32,
    pub handled: u64,
    pub busy_us: u64,
    pub restarts: u32,
    pub last_failure: Option<FailureView>,
    pub connection: Option<String>,
    /// Of an actor that serves one connection.
    #[serde(default)]
    pub whose: Option<Whose>,
}

impl Whose {
    /// Of this person, and to this database service or database; what is not wanted does not matter. Of a connection of which it
    /// is not known (yet), nothing that is wanted fits.
    pub fn fits(whose: Option<&Self>, user: Option<&str>, database: Option<&str>) -> bool {
        let of_user = |wanted: &str| whose.is_some_and(|whose| whose.user == wanted);
        let of_database = |wanted: &str| {
            whose.is_some_and(|whose| [&whose.database, &whose.db_name].iter().any(|name| *name == wanted))
        };
        user.is_none_or(of_user) && database.is_none_or(of_database)
    }
}

/// Waits of one actor that a view has.
pub const WAITS_SHOWN: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InHandView {
    pub message: String,
    pub age_us: u64,
    pub connection: Option<String>,
}

/// An ask, or a question to a peer, that is not answered yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitView {
    pub message: String,
    pub to: String,
    pub age_us: u64,
    pub within_us: u64,
    pub connection: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureView {
    pub at: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitView {
    pub path: String,
    pub at: String,
    pub why: String,
    pub failed: bool,
    pub connection: Option<String>,
    /// Of the connection's actor: its relay as it was when it ended, where it had come so far.
    #[serde(default)]
    pub relay: Option<Box<RelayView>>,
    /// Likewise.
    #[serde(default)]
    pub whose: Option<Whose>,
}

/// Whom a process stands beside on a connection's way: the client, or PostgreSQL; or neither, as it is only asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Proxy,
    Agent,
    Auth,
}

impl Side {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Agent => "agent",
            Self::Auth => "auth",
        }
    }
}

/// One connection's bytes on their way, as one process sees them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayView {
    pub connection: String,
    pub session: String,
    pub side: Side,
    pub user: String,
    /// The database service.
    pub database: String,
    pub db_user: String,
    pub db_name: String,
    /// Where the client is.
    pub client: String,
    /// What is on the other side: `agent NAME`, or `PostgreSQL at HOST:PORT`.
    pub upstream: String,
    /// PostgreSQL's process id of the session, as in `pg_stat_activity`.
    pub process_id: u32,
    pub age_us: u64,
    /// `busy`: an answer is owed to the client, it is PostgreSQL's turn. `idle`: everything is answered. `idle in transaction`:
    /// so it is, and a transaction is open. `sending`: the client is in the middle of a request, or of the data of a COPY.
    /// `streaming`: a replication, in which nobody owes anything. `closing`: its last words are being said.
    pub state: String,
    pub state_age_us: u64,
    pub to_upstream: WayView,
    pub to_client: WayView,
}

impl RelayView {
    pub fn whose(&self) -> Whose {
        Whose {
            user: self.user.clone(),
            database: self.database.clone(),
            db_user: self.db_user.clone(),
            db_name: self.db_name.clone(),
            client: self.client.clone(),
        }
    }
}

impl ExitView {
    /// A node of an older version says it of its relay only.
    pub fn whose(&self) -> Option<Whose> {
        let relay = || self.relay.as_ref().map(|relay| relay.whose());
        self.whose.clone().or_else(relay)
    }
}

impl ConnectionView {
    /// Likewise.
    pub fn whose(&self) -> Option<Whose> {
        let relay = || self.relay.as_ref().map(RelayView::whose);
        self.whose.clone().or_else(relay)
    }
}

/// One direction of a relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayView {
    pub bytes: u64,
    /// What it waits for: `source` (nothing to read), `audit` (the spool takes no more), `sink` (the reader takes no more), `done`.
    pub waits_for: String,
    /// How long it has been so and nothing has moved, as far as anybody looked (to the second).
    pub still_us: u64,
}

/// Something that is wrong, in a sentence, with whom it is about and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Of the closed list of rules.
    pub rule: String,
    /// Where: an actor's path, or `connection ID`.
    pub room: String,
    /// Who is to blame, or is waited for.
    pub peer: String,
    /// What is wrong, since when, because of whom.
    pub sentence: String,
    /// What to type or to look at next.
    pub next: String,
    pub age_us: u64,
    pub connection: Option<String>,
}

/// One record, for people who read JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordView {
    pub at: String,
    /// Microseconds since the process began: two records of one process compare by it.
    pub at_us: u64,
    pub kind: RecordKind,
    pub what: String,
    pub id: u64,
    /// A record of the same process; of `arrived`, the message of the process that sent it.
    pub cause: Option<u64>,
    pub connection: Option<String>,
    pub from: Option<String>,
    pub to: String,
    pub queued_us: u64,
    pub busy_us: u64,
}

/// What one process has of one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracePart {
    pub node: String,
    pub side: Side,
    /// What its clock showed when this was made.
    pub at: String,
    pub records: Vec<RecordView>,
    /// Records before this moment may have been overwritten.
    pub whole_since: Option<String>,
    pub actors: Vec<ActorView>,
    /// That of the client's side first, where one process has both.
    pub relays: Vec<RelayView>,
    pub findings: Vec<Finding>,
    /// Actors of the connection that have ended, and how, newest first.
    #[serde(default)]
    pub ended: Vec<ExitView>,
    /// As far as this process knows.
    #[serde(default)]
    pub whose: Option<Whose>,
}

impl TracePart {
    /// Somebody of this process still works for the connection.
    pub fn lives(&self) -> bool {
        !self.relays.is_empty() || !self.actors.is_empty()
    }
}

/// A connection through all processes that it passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub connection: String,
    pub parts: Vec<TracePart>,
    /// Processes that should have a part and gave none, and why.
    pub missing: Vec<MissingPart>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MissingPart {
    pub node: String,
    pub why: String,
}

/// One line of a list of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    pub connection: String,
    pub node: String,
    pub side: Side,
    /// The relay, where it has come so far.
    pub relay: Option<RelayView>,
    /// Where it is known yet.
    #[serde(default)]
    pub whose: Option<Whose>,
    /// Whom it waits for before it has a relay, e.g. the agent that is to open it.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// Of the actor, where there is no relay yet.
    pub state: String,
    pub age_us: u64,
}
