//! Locks: a person, a role or a node that may not be part of any session, whatever the roles say.
//!
//! `kind: lock`, `version: v2`, as Teleport's. A lock has one target; it is in force until it expires or is removed.

use super::document::{Node, read_json, read_yaml};
use super::error::{Problem, ResourceError};
use super::fields::{Fields, bad_name, bad_value, text, unknown_version};
use super::resource::{self, Header};
use crate::model::{Labels, LockName, NodeId, NodeName, PersonName, RoleName, Timestamp};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

const VERSION: &str = "v2";
const TARGETS: &[&str] = &["user", "role", "node", "server_id"];
/// Targets of Teleport's locks that this version cannot find in a session.
const TARGETS_NOT_ENFORCED: &[&str] = &[
    "access_request",
    "bot_instance_id",
    "device",
    "join_token",
    "linux_desktop",
    "login",
    "mfa_device",
    "windows_desktop",
];

/// Whom a lock is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockTarget {
    User(PersonName),
    Role(RoleName),
    /// A proxy or an agent, by its name or by its id.
    Node(NodeName),
}

/// As users of Teleport read it: `User:"alice"`.
impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "User:\"{name}\""),
            Self::Role(name) => write!(f, "Role:\"{name}\""),
            Self::Node(name) => write!(f, "Node:\"{name}\""),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub name: LockName,
    pub description: Option<String>,
    pub labels: Labels,
    pub target: LockTarget,
    /// What those whom it meets read.
    pub message: Option<String>,
    /// In force until then; for ever where there is none.
    pub expires: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub created_by: Option<String>,
}

impl Lock {
    pub(super) const KIND: &'static str = "lock";

    /// A lock with nothing but its target.
    pub fn new(name: LockName, target: LockTarget) -> Self {
        Self {
            name,
            description: None,
            labels: Labels::default(),
            target,
            message: None,
            expires: None,
            created_at: None,
            created_by: None,
        }
    }

    /// Reads one lock.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse_yaml(text: &str) -> Result<Self, ResourceError> {
        let documents = read_yaml(text)?;
        Self::from_node(resource::only_document(&documents, Self::KIND)?)
    }

    /// Reads one lock from the form that `Resource::to_json` writes.
    pub fn from_json(text: &str) -> Result<Self, ResourceError> {
        Self::from_node(&read_json(text)?)
    }

    pub(super) fn from_node(node: &Node) -> Result<Self, ResourceError> {
        let header = Header::read(node, Self::KIND)?;
        let name = LockName::new(header.name).map_err(|e| bad_name("metadata.name", e, header.name_at))?;
        Self::from_header(&header, name).map_err(|error| error.about(Self::KIND, header.name))
    }

    fn from_header(header: &Header<'_>, name: LockName) -> Result<Self, ResourceError> {
        header.check_keys()?;
        if header.version != VERSION {
            return Err(unknown_version(Self::KIND, header.version, VERSION, header.version_at));
        }
        let spec = Fields::of(header.document.require("spec")?, "spec")?;
        spec.only(
            &["target", "message", "expires", "created_at", "created_by"],
            "field",
            &[],
        )?;
        Ok(Self {
            name,
            description: header.description.map(str::to_owned),
            labels: header.labels()?,
            target: LockTarget::read(&Fields::of(spec.require("target")?, "spec.target")?)?,
            message: read_message(&spec)?,
            expires: read_time(&spec, "expires")?,
            created_at: read_time(&spec, "created_at")?,
            created_by: spec.text("created_by")?.map(str::to_owned),
        })
    }

    pub(super) fn to_value(&self) -> serde_json::Value {
        let (key, value) = match &self.target {
            LockTarget::User(name) => ("user", name.as_str()),
            LockTarget::Role(name) => ("role", name.as_str()),
            LockTarget::Node(name) => ("node", name.as_str()),
        };
        let mut spec = json!({ "target": { key: value } });
        let texts = [
            ("message", self.message.clone()),
            ("expires", self.expires.map(|at| at.to_string())),
            ("created_at", self.created_at.map(|at| at.to_string())),
            ("created_by", self.created_by.clone()),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                spec[key] = text.into();
            }
        }
        json!({
            "kind": Self::KIND,
            "version": VERSION,
            "metadata": resource::metadata(self.name.as_str(), self.description.as_deref(), &self.labels),
            "spec": spec,
        })
    }

    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// What those read whom it meets: `lock targeting User:"alice" is in force: MESSAGE`.
    pub fn sentence(&self) -> String {
        match &self.message {
            Some(message) => format!("lock targeting {} is in force: {message}", self.target),
            None => format!("lock targeting {} is in force", self.target),
        }
    }
}

impl LockTarget {
    fn read(fields: &Fields<'_>) -> Result<Self, ResourceError> {
        fields.only(TARGETS, "lock target", TARGETS_NOT_ENFORCED)?;
        let [(key, node)] = fields.entries else {
            let problem = Problem::WrongType {
                place: fields.place.clone(),
                expected: "one target (user, role or node; give each target a lock of its own)",
                found: format!("a mapping with {} keys", fields.entries.len()),
            };
            return Err(ResourceError::new(problem).at(fields.at));
        };
        let place = fields.below(&key.text);
        let value = text(node, &place)?;
        let target = match key.text.as_str() {
            "user" => PersonName::new(value).map(Self::User),
            "role" => RoleName::new(value).map(Self::Role),
            _ => Self::node(value),
        };
        target.map_err(|error| bad_name(&place, error, node.at))
    }

    /// A node by its name or its id; ids are spelled in one way.
    pub fn node(text: &str) -> Result<Self, crate::model::NameError> {
        let name = text
            .parse::<NodeId>()
            .map_or_else(|_| text.to_owned(), |id| id.to_string());
        NodeName::new(name).map(Self::Node)
    }
}

/// Every client that the lock keeps out reads it, on whatever terminal.
fn read_message(spec: &Fields<'_>) -> Result<Option<String>, ResourceError> {
    let Some(message) = spec.text("message")?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if message.chars().any(char::is_control) {
        let at = spec.get("message").and_then(|node| node.at);
        let reason = "it must be one line without control characters";
        return Err(bad_value(&spec.below("message"), message, reason, at));
    }
    Ok(Some(message.to_owned()))
}

/// In milliseconds, which is how a time is written.
fn read_time(fields: &Fields<'_>, key: &str) -> Result<Option<Timestamp>, ResourceError> {
    let Some(node) = fields.get(key) else {
        return Ok(None);
    };
    let place = fields.below(key);
    let value = text(node, &place)?;
    let time = Timestamp::parse_rfc3339(value).ok_or_else(|| {
        let reason = "it is not a time; write RFC 3339, for example 2026-01-31T12:00:00Z";
        bad_value(&place, value, reason, node.at)
    })?;
    Ok(Some(Timestamp::from_micros(time.as_micros().div_euclid(1000) * 1000)))
}

/// All locks, found by name and by target: every decision asks for those on its person, roles and nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Locks {
    by_name: BTreeMap<LockName, Lock>,
    by_target: BTreeMap<LockTarget, BTreeSet<LockName>>,
}

impl Locks {
    /// Adds a lock. Gives back the one that had its name.
    pub fn insert(&mut self, lock: Lock) -> Option<Lock> {
        let replaced = self.remove(&lock.name);
        let named = self.by_target.entry(lock.target.clone()).or_default();
        named.insert(lock.name.clone());
        self.by_name.insert(lock.name.clone(), lock);
        replaced
    }

    pub fn remove(&mut self, name: &LockName) -> Option<Lock> {
        let removed = self.by_name.remove(name)?;
        if let Some(named) = self.by_target.get_mut(&removed.target) {
            named.remove(name);
            if named.is_empty() {
                self.by_target.remove(&removed.target);
            }
        }
        Some(removed)
    }

    pub fn get(&self, name: &LockName) -> Option<&Lock> {
        self.by_name.get(name)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.by_name.values()
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Those on a person, on these roles and on these nodes, in this order; also those that have expired.
    pub(super) fn about(
        &self,
        person: &PersonName,
        roles: &[RoleName],
        nodes: &[(NodeId, NodeName)],
    ) -> impl Iterator<Item = &Lock> {
        let mut targets = Vec::new();
        if !self.is_empty() {
            targets.push(LockTarget::User(person.clone()));
            targets.extend(roles.iter().cloned().map(LockTarget::Role));
            for (id, name) in nodes {
                targets.push(LockTarget::Node(name.clone()));
                targets.extend(LockTarget::node(&id.to_string()));
            }
        }
        let named = targets.into_iter().filter_map(|target| self.by_target.get(&target));
        named.flatten().filter_map(|name| self.by_name.get(name))
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
