//! What can be wrong with a role or user document, said with the resource, the rule, the place and the next step.

use crate::model::NameError;
use std::fmt;

/// A place in a text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: u64,
    /// In characters, not bytes.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a document was refused: `role "dba": unknown key "dny" in spec; did you mean "deny"? (line 4, column 3)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceError {
    /// Kind and name, once they are known.
    subject: Option<(&'static str, String)>,
    problem: Box<Problem>,
    at: Option<Position>,
}

impl ResourceError {
    pub(super) fn new(problem: Problem) -> Self {
        Self {
            subject: None,
            problem: Box::new(problem),
            at: None,
        }
    }

    #[must_use]
    pub(super) fn at(mut self, at: Option<Position>) -> Self {
        self.at = self.at.or(at);
        self
    }

    #[must_use]
    pub(super) fn about(mut self, kind: &'static str, name: &str) -> Self {
        self.subject.get_or_insert_with(|| (kind, name.to_owned()));
        self
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Where in the text; `None` for what was not read from text, or is missing as a whole.
    pub fn position(&self) -> Option<Position> {
        self.at
    }
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((kind, name)) = &self.subject {
            write!(f, "{kind} {name:?}: ")?;
        }
        write!(f, "{}", self.problem)?;
        match self.at {
            Some(at) => write!(f, " ({at})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ResourceError {}

/// The rule that a document breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the text cannot be read: {reason}")]
    Syntax { reason: String },
    #[error("{what} has {count} {unit}; at most {max} are allowed")]
    TooLarge {
        what: String,
        count: usize,
        unit: &'static str,
        max: usize,
    },
    #[error("unknown key {key:?} in {place}; {advice}")]
    UnknownKey { key: String, place: String, advice: String },
    #[error(
        "{what} {key:?} is not enforced by this version of Postern, so it is refused rather than ignored; remove it"
    )]
    NotEnforced { what: &'static str, key: String },
    #[error("{place} has no {key:?}; add it")]
    MissingKey { key: &'static str, place: String },
    #[error("{place} must be {expected}, but is {found}")]
    WrongType {
        place: String,
        expected: &'static str,
        found: String,
    },
    #[error("{place}: {reason}")]
    BadName { place: String, reason: NameError },
    #[error("version {version:?} of kind {kind} is not known; known are {known}")]
    UnknownVersion {
        kind: &'static str,
        version: String,
        known: String,
    },
    #[error("kind {kind:?} is not known; known are {known}")]
    UnknownKind { kind: String, known: String },
    #[error("this is a {found}, where a {expected} is expected")]
    OtherKind {
        expected: &'static str,
        found: &'static str,
    },
    #[error("there are {count} documents, where one {expected} is expected")]
    NotOneDocument { expected: &'static str, count: usize },
    #[error("{place} {value:?} is not a duration: {reason}; write it as 30h, 8h30m or 90m")]
    BadDuration {
        place: String,
        value: String,
        reason: &'static str,
    },
    #[error("{place} {value:?}: {reason}")]
    BadPattern {
        place: String,
        value: String,
        reason: String,
    },
    #[error("it is given twice; keep one")]
    Duplicate,
}
