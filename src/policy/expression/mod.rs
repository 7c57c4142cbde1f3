//! `db_labels_expression`: the predicate language over a database's labels and a person's traits.
//!
//! `labels["k"]` is a text, empty where the label is missing; `user.spec.traits["k"]` is a list, empty where the trait is
//! missing; `user.metadata.name` is a text. `contains(LIST, TEXT)`, `regexp.match(VALUE, "PATTERN")` (of a list: any item; the
//! pattern is a literal and may also stand first), `TEXT == TEXT`, `TEXT != TEXT`, `&&`, `||`, `!` and parentheses.
//! An expression is checked when the role is read, so that evaluating it cannot fail.

mod parse;

pub use parse::ExpressionError;

use crate::model::{Labels, PersonName, Traits};
use regex::Regex;
use std::sync::Arc;

/// An expression, parsed and with its regular expressions compiled; a copy costs nothing.
#[derive(Debug, Clone)]
pub struct Expression(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    source: String,
    root: Condition,
    regexes: usize,
}

/// What an expression may look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub labels: &'a Labels,
    pub person: &'a PersonName,
    pub traits: &'a Traits,
}

#[derive(Debug, Clone)]
enum Condition {
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Same(Text, Text),
    Contains(List, Text),
    Matches(Value, Regex),
}

#[derive(Debug, Clone)]
enum Text {
    Literal(String),
    Label(String),
    PersonName,
}

/// The values of a trait.
#[derive(Debug, Clone)]
struct List(String);

#[derive(Debug, Clone)]
enum Value {
    Text(Text),
    List(List),
}

impl Expression {
    /// Bytes of one expression.
    pub const MAX_BYTES: usize = 4096;

    /// # Errors
    /// What is wrong with it, and at which character.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        let (root, regexes) = parse::parse(source)?;
        Ok(Self(Arc::new(Parsed {
            source: source.to_owned(),
            root,
            regexes,
        })))
    }

    pub fn source(&self) -> &str {
        &self.0.source
    }

    pub(super) fn regexes(&self) -> usize {
        self.0.regexes
    }

    pub fn holds(&self, facts: Facts<'_>) -> bool {
        self.0.root.holds(facts)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Condition {
    fn holds(&self, facts: Facts<'_>) -> bool {
        match self {
            Self::Not(condition) => !condition.holds(facts),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(facts)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(facts)),
            Self::Same(one, other) => one.of(facts) == other.of(facts),
            Self::Contains(list, item) => list.of(facts).iter().any(|value| value == item.of(facts)),
            Self::Matches(Value::Text(text), pattern) => pattern.is_match(text.of(facts)),
            Self::Matches(Value::List(list), pattern) => list.of(facts).iter().any(|value| pattern.is_match(value)),
        }
    }
}

impl Text {
    fn of<'a>(&'a self, facts: Facts<'a>) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Label(key) => facts.labels.get(key).unwrap_or_default(),
            Self::PersonName => facts.person.as_str(),
        }
    }
}

impl List {
    fn of<'a>(&self, facts: Facts<'a>) -> &'a [String] {
        facts.traits.get(&self.0).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
