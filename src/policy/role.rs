//! Roles: what they allow, what they deny, and their options.
//!
//! Fields and versions are those of Teleport's role resource, so far as they are enforced. Everything else is refused by name:
//! a rule that is accepted and ignored would be a hole that looks like a wall.

use super::document::{Node, Value, read_json, read_yaml};
use super::error::{Problem, ResourceError};
use super::fields::{Fields, MAX_VALUE_BYTES, MAX_VALUES, bad_name, limit, text, texts};
use super::matchers::{LabelPattern, LabelSelector, NamePattern, NamePatterns, WILDCARD};
use super::resource::{self, Header};
use crate::model::{Labels, RoleName};
use serde_json::{Map, json};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Keys of one `db_labels`, and labels of one role.
const MAX_LABEL_KEYS: usize = 64;
/// Regular expressions of one role. With the size of each it bounds the memory of a role at 16 MiB.
const MAX_REGEXES: usize = 64;
/// A year. A certificate that outlives it is a slip of the keyboard.
const MAX_SESSION_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Options of Teleport's roles that this version does not enforce.
const OPTIONS_NOT_ENFORCED: &[&str] = &[
    "cert_extensions",
    "cert_format",
    "client_idle_timeout",
    "create_db_user",
    "create_db_user_mode",
    "create_desktop_user",
    "create_host_user",
    "create_host_user_default_shell",
    "create_host_user_mode",
    "desktop_clipboard",
    "desktop_directory_sharing",
    "device_trust_mode",
    "disconnect_expired_cert",
    "enhanced_recording",
    "forward_agent",
    "idp",
    "lock",
    "max_connections",
    "max_kubernetes_connections",
    "max_sessions",
    "mfa_verification_interval",
    "permit_x11_forwarding",
    "pin_source_ip",
    "port_forwarding",
    "record_session",
    "request_access",
    "request_prompt",
    "require_session_mfa",
    "ssh_file_copy",
    "ssh_port_forwarding",
];

/// Conditions of Teleport's roles that this version does not enforce, or that are not about databases.
const CONDITIONS_NOT_ENFORCED: &[&str] = &[
    "account_assignments",
    "app_labels",
    "app_labels_expression",
    "aws_role_arns",
    "azure_identities",
    "cluster_labels",
    "cluster_labels_expression",
    "db_labels_expression",
    "db_permissions",
    "db_roles",
    "db_service_labels",
    "db_service_labels_expression",
    "desktop_groups",
    "gcp_service_accounts",
    "github_permissions",
    "group_labels",
    "group_labels_expression",
    "host_groups",
    "host_sudoers",
    "impersonate",
    "join_sessions",
    "kubernetes_groups",
    "kubernetes_labels",
    "kubernetes_labels_expression",
    "kubernetes_resources",
    "kubernetes_users",
    "logins",
    "mcp",
    "node_labels",
    "node_labels_expression",
    "request",
    "require_session_join",
    "review_requests",
    "rules",
    "spiffe",
    "windows_desktop_labels",
    "windows_desktop_labels_expression",
    "windows_desktop_logins",
    "workload_identity_labels",
];

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

/// The conditions of `allow` or `deny`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// `None` when the role does not say, which in `allow` of a v3 role is not the same as empty.
    pub db_labels: Option<LabelSelector>,
    pub db_users: NamePatterns,
    pub db_names: NamePatterns,
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
    pub max_session_ttl: Option<Duration>,
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
            let version = header.version.to_owned();
            ResourceError::new(Problem::UnknownVersion {
                kind: Self::KIND,
                version,
                known,
            })
            .at(header.version_at)
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
            max_session_ttl: spec.mapping("options")?.map_or(Ok(None), |f| read_options(&f))?,
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
        let mut spec = Map::new();
        spec.insert("allow".to_owned(), self.allow.to_value());
        spec.insert("deny".to_owned(), self.deny.to_value());
        let options = self.max_session_ttl.map_or_else(
            || json!({}),
            |ttl| json!({ "max_session_ttl": Compact(ttl).to_string() }),
        );
        spec.insert("options".to_owned(), options);
        json!({
            "kind": Self::KIND,
            "version": self.version.label(),
            "metadata": resource::metadata(self.name.as_str(), self.description.as_deref(), &self.labels),
            "spec": spec,
        })
    }
}

impl Conditions {
    fn read(fields: &Fields<'_>) -> Result<Self, ResourceError> {
        fields.only(
            &["db_labels", "db_users", "db_names"],
            "condition",
            CONDITIONS_NOT_ENFORCED,
        )?;
        Ok(Self {
            db_labels: fields.mapping("db_labels")?.map(|f| read_selector(&f)).transpose()?,
            db_users: read_names(fields, "db_users")?,
            db_names: read_names(fields, "db_names")?,
        })
    }

    fn regexes(&self) -> usize {
        let labels = self
            .db_labels
            .iter()
            .flat_map(|s| s.0.values())
            .flatten()
            .map(LabelPattern::regexes);
        let names = self.db_users.0.iter().chain(&self.db_names.0).map(NamePattern::regexes);
        labels.sum::<usize>() + names.sum::<usize>()
    }

    fn to_value(&self) -> serde_json::Value {
        let mut map = Map::new();
        if let Some(selector) = &self.db_labels {
            let labels: Map<_, _> = selector
                .0
                .iter()
                .map(|(key, values)| (key.clone(), values.iter().map(LabelPattern::source).collect()))
                .collect();
            map.insert("db_labels".to_owned(), labels.into());
        }
        for (key, patterns) in [("db_users", &self.db_users), ("db_names", &self.db_names)] {
            if !patterns.0.is_empty() {
                map.insert(key.to_owned(), patterns.0.iter().map(NamePattern::source).collect());
            }
        }
        map.into()
    }
}

fn read_names(fields: &Fields<'_>, key: &str) -> Result<NamePatterns, ResourceError> {
    let Some(node) = fields.get(key) else {
        return Ok(NamePatterns::default());
    };
    let place = fields.below(key);
    let mut patterns = Vec::new();
    for (value, at) in texts(node, &place, false)? {
        let refuse = |reason: String| bad_pattern(&place, value, reason).at(at);
        if value.is_empty() {
            return Err(refuse("a name must not be empty; remove it".to_owned()));
        }
        patterns.push(NamePattern::parse(value).map_err(refuse)?);
    }
    Ok(NamePatterns(patterns))
}

fn read_selector(fields: &Fields<'_>) -> Result<LabelSelector, ResourceError> {
    limit(&fields.place, fields.entries.len(), "keys", MAX_LABEL_KEYS, fields.at)?;
    let mut selector = LabelSelector::default();
    let mut total = 0;
    for (key, node) in fields.entries {
        let place = format!("{} {:?}", fields.place, key.text);
        limit(
            &fields.place,
            key.text.len(),
            "bytes in one key",
            MAX_VALUE_BYTES,
            key.at,
        )?;
        if key.text.contains("{{") {
            let reason = "a key is literal; templates are for values".to_owned();
            return Err(bad_pattern(&fields.place, &key.text, reason).at(key.at));
        }
        let values = texts(node, &place, true)?;
        if key.text == WILDCARD && !matches!(values.as_slice(), [(WILDCARD, _)]) {
            let reason = "the key \"*\" goes with the one value \"*\" only; name the key".to_owned();
            return Err(bad_pattern(&fields.place, &key.text, reason).at(key.at));
        }
        total += values.len();
        limit(&fields.place, total, "values", MAX_VALUES, fields.at)?;
        let parse = |(value, at)| LabelPattern::parse(value).map_err(|r| bad_pattern(&place, value, r).at(at));
        selector.0.insert(
            key.text.clone(),
            values.into_iter().map(parse).collect::<Result<_, _>>()?,
        );
    }
    Ok(selector)
}

fn bad_pattern(place: &str, value: &str, reason: String) -> ResourceError {
    ResourceError::new(Problem::BadPattern {
        place: place.to_owned(),
        value: value.to_owned(),
        reason,
    })
}

fn read_options(fields: &Fields<'_>) -> Result<Option<Duration>, ResourceError> {
    const TTL: &str = "max_session_ttl";
    fields.only(&[TTL], "option", OPTIONS_NOT_ENFORCED)?;
    let Some(node) = fields.get(TTL) else {
        return Ok(None);
    };
    let place = fields.below(TTL);
    let value = match &node.value {
        Value::Unquoted(number) => number.as_str(),
        _ => text(node, &place)?,
    };
    let parsed = parse_duration(value).map_err(|reason| Problem::BadDuration {
        place,
        value: value.to_owned(),
        reason,
    });
    parsed
        .map(Some)
        .map_err(|problem| ResourceError::new(problem).at(node.at))
}

/// Hours, minutes and seconds, whole, the largest first: `30h`, `8h30m`, `90m`.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut units = [('h', 3600), ('m', 60), ('s', 1)].iter();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or("a unit is missing (h, m or s)")?;
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| "a whole number is expected before each unit")?;
        let unit_char = unit.chars().next().ok_or("a unit is missing (h, m or s)")?;
        let (_, factor) = units
            .find(|(u, _)| *u == unit_char)
            .ok_or("units are h, m and s, each at most once and in this order")?;
        seconds = number
            .checked_mul(*factor)
            .and_then(|s| seconds.checked_add(s))
            .ok_or("it is longer than 8760h, a year")?;
        rest = &unit[unit_char.len_utf8()..];
    }
    match Duration::from_secs(seconds) {
        Duration::ZERO => Err("it must be longer than nothing"),
        long if long > MAX_SESSION_TTL => Err("it is longer than 8760h, a year"),
        duration => Ok(duration),
    }
}

/// A duration in the form that `parse_duration` reads.
struct Compact(Duration);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (amount, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "role_tests.rs"]
pub(super) mod tests;
