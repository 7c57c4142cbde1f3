//! The shapes of the API for what runs on the nodes. A node's actors are a `telemetry::view::NodeView`, a trace is a
//! `telemetry::view::Trace`.

use crate::telemetry::view::{ConnectionView, MissingPart};
use serde::{Deserialize, Serialize};

/// `GET /v1/connections`. Who may not list all may list their own, with their name as `user`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConnectionsQuery {
    pub user: Option<String>,
    pub db: Option<String>,
    pub state: Option<String>,
}

/// As the proxies see them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FoundConnections {
    pub connections: Vec<ConnectionView>,
    /// Those that did not fit into a proxy's answer.
    pub left_out: usize,
    /// Proxies that did not answer, and why.
    pub missing: Vec<MissingPart>,
}
