//! Replication connections, by which copies of a PostgreSQL are made and kept.

use serde::{Deserialize, Serialize};

/// Which of its two modes a replication connection is in ("Streaming Replication Protocol" in PostgreSQL's manual). Either
/// takes the commands that read a whole server: the mode says whether it is in a database besides, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replication {
    /// In no database.
    Physical,
    /// In one database, whose changes can be decoded.
    Logical,
}

impl Replication {
    pub const ALL: [Self; 2] = [Self::Physical, Self::Logical];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }

    /// The value of the start-up parameter `replication`.
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Physical => "true",
            Self::Logical => "database",
        }
    }
}
