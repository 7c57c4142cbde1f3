//! The nodes and databases that auth knows of.
//!
//! **Owns** the last heartbeat of every node.
//! **Hears** `NodeHeard` from links (and from this process's own services), `NodeForgotten` from administrators.
//! **Tells** whoever holds an [`InventoryView`].
//! **Never** keeps a node that has been silent for [`NODE_SILENT_AFTER`].
//! **Ends** with the node; a rebuilt inventory fills itself from the next heartbeats.

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use crate::model::{Labels, NodeId, NodeKind, NodeName, ServiceName, SharedClock, Timestamp};
use crate::protocol::tunnel::DatabaseRecord;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// Three heartbeats missed: gone.
pub const NODE_SILENT_AFTER: Duration = Duration::from_secs(7);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    pub node: NodeId,
    pub name: NodeName,
    pub kinds: Vec<NodeKind>,
    pub databases: Vec<DatabaseRecord>,
}

/// A node has sent its heartbeat.
pub struct NodeHeard(pub NodeRecord);
/// A node was removed; it is not listed until it is heard again.
pub struct NodeForgotten(pub NodeId);
message!(NodeHeard => (), NodeForgotten => ());

type Nodes = BTreeMap<NodeId, (NodeRecord, Timestamp)>;

#[derive(Debug, Clone)]
pub struct InventoryStock(Arc<watch::Sender<Nodes>>);

impl Default for InventoryStock {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Nodes::new())))
    }
}

impl InventoryStock {
    pub fn view(&self, clock: SharedClock) -> InventoryView {
        InventoryView {
            nodes: self.0.subscribe(),
            clock,
        }
    }
}

#[derive(Clone)]
pub struct InventoryView {
    nodes: watch::Receiver<Nodes>,
    clock: SharedClock,
}

impl InventoryView {
    /// The nodes that are alive.
    pub fn nodes(&self) -> Vec<NodeRecord> {
        let oldest = self.clock.now() - NODE_SILENT_AFTER;
        let nodes = self.nodes.borrow();
        nodes
            .values()
            .filter(|(_, heard)| *heard >= oldest)
            .map(|(record, _)| record.clone())
            .collect()
    }

    /// The labels of a service as this node serves it; `None` when it does not.
    pub fn labels_of(&self, node: NodeId, service: &ServiceName) -> Option<Labels> {
        let nodes = self.nodes.borrow();
        let (record, _) = nodes.get(&node)?;
        let database = record.databases.iter().find(|database| database.service == *service)?;
        Some(database.labels.clone())
    }

    /// The name that a node that is alive gave itself.
    pub fn name_of(&self, node: NodeId) -> Option<NodeName> {
        let nodes = self.nodes.borrow();
        nodes.get(&node).map(|(record, _)| record.name.clone())
    }
}

pub struct Inventory {
    stock: InventoryStock,
    clock: SharedClock,
}

impl Inventory {
    pub fn new(stock: InventoryStock, clock: SharedClock) -> Self {
        Self { stock, clock }
    }

    fn sweep_later(&self, ctx: &mut Ctx<'_, Self>) {
        ctx.after(HEARTBEAT_EVERY, |inventory, ctx| {
            let oldest = inventory.clock.now() - NODE_SILENT_AFTER;
            inventory.stock.0.send_if_modified(|nodes| {
                let before = nodes.len();
                nodes.retain(|_, (record, heard)| {
                    let alive = *heard >= oldest;
                    if !alive {
                        tracing::warn!(node = %record.name, "node is silent and leaves the list");
                    }
                    alive
                });
                nodes.len() != before
            });
            inventory.sweep_later(ctx);
        });
    }
}

impl Behavior for Inventory {
    /// One heartbeat of each node every two seconds: room for a burst of all nodes of a large cluster.
    const MAILBOX: usize = 512;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.sweep_later(ctx);
    }
}

impl Handle<NodeHeard> for Inventory {
    fn handle(&mut self, NodeHeard(record): NodeHeard, _: &mut Ctx<'_, Self>) -> Reply<()> {
        let now = self.clock.now();
        self.stock.0.send_modify(|nodes| {
            nodes.insert(record.node, (record, now));
        });
        Reply::Now(())
    }
}

impl Handle<NodeForgotten> for Inventory {
    fn handle(&mut self, NodeForgotten(node): NodeForgotten, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.stock.0.send_if_modified(|nodes| nodes.remove(&node).is_some());
        Reply::Now(())
    }
}
