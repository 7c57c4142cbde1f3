//! What `allow` and `deny` of a role hold: conditions on databases, and rules for resources of the cluster.

use super::error::ResourceError;
use super::expression::Expression;
use super::fields::{Fields, MAX_VALUE_BYTES, MAX_VALUES, bad_value, limit, text_within, texts, truth};
use super::matchers::{LabelPattern, LabelSelector, NamePattern, NamePatterns, WILDCARD};
use super::rules::Rule;
use serde_json::Map;

/// Keys of one `db_labels`.
const MAX_LABEL_KEYS: usize = 64;

const REPLICATION: &str = "db_replication";

/// Conditions of Teleport's roles that this version does not enforce, or that are not about databases.
const CONDITIONS_NOT_ENFORCED: &[&str] = &[
    "account_assignments",
    "app_labels",
    "app_labels_expression",
    "aws_role_arns",
    "azure_identities",
    "cluster_labels",
    "cluster_labels_expression",
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
    "spiffe",
    "windows_desktop_labels",
    "windows_desktop_labels_expression",
    "windows_desktop_logins",
    "workload_identity_labels",
];

/// The conditions of `allow` or `deny`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// `None` when the role does not say, which in `allow` of a v3 role is not the same as empty.
    pub db_labels: Option<LabelSelector>,
    /// In `allow` it must hold besides `db_labels`; where those are absent it decides alone.
    pub db_labels_expression: Option<Expression>,
    pub db_users: NamePatterns,
    pub db_names: NamePatterns,
    /// Replication connections, which read a whole server past all grants. In `allow` a role that does not say so allows none,
    /// and one that does still has to match the database user and name; in `deny` it denies all of them.
    pub db_replication: bool,
    pub rules: Vec<Rule>,
}

impl Conditions {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ResourceError> {
        fields.only(
            &[
                "db_labels",
                "db_labels_expression",
                "db_users",
                "db_names",
                REPLICATION,
                "rules",
            ],
            "condition",
            CONDITIONS_NOT_ENFORCED,
        )?;
        Ok(Self {
            db_labels: fields.mapping("db_labels")?.map(|f| read_selector(&f)).transpose()?,
            db_labels_expression: read_expression(fields)?,
            db_users: read_names(fields, "db_users")?,
            db_names: read_names(fields, "db_names")?,
            db_replication: truth(fields, REPLICATION)?.unwrap_or(false),
            rules: Rule::read_all(fields)?,
        })
    }

    pub(super) fn regexes(&self) -> usize {
        let labels = self
            .db_labels
            .iter()
            .flat_map(|s| s.0.values())
            .flatten()
            .map(LabelPattern::regexes);
        let names = self.db_users.0.iter().chain(&self.db_names.0).map(NamePattern::regexes);
        let expression = self.db_labels_expression.as_ref().map_or(0, Expression::regexes);
        labels.sum::<usize>() + names.sum::<usize>() + expression
    }

    pub(super) fn to_value(&self) -> serde_json::Value {
        let mut map = Map::new();
        if let Some(selector) = &self.db_labels {
            let labels: Map<_, _> = selector
                .0
                .iter()
                .map(|(key, values)| (key.clone(), values.iter().map(LabelPattern::source).collect()))
                .collect();
            map.insert("db_labels".to_owned(), labels.into());
        }
        if let Some(expression) = &self.db_labels_expression {
            map.insert("db_labels_expression".to_owned(), expression.source().into());
        }
        for (key, patterns) in [("db_users", &self.db_users), ("db_names", &self.db_names)] {
            if !patterns.0.is_empty() {
                map.insert(key.to_owned(), patterns.0.iter().map(NamePattern::source).collect());
            }
        }
        if self.db_replication {
            map.insert(REPLICATION.to_owned(), true.into());
        }
        if !self.rules.is_empty() {
            map.insert("rules".to_owned(), self.rules.iter().map(Rule::to_value).collect());
        }
        map.into()
    }
}

fn read_expression(fields: &Fields<'_>) -> Result<Option<Expression>, ResourceError> {
    const KEY: &str = "db_labels_expression";
    let Some(node) = fields.get(KEY) else {
        return Ok(None);
    };
    let place = fields.below(KEY);
    let text = text_within(node, &place, Expression::MAX_BYTES)?;
    let parsed = Expression::parse(text);
    parsed
        .map(Some)
        .map_err(|error| bad_value(&place, text, error.to_string(), node.at))
}

fn read_names(fields: &Fields<'_>, key: &str) -> Result<NamePatterns, ResourceError> {
    let Some(node) = fields.get(key) else {
        return Ok(NamePatterns::default());
    };
    let place = fields.below(key);
    let mut patterns = Vec::new();
    for (value, at) in texts(node, &place, false)? {
        let refuse = |reason: String| bad_value(&place, value, reason, at);
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
            return Err(bad_value(&fields.place, &key.text, reason, key.at));
        }
        let values = texts(node, &place, true)?;
        if key.text == WILDCARD && !matches!(values.as_slice(), [(WILDCARD, _)]) {
            let reason = "the key \"*\" goes with the one value \"*\" only; name the key".to_owned();
            return Err(bad_value(&fields.place, &key.text, reason, key.at));
        }
        total += values.len();
        limit(&fields.place, total, "values", MAX_VALUES, fields.at)?;
        let parse = |(value, at)| LabelPattern::parse(value).map_err(|r| bad_value(&place, value, r, at));
        selector.0.insert(
            key.text.clone(),
            values.into_iter().map(parse).collect::<Result<_, _>>()?,
        );
    }
    Ok(selector)
}
