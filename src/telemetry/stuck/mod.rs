//! What is stuck: rules over one look at the process, each of which says in a sentence what stands still, since when and because
//! of whom, and what to look at next.
//!
//! They are pure functions of a [`Snapshot`]. What is merely slow, or rests, is no finding: a client that thinks, with or without
//! an open transaction, is never one, and a long query is told as what it may be.

mod actors;
mod relays;
#[cfg(test)]
mod tests;
mod tunnels;
#[cfg(test)]
mod turn_tests;
mod waits;

use super::drawn::micros;
use super::look::Snapshot;
use super::view::{Finding, Side};
use crate::model::{ConnectionId, Moment};
use std::cmp::Reverse;
use std::time::Duration;

/// The rules, as a closed list: a metric's label is one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StuckRule {
    StoreSlow,
    HandlerSlow,
    MailboxFull,
    ReplyOverdue,
    StreamBacklog,
    UpstreamSilent,
    ClientNotReading,
    HalfOpen,
    NoProgress,
    LeakedRelay,
    MailboxStalled,
}

/// A turn of a handler takes microseconds; after this nobody else on its thread has been served for long enough to be felt.
pub const HANDLER_SLOW_AFTER: Duration = Duration::from_secs(1);
/// The disk's turn: an fsync of a busy disk takes a tenth of it.
pub const STORE_SLOW_AFTER: Duration = Duration::from_secs(1);
/// A burst fills a mailbox for a moment; one that stays crowded for so long is not emptied.
pub const CROWDED_AFTER: Duration = Duration::from_secs(1);
/// Whoever has nothing in hand takes what waits within microseconds; two looks of each second see the same message.
pub const STALLED_AFTER: Duration = Duration::from_secs(2);
/// An answer is overdue at half of its deadline, so that it is seen before the asker gives up, and after this at the latest: the
/// longest that anything within a cluster takes is the opening of a session, a second.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(5);
/// A reader that takes nothing for so long is not just busy: it is longer than any pause of a scheduler, and shorter than people wait.
pub const SINK_STILL_AFTER: Duration = Duration::from_secs(5);
/// Who reads slowly takes nothing for as long as the buffers of two kernels last, some megabytes: 50 KB/s empty them in less.
pub const SINK_STILL_ALARMS_AFTER: Duration = Duration::from_secs(60);
/// Until then a query is a query. After it, whoever waits for it asks.
pub const UPSTREAM_SILENT_AFTER: Duration = Duration::from_secs(30);
/// Where the agent's own looks at PostgreSQL fail as well, nobody has to ask whether it is a long query: as long as a reader's pause.
pub const UPSTREAM_SICK_AFTER: Duration = SINK_STILL_AFTER;
/// The last words and a half-closed client each have 10 s at most.
pub const HALF_OPEN_AFTER: Duration = Duration::from_secs(10);
/// A client in the middle of a request, or a relay that ends: neither takes a minute of silence.
pub const NO_PROGRESS_AFTER: Duration = Duration::from_secs(60);
/// A relay and its actor do not end at the same instant, nor is a session listed at the instant at which its relay begins.
pub const LEAKED_AFTER: Duration = Duration::from_secs(5);
/// Nodes speak every 2 s to each other: one beat was missed, with a second for the network.
pub const PEER_SILENT_AFTER: Duration = Duration::from_secs(3);

impl StuckRule {
    /// The deepest cause first.
    pub const ALL: [Self; 11] = [
        Self::StoreSlow,
        Self::HandlerSlow,
        Self::MailboxFull,
        Self::MailboxStalled,
        Self::ReplyOverdue,
        Self::StreamBacklog,
        Self::UpstreamSilent,
        Self::ClientNotReading,
        Self::HalfOpen,
        Self::NoProgress,
        Self::LeakedRelay,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::StoreSlow => "store_slow",
            Self::HandlerSlow => "handler_slow",
            Self::MailboxFull => "mailbox_full",
            Self::ReplyOverdue => "reply_overdue",
            Self::StreamBacklog => "stream_backlog",
            Self::UpstreamSilent => "upstream_silent",
            Self::ClientNotReading => "client_not_reading",
            Self::HalfOpen => "half_open",
            Self::NoProgress => "no_progress",
            Self::LeakedRelay => "leaked_relay",
            Self::MailboxStalled => "mailbox_stalled",
        }
    }

    pub fn labelled(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.label() == label)
    }

    /// Whether an operator is always to act. A query that runs for long, a client that reads slowly, or one that pauses within a
    /// request, is told to whoever looks, and alarms nobody.
    pub const fn is_alarm(self) -> bool {
        !matches!(self, Self::UpstreamSilent | Self::ClientNotReading | Self::NoProgress)
    }
}

/// A finding of one rule, as the rules make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub rule: StuckRule,
    pub room: String,
    pub peer: String,
    pub sentence: String,
    pub next: String,
    pub since: Moment,
    pub connection: Option<ConnectionId>,
    /// Of a relay.
    pub side: Option<Side>,
    /// Although its rule alarms nobody, this one should.
    pub alarms: bool,
}

impl Found {
    /// The same thing, at another moment.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    pub fn key(&self) -> (StuckRule, &str, Option<Side>) {
        (self.rule, &self.room, self.side)
    }

    pub fn is_alarm(&self) -> bool {
        self.rule.is_alarm() || self.alarms
    }

    pub fn to_finding(&self, now: Moment) -> Finding {
        Finding {
            rule: self.rule.label().to_owned(),
            room: self.room.clone(),
            peer: self.peer.clone(),
            sentence: self.sentence.clone(),
            next: self.next.clone(),
            age_us: micros(now.since(self.since)),
            connection: self.connection.map(|connection| connection.to_string()),
        }
    }
}

/// All that is stuck, the deepest cause first.
pub fn findings(look: &Snapshot) -> Vec<Found> {
    let mut found = Vec::new();
    actors::find(look, &mut found);
    waits::find(look, &mut found);
    tunnels::find(look, &mut found);
    relays::find(look, &mut found);
    found.sort_by(|a, b| {
        let (side_a, side_b) = (by_depth(a.rule.label(), a.side), by_depth(b.rule.label(), b.side));
        side_a
            .cmp(&side_b)
            .then_with(|| by_age(a.rule, a.since, b.since))
            .then_with(|| a.room.cmp(&b.room))
    });
    found
}

/// Of asks within asks the last one is the deepest; of all else what is stuck for longest comes first.
fn by_age(rule: StuckRule, a: Moment, b: Moment) -> std::cmp::Ordering {
    if rule == StuckRule::ReplyOverdue {
        Reverse(a).cmp(&Reverse(b))
    } else {
        a.cmp(&b)
    }
}

/// How near to the cause a finding is, the nearest first: by its rule, and of the two relays of one connection by who is nearer
/// to the one that is waited for. That is the agent's on the way to PostgreSQL, and the proxy's where the client is waited for.
pub fn by_depth(rule: &str, side: Option<Side>) -> (usize, bool) {
    let rule = StuckRule::labelled(rule);
    let place = rule.and_then(|rule| StuckRule::ALL.iter().position(|other| *other == rule));
    let nearer = match rule {
        Some(StuckRule::ClientNotReading | StuckRule::NoProgress) => Side::Proxy,
        _ => Side::Agent,
    };
    let is_farther = side.is_some_and(|side| side != nearer);
    (place.unwrap_or(usize::MAX), is_farther)
}

/// A length as people say it.
pub fn lasting(length: Duration) -> String {
    let secs = length.as_secs();
    match secs {
        0 if length < Duration::from_millis(1) => format!("{} us", length.as_micros()),
        0 => format!("{} ms", length.as_millis()),
        1..10 => format!("{secs}.{} s", length.subsec_millis() / 100),
        10..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        _ => format!("{} h {} min", secs / 3600, secs / 60 % 60),
    }
}

fn few(names: &[&str]) -> String {
    /// Names that a sentence has; more are counted.
    const NAMED_MAX: usize = 3;
    let named = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// What to type where a PostgreSQL does not even greet: one that is asked by SQL would not answer that, either.
fn ask_its_machine(server: &str) -> String {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "5432"));
    let host = host.trim_matches(['[', ']']);
    format!(
        "on the agent's machine: pg_isready -h {host} -p {port}. If that has no answer, on the machine of {server}: systemctl status \
         postgresql, ps -C postgres -o pid,stat,wchan,args (T is stopped, D waits for a disk), df -h, and the end of its log"
    )
}

/// What to type or to look at when this one is waited for.
fn next_about(peer: &str) -> String {
    if let Some(agent) = peer.strip_prefix("agent ") {
        format!("postern actors --node {agent}, or postern actors on the machine of agent {agent}")
    } else if let Some(server) = peer.strip_prefix("PostgreSQL at ") {
        ask_its_machine(server)
    } else if let Some(proxy) = peer.strip_prefix("proxy ") {
        format!("postern actors --node {proxy}, or postern actors on the machine of proxy {proxy}")
    } else if peer.starts_with("auth") && !peer.contains(['/', '-']) {
        "postern actors on the machine of auth".to_owned()
    } else if peer.contains(' ') {
        format!("look at {peer}")
    } else {
        format!("postern actor {peer}")
    }
}
