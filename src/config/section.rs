//! Sections of the file, read key by key: every key must be known, and a value that is refused is refused with its place.

use super::error::{ConfigError, Place};
use super::file::{Key, Node, Value};
use super::keys::{self, Keys};
use std::fmt;

impl Node {
    fn found(&self) -> &'static str {
        match &self.value {
            Value::Null => "empty",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a section",
        }
    }

    /// Nothing was set: `key:`, `""`, `[]`, `{}`, as generated files write keys that are not used.
    fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Scalar(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    pub(super) fn wrong_type(&self, subject: &str, expected: &'static str) -> ConfigError {
        ConfigError::WrongType {
            place: self.place.clone(),
            subject: subject.to_owned(),
            expected,
            found: self.found(),
        }
    }

    pub(super) fn into_text(self, subject: &str, expected: &'static str) -> Result<Text, ConfigError> {
        match self.value {
            Value::Scalar(value) => Ok(Text {
                place: self.place,
                subject: subject.to_owned(),
                value,
            }),
            _ => Err(self.wrong_type(subject, expected)),
        }
    }
}

/// A single value with its place and the name of its key, so that a refusal can name all three.
pub(super) struct Text {
    pub place: Place,
    pub subject: String,
    pub value: String,
}

impl Text {
    pub(super) fn refuse(&self, reason: impl fmt::Display) -> ConfigError {
        ConfigError::BadValue {
            place: self.place.clone(),
            subject: self.subject.clone(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn read<T, E: fmt::Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, ConfigError> {
        parse(&self.value).map_err(|error| self.refuse(error))
    }
}

/// A mapping whose keys are all known. Reading takes the values out of it.
pub(super) struct Section {
    pub place: Place,
    pub name: String,
    entries: Vec<(Key, Node)>,
}

impl Section {
    /// Takes `node` as the section `name`; an empty one has no keys.
    ///
    /// # Errors
    /// It is not a mapping, or a key is unknown or not supported.
    pub(super) fn open(node: Node, name: &str, keys: &Keys) -> Result<Self, ConfigError> {
        let place = node.place.clone();
        let entries = match node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries,
            _ => return Err(node.wrong_type(name, "a section with keys of its own")),
        };
        for (key, value) in &entries {
            check(key, value, name, keys)?;
        }
        Ok(Self {
            place,
            name: name.to_owned(),
            entries,
        })
    }

    pub(super) fn subject(&self, key: &str) -> String {
        format!("{key} in {}", self.name)
    }

    /// The value of `key`, unless it is not there or empty (`key:`).
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(k, _)| k.name == key)?;
        let (_, node) = self.entries.swap_remove(at);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// A single value; an empty text counts as not given.
    pub(super) fn text(&mut self, key: &str, expected: &'static str) -> Result<Option<Text>, ConfigError> {
        match self.take(key) {
            Some(node) if matches!(&node.value, Value::Scalar(text) if text.is_empty()) => Ok(None),
            Some(node) => node.into_text(&self.subject(key), expected).map(Some),
            None => Ok(None),
        }
    }

    /// A single value or a list of them.
    pub(super) fn texts(&mut self, key: &str, expected: &'static str) -> Result<Vec<Text>, ConfigError> {
        let subject = self.subject(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(node) if matches!(&node.value, Value::Scalar(text) if text.is_empty()) => Ok(Vec::new()),
            Some(Node {
                value: Value::List(items),
                ..
            }) => items
                .into_iter()
                .map(|item| item.into_text(&subject, expected))
                .collect(),
            Some(node) => node.into_text(&subject, expected).map(|text| vec![text]),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(text) = self.text(key, "yes or no")? else {
            return Ok(None);
        };
        match text.value.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" => Ok(Some(true)),
            "no" | "false" | "off" => Ok(Some(false)),
            _ => Err(text.refuse(format!("{:?} is neither yes nor no", text.value))),
        }
    }

    pub(super) fn missing(&self, key: &'static str, reason: impl fmt::Display) -> ConfigError {
        ConfigError::Missing {
            place: self.place.clone(),
            section: self.name.clone(),
            key,
            reason: reason.to_string(),
        }
    }
}

fn check(key: &Key, value: &Node, section: &str, keys: &Keys) -> Result<(), ConfigError> {
    let name = key.name.as_str();
    if keys.supported.contains(&name) || keys.foreign.contains(&name) {
        return Ok(());
    }
    if keys.not_yet.contains(&name) {
        if value.is_empty() {
            return Ok(());
        }
        return Err(ConfigError::NotSupported {
            place: key.place.clone(),
            key: key.name.clone(),
            section: section.to_owned(),
        });
    }
    Err(ConfigError::UnknownKey {
        place: key.place.clone(),
        key: key.name.clone(),
        section: section.to_owned(),
        advice: keys::advice(name, keys),
    })
}
