//! Why a token does not admit a node, and why a token cannot be added or removed.

use super::record::TokenName;
use super::{TOKENS_MAX, TTL_MAX};
use crate::model::{NodeKind, Timestamp};
use crate::store::StoreError;

/// Why a token does not admit a node. The node's operator reads it: whoever has the token may know what became of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    #[error(
        "the token is not valid: this cluster has no such token, or it has been removed; make a new one on the auth node: \
         {}",
        add_command(asked)
    )]
    Unknown { asked: Vec<NodeKind> },
    #[error(
        "the token {name} expired at {at}; make a new one on the auth node: {}",
        add_command(asked)
    )]
    Expired {
        name: TokenName,
        at: Timestamp,
        asked: Vec<NodeKind>,
    },
    #[error(
        "the token {name} is used up: as many nodes as it was made for have joined with it; make a new one on the auth \
         node: {}",
        add_command(asked)
    )]
    UsedUp { name: TokenName, asked: Vec<NodeKind> },
    #[error(
        "the token {name} is of type {}, and this node runs {missing}; use a token of that type, made on the auth node: {}",
        list(kinds),
        add_command(asked)
    )]
    WrongType {
        name: TokenName,
        kinds: Vec<NodeKind>,
        missing: NodeKind,
        asked: Vec<NodeKind>,
    },
    #[error("too many nodes join with the token {name} at this moment; start this node again")]
    Contended { name: TokenName },
    /// The store's own words are for auth's log: they name its files.
    #[error("auth cannot read its tokens at the moment, and its log says why; start this node again")]
    StoreFailed,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("failed to create token (\"{0}\" already exists), please use another name")]
    Exists(TokenName),
    #[error("the value cannot be a token: {0}; leave --value out, and one is made")]
    BadValue(String),
    #[error("a token needs at least one type: db, proxy")]
    NoKinds,
    #[error(
        "a token of type auth admits nothing: a cluster has one auth service, which joins nobody; types are db, proxy"
    )]
    AuthKind,
    #[error("a token that admits 0 nodes is of no use; give --uses 1 or more, or leave it out")]
    NoUses,
    #[error(
        "a token lives for 1 s to {} h; one without an end is put into auth_service: tokens in auth's configuration",
        TTL_MAX.as_secs() / 3600
    )]
    Ttl,
    #[error("the labels are {bytes} bytes long; at most {max} are kept with a token")]
    Labels { bytes: usize, max: usize },
    #[error(
        "there are {TOKENS_MAX} tokens, which is the limit; remove some, or let one token admit several nodes (--uses)"
    )]
    TooMany,
    #[error(
        "token {typed} not found; give the whole token, or its first four characters as `ctl tokens ls` shows them"
    )]
    NotFound { typed: String },
    #[error("{count} tokens begin with {name}; give the whole token")]
    Ambiguous { name: TokenName, count: usize },
    #[error("the token {0} is in auth's configuration; take it out of auth_service: tokens there, and restart auth")]
    Configured(TokenName),
    #[error("a stored token cannot be read: {0}; remove it from the store, or restore a backup")]
    Unreadable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub fn list(kinds: &[NodeKind]) -> String {
    let labels: Vec<&str> = kinds.iter().map(|kind| kind.label()).collect();
    labels.join(",")
}

fn add_command(asked: &[NodeKind]) -> String {
    format!("ctl tokens add --type={}", list(asked))
}
