//! The shapes of the API for locks and for explanations of decisions.

use crate::model::Replication;
use serde::{Deserialize, Serialize};

/// `POST /v1/locks`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddLock {
    pub target: LockOn,
    pub message: Option<String>,
    /// How long it is in force; for ever without this and `expires`.
    pub ttl_secs: Option<u64>,
    pub expires: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockOn {
    User(String),
    Role(String),
    /// By its name or its id.
    Node(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LockAdded {
    pub name: String,
}

/// `GET /v1/access/explain?user=alice&db=orders&db_user=reader&db_name=orders`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainQuery {
    pub user: String,
    pub db: String,
    pub db_user: String,
    /// The database user's where it is left out, as PostgreSQL has it.
    pub db_name: Option<String>,
    /// Of a replication connection; a physical one is in no database.
    pub replication: Option<Replication>,
}

/// One explanation for each agent that serves the database: their labels and the locks on them may differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanations {
    pub agents: Vec<ExplainedAgent>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainedAgent {
    pub agent: String,
    pub allowed: bool,
    pub explanation: serde_json::Value,
    /// The same in words.
    pub text: String,
}
