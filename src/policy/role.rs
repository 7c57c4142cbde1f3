//! Roles: what they allow, what they deny, and their options.
//!
//! Fields and versions are those of Teleport's role resource, so far as they are enforced. Everything else is refused by name:
//! a rule that is accepted and ignored would be a hole that looks like a wall.

use super::conditions::Conditions;
use super::document::{Node, read_json, read_yaml};
use super::error::ResourceError;
use super::fields::{Fields, bad_name, limit, unknown_version};
use super::matchers::LabelSelector;
use super::options::RoleOptions;
use super::resource::{self, Header};
use crate::model::{Labels, RoleName};
use serde_json::json;
use std::borrow::Cow;

/// Regular expressions of one role. With the size of each it bounds the memory of a role at 16 MiB.
const MAX_REGEXES: usize = 64;
/// The version of a role's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleVersion {
    /// Without `db_labels` in `allow`, every database service is selected.
    V3,
    /// From here on, without `db_labels` none is selected.
    V4,
    V5,
    V6,
    V7,
    V8,
}

impl RoleVersion {
    const ALL: [(Self, &'static str); 6] = [
        (Self::V3, "v3"),
        (Self::V4, "v4"),
        (Self::V5, "v5"),
        (Self::V6, "v6"),
        (Self::V7, "v7"),
        (Self::V8, "v8"),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, label)| *label == text)
            .map(|(version, _)| *version)
    }

    pub fn label(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(version, _)| *version == self)
            .map_or("v8", |(_, label)| label)
    }
}

/// A role, with its patterns compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub name: RoleName,
    pub version: RoleVersion,
    pub description: Option<String>,
    pub labels: Labels,
    pub allow: Conditions,
    pub deny: Conditions,
    pub options: RoleOptions,
}

impl Role {
    pub(super) const KIND: &'static str = "role";

    /// Reads one role.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line: syntax, an unknown key, a wrong type, an unknown version, a pattern that
    /// does not compile, something that is not enforced, a limit.
    pub fn parse_yaml(text: &str) -> Result<Self, ResourceError> {
        let documents = read_yaml(text)?;
        Self::from_node(resource::only_document(&documents, Self::KIND)?)
    }

    /// Reads one role from the form that `to_json` writes.
    pub fn from_json(text: &str) -> Result<Self, ResourceError> {
        Self::from_node(&read_json(text)?)
    }

    pub(super) fn from_node(node: &Node) -> Result<Self, ResourceError> {
        let header = Header::read(node, Self::KIND)?;
        let name = RoleName::new(header.name).map_err(|e| bad_name("metadata.name", e, header.name_at))?;
        Self::from_header(&header, name).map_err(|error| error.about(Self::KIND, header.name))
    }

    fn from_header(header: &Header<'_>, name: RoleName) -> Result<Self, ResourceError> {
        header.check_keys()?;
        let version = RoleVersion::parse(header.version).ok_or_else(|| {
            let known = RoleVersion::ALL.map(|(_, label)| label).join(", ");
            unknown_version(Self::KIND, header.version, known, header.version_at)
        })?;
        let spec = Fields::of(header.document.require("spec")?, "spec")?;
        spec.only(&["allow", "deny", "options"], "field", &[])?;
        let conditions = |key| {
            spec.mapping(key)?
                .map_or_else(|| Ok(Conditions::default()), |f| Conditions::read(&f))
        };
        let role = Self {
            name,
            version,
            description: header.description.map(str::to_owned),
            labels: header.labels()?,
            allow: conditions("allow")?,
            deny: conditions("deny")?,
            options: spec
                .mapping("options")?
                .map_or_else(|| Ok(RoleOptions::default()), |f| RoleOptions::read(&f))?,
        };
        let regexes = role.allow.regexes() + role.deny.regexes();
        limit("spec", regexes, "regular expressions", MAX_REGEXES, spec.at)?;
        Ok(role)
    }

    /// The selector of `allow`, with the version's default.
    pub fn allowed_labels(&self) -> Cow<'_, LabelSelector> {
        match (&self.allow.db_labels, self.version) {
            (Some(selector), _) => Cow::Borrowed(selector),
            (None, RoleVersion::V3) => Cow::Owned(LabelSelector::everything()),
            (None, _) => Cow::Owned(LabelSelector::default()),
        }
    }

    pub(super) fn to_value(&self) -> serde_json::Value {
        json!({
            "kind": Self::KIND,
            "version": self.version.label(),
            "metadata": resource::metadata(self.name.as_str(), self.description.as_deref(), &self.labels),
            "spec": {
                "allow": self.allow.to_value(),
                "deny": self.deny.to_value(),
                "options": self.options.to_value(),
            },
        })
    }
}

#[cfg(test)]
#[path = "role_tests.rs"]
pub(super) mod tests;
