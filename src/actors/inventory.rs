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
use crate::protocol::tunnel::{NodeReport, ProxyRecord};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
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
    pub report: NodeReport,
}

/// A node has sent its heartbeat, over a link that lives as long as the token does.
pub struct NodeHeard {
    pub record: NodeRecord,
    pub link: Weak<()>,
}
/// Another process with the node's identity is alive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {name} runs already: another process with this node's identity has been connected since it started at {since}. A data \
     directory belongs to one node: stop the other one; or, if this directory is a copy, remove the directory \"identity\" in it \
     and join with a new token"
)]
pub struct RunsTwice {
    name: NodeName,
    since: Timestamp,
}
/// A node was removed; it is not listed until it is heard again.
pub struct NodeForgotten(pub NodeId);
message!(NodeHeard => Result<(), RunsTwice>, NodeForgotten => ());

#[derive(Debug, Clone)]
struct Known {
    record: NodeRecord,
    heard: Timestamp,
    link: Weak<()>,
}

type Nodes = BTreeMap<NodeId, Known>;

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
            .filter(|known| known.heard >= oldest)
            .map(|known| known.record.clone())
            .collect()
    }

    /// The proxies that are alive, by their ids, as far as they say where they are reached.
    pub fn proxies(&self) -> Vec<ProxyRecord> {
        let nodes = self.nodes().into_iter();
        nodes
            .filter(|record| record.kinds.contains(&NodeKind::Proxy) && !record.report.proxy_addresses.is_empty())
            .map(|record| ProxyRecord {
                node: record.node,
                name: record.name,
                addresses: record.report.proxy_addresses,
            })
            .collect()
    }

    /// The labels of a service as this node serves it; `None` when it does not.
    pub fn labels_of(&self, node: NodeId, service: &ServiceName) -> Option<Labels> {
        let nodes = self.nodes.borrow();
        let record = &nodes.get(&node)?.record;
        let database = record
            .report
            .databases
            .iter()
            .find(|database| database.service == *service)?;
        Some(database.labels.clone())
    }

    /// The name that a node that is alive gave itself.
    pub fn name_of(&self, node: NodeId) -> Option<NodeName> {
        let nodes = self.nodes.borrow();
        nodes.get(&node).map(|known| known.record.name.clone())
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
                nodes.retain(|_, known| {
                    let alive = known.heard >= oldest;
                    if !alive {
                        tracing::warn!(node = %known.record.name, "node is silent and leaves the list");
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
    fn handle(&mut self, heard: NodeHeard, _: &mut Ctx<'_, Self>) -> Reply<Result<(), RunsTwice>> {
        let NodeHeard { record, link } = heard;
        let now = self.clock.now();
        if let Some(known) = self.stock.0.borrow().get(&record.node)
            && known.record.report.instance != record.report.instance
            && known.heard >= now - NODE_SILENT_AFTER
            && known.link.strong_count() > 0
        {
            return Reply::Now(Err(RunsTwice {
                name: record.name,
                since: known.record.report.started,
            }));
        }
        self.stock.0.send_modify(|nodes| {
            let heard = now;
            nodes.insert(record.node, Known { record, heard, link });
        });
        Reply::Now(Ok(()))
    }
}

impl Handle<NodeForgotten> for Inventory {
    fn handle(&mut self, NodeForgotten(node): NodeForgotten, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.stock.0.send_if_modified(|nodes| nodes.remove(&node).is_some());
        Reply::Now(())
    }
}
