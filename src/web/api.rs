//! The shapes of the API: what `ctl` sends and reads. Times are RFC 3339, durations are seconds, certificates are PEM.

use serde::{Deserialize, Serialize};

/// `GET /v1/status`: facts; what follows from them is the reader's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub cluster: String,
    pub version: String,
    pub ca_pins: Vec<String>,
    pub policy_version: Option<u64>,
    /// Auth's clock.
    pub time: String,
    pub authorities: Vec<AuthorityStatus>,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// `user`, `host`, `db`, `db-client`.
    pub authority: String,
    pub rotation: String,
    pub algorithm: String,
    pub valid_until: String,
}

/// `GET /v1/authorities`: each certificate of each, in the order of `CaKind::ALL`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authorities {
    pub authorities: Vec<Authority>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authority {
    #[serde(flatten)]
    pub status: AuthorityStatus,
    /// Upper-case hexadecimal, as openssl prints it.
    pub serial: String,
    /// SHA-256 of the public key, as in a CA pin.
    pub fingerprint: String,
    pub certificate: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: String,
    pub name: String,
    pub kinds: Vec<String>,
    /// Empty when the node does not say.
    pub version: String,
    /// Where people and agents reach its proxy.
    pub addresses: Vec<String>,
    pub databases: Vec<DatabaseStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseStatus {
    pub name: String,
    pub description: String,
    pub labels: std::collections::BTreeMap<String, String>,
    pub uri: String,
    pub health: HealthStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    pub state: HealthWord,
    pub since: Option<String>,
    /// A sentence; empty while there is nothing to say.
    pub detail: String,
    /// When the certificate ends that PostgreSQL presented last.
    pub certificate_until: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthWord {
    Healthy,
    Unhealthy,
    /// Not looked at yet, or by an agent that does not look.
    #[default]
    Unknown,
}

impl HealthWord {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

/// `PUT /v1/resources`: one or more YAML documents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutResources {
    pub yaml: String,
    /// Replace what is there.
    pub replace: bool,
    /// The one document is written only if this is what is stored: nobody's change in between is overwritten.
    #[serde(default)]
    pub instead_of: Option<serde_json::Value>,
}

/// The answer: what became of each, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourcesPut {
    pub done: Vec<ResourceDone>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceDone {
    pub kind: String,
    pub name: String,
    pub replaced: bool,
}

/// `GET /v1/resources?kind=role&name=access`: JSON documents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resources {
    pub documents: Vec<serde_json::Value>,
    /// The same as YAML.
    pub yaml: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResourceQuery {
    pub kind: String,
    pub name: Option<String>,
}

/// `POST /v1/certificates/person`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignPerson {
    pub user: String,
    pub db_service: Option<String>,
    pub ttl_secs: u64,
    /// PKCS#10 in base64: the key stays with whoever asks.
    pub csr: String,
}

/// `POST /v1/certificates/database`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignDatabase {
    pub hosts: Vec<String>,
    pub ttl_secs: u64,
    pub csr: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignedCertificate {
    pub certificate: String,
    /// Whom the holder has to trust: for a person the proxy's authority, for a database the authority of its clients.
    pub authorities: String,
    pub not_after: String,
}

/// `GET /v1/audit`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditQuery {
    pub user: Option<String>,
    pub db: Option<String>,
    pub event: Option<String>,
    pub since: Option<String>,
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditEvents {
    /// Each the event's JSON as it was written, oldest first.
    pub events: Vec<String>,
}

/// `POST /v1/tokens`. No `Debug`: it may hold a token.
#[derive(Clone, Serialize, Deserialize)]
pub struct AddToken {
    /// Kinds of nodes: `db`, `proxy`.
    pub roles: Vec<String>,
    pub ttl_secs: u64,
    /// How many nodes may join; `None` is any number.
    pub uses: Option<u64>,
    /// A token of the administrator's own choice.
    pub value: Option<String>,
    pub labels: std::collections::BTreeMap<String, String>,
}

/// The answer, and the only one that ever holds the token.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenAdded {
    pub token: String,
    pub roles: Vec<String>,
    pub expires: String,
    pub ca_pins: Vec<String>,
    /// Where nodes reach the cluster, as far as auth knows.
    pub proxy: Option<String>,
}

/// `GET /v1/tokens`: those that admit nodes now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenStatuses {
    pub tokens: Vec<TokenStatus>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TokenStatus {
    /// Its first characters and stars.
    pub token: String,
    pub roles: Vec<String>,
    pub labels: std::collections::BTreeMap<String, String>,
    /// `None`: it does not expire.
    pub expires: Option<String>,
    /// `None`: any number of nodes.
    pub uses_left: Option<u64>,
    /// It stands in auth's configuration.
    pub configured: bool,
    pub created: Option<String>,
    pub created_by: Option<String>,
}

/// `POST /v1/tokens/remove`: the token, or what is shown of it. No `Debug`: it may hold a token.
#[derive(Clone, Serialize, Deserialize)]
pub struct RemoveToken {
    pub token: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRemoved {
    pub removed: String,
}

/// `POST /v1/users`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddUser {
    pub name: String,
    pub roles: Vec<String>,
    pub traits: std::collections::BTreeMap<String, Vec<String>>,
    pub ttl_secs: u64,
}

/// `POST /v1/users/{name}/reset`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResetUser {
    pub ttl_secs: u64,
}

/// The answer to both, and the only one that ever holds the token. No `Debug` for the same reason.
#[derive(Clone, Serialize, Deserialize)]
pub struct UserInvited {
    pub token: String,
    pub expires: String,
    /// Where the person goes, and the same below the proxy's address.
    pub url: Option<String>,
    pub path: String,
    /// Where people reach the cluster, as far as auth knows.
    pub proxy: Option<String>,
}

/// `PATCH /v1/users/{name}`: what is named is replaced, what is not stays. A trait without values is removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UpdateUser {
    pub roles: Option<Vec<String>>,
    pub traits: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserUpdated {
    pub user: UserStatus,
}

/// `GET /v1/users`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserStatuses {
    pub users: Vec<UserStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserStatus {
    pub name: String,
    pub roles: Vec<String>,
    pub traits: std::collections::BTreeMap<String, Vec<String>>,
}

/// Every answer that is not 2xx.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    pub error: String,
}
