//! What a node is for.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A service that a node may run, and the kind of a peer: it decides which messages are understood from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    Auth,
    Proxy,
    /// The database service: an agent.
    Db,
}

impl NodeKind {
    pub const ALL: [Self; 3] = [Self::Auth, Self::Proxy, Self::Db];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Proxy => "proxy",
            Self::Db => "db",
        }
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for NodeKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.label() == text)
            .ok_or_else(|| format!("{text:?} is not a kind of node; there are auth, proxy and db"))
    }
}
