//! All users, roles, databases and locks at one version: what a decision is made on, and what auth publishes to the other nodes.

use super::database::DatabaseResource;
use super::error::{Problem, ResourceError};
use super::lock::{Lock, Locks};
use super::options::SessionOptions;
use super::resource::Resource;
use super::role::Role;
use super::user::UserRecord;
use crate::model::{NodeId, NodeName, PersonName, RoleName, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Documents of one snapshot. Every node holds all of them in memory.
const MAX_DOCUMENTS: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
pub struct PolicySnapshot {
    /// Grows with every change; never used twice.
    pub version: u64,
    pub published_at: Timestamp,
    pub users: BTreeMap<PersonName, UserRecord>,
    pub roles: BTreeMap<RoleName, Role>,
    /// Those that are registered as resources; an agent's own configuration is not here.
    pub databases: BTreeMap<ServiceName, DatabaseResource>,
    pub locks: Locks,
    /// Nodes that may not take part any more, as long as a certificate of theirs may be valid.
    pub removed_nodes: BTreeSet<NodeId>,
}

impl PolicySnapshot {
    /// A snapshot in which nobody may do anything.
    pub fn empty(version: u64, published_at: Timestamp) -> Self {
        Self {
            version,
            published_at,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            databases: BTreeMap::new(),
            locks: Locks::default(),
            removed_nodes: BTreeSet::new(),
        }
    }

    /// The canonical JSON document of every role, then of every user, database and lock, each by name, then of every removed
    /// node.
    pub fn to_documents(&self) -> Vec<String> {
        let roles = self.roles.values().cloned().map(Resource::Role);
        let users = self.users.values().cloned().map(Resource::User);
        let databases = self.databases.values().cloned().map(Resource::Db);
        let locks = self.locks.iter().cloned().map(Resource::Lock);
        let removed = self.removed_nodes.iter().map(|node| RemovedNode::of(*node).to_json());
        roles
            .chain(users)
            .chain(databases)
            .chain(locks)
            .map(|resource| resource.to_json())
            .chain(removed)
            .collect()
    }

    /// Reads what `to_documents` wrote.
    ///
    /// # Errors
    /// When any document cannot be read, or two have the same name: half a policy is not a policy.
    pub fn from_documents(version: u64, published_at: Timestamp, documents: &[String]) -> Result<Self, ResourceError> {
        if documents.len() > MAX_DOCUMENTS {
            let what = "the policy".to_owned();
            let problem = Problem::TooLarge {
                what,
                count: documents.len(),
                unit: "documents",
                max: MAX_DOCUMENTS,
            };
            return Err(ResourceError::new(problem));
        }
        let mut snapshot = Self::empty(version, published_at);
        for document in documents {
            match RemovedNode::from_json(document) {
                Some(removed) => drop(snapshot.removed_nodes.insert(removed.node)),
                None => snapshot.add(Resource::from_json(document)?)?,
            }
        }
        Ok(snapshot)
    }

    /// Adds one resource.
    ///
    /// # Errors
    /// There is one of its kind and name already.
    pub fn add(&mut self, resource: Resource) -> Result<(), ResourceError> {
        let twice = ResourceError::new(Problem::Duplicate).about(resource.kind(), resource.name());
        let replaced = match resource {
            Resource::Role(role) => self.roles.insert(role.name.clone(), role).is_some(),
            Resource::User(user) => self.users.insert(user.name.clone(), user).is_some(),
            Resource::Db(database) => self.databases.insert(database.name.clone(), database).is_some(),
            Resource::Lock(lock) => self.locks.insert(lock).is_some(),
        };
        if replaced { Err(twice) } else { Ok(()) }
    }

    /// The lock that keeps a person with these roles from a session through these nodes, if there is one.
    pub fn lock_in_force(
        &self,
        person: &PersonName,
        roles: &[RoleName],
        nodes: &[(NodeId, NodeName)],
        now: Timestamp,
    ) -> Option<&Lock> {
        self.locks
            .about(person, roles, nodes)
            .find(|lock| lock.is_in_force(now))
    }

    /// What the options of all of a person's roles come to; the default where there is no such person.
    pub fn options_of(&self, person: &PersonName) -> SessionOptions {
        let user = self.users.get(person);
        let options = user
            .into_iter()
            .flat_map(|user| self.roles_of(user))
            .map(|role| &role.options);
        SessionOptions::strictest(options)
    }

    /// The roles of a user that exist, in the user's order.
    pub(super) fn roles_of<'a>(&'a self, user: &'a UserRecord) -> impl Iterator<Item = &'a Role> {
        user.roles.iter().filter_map(|name| self.roles.get(name))
    }
}

/// The document of a removed node.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemovedNode {
    kind: RemovedNodeKind,
    node: NodeId,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RemovedNodeKind {
    RemovedNode,
}

impl RemovedNode {
    fn of(node: NodeId) -> Self {
        let kind = RemovedNodeKind::RemovedNode;
        Self { kind, node }
    }

    fn to_json(&self) -> String {
        format!("{{\"kind\":\"removed_node\",\"node\":\"{}\"}}", self.node)
    }

    /// `None` for a document of another kind.
    fn from_json(document: &str) -> Option<Self> {
        serde_json::from_str(document).ok()
    }
}

/// The shortest `max_session_ttl` of a person's roles; `None` when none of them says, or there is no such person.
pub fn max_session_ttl(snapshot: &PolicySnapshot, person: &PersonName) -> Option<Duration> {
    snapshot.options_of(person).max_session_ttl
}
