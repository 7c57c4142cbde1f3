//! YAML and JSON documents as one tree that knows the line of every key and value, so that a mistake can be pointed at.
//!
//! The tree is walked by hand, resource by resource: a derived deserializer stops at "unknown field", and a role has to say
//! more than that (which key was meant, which option is not enforced yet).

use super::error::{Position, Problem, ResourceError};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;
use std::marker::PhantomData;

/// Bytes of one stream of documents; some thousands of users fit.
pub const MAX_STREAM_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of one role or user as JSON. It bounds what one record costs on the wire and in the store.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Documents in one stream.
pub const MAX_STREAM_DOCUMENTS: usize = 10_000;
/// How deep a document may be nested; resources need six levels.
const MAX_DEPTH: usize = 16;
/// Nodes of one stream. It bounds the memory of the tree, which is far larger than its text.
const MAX_NODES: usize = 500_000;

/// One value and where it stands. A value read from JSON has no position.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: Option<Position>,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    /// A boolean or a number, in its spelling: most fields refuse it, and some options read it.
    Unquoted(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub at: Option<Position>,
    pub text: String,
}

impl Value {
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "empty (write [] or {} for none, or remove the key)".to_owned(),
            Self::Unquoted(text) => format!("the number or boolean {text}; put it in quotes"),
            Self::Text(text) => format!("the text {text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Reads every document of a YAML stream. Empty documents are left out.
pub(super) fn read_yaml(text: &str) -> Result<Vec<Node>, ResourceError> {
    within("the text", text, MAX_STREAM_BYTES)?;
    // Aliases are switched off: no resource needs them, and a few lines of them can stand for gigabytes.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: MAX_STREAM_DOCUMENTS,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 2,
            max_total_scalar_bytes: MAX_STREAM_BYTES,
            max_aliases: 0,
            max_anchors: 0,
        },
        // As in YAML 1.2: a database user `no` is a text, and only `true` and `false` are not.
        strict_booleans: true,
        with_snippet: false,
    };
    let located: Vec<LocatedNode> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let at = error.location().and_then(position);
        ResourceError::new(Problem::Syntax {
            reason: sentence(&error),
        })
        .at(at)
    })?;
    Ok(located.into_iter().map(Node::from).collect())
}

/// Reads one JSON document.
pub(super) fn read_json(text: &str) -> Result<Node, ResourceError> {
    within("the document", text, MAX_DOCUMENT_BYTES)?;
    let plain: PlainNode = serde_json::from_str(text).map_err(|error| {
        ResourceError::new(Problem::Syntax {
            reason: error.to_string(),
        })
    })?;
    Ok(Node::from(plain))
}

fn within(what: &str, text: &str, max: usize) -> Result<(), ResourceError> {
    if text.len() <= max {
        return Ok(());
    }
    Err(ResourceError::new(Problem::TooLarge {
        what: what.to_owned(),
        count: text.len(),
        unit: "bytes",
        max,
    }))
}

fn position(location: serde_saphyr::Location) -> Option<Position> {
    (location.line() > 0).then(|| Position {
        line: location.line(),
        column: location.column(),
    })
}

/// The parser's sentence without the position, which `ResourceError` says in its own way.
fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    match error.location() {
        Some(l) => {
            let (line, column) = (l.line(), l.column());
            text.replace(&format!(" at line {line}, column {column}"), "")
                .replace(&format!("line {line} column {column}: "), "")
        }
        None => text,
    }
}

/// A node of YAML, where the deserializer tells the position of every value.
struct LocatedNode(Spanned<Tree<Spanned<String>, LocatedNode>>);
/// A node of JSON.
struct PlainNode(Tree<String, PlainNode>);

impl<'de> Deserialize<'de> for LocatedNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for PlainNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tree::deserialize(deserializer).map(Self)
    }
}

impl From<LocatedNode> for Node {
    fn from(LocatedNode(node): LocatedNode) -> Self {
        Self {
            at: position(node.referenced),
            value: node.value.value,
        }
    }
}

impl From<PlainNode> for Node {
    fn from(PlainNode(tree): PlainNode) -> Self {
        Self {
            at: None,
            value: tree.value,
        }
    }
}

impl From<Spanned<String>> for Key {
    fn from(key: Spanned<String>) -> Self {
        Self {
            at: position(key.referenced),
            text: key.value,
        }
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self { at: None, text }
    }
}

/// A value whose keys are read as `K` and whose children as `N`.
struct Tree<K, N> {
    value: Value,
    children: PhantomData<fn() -> (K, N)>,
}

impl<'de, K, N> Deserialize<'de> for Tree<K, N>
where
    K: Deserialize<'de> + Into<Key>,
    N: Deserialize<'de> + Into<Node>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(TreeVisitor::<K, N>(PhantomData))?;
        Ok(Self {
            value,
            children: PhantomData,
        })
    }
}

struct TreeVisitor<K, N>(PhantomData<fn() -> (K, N)>);

impl<'de, K, N> Visitor<'de> for TreeVisitor<K, N>
where
    K: Deserialize<'de> + Into<Key>,
    N: Deserialize<'de> + Into<Node>,
{
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Unquoted(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Unquoted(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unquoted(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Unquoted(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Unquoted(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Unquoted(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element::<N>()? {
            list.push(node.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = map.next_key::<K>()? {
            entries.push((key.into(), map.next_value::<N>()?.into()));
        }
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.text.as_str()).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]) {
            return Err(A::Error::custom(format!("key {twice:?} is given twice; keep one")));
        }
        Ok(Value::Map(entries))
    }
}
