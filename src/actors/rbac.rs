//! Users and roles, on auth.
//!
//! **Owns** the way from the stored resources to the published snapshot.
//! **Hears** `PutResource`, `RemoveResource`, `RemoveNode` from administrators.
//! **Tells** by publishing: immutable, versioned snapshots that the policy actor of this process and the links to other nodes
//! follow.
//! **Never** publishes what is not stored, nor a version twice.
//! **Ends** with the node. After a failure it reads everything again from the store; what was published stays in force.

use super::address::{Reply, message};
use super::ca::HOST_TTL;
use super::host::{Behavior, Ctx, Handle};
use crate::model::{NodeId, PersonName, RoleName, SharedClock};
use crate::policy::{PolicySnapshot, Resource, ResourceError};
use crate::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const USERS: &str = "/user/";
const ROLES: &str = "/role/";
/// Written with every change; its revision is the version of the snapshot that follows.
/// By node id; each lasts as long as a certificate of the node may be valid.
const REMOVED_NODES: &str = "/removed-node/";
const GENERATION: &str = "/policy/generation";
/// Users and roles each; at a kilobyte a record a snapshot stays below the 16 MiB of a node message.
const RESOURCES_MAX: usize = 8_000;
/// A store that fails is tried again; meanwhile the last snapshot is in force.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes a user or a role. The answer says whether it was there before.
pub struct PutResource {
    pub resource: Resource,
    /// May replace what is there.
    pub replace: bool,
}

pub struct RemoveResource(pub ResourceRef);

/// A node may not take part any more: its connections are cut everywhere, and nothing is signed for it.
pub struct RemoveNode(pub NodeId);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceRef {
    User(PersonName),
    Role(RoleName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Created,
    Replaced,
}

message!(
    PutResource => Result<Put, RbacError>,
    RemoveResource => Result<bool, RbacError>,
    RemoveNode => Result<(), RbacError>,
);

#[derive(Debug, thiserror::Error)]
pub enum RbacError {
    #[error("{kind} {name:?} already exists; to replace it: ctl create -f FILE")]
    Exists { kind: &'static str, name: String },
    #[error("there are {RESOURCES_MAX} resources of this kind, which is the limit")]
    TooMany,
    #[error("a stored resource cannot be read: {0}")]
    Unreadable(#[from] ResourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where snapshots are published: made once per node, outside of the actor, so that a rebuild withdraws nothing.
pub type Published = Arc<watch::Sender<Option<Arc<PolicySnapshot>>>>;

pub struct Rbac {
    store: Arc<dyn Store>,
    clock: SharedClock,
    published: Published,
}

impl Rbac {
    pub fn new(store: Arc<dyn Store>, clock: SharedClock, published: Published) -> Self {
        Self {
            store,
            clock,
            published,
        }
    }

    /// Publishes what is stored, under a new version, and then does `then`: whoever changed a rule is answered when it is in
    /// force here.
    fn publish(&self, ctx: &mut Ctx<'_, Self>, then: impl FnOnce() + 'static) {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        ctx.run(
            async move { next_snapshot(store.as_ref(), &clock).await },
            |rbac, snapshot, ctx| match snapshot {
                Ok(snapshot) => {
                    rbac.announce(snapshot);
                    then();
                }
                Err(error) => {
                    tracing::error!(%error, retry = ?RETRY_AFTER, "the rules cannot be read; the last ones stay in force");
                    ctx.after(RETRY_AFTER, |rbac, ctx| rbac.publish(ctx, then));
                }
            },
        );
    }

    fn announce(&self, snapshot: PolicySnapshot) {
        self.published.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|newest| snapshot.version > newest.version);
            if newer {
                tracing::info!(
                    version = snapshot.version,
                    users = snapshot.users.len(),
                    roles = snapshot.roles.len(),
                    "policy published"
                );
                *newest = Some(Arc::new(snapshot));
            }
            newer
        });
    }
}

/// Takes a version, then reads: a change that comes in between is in this snapshot and again in the next.
async fn next_snapshot(store: &dyn Store, clock: &SharedClock) -> Result<PolicySnapshot, RbacError> {
    let version = store.put(GENERATION, Vec::new(), None).await?;
    let mut snapshot = PolicySnapshot {
        version,
        published_at: clock.now(),
        users: BTreeMap::new(),
        roles: BTreeMap::new(),
        removed_nodes: removed_nodes(store).await?,
    };
    for prefix in [USERS, ROLES] {
        for item in store.range(prefix, RESOURCES_MAX).await? {
            match Resource::from_json(&String::from_utf8_lossy(&item.value))? {
                Resource::User(user) => drop(snapshot.users.insert(user.name.clone(), user)),
                Resource::Role(role) => drop(snapshot.roles.insert(role.name.clone(), role)),
            }
        }
    }
    Ok(snapshot)
}

/// A key that is no node id was not written here; it is left out, and said.
async fn removed_nodes(store: &dyn Store) -> Result<BTreeSet<NodeId>, RbacError> {
    let items = store.range(REMOVED_NODES, RESOURCES_MAX).await?;
    let ids = items.iter().filter_map(|item| {
        let id = item.key.strip_prefix(REMOVED_NODES)?.parse();
        id.inspect_err(|error| tracing::error!(key = item.key, %error, "not a node id"))
            .ok()
    });
    Ok(ids.collect())
}

async fn put(store: &dyn Store, resource: &Resource, replace: bool) -> Result<Put, RbacError> {
    crate::telemetry::fault::point("rbac.put", resource.name());
    let prefix = match resource {
        Resource::User(_) => USERS,
        Resource::Role(_) => ROLES,
    };
    if store.range(prefix, RESOURCES_MAX).await?.len() >= RESOURCES_MAX {
        return Err(RbacError::TooMany);
    }
    let key = format!("{prefix}{}", resource.name());
    let value = resource.to_json().into_bytes();
    if replace {
        let before = store.get(&key).await?;
        store.put(&key, value, None).await?;
        return Ok(before.map_or(Put::Created, |_| Put::Replaced));
    }
    match store.create(&key, value, None).await {
        Ok(_) => Ok(Put::Created),
        Err(StoreError::AlreadyExists { .. }) => Err(RbacError::Exists {
            kind: resource.kind(),
            name: resource.name().to_owned(),
        }),
        Err(error) => Err(error.into()),
    }
}

impl Behavior for Rbac {
    /// Administrators work one command at a time; a script that floods gets "full" and its own back-pressure.
    const MAILBOX: usize = 64;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.publish(ctx, || {});
    }
}

impl Handle<PutResource> for Rbac {
    fn handle(
        &mut self,
        PutResource { resource, replace }: PutResource,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<Put, RbacError>> {
        let (reply, promise) = Reply::later();
        let store = self.store.clone();
        ctx.run(
            async move { put(store.as_ref(), &resource, replace).await },
            |rbac, done, ctx| match done {
                Ok(_) => rbac.publish(ctx, || promise.keep(done)),
                Err(_) => promise.keep(done),
            },
        );
        reply
    }
}

impl Handle<RemoveResource> for Rbac {
    fn handle(
        &mut self,
        RemoveResource(resource): RemoveResource,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<bool, RbacError>> {
        let (reply, promise) = Reply::later();
        let store = self.store.clone();
        let key = match resource {
            ResourceRef::User(name) => format!("{USERS}{name}"),
            ResourceRef::Role(name) => format!("{ROLES}{name}"),
        };
        ctx.run(async move { store.delete(&key).await }, |rbac, done, ctx| {
            let done = done.map_err(RbacError::from);
            match done {
                Ok(true) => rbac.publish(ctx, || promise.keep(done)),
                _ => promise.keep(done),
            }
        });
        reply
    }
}

impl Handle<RemoveNode> for Rbac {
    fn handle(&mut self, RemoveNode(node): RemoveNode, ctx: &mut Ctx<'_, Self>) -> Reply<Result<(), RbacError>> {
        let (reply, promise) = Reply::later();
        let (store, until) = (self.store.clone(), self.clock.now() + HOST_TTL);
        let key = format!("{REMOVED_NODES}{node}");
        let put = async move { store.put(&key, Vec::new(), Some(until)).await };
        ctx.run(put, |rbac, done, ctx| match done {
            Ok(_) => rbac.publish(ctx, || promise.keep(Ok(()))),
            Err(error) => promise.keep(Err(error.into())),
        });
        reply
    }
}
