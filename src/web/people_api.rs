//! The shapes of the API for people: what the command line sends and reads when it is not on auth's machine.
//!
//! `GET https://PROXY/webapi/ping` answers [`Ping`], to anybody. All else is asked of auth itself: TLS to the proxy with ALPN
//! `postern-person-to-auth/1`, and inside of it TLS with auth, ALPN `postern-person/1`, verified under the host authority, with the
//! person's certificate where there is one. The proxy forwards bytes that it cannot read, so it sees neither password nor code.
//! Times are RFC 3339, durations are seconds, certificates are PEM, requests for certificates are PKCS#10 in base64.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /webapi/ping` on a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub cluster: String,
    /// The version of the proxy's program.
    pub version: String,
    /// Where people reach the cluster, `host:port`.
    pub proxy: String,
    /// The certificates of the host authority, several while it is rotated.
    pub host_ca: String,
    pub ca_pins: Vec<String>,
}

/// `POST /v1/login`, without a certificate. No `Debug`: it holds a password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub code: String,
    /// As long as the roles allow when `None`, and never longer.
    pub ttl_secs: Option<u64>,
    pub csr: String,
}

/// `POST /v1/certificates`, with a certificate: another one for the same key's holder, which ends when the login does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    pub csr: String,
    /// The database service that the certificate is for, and what the command line starts with.
    pub route: Option<Route>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub service: String,
    pub db_user: Option<String>,
    pub db_name: Option<String>,
}

/// The answer to both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    pub cluster: String,
    pub user: String,
    pub roles: Vec<String>,
    pub certificate: String,
    pub not_after: String,
    /// Whom the holder has to trust: the host authority, whose leaf a proxy presents.
    pub host_ca: String,
}

/// `GET /v1/me`, with a certificate: the current record of whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    pub user: String,
    pub cluster: String,
    pub roles: Vec<String>,
    pub traits: BTreeMap<String, Vec<String>>,
    pub valid_until: String,
}

/// `GET /v1/databases`, with a certificate: those that the roles let this person see, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MyDatabases {
    pub databases: Vec<MyDatabase>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MyDatabase {
    pub name: String,
    pub description: String,
    pub protocol: String,
    pub labels: BTreeMap<String, String>,
    pub uri: String,
    /// Database users that the roles allow here; `*` is any but those denied.
    pub allowed_users: Vec<String>,
    pub denied_users: Vec<String>,
    pub allowed_names: Vec<String>,
    pub denied_names: Vec<String>,
}
