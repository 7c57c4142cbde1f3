//! What an actor waits for beyond the actors of its process: peers, disks, and questions to other processes.
//!
//! Whoever waits holds a guard, so that everybody sees for whom, for what and since when. A question to another process is in
//! the record of both: its id is in the frame's header, and there it is the cause of what arrives.

use super::address::{Meta, Origin, nanos};
use crate::model::{MessageId, Moment};
use crate::telemetry::label::Label;
use crate::telemetry::record::{self, Record, RecordKind};
use crate::telemetry::registry::WaitGuard;
use std::sync::Arc;
use std::time::Duration;

/// Auth, as everybody else waits for it.
pub const AUTH: &str = "auth";
/// Stands for the limit of a wait that nobody gives up on.
pub const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);

impl Origin {
    /// It waits for `peer`, until the guard is dropped.
    pub fn waits_for(&self, what: &'static str, peer: impl Into<Arc<str>>, within: Duration) -> WaitGuard {
        let what = Label::of(what);
        self.from
            .waits(what, peer.into(), within, self.connection, Moment::now())
    }

    /// It asks another process, and waits for the answer until this is dropped.
    pub fn asks(&self, what: &'static str, peer: impl Into<Arc<str>>, within: Duration) -> PeerQuestion {
        let (what, to, meta) = (Label::of(what), peer.into(), Meta::new(self));
        record::write(meta.record(RecordKind::Sent, meta.sent, what, &to));
        let waits = self.from.waits(what, to.clone(), within, self.connection, meta.sent);
        PeerQuestion {
            meta,
            what,
            to,
            _waits: waits,
        }
    }

    /// What came from another process is the cause of what is done from here on: `sent` is its message there.
    pub fn arrived(&mut self, what: Label, from: Arc<str>, sent: Option<MessageId>) {
        let id = MessageId::next();
        record::write(Record {
            at: Moment::now(),
            kind: RecordKind::Arrived,
            what,
            id,
            cause: sent,
            connection: self.connection,
            from: Some(from),
            to: self.from.path().clone(),
            queued_ns: 0,
            busy_ns: 0,
        });
        self.cause = Some(id);
    }

    /// The actor is at another step of what it does for a message.
    pub fn enters(&self, state: &'static str) {
        self.from.enter(Label::of(state), self.cause, self.connection);
    }
}

/// A question to another process that is not answered yet. Its end, whichever, is in the record.
pub struct PeerQuestion {
    meta: Meta,
    what: Label,
    to: Arc<str>,
    _waits: WaitGuard,
}

impl PeerQuestion {
    /// For the frame's header.
    pub fn id(&self) -> u64 {
        self.meta.id.0
    }

    /// What caused it, likewise.
    pub fn cause(&self) -> Option<u64> {
        self.meta.origin.cause.map(|cause| cause.0)
    }
}

impl Drop for PeerQuestion {
    fn drop(&mut self) {
        let now = Moment::now();
        let mut answered = self.meta.record(RecordKind::Answered, now, self.what, &self.to);
        answered.queued_ns = nanos(now.since(self.meta.sent));
        record::write(answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConnectionId;
    use crate::telemetry::registry::{Seat, SeatSpec};

    fn origin(path: &str, connection: [u8; 8]) -> Origin {
        let spec = SeatSpec {
            path: path.into(),
            rule: "temporary",
            bound: 4,
        };
        Origin {
            from: Seat::take(spec),
            cause: Some(MessageId(77)),
            connection: Some(ConnectionId::from_random(connection)),
        }
    }

    #[test]
    fn a_peer_is_waited_for_as_long_as_the_guard_lives() {
        let origin = origin("peers-tests/one", *b"peersone");
        let waits = origin.waits_for("connect", "PostgreSQL at db:5432", Duration::from_secs(15));
        let (open, _) = origin.from.open_waits();
        assert_eq!(
            (open[0].what.name(), &*open[0].for_whom),
            ("connect", "PostgreSQL at db:5432")
        );
        assert_eq!(
            (open[0].within, open[0].connection),
            (Duration::from_secs(15), origin.connection)
        );
        drop(waits);
        assert!(origin.from.open_waits().0.is_empty());
    }

    #[test]
    fn a_question_to_another_process_is_sent_and_answered_and_its_id_is_the_cause_of_what_arrives_there() {
        let asker = origin("peers-tests/asker", *b"peerstwo");
        let question = asker.asks("OpenRelay", "agent db-1", Duration::from_secs(5));
        assert_eq!((question.cause(), asker.from.open_waits().0.len()), (Some(77), 1));
        let mut other = origin("peers-tests/asked", *b"peerstwo");
        let id = MessageId(question.id());
        other.arrived(Label::of("OpenRelay"), "proxy edge".into(), Some(id));
        drop(question);
        assert!(asker.from.open_waits().0.is_empty());

        let records = record::find(|record| record.connection == asker.connection);
        let kinds: Vec<RecordKind> = records.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [RecordKind::Sent, RecordKind::Arrived, RecordKind::Answered]);
        assert_eq!((records[0].id, records[1].cause, records[2].id), (id, Some(id), id));
        assert_eq!(other.cause, Some(records[1].id));
        assert_eq!(
            (records[0].to.as_ref(), records[1].from.as_deref()),
            ("agent db-1", Some("proxy edge"))
        );
    }
}
