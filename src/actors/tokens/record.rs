//! What the store has of a join token: everything but the token itself.

use crate::config::MIN_STATIC_TOKEN_BYTES;
use crate::model::{Labels, NodeKind, Secret, Timestamp};
use crate::pki::entropy;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Records are found by the SHA-256 of their token, so that a copy of the store lets nobody join.
pub(super) const TOKENS: &str = "/token/";
/// 128 bits cannot be guessed; 32 hexadecimal digits.
const TOKEN_BYTES: usize = 16;
/// A text of an administrator's own; in a shell and in a configuration file it has to stay one word on one line.
const VALUE_BYTES_MAX: usize = 256;
/// What a token shows of itself: enough to tell it from others, of no use to guess the rest.
const SHOWN_CHARS: usize = 4;
/// A token that has ended is remembered for so long, so that a node that comes with it reads why it is refused.
pub const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

/// How many more nodes may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uses {
    Unlimited,
    Left(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub name: TokenName,
    pub kinds: Vec<NodeKind>,
    pub labels: Labels,
    pub created: Timestamp,
    pub created_by: String,
    pub expires: Timestamp,
    pub uses: Uses,
}

impl TokenRecord {
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.uses != Uses::Left(0) && now < self.expires
    }

    /// When the store forgets the record.
    pub(super) fn forgotten(&self, now: Timestamp) -> Timestamp {
        let ended = if self.uses == Uses::Left(0) {
            self.expires.min(now)
        } else {
            self.expires
        };
        ended + KEPT_AFTER_END
    }
}

/// What is shown of a token: its first characters and stars.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenName(String);

impl TokenName {
    pub fn of(token: &Secret<String>) -> Self {
        Self(token.expose().chars().take(SHOWN_CHARS).collect())
    }

    /// Whether somebody means this token by `abcd` or `abcd****`.
    pub(super) fn is_meant_by(&self, text: &str) -> bool {
        text.trim_end_matches('*') == self.0
    }
}

impl std::fmt::Display for TokenName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}****", self.0)
    }
}

pub(super) fn generate() -> Secret<String> {
    Secret::new(HEXLOWER.encode(&entropy::bytes::<TOKEN_BYTES>()))
}

pub(super) fn key_of(token: &str) -> String {
    format!(
        "{TOKENS}{}",
        HEXLOWER.encode(digest(&SHA256, token.as_bytes()).as_ref())
    )
}

/// The rule that a token of an administrator's own breaks.
pub(super) fn broken_rule(value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:+=@/".contains(c);
    if value.len() < MIN_STATIC_TOKEN_BYTES || value.len() > VALUE_BYTES_MAX {
        return Some(format!(
            "it is {} bytes long, and a token has {MIN_STATIC_TOKEN_BYTES} to {VALUE_BYTES_MAX}, as a short one can be guessed",
            value.len()
        ));
    }
    if !value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some(
            "it must begin with a letter or a digit, as what begins with '/' is read as a file's path".to_owned(),
        );
    }
    value
        .chars()
        .find(|c| !allowed(*c))
        .map(|bad| format!("it must not contain {bad:?}; allowed are letters, digits and - _ . : + = @ /"))
}
