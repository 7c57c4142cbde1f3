//! The messages between nodes, one closed enum for each kind of peer and direction.
//!
//! Which enum a peer may speak follows from the node kinds in its host certificate. Delivery is at most once; messages that
//! change something carry what makes a repeat harmless (a sequence number, a version).

use super::key_digest::KeyDigest;
use super::secret_text::SecretText;
use crate::model::{
    ClusterName, ConnectionId, DbName, DbUser, Endpoint, Labels, NodeId, NodeKind, NodeName, PersonName, Refusal,
    ServiceName, SessionId, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The byte that an agent sends at once on every stream it accepts. yamux counts a stream as unacknowledged until the
/// first frame comes back, and blocks further opens at 256 of those; an agent that waits for PostgreSQL must not hold them.
pub const STREAM_ACCEPTED: u8 = 1;

/// The tag of an enum in the frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dialect {
    JoinToAuth = 1,
    JoinAnswer = 2,
    DbToAuth = 3,
    ProxyToAuth = 4,
    AuthToNode = 5,
    ProxyToDb = 6,
    DbToProxy = 7,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An enum that travels between nodes.
pub trait Wire: Serialize + DeserializeOwned + fmt::Debug + Send + 'static {
    const DIALECT: Dialect;
    /// The longest body, encoded.
    const MAX_BYTES: usize;
}

/// One process's part of a trace, as JSON. A connection makes some 25 records of 250 bytes on each node; of one that made more
/// than fits, the oldest are left out.
pub const PART_MAX_BYTES: usize = 512 * 1024;

/// A certificate chain, leaf first, each DER.
pub type Chain = Vec<Vec<u8>>;

/// What an agent serves, as the rest of the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    pub service: ServiceName,
    pub description: String,
    pub labels: Labels,
    /// Host and port, for display and audit only: nobody but the agent dials it.
    pub uri: String,
    /// The host of that, and the name that PostgreSQL's certificate must have where it is another: what auth may sign a
    /// certificate of this PostgreSQL for.
    pub hosts: Vec<String>,
}

/// Whether an agent can reach PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// Not looked at yet.
    Unknown,
    Healthy,
    Unhealthy,
}

/// How a database is, as one agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseHealth {
    pub service: ServiceName,
    pub state: HealthState,
    pub since: Timestamp,
    /// What was seen last, in a sentence; empty while there is nothing to say.
    pub detail: String,
    /// When the certificate ends that PostgreSQL presented last.
    pub certificate_until: Option<Timestamp>,
}

/// What a node says of itself with every heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The program's version.
    pub version: String,
    /// Of this process, drawn at its start: two that are alive at a time are two processes with one identity.
    pub instance: u64,
    pub started: Timestamp,
    /// What its agent serves.
    pub databases: Vec<DatabaseRecord>,
    pub health: Vec<DatabaseHealth>,
    /// Where people and agents reach its proxy, `host:port`; the first is the one to show.
    pub proxy_addresses: Vec<Endpoint>,
}

/// A proxy of the cluster, as auth tells agents of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRecord {
    pub node: NodeId,
    pub name: NodeName,
    /// Never empty.
    pub addresses: Vec<Endpoint>,
}

/// The first contact of a node: a token instead of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinToAuth {
    Join {
        token: String,
        name: NodeName,
        kinds: Vec<NodeKind>,
        /// PKCS#10, DER; its signature proves that the node has the key.
        csr: Vec<u8>,
        /// Further names and addresses that clients reach a proxy by.
        hosts: Vec<String>,
    },
}

impl Wire for JoinToAuth {
    const DIALECT: Dialect = Dialect::JoinToAuth;
    const MAX_BYTES: usize = 32 * 1024;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    Joined {
        cluster: ClusterName,
        certificate: Vec<u8>,
        anchors: Anchors,
    },
    Refused {
        why: String,
    },
}

impl Wire for JoinAnswer {
    const DIALECT: Dialect = Dialect::JoinAnswer;
    const MAX_BYTES: usize = 64 * 1024;
}

/// The certificates of the cluster's four authorities, DER; several of a kind while one is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchors {
    pub user: Vec<Vec<u8>>,
    pub host: Vec<Vec<u8>>,
    pub db: Vec<Vec<u8>>,
    pub db_client: Vec<Vec<u8>>,
}

/// What an agent asks of auth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DbToAuth {
    /// Sends policy snapshots from now on.
    WatchPolicy { have: Option<u64> },
    /// This node lives. Answered with [`AuthToNode::Heard`].
    Heartbeat { report: NodeReport },
    /// Spool lines, in order; a repeat of lines that are there already is harmless.
    ShipAudit {
        spool: String,
        first_seq: u64,
        lines: Vec<String>,
    },
    /// A certificate to log in to PostgreSQL as `db_user` on behalf of the person whose chain this is.
    IssueDbClient {
        person: Chain,
        service: ServiceName,
        db_user: DbUser,
        /// Of the connection that needs the certificate first; part of auth's own decision.
        db_name: DbName,
        csr: Vec<u8>,
    },
    /// A new host certificate, for the node and the kinds of the present one.
    RenewHost { csr: Vec<u8>, hosts: Vec<String> },
    /// A certificate for the PostgreSQL of a database that this agent serves.
    IssueDbServer {
        service: ServiceName,
        /// Of those that the agent announces for the service.
        hosts: Vec<String>,
        ttl_secs: u64,
        csr: Vec<u8>,
    },
    /// The answer to [`AuthToNode::Inspect`], on the stream that auth opened for it: JSON.
    Inspected { json: Vec<u8> },
    /// There is no answer to it, in a sentence.
    NotInspected { why: String },
}

impl Wire for DbToAuth {
    const DIALECT: Dialect = Dialect::DbToAuth;
    const MAX_BYTES: usize = 2 * 1024 * 1024;
}

/// What a proxy asks of auth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// A new host certificate, for the node and the kinds of the present one.
    RenewHost {
        csr: Vec<u8>,
        hosts: Vec<String>,
    },
    /// What a link that sets a password is for; it uses nothing up.
    LookAtInvite {
        token: SecretText,
    },
    /// Sets the password and the second factor.
    AcceptInvite {
        token: SecretText,
        password: SecretText,
        code: SecretText,
        /// Where the browser is, as the proxy sees it.
        client_address: String,
    },
    /// As [`DbToAuth::Inspected`].
    Inspected {
        json: Vec<u8>,
    },
    NotInspected {
        why: String,
    },
}

impl Wire for ProxyToAuth {
    const DIALECT: Dialect = Dialect::ProxyToAuth;
    const MAX_BYTES: usize = 2 * 1024 * 1024;
}

/// What auth says to nodes of either kind: answers, and news of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthToNode {
    /// The heartbeat was heard; these proxies are alive, by their ids.
    Heard {
        proxies: Vec<ProxyRecord>,
    },
    /// Everything up to this sequence number is on auth's disk.
    AuditStored {
        last_seq: u64,
    },
    DbClientIssued {
        certificate: Vec<u8>,
        not_after: Timestamp,
    },
    /// The rules, as JSON documents of users and roles.
    PolicyPublished {
        version: u64,
        published_at: Timestamp,
        documents: Vec<String>,
        /// How long the node may decide from these without a word from auth.
        max_age_secs: u32,
    },
    /// The version that the node has is still the newest.
    PolicyConfirmed {
        version: u64,
    },
    /// Auth decided against it.
    Declined {
        why: String,
    },
    HostIssued {
        certificate: Vec<u8>,
        not_after: Timestamp,
    },
    /// Auth could not decide; asking again later may help.
    Undecided {
        why: String,
    },
    /// The heartbeat was not taken: another process is alive with this node's identity.
    RunsTwice {
        why: String,
    },
    /// A certificate for the agent's PostgreSQL.
    DbServerIssued {
        certificate: Vec<u8>,
        not_after: Timestamp,
        /// The authorities of PostgreSQL's clients, DER.
        clients: Vec<Vec<u8>>,
    },
    /// The answer to [`ProxyToAuth::LookAtInvite`].
    Invitation {
        person: PersonName,
        /// Of somebody who had a password already.
        is_reset: bool,
        expires: Timestamp,
        otp_uri: SecretText,
        otp_secret: SecretText,
    },
    InviteAccepted,
    /// The answer to either, where it is no.
    AccountRefused {
        kind: AccountRefusal,
        /// A sentence for the log of the node.
        why: String,
    },
    /// What the node sees of itself. First thing on a stream that auth opens, the one thing that auth asks.
    Inspect {
        question: Inspection,
    },
}

/// What can be asked of a node about itself. It is answered with ids and names, never with what a message or a statement says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inspection {
    /// All of its actors.
    Actors,
    /// One, by its path, the path's end, or the beginning of its name.
    Actor { path: String },
    /// The connections that pass through it. What is `None` is not asked for.
    Connections {
        user: Option<PersonName>,
        /// A database service, or a database's name.
        database: Option<String>,
        state: Option<String>,
    },
    /// What it has of one connection, a proxy with the part of the connection's agent.
    Trace { connection: ConnectionId },
}

/// Why auth does not show or accept a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountRefusal {
    NoInvite,
    InviteExpired,
    InviteUsed,
    PasswordTooShort,
    PasswordTooLong,
    WrongCode,
    /// This client tries too often.
    TooMany,
    /// Auth has too much to do.
    Busy,
    /// Auth cannot tell at the moment, or something failed there.
    Unavailable,
}

impl Wire for AuthToNode {
    const DIALECT: Dialect = Dialect::AuthToNode;
    const MAX_BYTES: usize = 16 * 1024 * 1024;
}

/// What a proxy asks of an agent, first thing on a stream that it opened, or as an answer on the agent's control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyToDb {
    /// Connect a client. After `RelayOpened` the stream carries PostgreSQL, from AuthenticationOk on.
    OpenRelay {
        connection: ConnectionId,
        session: SessionId,
        person: Chain,
        service: ServiceName,
        db_user: DbUser,
        db_name: DbName,
        /// Start-up parameters that may pass.
        parameters: Vec<(String, String)>,
        client_address: String,
        /// The secret half of the cancel key that the client is given: 4 bytes, or 32 for a client of PostgreSQL's protocol 3.2.
        cancel_secret: Vec<u8>,
        policy_version: u64,
    },
    /// Cancel what the connection is doing now.
    CancelQuery { connection: ConnectionId },
    /// Heard; the tunnel lives.
    Announced,
    /// What the agent has of a connection that this proxy opened.
    InspectConnection { connection: ConnectionId },
    /// Cancel what a connection that this proxy opened is doing now, for a client at this address.
    CancelStatement {
        connection: ConnectionId,
        client_address: String,
    },
    /// The same for the session whose client was given this key, if it is one of this agent's: it came to another proxy than the
    /// one that gave it out.
    CancelByKey {
        process_id: u32,
        key: KeyDigest,
        client_address: String,
    },
}

impl Wire for ProxyToDb {
    const DIALECT: Dialect = Dialect::ProxyToDb;
    const MAX_BYTES: usize = 64 * 1024;
}

/// What an agent tells a proxy: on its control stream, or as the answer on a stream of the proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DbToProxy {
    /// The heartbeat of the tunnel, and what is served.
    Announce {
        name: NodeName,
        databases: Vec<DatabaseRecord>,
        /// Of those, as far as they have been looked at.
        health: Vec<DatabaseHealth>,
    },
    /// PostgreSQL has let the session in; `process_id` is its own.
    RelayOpened { process_id: u32 },
    /// It was not done; the client reads this.
    Declined(Refusal),
    /// PostgreSQL itself said no; its ErrorResponse, whole, which the client reads as it is.
    UpstreamSaidNo { error_response: Vec<u8> },
    /// PostgreSQL has been asked to cancel.
    CancelForwarded,
    /// What the agent has of the connection, as JSON: at most [`PART_MAX_BYTES`]. Empty where it has nothing.
    Inspected { json: Vec<u8> },
    /// It gives no answer, in a sentence.
    NotInspected { why: String },
    /// No session of this agent has the key.
    KeyUnknown,
}

impl Wire for DbToProxy {
    const DIALECT: Dialect = Dialect::DbToProxy;
    const MAX_BYTES: usize = 2 * 1024 * 1024;
}
