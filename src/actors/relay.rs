//! The relay of a session, and what watches its two directions.
//!
//! A [`SessionRelay`] cannot be built without a [`Permit`]: that is the whole point of the type.

use super::host::{Behavior, Ctx};
use super::session_taps::{BoundaryTap, RequestTap, taps};
use super::sessions::Watched;
use super::trail::{Trail, not_written};
use crate::audit::{AuditError, EventBuilder, EventKind, Full, SessionFields};
use crate::model::{Refusal, RefusalKind};
use crate::net::copy::{Counts, EndSignal, Relay, RelayEnd, Tap};
use crate::policy::Permit;
use crate::protocol::postgres::bind::Value;
use crate::protocol::postgres::{Part, Statement, StatementTap, backend};
use crate::telemetry::relays::{Gauge, RelaySpec};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// How much of a malformed packet the audit log shows.
const MALFORMED_SHOWN_BYTES: usize = 1024;

/// The relay of one allowed session.
pub struct SessionRelay<C, U, TU> {
    permit: Permit,
    end: EndSignal,
    /// Boxed, so that the task that runs it holds it once: a future keeps room for each place that a value is moved through, and
    /// this one has a client's whole TLS in it.
    relay: Box<Relay<C, U, RequestTap<TU>, BoundaryTap>>,
}

/// How a session was, seen from its relay.
#[derive(Debug)]
pub struct SessionOutcome {
    pub counts: Counts,
    /// `None` for an end of the client's or PostgreSQL's own.
    pub refusal: Option<Refusal>,
    /// Its connection broke, where nothing was refused.
    pub client_lost: bool,
}

impl SessionOutcome {
    /// For the views, where it is more than that client or PostgreSQL was done. `client` is who is nearer to the client.
    pub fn ending(&self, client: &str) -> Option<String> {
        match &self.refusal {
            Some(refusal) => Some(refusal.kind.ending()),
            None => self.client_lost.then(|| format!("{client} lost")),
        }
    }

    /// The event of a session that this node ended because of its limits, a lock or the rules; nothing for other ends.
    pub fn disconnected(&self, trail: &Trail, session: &SessionFields) -> Option<EventBuilder> {
        use RefusalKind::{AccessRevoked, CertificateExpired, IdleTimeout};
        let refusal = self.refusal.as_ref()?;
        let ours = matches!(refusal.kind, AccessRevoked | CertificateExpired | IdleTimeout);
        ours.then(|| {
            trail
                .session_event(EventKind::ClientDisconnected, session)
                .field("reason", refusal.message.as_str())
        })
    }
}

impl<C, U, TU> SessionRelay<C, U, TU>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    TU: Tap,
{
    /// From here on everybody sees it, as `seen`.
    pub fn new(permit: Permit, watched: Watched, client: C, upstream: U, to_upstream: TU, seen: RelaySpec) -> Self {
        let gauge = Gauge::begin(seen);
        let (to_upstream, to_client) = taps(to_upstream, watched.rest, &gauge);
        Self {
            permit,
            end: watched.end,
            relay: Box::new(Relay::new(client, upstream, to_upstream, to_client, gauge)),
        }
    }

    /// What is said to the client before anything is copied.
    pub fn client(&mut self) -> &mut C {
        self.relay.client()
    }

    /// Copies until the end, and tells the client why where that is for us to say. `upstream_lost` words the loss of the
    /// other side.
    pub async fn run(mut self, upstream_lost: impl FnOnce(&Permit) -> Refusal) -> SessionOutcome {
        let mut client_lost = false;
        let refusal = match self.relay.run(self.end).await {
            RelayEnd::Finished | RelayEnd::UpstreamLost(_) if ends_as_expected(&self.relay) => None,
            RelayEnd::Finished | RelayEnd::UpstreamLost(_) => Some(upstream_lost(&self.permit)),
            RelayEnd::Refused(refusal) => Some(refusal),
            RelayEnd::Unwatched => Some(unwatched()),
            RelayEnd::ClientLost(error) => {
                tracing::debug!(%error, "client lost");
                client_lost = true;
                None
            }
        };
        match &refusal {
            Some(refusal) => self.relay.last_words(&backend::error_response(refusal)).await,
            None => self.relay.close().await,
        }
        SessionOutcome {
            counts: self.relay.counts(),
            refusal,
            client_lost,
        }
    }
}

/// What the views tell of a connection that PostgreSQL did not let in.
pub const UPSTREAM_SAID_NO: &str = "PostgreSQL said no";

/// Ends the actor of a connection, with what there is to say of it.
pub fn stop_because<B: Behavior>(why: Option<String>, ctx: &mut Ctx<'_, B>) {
    match why {
        Some(why) => ctx.stop_because(why),
        None => ctx.stop(),
    }
}

/// The client was done, or the upstream has said why it is.
fn ends_as_expected<C, U, TU>(relay: &Relay<C, U, RequestTap<TU>, BoundaryTap>) -> bool
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    TU: Tap,
{
    relay.client_closed() || relay.to_upstream_tap().said_goodbye() || relay.to_client_tap().explained()
}

fn unwatched() -> Refusal {
    Refusal::new(
        RefusalKind::Internal,
        "this session is over: the part of the node that watches over sessions had to be rebuilt",
    )
    .hint("connect again")
}

/// Writes what the client sends to the audit trail, before it is passed on.
pub struct AuditTap {
    statements: StatementTap,
    trail: Trail,
    session: Arc<SessionFields>,
    /// Events that found no room in the spool's queue. What caused them is not passed on until they are in.
    waiting: VecDeque<String>,
    entering: Option<BoxFuture<'static, Result<(), AuditError>>>,
}

impl AuditTap {
    pub fn new(trail: Trail, session: Arc<SessionFields>) -> Self {
        Self {
            statements: StatementTap::new(),
            trail,
            session,
            waiting: VecDeque::new(),
            entering: None,
        }
    }

    fn enter(&mut self, line: String) -> Result<(), Refusal> {
        if !self.waiting.is_empty() || self.entering.is_some() {
            self.waiting.push_back(line);
            return Ok(());
        }
        match self.trail.spool.try_enter(line) {
            Ok(()) => Ok(()),
            Err((line, Full::Queue | Full::Blocked)) => {
                self.waiting.push_back(line);
                Ok(())
            }
            Err((_, full)) => {
                tracing::error!(error = ?full, "a statement could not be written to the audit trail");
                Err(not_written(&AuditError::Closed))
            }
        }
    }
}

impl Tap for AuditTap {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut lines = Vec::new();
        let (trail, session) = (&self.trail, &self.session);
        let fed = self.statements.feed(chunk, &mut |statement| {
            lines.push(statement_event(trail, session, statement).finish())
        });
        for line in lines {
            self.enter(line)?;
        }
        fed.map_err(|error| {
            let bad = &chunk[self.statements.sound_bytes().min(chunk.len())..];
            let shown = &bad[..bad.len().min(MALFORMED_SHOWN_BYTES)];
            let event = self
                .trail
                .session_event(EventKind::MalformedPacket, &self.session)
                .field("error", error.to_string())
                .payload("payload", data_encoding::BASE64.encode(shown));
            self.trail.note_now(event);
            error.refusal()
        })
    }

    fn said_goodbye(&self) -> bool {
        self.statements.terminated()
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        loop {
            if let Some(entering) = &mut self.entering {
                match entering.poll_unpin(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.entering = None,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(not_written(&error))),
                }
            }
            let Some(line) = self.waiting.pop_front() else {
                return Poll::Ready(Ok(()));
            };
            let spool = self.trail.spool.clone();
            self.entering = Some(async move { spool.enter(line).await }.boxed());
        }
    }
}

fn statement_event(trail: &Trail, session: &SessionFields, statement: Statement) -> EventBuilder {
    let event = |kind| trail.session_event(kind, session);
    #[cfg(feature = "fault-points")]
    if let Statement::Query { text } = &statement {
        crate::telemetry::fault::point("relay.statement", &String::from_utf8_lossy(&text.bytes));
    }
    match statement {
        Statement::Query { text } => with_part(event(EventKind::Query), "db_query", &text).field("success", true),
        Statement::Parse { name, text } => with_part(
            event(EventKind::StatementParsed).field("statement_name", &name),
            "query",
            &text,
        ),
        Statement::Bind(bind) => event(EventKind::StatementBound)
            .field("statement_name", &bind.statement)
            .field("portal_name", &bind.portal)
            .field("parameters", values(&bind.parameters).as_slice()),
        Statement::LongBind { portal, statement, raw } => with_part(
            event(EventKind::StatementBound)
                .field("statement_name", &statement)
                .field("portal_name", &portal),
            "raw",
            &raw,
        ),
        Statement::Execute { portal, max_rows } => event(EventKind::StatementExecuted)
            .field("portal_name", &portal)
            .field("max_rows", max_rows),
        Statement::Close { kind, name } => {
            let field = match kind {
                crate::protocol::postgres::bind::ObjectKind::Statement => "statement_name",
                crate::protocol::postgres::bind::ObjectKind::Portal => "portal_name",
            };
            event(EventKind::StatementClosed).field(field, &name)
        }
        Statement::FunctionCall(call) => event(EventKind::FunctionCalled)
            .field("function_oid", call.oid)
            .field("function_args", values(&call.arguments).as_slice()),
        Statement::LongFunctionCall { raw } => with_part(event(EventKind::FunctionCalled), "raw", &raw),
    }
}

/// A text that came in one piece is one event; a longer one says which part this is and whether it is the last.
fn with_part(event: EventBuilder, name: &'static str, text: &Part) -> EventBuilder {
    let event = event.field(name, &text.bytes);
    if text.part == 1 && text.last {
        event
    } else {
        event.field("part", text.part).field("last", text.last)
    }
}

fn values(values: &[Value]) -> Vec<Option<&[u8]>> {
    values
        .iter()
        .map(|value| match value {
            Value::Null => None,
            Value::Text(bytes) | Value::Binary(bytes) => Some(bytes.as_slice()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_session_ended_is_told_by_what_ended_it() {
        let ended = |refusal: Option<RefusalKind>, client_lost| {
            let outcome = SessionOutcome {
                counts: Counts::default(),
                refusal: refusal.map(|kind| Refusal::new(kind, "why")),
                client_lost,
            };
            outcome.ending("client")
        };
        assert_eq!(ended(None, false), None, "the client or PostgreSQL was done");
        assert_eq!(ended(None, true).as_deref(), Some("client lost"));
        let lost = ended(Some(RefusalKind::AgentLost), false);
        assert_eq!(lost.as_deref(), Some("agent lost: 08006"));
    }
}
