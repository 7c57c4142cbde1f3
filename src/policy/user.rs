//! People (and machines that act as one): their roles, and the traits that roles refer to.

use super::document::{Node, read_json, read_yaml};
use super::error::ResourceError;
use super::fields::{Fields, MAX_VALUE_BYTES, bad_name, limit, texts, unknown_version};
use super::resource::{self, Header};
use crate::model::{Labels, PersonName, RoleName, Traits};
use serde_json::json;

/// Roles of one person. Every one is looked at in every decision.
const MAX_ROLES: usize = 256;
/// Traits of one person.
const MAX_TRAITS: usize = 256;
/// Values of all traits of one person together.
const MAX_TRAIT_VALUES: usize = 4096;
const VERSION: &str = "v2";

/// The current record of a person. Decisions read roles and traits from here, never from a certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRecord {
    pub name: PersonName,
    pub description: Option<String>,
    pub labels: Labels,
    /// In the order in which they are asked. A role that does not exist grants nothing.
    pub roles: Vec<RoleName>,
    pub traits: Traits,
}

impl UserRecord {
    pub(super) const KIND: &'static str = "user";

    pub fn new(name: PersonName, roles: Vec<RoleName>, traits: Traits) -> Self {
        Self {
            name,
            description: None,
            labels: Labels::default(),
            roles,
            traits,
        }
    }

    /// Reads one user.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse_yaml(text: &str) -> Result<Self, ResourceError> {
        let documents = read_yaml(text)?;
        Self::from_node(resource::only_document(&documents, Self::KIND)?)
    }

    /// Reads one user from the form that `Resource::to_json` writes.
    pub fn from_json(text: &str) -> Result<Self, ResourceError> {
        Self::from_node(&read_json(text)?)
    }

    pub(super) fn from_node(node: &Node) -> Result<Self, ResourceError> {
        let header = Header::read(node, Self::KIND)?;
        let name = PersonName::new(header.name).map_err(|e| bad_name("metadata.name", e, header.name_at))?;
        Self::from_header(&header, name).map_err(|error| error.about(Self::KIND, header.name))
    }

    fn from_header(header: &Header<'_>, name: PersonName) -> Result<Self, ResourceError> {
        header.check_keys()?;
        if header.version != VERSION {
            return Err(unknown_version(Self::KIND, header.version, VERSION, header.version_at));
        }
        let spec = Fields::of(header.document.require("spec")?, "spec")?;
        spec.only(
            &["roles", "traits"],
            "field",
            &[
                "created_by",
                "expires",
                "github_identities",
                "oidc_identities",
                "saml_identities",
                "status",
                "trusted_device_ids",
            ],
        )?;
        Ok(Self {
            name,
            description: header.description.map(str::to_owned),
            labels: header.labels()?,
            roles: read_roles(&spec)?,
            traits: spec
                .mapping("traits")?
                .map_or_else(|| Ok(Traits::new()), |f| read_traits(&f))?,
        })
    }

    pub(super) fn to_value(&self) -> serde_json::Value {
        json!({
            "kind": Self::KIND,
            "version": VERSION,
            "metadata": resource::metadata(self.name.as_str(), self.description.as_deref(), &self.labels),
            "spec": {
                "roles": self.roles.iter().map(RoleName::as_str).collect::<Vec<_>>(),
                "traits": self.traits,
            },
        })
    }
}

fn read_roles(spec: &Fields<'_>) -> Result<Vec<RoleName>, ResourceError> {
    let Some(node) = spec.get("roles") else {
        return Ok(Vec::new());
    };
    let names = texts(node, "spec.roles", false)?;
    limit("spec.roles", names.len(), "values", MAX_ROLES, node.at)?;
    let parse = |(name, at)| RoleName::new(name).map_err(|e| bad_name("spec.roles", e, at));
    names.into_iter().map(parse).collect()
}

fn read_traits(fields: &Fields<'_>) -> Result<Traits, ResourceError> {
    limit(&fields.place, fields.entries.len(), "keys", MAX_TRAITS, fields.at)?;
    let mut traits = Traits::new();
    let mut total = 0;
    for (key, node) in fields.entries {
        limit(
            &fields.place,
            key.text.len(),
            "bytes in one key",
            MAX_VALUE_BYTES,
            key.at,
        )?;
        let values = texts(node, &fields.below(&key.text), true)?;
        total += values.len();
        limit(&fields.place, total, "values", MAX_TRAIT_VALUES, fields.at)?;
        traits.insert(
            key.text.clone(),
            values.into_iter().map(|(value, _)| value.to_owned()).collect(),
        );
    }
    Ok(traits)
}
