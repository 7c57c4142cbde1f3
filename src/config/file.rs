//! The YAML file as a tree in which every key and value knows its place.
//!
//! YAML guesses types (`no` is a boolean, `1.10` a number); here a scalar keeps its spelling, and the key says what it is.

use super::error::{ConfigError, Place};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_saphyr::{Location, Spanned};
use std::fmt;
use std::sync::Arc;

/// The file's own depth is 6; more nesting than this is an attack on the reader's stack.
const MAX_DEPTH: usize = 32;
/// Values in one file; 500 databases with ten labels each are about 10 000.
const MAX_NODES: usize = 100_000;
/// Values that aliases (`*name`) may repeat in all, against files that grow when they are read.
const MAX_ALIAS_NODES: usize = 10_000;

/// One value and where it stands.
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

pub(super) struct Key {
    pub place: Place,
    pub name: String,
}

/// Reads `text` into a tree.
///
/// # Errors
/// It is not YAML, has a key twice, or exceeds a limit of this file.
pub(super) fn parse(text: &str, origin: &str) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_documents: 1 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_NODES },
    };
    let origin: Arc<str> = origin.into();
    match serde_saphyr::from_str_with_options::<RawNode>(text, options) {
        Ok(raw) => Ok(raw.located(text, &origin)),
        Err(serde_saphyr::Error::Eof { .. }) => Ok(Node {
            place: Place::whole(&origin),
            value: Value::Null,
        }),
        Err(error) => {
            let at = error.location();
            let place = at.map_or_else(|| Place::whole(&origin), |at| place(&origin, at));
            let message = error.to_string();
            let suffix = at.map(|at| format!(" at line {}, column {}", at.line(), at.column()));
            let message = suffix
                .as_deref()
                .and_then(|s| message.strip_suffix(s))
                .unwrap_or(&message)
                .to_owned();
            Err(ConfigError::Syntax { place, message })
        }
    }
}

fn place(origin: &Arc<str>, at: Location) -> Place {
    Place {
        origin: Arc::clone(origin),
        line: at.line(),
        column: at.column(),
    }
}

struct RawNode(Spanned<RawValue>);

enum RawValue {
    Null,
    Text(String),
    /// A scalar that YAML took for a number or a boolean. Its spelling is in the file; this is its value written anew.
    Typed(String),
    List(Vec<RawNode>),
    Map(Vec<(Spanned<String>, RawNode)>),
}

impl RawNode {
    fn located(self, text: &str, origin: &Arc<str>) -> Node {
        let Spanned {
            value,
            referenced,
            defined,
        } = self.0;
        let value = match value {
            RawValue::Null => Value::Null,
            RawValue::Text(text) => Value::Scalar(text),
            RawValue::Typed(written) => Value::Scalar(spelling(text, defined).map_or(written, str::to_owned)),
            RawValue::List(items) => Value::List(items.into_iter().map(|item| item.located(text, origin)).collect()),
            RawValue::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, node)| {
                        let place = place(origin, key.referenced);
                        let name = key.value;
                        (Key { place, name }, node.located(text, origin))
                    })
                    .collect(),
            ),
        };
        Node {
            place: place(origin, referenced),
            value,
        }
    }
}

fn spelling(text: &str, at: Location) -> Option<&str> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    let spelled = text.get(start..start.checked_add(length)?)?.trim();
    (!spelled.is_empty()).then_some(spelled)
}

impl<'de> Deserialize<'de> for RawNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawValueVisitor)
    }
}

struct RawValueVisitor;

impl<'de> Visitor<'de> for RawValueVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Typed(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

/// Writes a tree as YAML that [`parse`] reads as the same tree.
///
/// # Errors
/// The writer has a limit of its own that the tree exceeds.
pub(super) fn write(root: &Node) -> Result<String, ConfigError> {
    serde_saphyr::to_string(root).map_err(|error| ConfigError::NotWritten {
        reason: error.to_string(),
    })
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Scalar(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(entries) => serializer.collect_map(entries.iter().map(|(key, node)| (&key.name, node))),
        }
    }
}
