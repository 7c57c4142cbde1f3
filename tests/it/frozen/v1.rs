//! A museum piece: the messages of version 1 of the node protocol, as they stood when it was frozen, and a decoder for them.
//!
//! It stands apart from the program's own types on purpose, and is never brought up to date. What today's nodes say to a peer
//! of version 1 has to be read by this file; where it cannot be, the node is wrong, and not the file. Ids are byte strings
//! here, and names are text.

// Most fields are read for their place only.
#![allow(dead_code)]

use bincode::config::{Config, standard};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

#[derive(Debug, Deserialize)]
pub enum Kind {
    Tell,
    Ask { deadline_ms: u32 },
    Answer,
    Refused { why: String },
}

#[derive(Debug, Deserialize)]
pub struct Header {
    pub id: u64,
    pub kind: Kind,
    pub cause: Option<u64>,
    pub connection: Option<u64>,
}

pub trait Dialect: DeserializeOwned + Debug {
    const NUMBER: u8;
}

macro_rules! dialects {
    ($($dialect:ident = $number:literal),*) => {
        $(impl Dialect for $dialect { const NUMBER: u8 = $number; })*
    };
}
dialects!(
    JoinToAuth = 1,
    JoinAnswer = 2,
    DbToAuth = 3,
    ProxyToAuth = 4,
    AuthToNode = 5,
    ProxyToDb = 6,
    DbToProxy = 7
);

type Bytes = Vec<u8>;
/// Microseconds since 1970.
type Timestamp = i64;

#[derive(Debug, Deserialize)]
pub struct DatabaseRecord {
    pub service: String,
    pub description: String,
    pub labels: BTreeMap<String, String>,
    pub uri: String,
    pub hosts: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub enum HealthState {
    Unknown,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Deserialize)]
pub struct DatabaseHealth {
    pub service: String,
    pub state: HealthState,
    pub since: Timestamp,
    pub detail: String,
    pub certificate_until: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Deserialize)]
pub struct NodeReport {
    pub version: String,
    pub instance: u64,
    pub started: Timestamp,
    pub databases: Vec<DatabaseRecord>,
    pub health: Vec<DatabaseHealth>,
    pub proxy_addresses: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
pub struct ProxyRecord {
    pub node: Bytes,
    pub name: String,
    pub addresses: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
pub enum NodeKind {
    Auth,
    Proxy,
    Db,
}

#[derive(Debug, Deserialize)]
pub enum JoinToAuth {
    Join {
        token: String,
        name: String,
        kinds: Vec<NodeKind>,
        csr: Bytes,
        hosts: Vec<String>,
    },
}

#[derive(Debug, Deserialize)]
pub struct Anchors {
    pub user: Vec<Bytes>,
    pub host: Vec<Bytes>,
    pub db: Vec<Bytes>,
    pub db_client: Vec<Bytes>,
}

#[derive(Debug, Deserialize)]
pub enum JoinAnswer {
    Joined {
        cluster: String,
        certificate: Bytes,
        anchors: Anchors,
    },
    Refused {
        why: String,
    },
}

#[derive(Debug, Deserialize)]
pub enum DbToAuth {
    WatchPolicy {
        have: Option<u64>,
    },
    Heartbeat {
        report: NodeReport,
    },
    ShipAudit {
        spool: String,
        first_seq: u64,
        lines: Vec<String>,
    },
    IssueDbClient {
        person: Vec<Bytes>,
        service: String,
        db_user: String,
        db_name: String,
        csr: Bytes,
    },
    RenewHost {
        csr: Bytes,
        hosts: Vec<String>,
    },
    IssueDbServer {
        service: String,
        hosts: Vec<String>,
        ttl_secs: u64,
        csr: Bytes,
    },
}

#[derive(Debug, Deserialize)]
pub enum ProxyToAuth {
    WatchPolicy {
        have: Option<u64>,
    },
    Heartbeat {
        report: NodeReport,
    },
    ShipAudit {
        spool: String,
        first_seq: u64,
        lines: Vec<String>,
    },
    RenewHost {
        csr: Bytes,
        hosts: Vec<String>,
    },
    LookAtInvite {
        token: String,
    },
    AcceptInvite {
        token: String,
        password: String,
        code: String,
        client_address: String,
    },
}

#[derive(Debug, Deserialize)]
pub enum AuthToNode {
    Heard {
        proxies: Vec<ProxyRecord>,
    },
    AuditStored {
        last_seq: u64,
    },
    DbClientIssued {
        certificate: Bytes,
        not_after: Timestamp,
    },
    PolicyPublished {
        version: u64,
        published_at: Timestamp,
        documents: Vec<String>,
        max_age_secs: u32,
    },
    PolicyConfirmed {
        version: u64,
    },
    Declined {
        why: String,
    },
    HostIssued {
        certificate: Bytes,
        not_after: Timestamp,
    },
    Undecided {
        why: String,
    },
    RunsTwice {
        why: String,
    },
    DbServerIssued {
        certificate: Bytes,
        not_after: Timestamp,
        clients: Vec<Bytes>,
    },
    Invitation {
        person: String,
        is_reset: bool,
        expires: Timestamp,
        otp_uri: String,
        otp_secret: String,
    },
    InviteAccepted,
    AccountRefused {
        kind: AccountRefusal,
        why: String,
    },
}

#[derive(Debug, Deserialize)]
pub enum AccountRefusal {
    NoInvite,
    InviteExpired,
    InviteUsed,
    PasswordTooShort,
    PasswordTooLong,
    WrongCode,
    TooMany,
    Busy,
    Unavailable,
}

#[derive(Debug, Deserialize)]
pub enum ProxyToDb {
    OpenRelay {
        connection: u64,
        session: Bytes,
        person: Vec<Bytes>,
        service: String,
        db_user: String,
        db_name: String,
        parameters: Vec<(String, String)>,
        client_address: String,
        cancel_secret: Bytes,
        policy_version: u64,
    },
    CancelQuery {
        connection: u64,
    },
    Announced,
}

#[derive(Debug, Deserialize)]
pub enum DbToProxy {
    Announce {
        name: String,
        databases: Vec<DatabaseRecord>,
        health: Vec<DatabaseHealth>,
    },
    RelayOpened {
        process_id: u32,
    },
    Declined(Refusal),
    UpstreamSaidNo {
        error_response: Bytes,
    },
    CancelForwarded,
}

#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Deserialize)]
pub enum RefusalKind {
    AccessDenied,
    AccessRevoked,
    CertificateInvalid,
    CertificateExpired,
    TlsRequired,
    ProtocolViolation,
    NotSupported,
    DatabaseUnknown,
    AgentUnreachable,
    AgentLost,
    UpstreamUnreachable,
    UpstreamWithoutTls,
    UpstreamUntrusted,
    UpstreamRefusedCertificate,
    UpstreamLost,
    PolicyStale,
    AuditUnavailable,
    TooMany,
    ShuttingDown,
    Internal,
    Locked,
    IdleTimeout,
    MaxConnections,
}

/// What a frame said.
#[derive(Debug)]
pub enum Said<B> {
    Message(Header, B),
    /// The other side did not accept the message with this id.
    Refused {
        id: u64,
        why: String,
    },
    /// Version 1 does not have it, or its bytes are not those of version 1: to be refused by this id.
    Unknown {
        id: u64,
    },
}

fn encoding() -> impl Config {
    standard()
}

/// Reads what follows the length field.
pub fn read<B: Dialect>(frame: &[u8]) -> Said<B> {
    assert_eq!(frame[..2], [1, B::NUMBER], "version and dialect");
    let decoded = bincode::serde::decode_from_slice(&frame[2..], encoding());
    let (header, used): (Header, usize) = decoded.expect("a header of version 1");
    let rest = &frame[2 + used..];
    if let Kind::Refused { why } = header.kind {
        assert!(rest.is_empty(), "a refusal has no body");
        return Said::Refused { id: header.id, why };
    }
    match bincode::serde::decode_from_slice::<B, _>(rest, encoding()) {
        Ok((body, used)) if used == rest.len() => Said::Message(header, body),
        _ => Said::Unknown { id: header.id },
    }
}

#[test]
fn version_1_reads_every_frozen_message_to_its_last_byte() {
    for (name, frozen) in super::bytes::all() {
        let frame = &frozen[super::bytes::PREFIX..];
        let said = match frame[1] {
            1 => format!("{:?}", read::<JoinToAuth>(frame)),
            2 => format!("{:?}", read::<JoinAnswer>(frame)),
            3 => format!("{:?}", read::<DbToAuth>(frame)),
            4 => format!("{:?}", read::<ProxyToAuth>(frame)),
            5 => format!("{:?}", read::<AuthToNode>(frame)),
            6 => format!("{:?}", read::<ProxyToDb>(frame)),
            7 => format!("{:?}", read::<DbToProxy>(frame)),
            other => panic!("dialect {other}"),
        };
        // `AuthToNode::RunsTwice` is read as a message of that name, and a refusal as a refusal.
        let expected = name.split("::").last().unwrap_or(name);
        let expected = expected.split('(').next().unwrap_or(expected);
        assert!(said.contains(expected), "{name}: {said}");
    }
}
