//! Rules of roles for the cluster's own resources: who may list, read and change what.
//!
//! `rules: [{resources: [...], verbs: [...]}]` in `allow` and in `deny`, as in Teleport's roles. A deny wins over every allow.

use super::document::Value;
use super::error::{Problem, ResourceError};
use super::fields::{Fields, MAX_VALUES, bad_value, limit, texts};
use super::lock::Lock;
use super::matchers::WILDCARD;
use super::snapshot::PolicySnapshot;
use crate::model::{PersonName, Refusal, RefusalKind, RoleName, Timestamp};
use serde_json::json;
use std::fmt;

/// Rules of one section of a role.
const MAX_RULES: usize = 64;
const RULES: &str = "rules";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident => $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$each])* $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.label() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

words! {
    /// A kind of thing that a rule may be about.
    ResourceKind {
        User => "user",
        Role => "role",
        Token => "token",
        /// A database that was registered as a resource.
        Db => "db",
        /// A database as an agent serves it.
        DbServer => "db_server",
        Node => "node",
        Lock => "lock",
        CertAuthority => "cert_authority",
        /// The audit log.
        Event => "event",
        /// Recorded and running sessions.
        Session => "session",
        /// What runs on the nodes: actors, connections, and what happened between them.
        Trace => "trace",
    }
}

words! {
    Verb {
        List => "list",
        Read => "read",
        /// Reading without what is secret in it; `read` allows it too.
        ReadNoSecrets => "readnosecrets",
        Create => "create",
        Update => "update",
        Delete => "delete",
        Rotate => "rotate",
        Use => "use",
    }
}

/// Resources that Teleport's preset roles name and that do not exist here. A rule may name them, so that those roles can be
/// taken over; nothing asks for them.
const WITHOUT_EFFECT: &[&str] = &[
    "access_graph",
    "access_list",
    "access_monitoring_rule",
    "access_request",
    "app",
    "app_server",
    "audit_query",
    "auth_connector",
    "auth_server",
    "billing",
    "bot",
    "bot_instance",
    "cluster_alert",
    "cluster_auth_preference",
    "cluster_config",
    "cluster_maintenance_config",
    "cluster_name",
    "cluster_networking_config",
    "connection_diagnostic",
    "crown_jewel",
    "database_certificate",
    "db_object",
    "db_object_import_rule",
    "db_service",
    "device",
    "discovery_config",
    "download",
    "external_audit_storage",
    "github",
    "health_check_config",
    "installer",
    "instance",
    "integration",
    "kube_cluster",
    "kube_server",
    "login_rule",
    "network_restrictions",
    "notification",
    "oidc",
    "okta_assignment",
    "okta_import_rule",
    "plugin",
    "proxy",
    "remote_cluster",
    "saml",
    "saml_idp_service_provider",
    "security_report",
    "server_info",
    "session_recording_config",
    "session_tracker",
    "trusted_cluster",
    "tunnel",
    "ui_config",
    "user_group",
    "vnet_config",
    "windows_desktop",
    "windows_desktop_service",
    "workload_identity",
];

/// What a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleResource {
    Any,
    Kind(ResourceKind),
    /// Teleport's, of that name; it does not exist here.
    WithoutEffect(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerb {
    Any,
    One(Verb),
}

/// One rule of `allow` or `deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub resources: Vec<RuleResource>,
    pub verbs: Vec<RuleVerb>,
}

impl Rule {
    /// The rules of a section.
    pub(super) fn read_all(section: &Fields<'_>) -> Result<Vec<Self>, ResourceError> {
        let Some(node) = section.get(RULES) else {
            return Ok(Vec::new());
        };
        let place = section.below(RULES);
        let Value::List(items) = &node.value else {
            let problem = Problem::WrongType {
                place,
                expected: "a list of rules",
                found: node.value.describe(),
            };
            return Err(ResourceError::new(problem).at(node.at));
        };
        limit(&place, items.len(), "rules", MAX_RULES, node.at)?;
        items
            .iter()
            .map(|item| Self::read(&Fields::of(item, place.as_str())?))
            .collect()
    }

    fn read(fields: &Fields<'_>) -> Result<Self, ResourceError> {
        fields.only(&["resources", "verbs"], "field", &["where", "actions"])?;
        let resources = words_of(fields, "resources", RuleResource::parse, || {
            format!(
                "a resource that is not known; known are {}, and *",
                labels(ResourceKind::ALL.iter())
            )
        })?;
        let verbs = words_of(fields, "verbs", RuleVerb::parse, || {
            format!(
                "a verb that is not known; known are {}, and *",
                labels(Verb::ALL.iter())
            )
        })?;
        Ok(Self { resources, verbs })
    }

    pub(super) fn to_value(&self) -> serde_json::Value {
        let resources: Vec<_> = self.resources.iter().map(|r| r.label()).collect();
        let verbs: Vec<_> = self.verbs.iter().map(|v| v.label()).collect();
        json!({ "resources": resources, "verbs": verbs })
    }

    fn is_about(&self, resource: ResourceKind) -> bool {
        self.resources.iter().any(|named| match named {
            RuleResource::Any => true,
            RuleResource::Kind(kind) => *kind == resource,
            RuleResource::WithoutEffect(_) => false,
        })
    }

    fn allows(&self, resource: ResourceKind, verb: Verb) -> bool {
        let covers = |named: &RuleVerb| match named {
            RuleVerb::Any => true,
            RuleVerb::One(named) => *named == verb || (*named == Verb::Read && verb == Verb::ReadNoSecrets),
        };
        self.is_about(resource) && self.verbs.iter().any(covers)
    }

    /// Who may not even read without secrets may not read with them.
    fn denies(&self, resource: ResourceKind, verb: Verb) -> bool {
        let covers = |named: &RuleVerb| match named {
            RuleVerb::Any => true,
            RuleVerb::One(named) => *named == verb || (*named == Verb::ReadNoSecrets && verb == Verb::Read),
        };
        self.is_about(resource) && self.verbs.iter().any(covers)
    }
}

impl RuleResource {
    fn parse(text: &str) -> Option<Self> {
        if text == WILDCARD {
            return Some(Self::Any);
        }
        let without_effect = || WITHOUT_EFFECT.iter().find(|name| **name == text);
        ResourceKind::parse(text)
            .map(Self::Kind)
            .or_else(|| without_effect().map(|name| Self::WithoutEffect(name)))
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Any => WILDCARD,
            Self::Kind(kind) => kind.label(),
            Self::WithoutEffect(name) => name,
        }
    }
}

impl RuleVerb {
    fn parse(text: &str) -> Option<Self> {
        match text {
            WILDCARD => Some(Self::Any),
            text => Verb::parse(text).map(Self::One),
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Any => WILDCARD,
            Self::One(verb) => verb.label(),
        }
    }
}

fn words_of<T>(
    fields: &Fields<'_>,
    key: &'static str,
    parse: fn(&str) -> Option<T>,
    unknown: impl Fn() -> String,
) -> Result<Vec<T>, ResourceError> {
    let node = fields.require(key)?;
    let place = fields.below(key);
    let words = texts(node, &place, false)?;
    limit(&place, words.len(), "values", MAX_VALUES, node.at)?;
    let read = |(word, at)| parse(word).ok_or_else(|| bad_value(&place, word, unknown(), at));
    words.into_iter().map(read).collect()
}

fn labels(words: impl Iterator<Item = &'static (impl fmt::Display + 'static)>) -> String {
    words.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a person may not do something with a resource. `Display` is for operators and the audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleDenied {
    #[error("there is no user {:?}", .0.as_str())]
    UnknownPerson(PersonName),
    #[error("{}", .0.sentence())]
    Locked(Box<Lock>),
    #[error("role {:?} denies it to {verb} resources of kind {resource}", .role.as_str())]
    DeniedByRole {
        role: RoleName,
        resource: ResourceKind,
        verb: Verb,
    },
    #[error("no role of {:?} allows it to {verb} resources of kind {resource}", .person.as_str())]
    NotAllowed {
        person: PersonName,
        resource: ResourceKind,
        verb: Verb,
    },
}

impl RuleDenied {
    /// What the person reads.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Locked(lock) => Refusal::new(RefusalKind::Locked, lock.sentence()),
            Self::UnknownPerson(_) => Refusal::new(RefusalKind::AccessDenied, "access denied"),
            Self::DeniedByRole { resource, verb, .. } | Self::NotAllowed { resource, verb, .. } => Refusal::new(
                RefusalKind::AccessDenied,
                format!(
                    "access denied to perform action {:?} on {:?}",
                    verb.label(),
                    resource.label()
                ),
            ),
        }
    }
}

/// Whether a person may do this with resources of this kind, by the roles of the current record: locks first, then what is
/// denied, then what is allowed.
///
/// # Errors
/// The lock, the role that denies, or that none allows.
pub fn may(
    snapshot: &PolicySnapshot,
    person: &PersonName,
    resource: ResourceKind,
    verb: Verb,
    now: Timestamp,
) -> Result<(), RuleDenied> {
    let user = snapshot.users.get(person);
    let named = user.map(|user| user.roles.as_slice()).unwrap_or_default();
    if let Some(lock) = snapshot.lock_in_force(person, named, &[], now) {
        return Err(RuleDenied::Locked(Box::new(lock.clone())));
    }
    let user = user.ok_or_else(|| RuleDenied::UnknownPerson(person.clone()))?;
    let mut roles = snapshot.roles_of(user);
    if let Some(role) = roles.find(|role| role.deny.rules.iter().any(|rule| rule.denies(resource, verb))) {
        let role = role.name.clone();
        return Err(RuleDenied::DeniedByRole { role, resource, verb });
    }
    let mut roles = snapshot.roles_of(user);
    if roles.any(|role| role.allow.rules.iter().any(|rule| rule.allows(resource, verb))) {
        return Ok(());
    }
    let person = person.clone();
    Err(RuleDenied::NotAllowed { person, resource, verb })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
