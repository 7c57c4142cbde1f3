//! An event is one line of JSON: the envelope (`event`, `code`, `time`, `uid`, `ei`, `cluster_name`, in this order), for an event
//! of a session what is the same for all its events, then the event's own fields. Written straight into the line, as there is
//! one per statement.

use super::json_text::push_string;
use super::{Entropy, EventKind};
use crate::model::{
    ClusterName, ConnectionId, DbName, DbUser, NodeId, NodeName, PersonName, Replication, ServiceName, SessionId,
    SharedClock, Timestamp,
};
use data_encoding::BASE64;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Room for the envelope, the session's fields and a short statement without growing.
const USUAL_LINE_BYTES: usize = 768;

/// What every event of this node shares.
#[derive(Clone)]
pub struct EventContext {
    /// `,"cluster_name":"…"`
    cluster_name: Arc<str>,
    clock: SharedClock,
    entropy: Entropy,
}

impl EventContext {
    pub fn new(cluster: &ClusterName, clock: SharedClock, entropy: Entropy) -> Self {
        let mut cluster_name = String::from(",\"cluster_name\":");
        push_string(&mut cluster_name, cluster.as_str());
        Self {
            cluster_name: cluster_name.into(),
            clock,
            entropy,
        }
    }

    fn draw(&self) -> u128 {
        let mut random = [0; 16];
        (self.entropy)(&mut random);
        u128::from_be_bytes(random)
    }
}

/// Who a session belongs to and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct SessionIdentity<'a> {
    pub user: &'a PersonName,
    pub sid: SessionId,
    pub db_service: &'a ServiceName,
    /// `host:port` of PostgreSQL.
    pub db_uri: &'a str,
    pub db_name: &'a DbName,
    pub db_user: &'a DbUser,
    /// Of a replication connection.
    pub replication: Option<Replication>,
    /// The node that writes the event.
    pub server_id: NodeId,
    pub server_hostname: &'a NodeName,
    pub connection: ConnectionId,
}

/// The fields that all events of a session share, rendered once, and the session's event numbers on this node.
#[derive(Debug)]
pub struct SessionFields {
    fragment: String,
    /// The `uid` of the session's first event; the others count on from it. A session draws randomness once, not for each statement.
    first_uid: u128,
    next_index: AtomicU64,
}

impl SessionFields {
    pub fn new(identity: &SessionIdentity<'_>, context: &EventContext) -> Arc<Self> {
        let mut line = EventBuilder {
            line: String::new(),
            payload_from: None,
        };
        line = line
            .field("user", identity.user.as_str())
            .field("sid", identity.sid.to_string())
            .field("db_service", identity.db_service.as_str())
            .field("db_protocol", "postgres")
            .field("db_uri", identity.db_uri)
            .field("db_name", identity.db_name.as_str())
            .field("db_user", identity.db_user.as_str());
        if let Some(replication) = identity.replication {
            line = line.field("replication", replication.label());
        }
        line = line
            .field("server_id", identity.server_id.to_string())
            .field("server_hostname", identity.server_hostname.as_str())
            .field("connection", identity.connection.to_string());
        Arc::new(Self {
            fragment: line.line,
            first_uid: context.draw(),
            next_index: AtomicU64::new(0),
        })
    }
}

/// Writes one event.
#[derive(Debug)]
#[must_use = "an event is only there when its line has entered the spool"]
pub struct EventBuilder {
    line: String,
    payload_from: Option<usize>,
}

impl EventBuilder {
    /// An event outside of any session; its `ei` is 0.
    pub fn new(kind: EventKind, context: &EventContext) -> Self {
        Self::envelope(kind, context, context.draw(), 0)
    }

    /// An event of a session: `ei` counts the session's events on this node from 0, in the order of these calls.
    pub fn in_session(kind: EventKind, context: &EventContext, session: &SessionFields) -> Self {
        let index = session.next_index.fetch_add(1, Ordering::Relaxed);
        let uid = session.first_uid.wrapping_add(u128::from(index));
        let mut event = Self::envelope(kind, context, uid, index);
        event.line.push_str(&session.fragment);
        event
    }

    fn envelope(kind: EventKind, context: &EventContext, uid: u128, index: u64) -> Self {
        let uid = uuid::Builder::from_random_bytes(uid.to_be_bytes()).into_uuid();
        let mut line = String::with_capacity(USUAL_LINE_BYTES);
        line.push_str("{\"event\":\"");
        line.push_str(kind.name());
        line.push_str("\",\"code\":\"");
        line.push_str(kind.code());
        line.push_str("\",\"time\":\"");
        context.clock.now().push_to(&mut line);
        line.push_str("\",\"uid\":\"");
        line.push_str(uid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
        line.push_str("\",\"ei\":");
        line.push_str(itoa::Buffer::new().format(index));
        line.push_str(&context.cluster_name);
        Self {
            line,
            payload_from: None,
        }
    }

    /// Adds a field. Bytes that are not UTF-8 go as base64 into `<name>_base64`.
    pub fn field(mut self, name: &'static str, value: impl FieldValue) -> Self {
        self.line.push_str(",\"");
        self.line.push_str(name);
        value.append_to(&mut self.line);
        self
    }

    /// Adds a field of what people sent. It comes last, as no log of a node may show it.
    pub fn payload(mut self, name: &'static str, value: impl FieldValue) -> Self {
        self.payload_from.get_or_insert(self.line.len());
        self.field(name, value)
    }

    /// How much of the line a node's log may show: what is before the payload.
    pub fn loggable_bytes(&self) -> usize {
        self.payload_from.unwrap_or(self.line.len())
    }

    /// The line, without the line feed.
    pub fn finish(mut self) -> String {
        self.line.push('}');
        self.line
    }
}

/// What a field can hold.
pub trait FieldValue {
    /// Appends what comes after the field's name: a suffix of the name if need be, the quote, the colon and the value.
    fn append_to(&self, line: &mut String);
}

impl FieldValue for str {
    fn append_to(&self, line: &mut String) {
        line.push_str("\":");
        push_string(line, self);
    }
}

impl FieldValue for String {
    fn append_to(&self, line: &mut String) {
        self.as_str().append_to(line);
    }
}

impl FieldValue for [u8] {
    fn append_to(&self, line: &mut String) {
        match str::from_utf8(self) {
            Ok(text) => text.append_to(line),
            Err(_) => {
                line.push_str("_base64\":\"");
                BASE64.encode_append(self, line);
                line.push('"');
            }
        }
    }
}

impl FieldValue for Vec<u8> {
    fn append_to(&self, line: &mut String) {
        self.as_slice().append_to(line);
    }
}

/// One parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    Null,
    /// In PostgreSQL's text format, in the client's encoding.
    Text(&'a [u8]),
    /// In its type's binary format.
    Binary(&'a [u8]),
}

/// NULL is `null`, text a string; text that is not UTF-8, and whatever is binary, is `{"base64":"…"}`.
impl FieldValue for [Parameter<'_>] {
    fn append_to(&self, line: &mut String) {
        line.push_str("\":[");
        for (at, parameter) in self.iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            match *parameter {
                Parameter::Null => line.push_str("null"),
                Parameter::Text(bytes) => match str::from_utf8(bytes) {
                    Ok(text) => push_string(line, text),
                    Err(_) => push_base64(line, bytes),
                },
                Parameter::Binary(bytes) => push_base64(line, bytes),
            }
        }
        line.push(']');
    }
}

fn push_base64(line: &mut String, bytes: &[u8]) {
    line.push_str("{\"base64\":\"");
    BASE64.encode_append(bytes, line);
    line.push_str("\"}");
}

impl FieldValue for [String] {
    fn append_to(&self, line: &mut String) {
        line.push_str("\":[");
        for (at, text) in self.iter().enumerate() {
            if at > 0 {
                line.push(',');
            }
            push_string(line, text);
        }
        line.push(']');
    }
}

impl FieldValue for Timestamp {
    fn append_to(&self, line: &mut String) {
        line.push_str("\":\"");
        self.push_to(line);
        line.push('"');
    }
}

/// JSON made elsewhere; its texts are escaped as all others.
impl FieldValue for serde_json::Value {
    fn append_to(&self, line: &mut String) {
        line.push_str("\":");
        push_value(line, self);
    }
}

fn push_value(line: &mut String, value: &serde_json::Value) {
    use serde_json::Value;
    let mut comma = "";
    match value {
        Value::String(text) => push_string(line, text),
        Value::Array(items) => {
            line.push('[');
            for item in items {
                line.push_str(std::mem::replace(&mut comma, ","));
                push_value(line, item);
            }
            line.push(']');
        }
        Value::Object(members) => {
            line.push('{');
            for (name, item) in members {
                line.push_str(std::mem::replace(&mut comma, ","));
                push_string(line, name);
                line.push(':');
                push_value(line, item);
            }
            line.push('}');
        }
        plain => {
            // Writing to a String cannot fail.
            let _ = write!(line, "{plain}");
        }
    }
}

impl FieldValue for bool {
    fn append_to(&self, line: &mut String) {
        line.push_str(if *self { "\":true" } else { "\":false" });
    }
}

macro_rules! integers {
    ($($kind:ty),*) => {
        $(impl FieldValue for $kind {
            fn append_to(&self, line: &mut String) {
                line.push_str("\":");
                line.push_str(itoa::Buffer::new().format(*self));
            }
        })*
    };
}
integers!(u16, u32, u64, usize, i16, i32, i64);

impl<T: FieldValue + ?Sized> FieldValue for &T {
    fn append_to(&self, line: &mut String) {
        (**self).append_to(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::HeldClock;

    fn context() -> EventContext {
        let clock = HeldClock::at(Timestamp::from_micros(1_619_564_426_014_000));
        EventContext::new(&ClusterName::new("root").unwrap(), clock, |bytes| bytes.fill(7))
    }

    fn session() -> Arc<SessionFields> {
        let identity = SessionIdentity {
            user: &PersonName::new("alice").unwrap(),
            sid: SessionId::from_random([1; 16]),
            db_service: &ServiceName::new("local").unwrap(),
            db_uri: "localhost:5432",
            db_name: &DbName::new("test").unwrap(),
            db_user: &DbUser::new("postgres").unwrap(),
            replication: None,
            server_id: NodeId::from_random([2; 16]),
            server_hostname: &NodeName::new("agent-1").unwrap(),
            connection: ConnectionId::from_random([3; 8]),
        };
        SessionFields::new(&identity, &context())
    }

    #[test]
    fn the_envelope_comes_first_and_the_session_next() {
        let (context, session) = (context(), session());
        drop(EventBuilder::in_session(EventKind::SessionStarted, &context, &session));
        let line = EventBuilder::in_session(EventKind::Query, &context, &session)
            .field("db_query", "select 1")
            .field("success", true)
            .finish();
        assert_eq!(
            line,
            "{\"event\":\"db.session.query\",\"code\":\"TDB02I\",\"time\":\"2021-04-27T23:00:26.014Z\",\
             \"uid\":\"07070707-0707-4707-8707-070707070708\",\"ei\":1,\"cluster_name\":\"root\",\"user\":\"alice\",\
             \"sid\":\"01010101-0101-4101-8101-010101010101\",\"db_service\":\"local\",\"db_protocol\":\"postgres\",\
             \"db_uri\":\"localhost:5432\",\"db_name\":\"test\",\"db_user\":\"postgres\",\
             \"server_id\":\"02020202-0202-4202-8202-020202020202\",\"server_hostname\":\"agent-1\",\
             \"connection\":\"0303030303030303\",\"db_query\":\"select 1\",\"success\":true}"
        );
    }

    #[test]
    fn text_of_any_kind_makes_one_line_of_valid_json() {
        let parameters = [
            Parameter::Null,
            Parameter::Text(b"a\nb"),
            Parameter::Text(&[0xff, 0]),
            Parameter::Binary(b"1234"),
        ];
        let line = EventBuilder::new(EventKind::StatementBound, &context())
            .field("query", b"select '\n\x1b[2J\0'".as_slice())
            .field("payload", [0xff_u8, 0x00].as_slice())
            .field("parameters", parameters.as_slice())
            .field("roles", ["a".to_owned(), "b\"".to_owned()].as_slice())
            .field("identity", serde_json::json!({"user": "\u{1b}x", "n": [1, null, 2.5]}))
            .field("count", 3_u64)
            .finish();
        assert!(!line.chars().any(char::is_control), "{line}");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["query"], "select '\n\u{1b}[2J\0'");
        assert_eq!(json["payload_base64"], "/wA=");
        assert_eq!(
            json["parameters"],
            serde_json::json!([null, "a\nb", {"base64": "/wA="}, {"base64": "MTIzNA=="}])
        );
        assert_eq!(json["roles"][1], "b\"");
        assert_eq!(json["identity"]["user"], "\u{1b}x");
        assert_eq!(json["identity"]["n"], serde_json::json!([1, null, 2.5]));
        assert_eq!(json["ei"], 0);
    }
}
