//! Resources: documents with a kind, as administrators write them, as the store keeps them and as they cross the wire.

use super::database::DatabaseResource;
use super::document::{Node, read_json, read_yaml};
use super::error::{Position, Problem, ResourceError};
use super::fields::{DOCUMENT, Fields, limit, text};
use super::lock::Lock;
use super::role::Role;
use super::user::UserRecord;
use crate::model::Labels;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Labels of one resource.
const MAX_LABELS: usize = 64;
/// What this version reads.
const KINDS: &[&str] = &[Role::KIND, UserRecord::KIND, DatabaseResource::KIND, Lock::KIND];

#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    Role(Role),
    User(UserRecord),
    Db(DatabaseResource),
    Lock(Lock),
}

impl Resource {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Role(_) => Role::KIND,
            Self::User(_) => UserRecord::KIND,
            Self::Db(_) => DatabaseResource::KIND,
            Self::Lock(_) => Lock::KIND,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Role(role) => role.name.as_str(),
            Self::User(user) => user.name.as_str(),
            Self::Db(database) => database.name.as_str(),
            Self::Lock(lock) => lock.name.as_str(),
        }
    }

    /// The canonical document: one line of JSON, keys always in the same order.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The document for people, in the form that `parse_resources` reads.
    pub fn to_yaml(&self) -> Result<String, ResourceError> {
        serde_saphyr::to_string(&self.to_value()).map_err(|error| {
            ResourceError::new(Problem::Syntax {
                reason: error.to_string(),
            })
            .about(self.kind(), self.name())
        })
    }

    pub fn from_json(text: &str) -> Result<Self, ResourceError> {
        Self::from_node(&read_json(text)?)
    }

    fn from_node(node: &Node) -> Result<Self, ResourceError> {
        let document = Fields::of(node, DOCUMENT)?;
        let kind = document.require("kind")?;
        match text(kind, "kind")? {
            Role::KIND => Role::from_node(node).map(Self::Role),
            UserRecord::KIND => UserRecord::from_node(node).map(Self::User),
            DatabaseResource::KIND => DatabaseResource::from_node(node).map(Self::Db),
            Lock::KIND => Lock::from_node(node).map(Self::Lock),
            other => {
                let problem = Problem::UnknownKind {
                    kind: other.to_owned(),
                    known: KINDS.join(", "),
                };
                Err(ResourceError::new(problem).at(kind.at))
            }
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Role(role) => role.to_value(),
            Self::User(user) => user.to_value(),
            Self::Db(database) => database.to_value(),
            Self::Lock(lock) => lock.to_value(),
        }
    }
}

/// Reads a stream of YAML documents, separated by `---`.
///
/// # Errors
/// The first thing that is wrong, with its line in the stream; also when a resource is given twice.
pub fn parse_resources(text: &str) -> Result<Vec<Resource>, ResourceError> {
    let documents = read_yaml(text)?;
    let mut resources = Vec::with_capacity(documents.len());
    let mut seen = BTreeSet::new();
    for node in &documents {
        let resource = Resource::from_node(node)?;
        if !seen.insert((resource.kind(), resource.name().to_owned())) {
            let twice = ResourceError::new(Problem::Duplicate).about(resource.kind(), resource.name());
            return Err(twice.at(node.at));
        }
        resources.push(resource);
    }
    Ok(resources)
}

/// The one document of a text that must hold one.
pub(super) fn only_document<'a>(documents: &'a [Node], expected: &'static str) -> Result<&'a Node, ResourceError> {
    match documents {
        [one] => Ok(one),
        many => Err(ResourceError::new(Problem::NotOneDocument {
            expected,
            count: many.len(),
        })),
    }
}

/// What every resource begins with.
pub(super) struct Header<'a> {
    pub document: Fields<'a>,
    pub version: &'a str,
    pub version_at: Option<Position>,
    pub name: &'a str,
    pub name_at: Option<Position>,
    pub description: Option<&'a str>,
    metadata: Fields<'a>,
}

impl<'a> Header<'a> {
    pub fn read(node: &'a Node, expected: &'static str) -> Result<Self, ResourceError> {
        let document = Fields::of(node, DOCUMENT)?;
        let kind = document.require("kind")?;
        let found = text(kind, "kind")?;
        if found != expected {
            let known = KINDS.iter().find(|k| **k == found);
            let problem = match known {
                Some(found) => Problem::OtherKind { expected, found },
                None => Problem::UnknownKind {
                    kind: found.to_owned(),
                    known: KINDS.join(", "),
                },
            };
            return Err(ResourceError::new(problem).at(kind.at));
        }
        let metadata = Fields::of(document.require("metadata")?, "metadata")?;
        let name_node = metadata.require("name")?;
        let name = text(name_node, "metadata.name")?;
        // From here on the resource can be named.
        let rest = || {
            let version = document.require("version")?;
            Ok((text(version, "version")?, version.at, metadata.text("description")?))
        };
        let (version, version_at, description) = rest().map_err(|e: ResourceError| e.about(expected, name))?;
        Ok(Self {
            document,
            version,
            version_at,
            name,
            name_at: name_node.at,
            description,
            metadata,
        })
    }

    /// Refuses keys that a resource does not have.
    pub fn check_keys(&self) -> Result<(), ResourceError> {
        self.document.only(
            &["kind", "version", "metadata", "spec"],
            "field",
            &["sub_kind", "status"],
        )?;
        self.metadata
            .only(&["name", "description", "labels"], "field", &["expires", "namespace"])
    }

    pub fn labels(&self) -> Result<Labels, ResourceError> {
        let Some(fields) = self.metadata.mapping("labels")? else {
            return Ok(Labels::default());
        };
        limit(&fields.place, fields.entries.len(), "keys", MAX_LABELS, fields.at)?;
        let pair = |(key, node): &(super::document::Key, Node)| {
            let place = format!("{} {:?}", fields.place, key.text);
            Ok((key.text.clone(), text(node, &place)?.to_owned()))
        };
        fields.entries.iter().map(pair).collect::<Result<_, _>>().map(Labels)
    }
}

/// `metadata`, with only what is set.
pub(super) fn metadata(name: &str, description: Option<&str>, labels: &Labels) -> Value {
    let mut value = json!({ "name": name });
    if let Some(description) = description {
        value["description"] = description.into();
    }
    if !labels.0.is_empty() {
        value["labels"] = labels
            .0
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.as_str())))
            .collect();
    }
    value
}

#[cfg(test)]
#[path = "resource_tests.rs"]
mod tests;
