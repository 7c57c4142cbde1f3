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
        self.of_the_living(|record| Some(record.clone()))
    }

    /// What `wanted` makes of the nodes that are alive; what it does not want is not copied.
    fn of_the_living<T>(&self, wanted: impl FnMut(&NodeRecord) -> Option<T>) -> Vec<T> {
        let oldest = self.clock.now() - NODE_SILENT_AFTER;
        let nodes = self.nodes.borrow();
        let living = nodes.values().filter(|known| known.heard >= oldest);
        living.map(|known| &known.record).filter_map(wanted).collect()
    }

    /// The proxies that are alive, by their ids, as far as they say where they are reached. Every node asks with each heartbeat.
    pub fn proxies(&self) -> Vec<ProxyRecord> {
        self.of_the_living(|record| {
            let is_reached = record.kinds.contains(&NodeKind::Proxy) && !record.report.proxy_addresses.is_empty();
            is_reached.then(|| ProxyRecord {
                node: record.node,
                name: record.name.clone(),
                addresses: record.report.proxy_addresses.clone(),
            })
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;
    use crate::model::clock::HeldClock;

    #[test]
    fn the_proxies_are_those_that_are_alive_and_say_where_they_are_reached() {
        let now = Timestamp::from_secs(1_800_000_000);
        let node = |number: u8, kind, reached: &[&str], heard| {
            let record = NodeRecord {
                node: NodeId::from_random([number; 16]),
                name: NodeName::new(format!("node-{number}")).unwrap(),
                kinds: vec![kind],
                report: NodeReport {
                    version: String::new(),
                    instance: 1,
                    started: now,
                    databases: Vec::new(),
                    health: Vec::new(),
                    proxy_addresses: reached.iter().map(|at| Endpoint::parse(at, 443).unwrap()).collect(),
                },
            };
            let link = Weak::new();
            (record.node, Known { record, heard, link })
        };
        let stock = InventoryStock::default();
        let silent = now - NODE_SILENT_AFTER - Duration::from_secs(1);
        stock.0.send_replace(Nodes::from([
            node(1, NodeKind::Proxy, &["a.example"], now),
            node(2, NodeKind::Proxy, &["b.example"], silent),
            node(3, NodeKind::Proxy, &[], now),
            node(4, NodeKind::Db, &[], now),
        ]));
        let view = stock.view(HeldClock::at(now));
        let names = view
            .proxies()
            .iter()
            .map(|proxy| proxy.name.to_string())
            .collect::<Vec<_>>();
        assert_eq!(names, ["node-1"]);
        assert_eq!(view.nodes().len(), 3);
    }
}
