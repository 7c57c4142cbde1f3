//! Users, roles, registered databases and locks, on auth.
//!
//! **Owns** the way from the stored resources to the published snapshot.
//! **Hears** `PutResource`, `RemoveResource`, `RemoveNode` from administrators.
//! **Tells** the audit trail of every change before it answers; and by publishing: immutable, versioned snapshots that the policy actor of this process and the links to other nodes
//! follow.
//! **Never** publishes what is not stored, nor a version twice.
//! **Ends** with the node. After a failure it reads everything again from the store; what was published stays in force.

use super::address::{Reply, message};
use super::ca::HOST_TTL;
use super::host::{Behavior, Ctx, Handle};
use super::trail::Trail;
use crate::audit::EventKind;
use crate::model::{LockName, NodeId, PersonName, Refusal, RoleName, ServiceName, SharedClock};
use crate::policy::{PolicySnapshot, Resource, ResourceError};
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const USERS: &str = "/user/";
const ROLES: &str = "/role/";
const DATABASES: &str = "/db/";
const LOCKS: &str = "/lock/";
/// All that is published.
const PREFIXES: [&str; 4] = [USERS, ROLES, DATABASES, LOCKS];
/// Written with every change; its revision is the version of the snapshot that follows.
/// By node id; each lasts as long as a certificate of the node may be valid.
const REMOVED_NODES: &str = "/removed-node/";
const GENERATION: &str = "/policy/generation";
/// Of each kind; at a kilobyte a record a snapshot stays below the 16 MiB of a node message.
const RESOURCES_MAX: usize = 8_000;
/// All resources together: a message to a node holds 16 MiB.
const POLICY_BYTES_MAX: usize = 12 * 1024 * 1024;
/// A store that fails is tried again; meanwhile the last snapshot is in force.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes a resource. The answer says whether it was there before.
pub struct PutResource {
    pub resource: Resource,
    /// May replace what is there.
    pub replace: bool,
    /// Only if this is what is there now.
    pub instead_of: Option<Resource>,
    /// Who asks, for the audit log.
    pub by: String,
}

pub struct RemoveResource {
    pub resource: ResourceRef,
    pub by: String,
}

/// A node may not take part any more: its connections are cut everywhere, and nothing is signed for it.
pub struct RemoveNode {
    pub node: NodeId,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceRef {
    User(PersonName),
    Role(RoleName),
    Db(ServiceName),
    Lock(LockName),
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
    #[error(
        "{kind} {name:?} was changed or removed by somebody else in the meantime; nothing was written, read it again"
    )]
    Changed { kind: &'static str, name: String },
    #[error(
        "there are {RESOURCES_MAX} resources of this kind, which is the limit; remove one that is not needed: ctl rm KIND/NAME"
    )]
    TooMany,
    #[error(
        "with this, users, roles, databases and locks would take {bytes} bytes; at most {POLICY_BYTES_MAX} fit into what is sent to the nodes, so \
         make it shorter or remove what is not needed"
    )]
    TooLarge { bytes: usize },
    #[error("it was done, but the audit log could not be written: {0}")]
    NotAudited(Refusal),
    #[error("a stored resource cannot be read: {0}")]
    Unreadable(#[from] ResourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where snapshots are published: made once per node, outside of the actor, so that a rebuild withdraws nothing.
pub type Published = Arc<watch::Sender<Option<Arc<PolicySnapshot>>>>;

pub struct Rbac {
    store: Arc<dyn Store>,
    trail: Trail,
    clock: SharedClock,
    published: Published,
}

impl Rbac {
    pub fn new(store: Arc<dyn Store>, trail: Trail, clock: SharedClock, published: Published) -> Self {
        Self {
            store,
            trail,
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
                    tracing::error!(%error, retry_in = ?RETRY_AFTER, "the rules cannot be read; the last ones stay in force");
                    ctx.after(RETRY_AFTER, |rbac, ctx| rbac.publish(ctx, then));
                }
            },
        );
    }

    /// Makes a change, publishes what follows from it, and then answers: with the fault of the audit log, if it had one. The
    /// future gives the answer, whether anything changed, and how the audit went.
    fn change<T: 'static>(
        &self,
        ctx: &mut Ctx<'_, Self>,
        change: impl Future<Output = Result<(T, bool, Result<(), RbacError>), RbacError>> + 'static,
    ) -> Reply<Result<T, RbacError>> {
        let (reply, promise) = Reply::later();
        ctx.run(change, |rbac, done, ctx| match done {
            Ok((answer, true, audited)) => rbac.publish(ctx, || promise.keep(audited.map(|()| answer))),
            Ok((answer, false, _)) => promise.keep(Ok(answer)),
            Err(error) => promise.keep(Err(error)),
        });
        reply
    }

    fn announce(&self, snapshot: PolicySnapshot) {
        self.published.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|newest| snapshot.version > newest.version);
            if newer {
                tracing::info!(
                    policy_version = snapshot.version,
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
    let mut snapshot = PolicySnapshot::empty(version, clock.now());
    snapshot.removed_nodes = removed_nodes(store).await?;
    for prefix in PREFIXES {
        for item in store.range(prefix, RESOURCES_MAX).await? {
            snapshot.add(Resource::from_json(&String::from_utf8_lossy(&item.value))?)?;
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

/// Stores one resource.
async fn put(
    store: &dyn Store,
    resource: &Resource,
    instead_of: Option<&Resource>,
    replace: bool,
) -> Result<Put, RbacError> {
    crate::telemetry::fault::point("rbac.put", resource.name());
    let prefix = match resource {
        Resource::User(_) => USERS,
        Resource::Role(_) => ROLES,
        Resource::Db(_) => DATABASES,
        Resource::Lock(_) => LOCKS,
    };
    let key = format!("{prefix}{}", resource.name());
    let value = resource.to_json().into_bytes();
    let is_new = check_room(store, prefix, &key, value.len()).await?;
    if let Some(expected) = instead_of {
        swap(store, &key, expected, value).await?;
        return Ok(Put::Replaced);
    }
    if replace {
        store.put(&key, value, None).await?;
        return Ok(if is_new { Put::Created } else { Put::Replaced });
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

/// Writes only where `expected` is what is stored.
async fn swap(store: &dyn Store, key: &str, expected: &Resource, value: Vec<u8>) -> Result<(), RbacError> {
    let changed = || RbacError::Changed {
        kind: expected.kind(),
        name: expected.name().to_owned(),
    };
    let stored = store.get(key).await?.ok_or_else(changed)?;
    if Resource::from_json(&String::from_utf8_lossy(&stored.value))? != *expected {
        return Err(changed());
    }
    match store.compare_and_swap(key, stored.revision, value, None).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { .. }) => Err(changed()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a record of so many bytes fits in; the answer says whether its key is new.
async fn check_room(store: &dyn Store, prefix: &str, key: &str, bytes: usize) -> Result<bool, RbacError> {
    let (mut total, mut is_new, mut of_kind) = (bytes, true, 0);
    for each in PREFIXES {
        let items = store.range(each, RESOURCES_MAX).await?;
        if each == prefix {
            of_kind = items.len();
            is_new = items.iter().all(|item| item.key != key);
        }
        total += items
            .iter()
            .filter(|item| item.key != key)
            .map(|item| item.value.len())
            .sum::<usize>();
    }
    if is_new && of_kind >= RESOURCES_MAX {
        return Err(RbacError::TooMany);
    }
    if total > POLICY_BYTES_MAX {
        return Err(RbacError::TooLarge { bytes: total });
    }
    Ok(is_new)
}

/// Writes the event of a change that is done, here and not where the change was asked for: an asker that hangs up hides
/// nothing.
async fn audit(trail: &Trail, kind: EventKind, name: &str, by: &str) -> Result<(), RbacError> {
    let event = trail.event(kind).field("name", name).field("user", by);
    trail.write(event).await.map_err(RbacError::NotAudited)
}

fn event_of(resource: &Resource, put: Put) -> EventKind {
    match (resource, put) {
        (Resource::Role(_), Put::Created) => EventKind::RoleCreated,
        (Resource::Role(_), Put::Replaced) => EventKind::RoleUpdated,
        (Resource::User(_), Put::Created) => EventKind::UserCreated,
        (Resource::User(_), Put::Replaced) => EventKind::UserUpdated,
        (Resource::Db(_), Put::Created) => EventKind::DatabaseCreated,
        (Resource::Db(_), Put::Replaced) => EventKind::DatabaseUpdated,
        // Teleport has no event of its own for a lock that is replaced.
        (Resource::Lock(_), Put::Created | Put::Replaced) => EventKind::LockCreated,
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
        PutResource {
            resource,
            replace,
            instead_of,
            by,
        }: PutResource,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<Put, RbacError>> {
        let (store, trail) = (self.store.clone(), self.trail.clone());
        self.change(ctx, async move {
            let done = put(store.as_ref(), &resource, instead_of.as_ref(), replace).await?;
            let audited = audit(&trail, event_of(&resource, done), resource.name(), &by).await;
            Ok((done, true, audited))
        })
    }
}

impl Handle<RemoveResource> for Rbac {
    fn handle(
        &mut self,
        RemoveResource { resource, by }: RemoveResource,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<bool, RbacError>> {
        let (store, trail) = (self.store.clone(), self.trail.clone());
        let (key, name, kind) = match resource {
            ResourceRef::User(name) => (format!("{USERS}{name}"), name.to_string(), EventKind::UserDeleted),
            ResourceRef::Role(name) => (format!("{ROLES}{name}"), name.to_string(), EventKind::RoleDeleted),
            ResourceRef::Db(name) => (
                format!("{DATABASES}{name}"),
                name.to_string(),
                EventKind::DatabaseDeleted,
            ),
            ResourceRef::Lock(name) => (format!("{LOCKS}{name}"), name.to_string(), EventKind::LockDeleted),
        };
        self.change(ctx, async move {
            let was_there = store.delete(&key).await?;
            let audited = match was_there {
                true => audit(&trail, kind, &name, &by).await,
                false => Ok(()),
            };
            Ok((was_there, was_there, audited))
        })
    }
}

impl Handle<RemoveNode> for Rbac {
    fn handle(&mut self, RemoveNode { node, by }: RemoveNode, ctx: &mut Ctx<'_, Self>) -> Reply<Result<(), RbacError>> {
        let (store, trail) = (self.store.clone(), self.trail.clone());
        let until = self.clock.now() + HOST_TTL;
        self.change(ctx, async move {
            store
                .put(&format!("{REMOVED_NODES}{node}"), Vec::new(), Some(until))
                .await?;
            let audited = audit(&trail, EventKind::NodeRemoved, &node.to_string(), &by).await;
            Ok(((), true, audited))
        })
    }
}
