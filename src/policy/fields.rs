//! Walking a document: what a mapping must, may and must not hold, and lists of texts within their limits.

use super::document::{Key, Node, Value};
use super::error::{Position, Problem, ResourceError};
use crate::model::NameError;

/// Values in one list: database users, names, values of a label or a trait.
pub(super) const MAX_VALUES: usize = 1024;
/// Bytes of one value or key. Names in PostgreSQL end at 63; templates and regular expressions need more.
pub(super) const MAX_VALUE_BYTES: usize = 1024;

type Result<T> = std::result::Result<T, ResourceError>;

/// A mapping, and how it is called in errors: `spec.allow`.
pub(super) struct Fields<'a> {
    pub place: String,
    pub at: Option<Position>,
    pub entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    pub fn of(node: &'a Node, place: impl Into<String>) -> Result<Self> {
        let place = place.into();
        match &node.value {
            Value::Map(entries) => Ok(Self {
                place,
                at: node.at,
                entries,
            }),
            other => Err(wrong_type(&place, "a mapping", other, node.at)),
        }
    }

    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    pub fn require(&self, key: &'static str) -> Result<&'a Node> {
        let missing = || Problem::MissingKey {
            key,
            place: self.place.clone(),
        };
        self.get(key).ok_or_else(|| ResourceError::new(missing()).at(self.at))
    }

    pub fn mapping(&self, key: &str) -> Result<Option<Fields<'a>>> {
        self.get(key).map(|node| Fields::of(node, self.below(key))).transpose()
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|node| text(node, &self.below(key))).transpose()
    }

    /// The name of something inside this mapping: `spec.allow` and `db_users` give `spec.allow.db_users`.
    pub fn below(&self, key: &str) -> String {
        if self.place == DOCUMENT {
            key.to_owned()
        } else {
            format!("{}.{key}", self.place)
        }
    }

    /// Refuses every key that is not `known`; one of `not_enforced` by name, as a `what`.
    pub fn only(&self, known: &[&'static str], what: &'static str, not_enforced: &[&str]) -> Result<()> {
        for (key, _) in self.entries {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let problem = if not_enforced.contains(&key.text.as_str()) {
                Problem::NotEnforced {
                    what,
                    key: key.text.clone(),
                }
            } else {
                Problem::UnknownKey {
                    key: key.text.clone(),
                    place: self.place.clone(),
                    advice: advice(&key.text, known),
                }
            };
            return Err(ResourceError::new(problem).at(key.at));
        }
        Ok(())
    }
}

/// What the outermost mapping is called.
pub(super) const DOCUMENT: &str = "the document";

fn advice(key: &str, known: &[&'static str]) -> String {
    /// Below this similarity (0 to 1) a suggestion would only confuse.
    const NEAR: f64 = 0.75;
    let nearest = known
        .iter()
        .map(|k| (strsim::jaro_winkler(&key.to_lowercase(), k), k))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, nearest)) => format!("did you mean {nearest:?}?"),
        None => format!("known keys are {}", known.join(", ")),
    }
}

pub(super) fn text<'a>(node: &'a Node, place: &str) -> Result<&'a str> {
    text_within(node, place, MAX_VALUE_BYTES)
}

pub(super) fn text_within<'a>(node: &'a Node, place: &str, max: usize) -> Result<&'a str> {
    match &node.value {
        Value::Text(text) => {
            limit(place, text.len(), "bytes", max, node.at)?;
            Ok(text)
        }
        other => Err(wrong_type(place, "a text", other, node.at)),
    }
}

/// A boolean, as Teleport spells them.
pub(super) fn truth(fields: &Fields<'_>, key: &str) -> Result<Option<bool>> {
    let Some(node) = fields.get(key) else {
        return Ok(None);
    };
    let place = fields.below(key);
    match scalar(node, &place)? {
        "true" | "yes" | "on" => Ok(Some(true)),
        "false" | "no" | "off" => Ok(Some(false)),
        other => Err(bad_value(
            &place,
            other,
            "it is neither true nor false; write true or false",
            node.at,
        )),
    }
}

/// A text, or a number or boolean in its spelling.
pub(super) fn scalar<'a>(node: &'a Node, place: &str) -> Result<&'a str> {
    match &node.value {
        Value::Unquoted(spelling) => Ok(spelling),
        _ => text(node, place),
    }
}

pub(super) fn bad_value(place: &str, value: &str, reason: impl Into<String>, at: Option<Position>) -> ResourceError {
    ResourceError::new(Problem::BadPattern {
        place: place.to_owned(),
        value: value.to_owned(),
        reason: reason.into(),
    })
    .at(at)
}

pub(super) fn unknown_version(
    kind: &'static str,
    found: &str,
    known: impl Into<String>,
    at: Option<Position>,
) -> ResourceError {
    ResourceError::new(Problem::UnknownVersion {
        kind,
        version: found.to_owned(),
        known: known.into(),
    })
    .at(at)
}

/// A list of texts, each with its place in the text; one text alone is a list of one where `one_alone` says so.
pub(super) fn texts<'a>(node: &'a Node, place: &str, one_alone: bool) -> Result<Vec<(&'a str, Option<Position>)>> {
    match &node.value {
        Value::List(items) => {
            limit(place, items.len(), "values", MAX_VALUES, node.at)?;
            items.iter().map(|item| Ok((text(item, place)?, item.at))).collect()
        }
        Value::Text(_) if one_alone => Ok(vec![(text(node, place)?, node.at)]),
        other => {
            let expected = if one_alone {
                "a text or a list of texts"
            } else {
                "a list of texts"
            };
            Err(wrong_type(place, expected, other, node.at))
        }
    }
}

pub(super) fn limit(place: &str, count: usize, unit: &'static str, max: usize, at: Option<Position>) -> Result<()> {
    if count <= max {
        return Ok(());
    }
    Err(ResourceError::new(Problem::TooLarge {
        what: place.to_owned(),
        count,
        unit,
        max,
    })
    .at(at))
}

pub(super) fn bad_name(place: &str, reason: NameError, at: Option<Position>) -> ResourceError {
    ResourceError::new(Problem::BadName {
        place: place.to_owned(),
        reason,
    })
    .at(at)
}

fn wrong_type(place: &str, expected: &'static str, found: &Value, at: Option<Position>) -> ResourceError {
    let found = found.describe();
    ResourceError::new(Problem::WrongType {
        place: place.to_owned(),
        expected,
        found,
    })
    .at(at)
}
