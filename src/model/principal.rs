//! Who someone is, and how we know.

use super::{ClusterName, DbName, DbUser, PersonName, RoleName, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Values by name that roles refer to: `{{internal.db_users}}`.
pub type Traits = BTreeMap<String, Vec<String>>;

/// A person, as their certificate names them. Only a verified certificate is turned into one.
///
/// `roles` and `traits` are those at the time of issue, for display; decisions read the current record by name, so that a
/// removed role takes effect at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub name: PersonName,
    pub cluster: ClusterName,
    pub roles: Vec<RoleName>,
    pub traits: Traits,
    /// The second factor was proved at login.
    pub mfa: bool,
    pub valid_until: Timestamp,
    pub route: Option<Route>,
    /// The address that the certificate was issued to; a role may ask that it be used from there only.
    pub pinned_ip: Option<IpAddr>,
}

/// Where `db login` pointed a certificate. It binds the service; user and name are only the command line's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub service: ServiceName,
    pub db_user: Option<DbUser>,
    pub db_name: Option<DbName>,
}
