//! Everything that this process counts, in one place: the rooms that do something count it here, and `/metrics` shows it.

use super::count::{Counter, Counters, Durations, DurationsOf, Labels, Latest, Level, Present, labels};
use crate::model::RefusalKind;

labels! {
    /// What an accepted connection turned out to be.
    ConnectionKind {
        PostgreSql => "postgresql",
        Cancel => "cancel",
        Node => "node",
        Person => "person",
        Http => "http",
        // Answered without a session, or gone before it said anything.
        Answered => "answered",
        Failed => "failed",
    }

    CancelOutcome {
        CarriedOut => "carried_out",
        Failed => "failed",
        // Not looked at, or not looked for at other proxies.
        Limited => "limited",
    }

    LoginOutcome {
        Success => "success",
        Denied => "denied",
        TooMany => "too_many",
        Unavailable => "unavailable",
    }

    /// As the audit log has it (`cert_type`).
    CertificateKind {
        DbClient => "db-client",
        Person => "user",
        DbServer => "db",
        Host => "host",
    }

    /// The last letter of an event's code.
    EventClass {
        Information => "information",
        Warning => "warning",
        Error => "error",
    }

    StoreOperation {
        Get => "get",
        Put => "put",
        Create => "create",
        CompareAndSwap => "compare_and_swap",
        Delete => "delete",
        Range => "range",
        Watch => "watch",
    }
}

impl Labels for RefusalKind {
    const ALL: &'static [Self] = Self::ALL;

    fn label(self) -> &'static str {
        self.label()
    }

    fn place(self) -> usize {
        self as usize
    }
}

const REFUSALS: usize = RefusalKind::ALL.len();

/// The sessions of one service.
#[derive(Debug)]
pub struct SessionMetrics {
    pub open: Level,
    pub opened: Counter,
    /// Ended with a reason that the client read.
    pub ended: Counters<RefusalKind, REFUSALS>,
    /// Ended by the client or PostgreSQL.
    pub finished: Counter,
    /// The connection to the other node, or the relay, failed.
    pub failed: Counter,
    /// Refused before there was one.
    pub refused: Counters<RefusalKind, REFUSALS>,
    pub bytes_to_upstream: Counter,
    pub bytes_to_client: Counter,
}

impl SessionMetrics {
    const fn new() -> Self {
        Self {
            open: Level::new(),
            opened: Counter::new(),
            ended: Counters::zero(),
            finished: Counter::new(),
            failed: Counter::new(),
            refused: Counters::zero(),
            bytes_to_upstream: Counter::new(),
            bytes_to_client: Counter::new(),
        }
    }

    pub fn open(&'static self) -> Present {
        self.opened.one_more();
        self.open.enter()
    }

    pub fn ended(&self, reason: Option<RefusalKind>) {
        match reason {
            Some(kind) => self.ended.of(kind).one_more(),
            None => self.finished.one_more(),
        }
    }

    pub fn relayed(&self, to_upstream: u64, to_client: u64) {
        self.bytes_to_upstream.add(to_upstream);
        self.bytes_to_client.add(to_client);
    }
}

/// Each field is a metric of docs/operating.md.
#[derive(Debug)]
pub struct Metrics {
    pub connections: Counters<ConnectionKind, 7>,
    /// Closed at once, because as many as may be are open.
    pub connections_turned_away: Counter,
    /// Closed at once, because of those of their address that had not shown yet who they are.
    pub strangers_turned_away: Counter,
    pub proxy: SessionMetrics,
    pub agent: SessionMetrics,
    /// From the accepted connection to the open session, on a proxy.
    pub session_opening: Durations,
    pub cancels: Counters<CancelOutcome, 3>,
    pub logins: Counters<LoginOutcome, 4>,
    pub certificates: Counters<CertificateKind, 4>,
    pub certificates_refused: Counter,
    pub audit_events: Counters<EventClass, 3>,
    pub audit_fsync: Durations,
    pub store: DurationsOf<StoreOperation, 7>,
    pub store_errors: Counters<StoreOperation, 7>,
    /// The last of these errors.
    pub store_failed: Latest,
    /// Of a proxy, with agents.
    pub tunnels: Level,
    /// Of auth, with nodes.
    pub links: Level,
    /// Of an agent, to proxies.
    pub dialers: Level,
}

/// Those of this process.
pub static METRICS: Metrics = Metrics {
    connections: Counters::zero(),
    connections_turned_away: Counter::new(),
    strangers_turned_away: Counter::new(),
    proxy: SessionMetrics::new(),
    agent: SessionMetrics::new(),
    session_opening: Durations::zero(),
    cancels: Counters::zero(),
    logins: Counters::zero(),
    certificates: Counters::zero(),
    certificates_refused: Counter::new(),
    audit_events: Counters::zero(),
    audit_fsync: Durations::zero(),
    store: DurationsOf::zero(),
    store_errors: Counters::zero(),
    store_failed: Latest::never(),
    tunnels: Level::new(),
    links: Level::new(),
    dialers: Level::new(),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_place_of_its_own() {
        for (place, kind) in <RefusalKind as Labels>::ALL.iter().enumerate() {
            assert_eq!(kind.place(), place);
        }
    }

    #[test]
    fn a_session_counts_as_open_until_it_is_gone() {
        static SESSIONS: SessionMetrics = SessionMetrics::new();
        let open = SESSIONS.open();
        assert_eq!((SESSIONS.open.get(), SESSIONS.opened.get()), (1, 1));
        drop(open);
        SESSIONS.ended(None);
        SESSIONS.ended(Some(RefusalKind::IdleTimeout));
        assert_eq!((SESSIONS.open.get(), SESSIONS.opened.get()), (0, 1));
        assert_eq!(SESSIONS.finished.get(), 1);
        assert_eq!(SESSIONS.ended.of(RefusalKind::IdleTimeout).get(), 1);
    }
}
