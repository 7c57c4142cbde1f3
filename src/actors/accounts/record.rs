//! What the store has of accounts: below `/account/` one record for each person, below `/invite/` one for each link.
//!
//! The account's record is the one place of truth: it names the link that may set its password. Setting it is one
//! compare-and-swap of that record, so that of two who accept one link one wins, and a link that was replaced is worth nothing.

use super::code::CodeSecret;
use super::lockout::Failures;
use super::password::PasswordHash;
use super::refused::AccountError;
use super::{Invitation, InviteKind};
use crate::model::{ClusterName, PersonName, Secret, Timestamp};
use crate::pki::{SealKey, entropy};
use crate::store::Item;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64, HEXLOWER};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const ACCOUNTS: &str = "/account/";
/// Links are found by the SHA-256 of their token, so that a copy of the store sets nobody's password.
const INVITES: &str = "/invite/";
/// Written where there is no account to write to; see `login.rs`.
pub(super) const DECOY: &str = "/account-decoy";
/// 128 bits cannot be guessed; 32 hexadecimal digits.
const TOKEN_BYTES: usize = 16;
/// A link that has ended is remembered for so long, so that whoever opens it reads why it is refused.
pub(super) const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Account {
    pub credential: Option<Credential>,
    pub invite: Option<OpenInvite>,
    pub failures: Failures,
}

/// What somebody logs in with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Credential {
    pub password: PasswordHash,
    /// The secret of the codes, sealed.
    code: String,
    /// The step of the last code that was taken; no code of it or of one before is taken again.
    pub last_step: i64,
    pub since: Timestamp,
}

/// The link that may set the password.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct OpenInvite {
    /// The key of its record.
    pub key: String,
    pub expires: Timestamp,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Invite {
    pub person: PersonName,
    pub kind: InviteKind,
    pub created: Timestamp,
    pub created_by: String,
    pub expires: Timestamp,
    /// The secret of the codes, sealed; gone when the link is.
    code: Option<String>,
}

pub(super) fn account_key(person: &PersonName) -> String {
    format!("{ACCOUNTS}{person}")
}

pub(super) fn invite_key(token: &str) -> String {
    let hash = digest(&SHA256, token.as_bytes());
    format!("{INVITES}{}", HEXLOWER.encode(hash.as_ref()))
}

pub(super) fn generate_token() -> Secret<String> {
    Secret::new(HEXLOWER.encode(&entropy::bytes::<TOKEN_BYTES>()))
}

/// Whether a text can be a token: whatever else is not looked up.
pub(super) fn is_token(text: &str) -> bool {
    text.len() == 2 * TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Credential {
    pub fn new(
        person: &PersonName,
        password: PasswordHash,
        (secret, step): (&CodeSecret, i64),
        (seal, now): (&SealKey, Timestamp),
    ) -> Result<Self, AccountError> {
        Ok(Self {
            password,
            code: sealed(seal, secret, &account_key(person))?,
            last_step: step,
            since: now,
        })
    }

    /// Whether it was not set anew; the last code does not count.
    pub fn is_same(&self, other: &Self) -> bool {
        self.password == other.password && self.code == other.code
    }

    pub fn code(&self, person: &PersonName, seal: &SealKey) -> Result<CodeSecret, AccountError> {
        opened(seal, &self.code, &account_key(person))
    }
}

impl Invite {
    pub fn new(
        key: &str,
        (person, kind, by): (PersonName, InviteKind, String),
        (created, ttl): (Timestamp, Duration),
        seal: &SealKey,
    ) -> Result<Self, AccountError> {
        Ok(Self {
            person,
            kind,
            created,
            created_by: by,
            expires: created + ttl,
            code: Some(sealed(seal, &CodeSecret::generate(), key)?),
        })
    }

    pub fn code(&self, key: &str, seal: &SealKey) -> Result<CodeSecret, AccountError> {
        let code = self.code.as_deref().ok_or(AccountError::InviteUsed)?;
        opened(seal, code, key)
    }

    /// What is left of a link that was used: that there was one.
    pub fn without_secret(self) -> Self {
        Self { code: None, ..self }
    }

    pub fn forgotten(&self) -> Timestamp {
        self.expires + KEPT_AFTER_END
    }

    pub fn shown(self, secret: &CodeSecret, cluster: &ClusterName) -> Invitation {
        Invitation {
            otp_uri: secret.uri(cluster, &self.person),
            otp_secret: secret.base32(),
            person: self.person,
            kind: self.kind,
            expires: self.expires,
        }
    }
}

fn sealed(seal: &SealKey, secret: &CodeSecret, context: &str) -> Result<String, AccountError> {
    Ok(BASE64.encode(&seal.seal(secret.bytes(), context)?))
}

fn opened(seal: &SealKey, sealed: &str, context: &str) -> Result<CodeSecret, AccountError> {
    let sealed = BASE64
        .decode(sealed.as_bytes())
        .map_err(|error| AccountError::Unreadable(error.to_string()))?;
    Ok(CodeSecret::from_bytes(seal.open(&sealed, context)?))
}

pub(super) fn read<T: DeserializeOwned>(item: &Item) -> Result<T, AccountError> {
    serde_json::from_slice(&item.value).map_err(|error| AccountError::Unreadable(format!("{}: {error}", item.key)))
}

pub(super) fn bytes(record: &impl Serialize) -> Result<Vec<u8>, AccountError> {
    serde_json::to_vec(record).map_err(|error| AccountError::Unreadable(error.to_string()))
}
