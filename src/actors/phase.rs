//! The phase of a node's life: one value for all of the node. Whoever has to act on a change waits for it; whoever is asked for
//! the node's readiness reads it.

use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not every service does its work yet: of an agent, no tunnel has been up.
    Starting,
    Ready,
    /// Told to stop: open sessions are finished, new ones go elsewhere.
    Draining,
}

/// Made once per node.
#[derive(Debug, Clone)]
pub struct NodePhase(Arc<watch::Sender<Phase>>);

impl Default for NodePhase {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Starting)))
    }
}

impl NodePhase {
    pub fn view(&self) -> PhaseView {
        PhaseView(self.0.subscribe())
    }

    /// Every service does its work. A node that drains stays at it.
    pub fn ready(&self) {
        self.0.send_if_modified(|phase| {
            let starts = *phase == Phase::Starting;
            if starts {
                *phase = Phase::Ready;
            }
            starts
        });
    }

    pub fn drain(&self) {
        self.0.send_replace(Phase::Draining);
    }
}

#[derive(Debug, Clone)]
pub struct PhaseView(watch::Receiver<Phase>);

impl PhaseView {
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    pub fn is_draining(&self) -> bool {
        self.now() == Phase::Draining
    }

    /// Resolves when the node is ready; never, if it is told to stop before.
    pub async fn ready(&mut self) {
        self.reached(Phase::Ready).await;
    }

    /// Resolves when the node drains.
    pub async fn draining(&mut self) {
        self.reached(Phase::Draining).await;
    }

    async fn reached(&mut self, wanted: Phase) {
        if self.0.wait_for(|phase| *phase == wanted).await.is_err() {
            // The node is gone, and with it whoever waits.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_drains_does_not_become_ready_by_a_tunnel_that_comes_up_late() {
        let phase = NodePhase::default();
        assert_eq!(phase.view().now(), Phase::Starting);
        phase.drain();
        phase.ready();
        assert!(phase.view().is_draining());
    }
}
