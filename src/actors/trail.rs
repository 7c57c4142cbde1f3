//! What a room needs to write the audit trail: the node's spool and what all its events share.

use super::address::Origin;
use super::peers::NO_DEADLINE;
use crate::audit::{
    AuditError, EventBuilder, EventContext, EventKind, SessionFields, SessionIdentity, Spool, WRITER_THREAD,
};
use crate::model::{
    ConnectionId, DbName, DbUser, NodeId, NodeName, PersonName, Refusal, RefusalKind, Replication, ServiceName,
    SessionId,
};
use crate::policy::Denial;
use std::sync::Arc;

#[derive(Clone)]
pub struct Trail {
    pub spool: Spool,
    pub context: EventContext,
    pub node: NodeId,
    pub node_name: NodeName,
}

/// Whose session it is and where it goes.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub person: &'a PersonName,
    pub session: SessionId,
    pub connection: ConnectionId,
    pub service: &'a ServiceName,
    pub uri: &'a str,
    pub db_user: &'a DbUser,
    pub db_name: &'a DbName,
    pub replication: Option<Replication>,
}

impl Trail {
    pub fn event(&self, kind: EventKind) -> EventBuilder {
        EventBuilder::new(kind, &self.context)
            .field("server_id", self.node.to_string())
            .field("server_hostname", self.node_name.as_str())
    }

    pub fn session_fields(&self, about: About<'_>) -> Arc<SessionFields> {
        let identity = SessionIdentity {
            user: about.person,
            sid: about.session,
            db_service: about.service,
            db_uri: about.uri,
            db_name: about.db_name,
            db_user: about.db_user,
            replication: about.replication,
            server_id: self.node,
            server_hostname: &self.node_name,
            connection: about.connection,
        };
        SessionFields::new(&identity, &self.context)
    }

    pub fn session_event(&self, kind: EventKind, session: &SessionFields) -> EventBuilder {
        EventBuilder::in_session(kind, &self.context, session)
    }

    /// Writes an event and waits until it is on disk. Where that fails, what it describes must not happen.
    pub async fn write(&self, event: EventBuilder) -> Result<(), Refusal> {
        self.spool
            .enter_synced(event.finish())
            .await
            .map_err(|error| not_written(&error))
    }

    /// As `write`, and everybody sees who waits for the disk.
    pub async fn write_for(&self, origin: &Origin, event: EventBuilder) -> Result<(), Refusal> {
        let _waits = origin.waits_for("fsync", WRITER_THREAD, NO_DEADLINE);
        self.write(event).await
    }

    /// Writes the denial of a session; the client hears of it when it is on disk.
    pub async fn deny(
        &self,
        about: About<'_>,
        denial: &Denial,
        by: &str,
        policy_version: u64,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        let fields = self.session_fields(about);
        let mut event = self
            .session_event(EventKind::SessionDenied, &fields)
            .field("success", false)
            .field("decided_by", by)
            .field("error", "access to db denied")
            .field("message", denial.to_string())
            .field("policy_version", policy_version);
        if let Some(role) = denial.role() {
            event = event.field("decision_role", role.as_str());
        }
        self.write_for(origin, event).await
    }

    /// Writes that a session is refused because of those that are open; the client hears of it when it is on disk.
    pub async fn reject(&self, session: &SessionFields, refusal: &Refusal, origin: &Origin) -> Result<(), Refusal> {
        let event = self
            .session_event(EventKind::SessionRejected, session)
            .field("success", false)
            .field("reason", "max-connections")
            .field("error", refusal.message.as_str());
        self.write_for(origin, event).await
    }

    /// Writes the end of a session, and does not wait for the disk: it has ended whether that can be written or not. Where it
    /// cannot, the node's log has the event.
    pub async fn note_end(&self, origin: &Origin, event: EventBuilder) {
        let _waits = origin.waits_for("room", WRITER_THREAD, NO_DEADLINE);
        let line = event.finish();
        if let Err(error) = self.spool.enter(line.clone()).await {
            tracing::error!(%error, event = %line, "the end of a session did not reach the audit trail");
        }
    }

    /// Writes an event about something that has happened already and cannot be taken back.
    pub async fn note(&self, event: EventBuilder) {
        if let Err(error) = self.spool.enter(event.finish()).await {
            tracing::error!(%error, "an audit event was not written");
        }
    }

    /// As `note`, from a place that cannot wait.
    pub fn note_now(&self, event: EventBuilder) {
        let loggable = event.loggable_bytes();
        if let Err((line, full)) = self.spool.try_enter(event.finish()) {
            let shown = line.get(..loggable).unwrap_or_default();
            tracing::error!(error = ?full, event = shown, "an audit event did not enter the spool");
        }
    }
}

pub fn not_written(error: &AuditError) -> Refusal {
    tracing::error!(%error, "the audit trail cannot be written");
    Refusal::new(
        RefusalKind::AuditUnavailable,
        "the audit log cannot be written on this node, so nothing is let through",
    )
    .hint("ask an administrator to look at the node's log and its disk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{MAX_LINE_BYTES, memory_spool};
    use crate::model::{ClusterName, SystemClock};
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_that_cannot_be_kept_is_logged_without_what_people_sent() {
        let clock = SystemClock::shared();
        let trail = Trail {
            spool: memory_spool::open(clock.clone()).0,
            context: EventContext::new(&ClusterName::new("test").unwrap(), clock, |bytes| bytes.fill(7)),
            node: NodeId::from_random([7; 16]),
            node_name: NodeName::new("agent-1").unwrap(),
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let event = EventBuilder::new(EventKind::MalformedPacket, &trail.context)
            .field("error", "no message of PostgreSQL")
            .payload("payload", "secret ".repeat(MAX_LINE_BYTES / 7 + 1));
        tracing::subscriber::with_default(log, || trail.note_now(event));
        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(
            logged.contains("db.session.malformed_packet") && logged.contains("no message of PostgreSQL"),
            "{logged}"
        );
        assert!(!logged.contains("secret"), "{logged}");
    }
}
