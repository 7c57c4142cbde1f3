//! Why an account, an invitation or a login is refused.

use super::password::{PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
use super::{INVITE_TTL_MAX, RESET_TTL_MAX};
use crate::model::{PersonName, Refusal};
use crate::pki::PkiError;
use crate::store::StoreError;

/// Why a login is refused. The person reads it: it does not say what was wrong, and so not whether the person exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// An unknown person, a wrong password, a wrong or used code, or a locked account: the audit log says which.
    #[error("invalid username, password or second factor")]
    Denied,
    /// This address tries too often, or more people log in at once than this machine can check.
    #[error("too many login attempts; wait a minute and try again")]
    TooMany,
    #[error("logins cannot be checked at the moment; try again, and tell your administrator if it stays so")]
    Unavailable,
}

/// Why an invitation cannot be made, shown or accepted.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("there is no user {0:?}; add the user first: ctl users add")]
    NoSuchUser(PersonName),
    #[error(
        "a link lives for 1 s to {} h (an invitation) or {} h (a reset)",
        INVITE_TTL_MAX.as_secs() / 3600,
        RESET_TTL_MAX.as_secs() / 3600
    )]
    Ttl,
    #[error("this link is not valid; ask your administrator for a new one")]
    NoInvite,
    #[error("this link has expired; ask your administrator for a new one")]
    InviteExpired,
    #[error("this link has been used, or a newer one was made in its place; ask your administrator for a new one")]
    InviteUsed,
    #[error("the password is too short: it needs at least {PASSWORD_CHARS_MIN} characters")]
    PasswordTooShort,
    #[error("the password is too long: it may have at most {PASSWORD_CHARS_MAX} characters")]
    PasswordTooLong,
    #[error(
        "the one-time code is not right; type the six digits that your authenticator app shows now, and check that the clock of \
         that device is right"
    )]
    WrongCode,
    #[error("too many attempts; wait a minute and try again")]
    TooMany,
    #[error("too many people set or use passwords at the moment; wait a minute and try again")]
    Busy,
    #[error("the users have not been read yet; try again")]
    NotReady,
    /// What another node says of auth, or of the way to it.
    #[error("accounts cannot be reached at the moment: {0}")]
    Away(String),
    #[error("it was done, but the audit log could not be written: {0}")]
    NotAudited(Refusal),
    #[error("a stored account cannot be read: {0}; reset the user: ctl users reset")]
    Unreadable(String),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AccountError {
    /// Whether it is of this machine, not of what was asked. What it says is then for administrators, not for whoever asked.
    pub fn is_internal(&self) -> bool {
        matches!(
            self,
            Self::Away(_) | Self::NotAudited(_) | Self::Unreadable(_) | Self::Pki(_) | Self::Store(_)
        )
    }
}
