//! How a proxy reaches one agent, and what it has learnt of the agent's program.

use super::tunnels::Transport;
use crate::model::{NodeId, NodeName};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The agent, and a way to it: a tunnel, or none where it is in this process.
#[derive(Clone)]
pub struct AgentWay {
    pub node: NodeId,
    pub name: NodeName,
    pub transport: Transport,
    pub is_older: Older,
}

impl AgentWay {
    /// As the views name it.
    pub fn peer(&self) -> Arc<str> {
        format!("agent {}", self.name).into()
    }
}

/// Whether the agent has refused a question that this version has and an older one does not know. It holds for one tunnel: each
/// refusal is on the audit log, and an agent that was upgraded comes with another tunnel. Its copies are the same fact.
#[derive(Debug, Clone, Default)]
pub struct Older(Arc<AtomicBool>);

impl Older {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
