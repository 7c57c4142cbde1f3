//! The rules of one role against one request: which of them match, and why or why not.
//!
//! `decide` asks for the answers and `explain` for the reasons, of the same rules.

use super::AccessRequest;
use crate::model::Traits;
use crate::policy::conditions::Conditions;
use crate::policy::expression::Facts;
use crate::policy::matchers::{LabelMismatch, LabelSelector, NamePatterns, Section};
use crate::policy::role::Role;
use std::borrow::Cow;

/// The conditions of a section, in the order in which they are asked.
pub(super) const FIELDS: [Field; 5] = [
    Field::Labels,
    Field::Expression,
    Field::Users,
    Field::Names,
    Field::Replication,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Labels,
    Expression,
    Users,
    Names,
    Replication,
}

impl Field {
    pub fn key(self) -> &'static str {
        match self {
            Self::Labels => "db_labels",
            Self::Expression => "db_labels_expression",
            Self::Users => "db_users",
            Self::Names => "db_names",
            Self::Replication => "db_replication",
        }
    }
}

/// One section of a role, and the request that it is asked about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub role: &'a Role,
    pub section: Section,
    pub request: &'a AccessRequest,
    /// Of the person's current record.
    pub traits: &'a Traits,
}

fn conditions(role: &Role, section: Section) -> &Conditions {
    match section {
        Section::Allow => &role.allow,
        Section::Deny => &role.deny,
    }
}

/// `None` where there are no labels to match: in `deny` without them, and in `allow` where an expression stands alone.
pub(super) fn selector(role: &Role, section: Section) -> Option<Cow<'_, LabelSelector>> {
    let conditions = conditions(role, section);
    match (section, &conditions.db_labels) {
        (_, Some(selector)) => Some(Cow::Borrowed(selector)),
        (Section::Allow, None) if conditions.db_labels_expression.is_none() => Some(role.allowed_labels()),
        (_, None) => None,
    }
}

impl<'a> Asked<'a> {
    fn conditions(self) -> &'a Conditions {
        conditions(self.role, self.section)
    }

    fn word(self) -> &'static str {
        match self.section {
            Section::Allow => "allow",
            Section::Deny => "deny",
        }
    }

    fn selector(self) -> Option<Cow<'a, LabelSelector>> {
        selector(self.role, self.section)
    }

    fn facts(self) -> Facts<'a> {
        Facts {
            labels: &self.request.labels,
            person: &self.request.principal.name,
            traits: self.traits,
        }
    }

    /// The patterns of users or names, what they are compared with, and what that is called.
    fn names(self, field: Field) -> (&'a NamePatterns, &'a str, &'static str) {
        let conditions = self.conditions();
        if field == Field::Users {
            (&conditions.db_users, self.request.db_user.as_str(), "database user")
        } else {
            (&conditions.db_names, self.request.db_name.as_str(), "database name")
        }
    }

    /// Whether the condition matches; `None` where the section does not have it. In `allow` users and names are always asked,
    /// and replication is where it is asked for.
    pub fn matches(self, field: Field) -> Option<bool> {
        match field {
            Field::Labels => {
                let selector = self.selector()?;
                Some(selector.check(&self.request.labels, self.traits, self.section).is_ok())
            }
            Field::Expression => {
                let expression = self.conditions().db_labels_expression.as_ref()?;
                Some(expression.holds(self.facts()))
            }
            Field::Users | Field::Names => {
                let (patterns, name, _) = self.names(field);
                if self.section == Section::Deny && patterns.0.is_empty() {
                    return None;
                }
                Some(patterns.find(name, self.traits, self.section).is_some())
            }
            Field::Replication => {
                self.request.replication?;
                match (self.section, self.conditions().db_replication) {
                    (Section::Deny, false) => None,
                    (_, said) => Some(said),
                }
            }
        }
    }

    /// Why the condition matches or not, as a sentence.
    pub fn reason(self, field: Field) -> String {
        let word = self.word();
        match field {
            Field::Labels => self.label_reason(),
            Field::Expression => {
                let Some(expression) = &self.conditions().db_labels_expression else {
                    return format!("{word} has no db_labels_expression");
                };
                let holds = if expression.holds(self.facts()) {
                    "holds"
                } else {
                    "does not hold"
                };
                format!(
                    "{word}.db_labels_expression {:?} {holds} for the labels \"{}\"",
                    expression.source(),
                    self.request.labels
                )
            }
            Field::Users | Field::Names => {
                let (key, (patterns, name, what)) = (field.key(), self.names(field));
                match patterns.find(name, self.traits, self.section) {
                    Some(pattern) => format!("{word}.{key} {:?} matches {what} {name:?}", pattern.source()),
                    None => format!("{what} {name:?} is not among {word}.{key} {patterns}"),
                }
            }
            Field::Replication => match self.conditions().db_replication {
                true => format!("{word}.db_replication is for replication connections"),
                false => format!("{word} has no db_replication, without which there is no replication connection"),
            },
        }
    }

    fn label_reason(self) -> String {
        let (word, labels) = (self.word(), &self.request.labels);
        let Some(selector) = self.selector() else {
            return format!("{word} has no db_labels");
        };
        match selector.check(labels, self.traits, self.section) {
            Ok(()) => format!("{word}.db_labels {selector} match the labels \"{labels}\""),
            Err(LabelMismatch::NoSelector) => format!("{word}.db_labels selects no database"),
            Err(LabelMismatch::KeyMissing(key)) => {
                format!("{word}.db_labels {selector} asks for label {key:?}, which the database does not have")
            }
            Err(LabelMismatch::ValueDiffers { key, value }) => {
                format!("{word}.db_labels {selector} do not match label {key:?} with value {value:?}")
            }
        }
    }
}

/// The first condition of a role's `deny` that matches. Any one is enough.
pub(super) fn denying_rule(role: &Role, request: &AccessRequest, traits: &Traits) -> Option<String> {
    let asked = Asked {
        role,
        section: Section::Deny,
        request,
        traits,
    };
    let denying = FIELDS.into_iter().find(|field| asked.matches(*field) == Some(true))?;
    Some(asked.reason(denying))
}

/// The conditions of a role's `allow` that do not match; without any the role allows.
pub(super) fn misses<'a>(
    role: &'a Role,
    request: &'a AccessRequest,
    traits: &'a Traits,
) -> impl Iterator<Item = (Asked<'a>, Field)> {
    let asked = Asked {
        role,
        section: Section::Allow,
        request,
        traits,
    };
    let missed = FIELDS
        .into_iter()
        .filter(move |field| asked.matches(*field) == Some(false));
    missed.map(move |field| (asked, field))
}
