//! What an agent's relay writes to the audit trail: what the client asks for, before it is passed on, and what became of it, with
//! the ReadyForQuery that ends it.
//!
//! Each request has a number in its session, which its own event and its result carry. Both taps are polled by one task.

use super::audit_entry::AuditEntry;
use super::result_event::result_event;
use super::session_limits::StrictMark;
use super::session_taps::AnswerTap;
use super::trail::Trail;
use crate::audit::{EventBuilder, EventKind, Parameter, SessionFields};
use crate::model::Refusal;
use crate::net::direction::Tap;
use crate::protocol::postgres::bind::{ObjectKind, Value};
use crate::protocol::postgres::{AnswerReader, Asked, Part, Piece, Results, Statement, StatementTap};
use crate::telemetry::relays::WaitsFor;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

/// How much of a malformed packet the audit log shows.
const MALFORMED_SHOWN_BYTES: usize = 1024;

/// What both directions know.
#[derive(Default)]
struct Followed {
    results: Results,
    /// COPY data that the client has sent and not ended.
    sent: u64,
    /// The client is held back until PostgreSQL has answered more.
    held: Option<Waker>,
}

type Shared = Rc<RefCell<Followed>>;

/// The taps of one session.
pub fn audit_taps(trail: &Trail, session: &Arc<SessionFields>, strict: StrictMark) -> (AuditTap, ResultTap) {
    let followed = Shared::default();
    let requests = AuditTap {
        statements: StatementTap::new(),
        number: 0,
        trail: trail.clone(),
        session: session.clone(),
        strict,
        followed: followed.clone(),
        entry: AuditEntry::new(trail.spool.clone()),
    };
    let results = ResultTap {
        answers: AnswerReader::default(),
        trail: trail.clone(),
        session: session.clone(),
        followed,
        entry: AuditEntry::new(trail.spool.clone()),
    };
    (requests, results)
}

/// Writes what the client sends, before it is passed on.
pub struct AuditTap {
    statements: StatementTap,
    /// Of the request under way, or the last one.
    number: u64,
    trail: Trail,
    session: Arc<SessionFields>,
    strict: StrictMark,
    followed: Shared,
    entry: AuditEntry,
}

impl Tap for AuditTap {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let strict = self.strict.is_set();
        let mut followed = self.followed.borrow_mut();
        let (trail, session, entry, number) = (&self.trail, &self.session, &mut self.entry, &mut self.number);
        let fed = self.statements.feed(chunk, &mut |asked| {
            if let Asked::Statement(statement) = &asked {
                let (begins, _) = statement.place();
                *number += u64::from(begins);
                let line = statement_event(trail, session, *number, statement).finish();
                match strict {
                    true => entry.enter_synced(line),
                    false => entry.enter(line),
                }
            }
            followed.results.asked(*number, &asked);
        });
        followed.sent = self.statements.copied();
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

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        if let Err(refusal) = ready!(self.entry.poll(cx)) {
            return Poll::Ready(Err(refusal));
        }
        let mut followed = self.followed.borrow_mut();
        if followed.results.is_full() {
            followed.held = Some(cx.waker().clone());
            return Poll::Pending;
        }
        followed.results.passed();
        Poll::Ready(Ok(()))
    }

    /// PostgreSQL does not take more where it has so much to answer.
    fn held_by(&self) -> WaitsFor {
        match self.followed.borrow().held {
            Some(_) => WaitsFor::Sink,
            None => WaitsFor::Audit,
        }
    }
}

/// Writes what became of it, before the client reads that it is done.
pub struct ResultTap {
    answers: AnswerReader,
    trail: Trail,
    session: Arc<SessionFields>,
    followed: Shared,
    entry: AuditEntry,
}

impl ResultTap {
    fn note(&mut self) {
        let mut followed = self.followed.borrow_mut();
        if let Some(batch) = followed.results.batch() {
            let event = self.trail.session_event(EventKind::Result, &self.session);
            self.entry.enter(result_event(event, batch).finish());
        }
        followed.results.noted();
    }
}

impl AnswerTap for ResultTap {
    fn see(&mut self, piece: &Piece<'_>) {
        let Some(answer) = self.answers.read(piece) else {
            return;
        };
        let is_due = {
            let followed = &mut *self.followed.borrow_mut();
            let copied = self.answers.take_copied();
            let is_due = followed.results.answered(&answer, copied, followed.sent);
            if followed.held.is_some() && !followed.results.is_full() {
                followed.held.take().into_iter().for_each(Waker::wake);
            }
            is_due
        };
        if is_due {
            self.note();
        }
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.entry.poll(cx)
    }
}

/// A session that ends in the middle of a pipeline, without PostgreSQL's last word, has results that nobody has noted.
impl Drop for ResultTap {
    fn drop(&mut self) {
        self.note();
        self.entry.enter_rest();
    }
}

fn statement_event(trail: &Trail, session: &SessionFields, number: u64, statement: &Statement) -> EventBuilder {
    let event = |kind| trail.session_event(kind, session).field("request", number);
    #[cfg(feature = "fault-points")]
    if let Statement::Query { text } = statement {
        crate::telemetry::fault::point("relay.statement", &String::from_utf8_lossy(&text.bytes));
    }
    match statement {
        Statement::Query { text } => with_part(event(EventKind::Query), "db_query", text).field("success", true),
        Statement::Parse { name, text } => with_part(
            event(EventKind::StatementParsed).field("statement_name", name),
            "query",
            text,
        ),
        Statement::Bind(bind) => event(EventKind::StatementBound)
            .field("statement_name", &bind.statement)
            .field("portal_name", &bind.portal)
            .field("parameters", values(&bind.parameters).as_slice()),
        Statement::LongBind { portal, statement, raw } => with_part(
            event(EventKind::StatementBound)
                .field("statement_name", statement)
                .field("portal_name", portal),
            "raw",
            raw,
        ),
        Statement::Execute { portal, max_rows } => event(EventKind::StatementExecuted)
            .field("portal_name", portal)
            .field("max_rows", *max_rows),
        Statement::Close { kind, name } => {
            let field = match kind {
                ObjectKind::Statement => "statement_name",
                ObjectKind::Portal => "portal_name",
            };
            event(EventKind::StatementClosed).field(field, name)
        }
        Statement::FunctionCall(call) => event(EventKind::FunctionCalled)
            .field("function_oid", call.oid)
            .field("function_args", values(&call.arguments).as_slice()),
        Statement::LongFunctionCall { raw } => with_part(event(EventKind::FunctionCalled), "raw", raw),
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

fn values(values: &[Value]) -> Vec<Parameter<'_>> {
    values
        .iter()
        .map(|value| match value {
            Value::Null => Parameter::Null,
            Value::Text(bytes) => Parameter::Text(bytes),
            Value::Binary(bytes) => Parameter::Binary(bytes),
        })
        .collect()
}

#[cfg(test)]
#[path = "audit_taps_tests.rs"]
mod tests;
