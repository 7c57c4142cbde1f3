//! The rules as this node holds them.
//!
//! **Owns** the newest snapshot here, and when auth last said that it is the newest.
//! **Hears** `PolicyReceived`, `PolicyConfirmed`.
//! **Tells** whoever holds a [`PolicyView`], by reading, not by message: a decision costs no hop.
//! **Never** decides; that is `policy::decide`.
//! **Ends** with the node. What it holds is kept outside of its state, so that a rebuild loses nothing.

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use crate::model::{NodeId, Refusal, RefusalKind, SharedClock, Timestamp};
use crate::policy::PolicySnapshot;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The newest rules, and how long a node may decide from them without word from auth: a control plane that is away must not
/// stop the work, and a node that is cut off must not go on for ever with rules that may have been withdrawn.
pub struct PolicyReceived {
    pub snapshot: Arc<PolicySnapshot>,
    /// `policy_max_age` of auth's configuration.
    pub max_age: Duration,
}

/// The snapshot of this version is still the newest.
pub struct PolicyConfirmed(pub u64);

message!(PolicyReceived => (), PolicyConfirmed => ());

#[derive(Debug, Clone)]
struct Held {
    snapshot: Arc<PolicySnapshot>,
    confirmed_at: Timestamp,
    max_age: Duration,
}

/// Where the held snapshot is kept: made once per node, outside of the actor.
#[derive(Debug, Clone)]
pub struct PolicyStock(Arc<watch::Sender<Option<Held>>>);

impl Default for PolicyStock {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl PolicyStock {
    pub fn view(&self, clock: SharedClock) -> PolicyView {
        PolicyView {
            held: self.0.subscribe(),
            clock,
        }
    }
}

/// Reads the rules of this node.
#[derive(Clone)]
pub struct PolicyView {
    held: watch::Receiver<Option<Held>>,
    clock: SharedClock,
}

impl PolicyView {
    /// The snapshot to decide from, unless it is too old to be relied on.
    pub fn current(&self) -> Result<Arc<PolicySnapshot>, Refusal> {
        let held = self.held.borrow();
        let Some(held) = held.as_ref() else {
            return Err(Refusal::new(
                RefusalKind::PolicyStale,
                "this node has not received the cluster's rules yet",
            )
            .hint("try again in a moment; if it lasts, the node's log says why it cannot reach auth"));
        };
        let age = self.clock.now().since(held.confirmed_at);
        if age > held.max_age {
            return Err(Refusal::new(
                RefusalKind::PolicyStale,
                format!(
                    "this node last heard from auth {} s ago; after {} s no new session is allowed",
                    age.as_secs(),
                    held.max_age.as_secs()
                ),
            )
            .hint("sessions that are open go on; ask an administrator to look at the auth service"));
        }
        Ok(held.snapshot.clone())
    }

    /// Whether a node was removed, as far as this node has heard. However old that is: a removal is not taken back.
    pub fn is_removed(&self, node: NodeId) -> bool {
        let held = self.held.borrow();
        held.as_ref()
            .is_some_and(|held| held.snapshot.removed_nodes.contains(&node))
    }

    /// Resolves when the node is removed; never, if it is not.
    pub async fn removal_of(mut self, node: NodeId) {
        while !self.is_removed(node) {
            if self.changed().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How long ago auth has said that these rules are the newest; it does so every second.
    pub fn confirmed_ago(&self) -> Option<Duration> {
        let held = self.held.borrow();
        held.as_ref().map(|held| self.clock.now().since(held.confirmed_at))
    }

    pub fn locks_in_force(&self) -> Option<usize> {
        let (held, now) = (self.held.borrow(), self.clock.now());
        let in_force = |held: &Held| held.snapshot.locks.iter().filter(|lock| lock.is_in_force(now)).count();
        held.as_ref().map(in_force)
    }

    /// The newest rules, however old: for sessions that are open, which go on without auth, too.
    pub fn newest(&self) -> Option<Arc<PolicySnapshot>> {
        self.held.borrow().as_ref().map(|held| held.snapshot.clone())
    }

    pub fn version(&self) -> Option<u64> {
        self.held.borrow().as_ref().map(|held| held.snapshot.version)
    }

    /// Waits for the next snapshot; `None` when the node is going down.
    pub async fn changed(&mut self) -> Option<Arc<PolicySnapshot>> {
        self.held.changed().await.ok()?;
        let held = self.held.borrow_and_update();
        held.as_ref().map(|held| held.snapshot.clone())
    }
}

pub struct Policy {
    stock: PolicyStock,
    clock: SharedClock,
}

impl Policy {
    pub fn new(stock: PolicyStock, clock: SharedClock) -> Self {
        Self { stock, clock }
    }
}

impl Behavior for Policy {
    /// One snapshot and one confirmation a second come in; more waiting than this would be old news.
    const MAILBOX: usize = 16;
}

impl Handle<PolicyReceived> for Policy {
    fn handle(&mut self, PolicyReceived { snapshot, max_age }: PolicyReceived, _: &mut Ctx<'_, Self>) -> Reply<()> {
        let now = self.clock.now();
        self.stock.0.send_if_modified(|held| {
            let newer = held
                .as_ref()
                .is_none_or(|held| snapshot.version > held.snapshot.version);
            if newer {
                tracing::debug!(policy_version = snapshot.version, "policy received");
                *held = Some(Held {
                    snapshot,
                    confirmed_at: now,
                    max_age,
                });
            } else if let Some(held) = held.as_ref().filter(|held| snapshot.version < held.snapshot.version) {
                tracing::error!(
                    policy_version = held.snapshot.version,
                    auth_policy_version = snapshot.version,
                    "auth has older rules than this node; if it was restored from a backup, restart this node"
                );
            }
            newer
        });
        Reply::Now(())
    }
}

impl Handle<PolicyConfirmed> for Policy {
    fn handle(&mut self, PolicyConfirmed(version): PolicyConfirmed, _: &mut Ctx<'_, Self>) -> Reply<()> {
        let now = self.clock.now();
        // Nobody is woken: nothing changed but the age.
        self.stock.0.send_if_modified(|held| {
            if let Some(held) = held.as_mut().filter(|held| held.snapshot.version == version) {
                held.confirmed_at = now;
            }
            false
        });
        Reply::Now(())
    }
}
