//! Invitations on the wire: what auth answers a proxy about a link, and how the proxy reads it.

use super::accounts::{AccountError, Invitation, InviteKind};
use crate::net::frames::AnswerError;
use crate::protocol::tunnel::{AccountRefusal, AuthToNode};

pub(super) fn shown(invitation: Invitation) -> AuthToNode {
    AuthToNode::Invitation {
        person: invitation.person,
        is_reset: invitation.kind == InviteKind::Reset,
        expires: invitation.expires,
        otp_uri: invitation.otp_uri.into(),
        otp_secret: invitation.otp_secret.into(),
    }
}

/// What is wrong on auth's own machine stays in auth's log.
pub(super) fn refused(error: &AccountError) -> AuthToNode {
    let kind = match error {
        AccountError::NoInvite => AccountRefusal::NoInvite,
        AccountError::InviteExpired => AccountRefusal::InviteExpired,
        AccountError::InviteUsed => AccountRefusal::InviteUsed,
        AccountError::PasswordTooShort => AccountRefusal::PasswordTooShort,
        AccountError::PasswordTooLong => AccountRefusal::PasswordTooLong,
        AccountError::WrongCode => AccountRefusal::WrongCode,
        AccountError::TooMany => AccountRefusal::TooMany,
        AccountError::Busy => AccountRefusal::Busy,
        AccountError::NoSuchUser(_)
        | AccountError::Ttl
        | AccountError::NotReady
        | AccountError::Away(_)
        | AccountError::NotAudited(_)
        | AccountError::Unreadable(_)
        | AccountError::Pki(_)
        | AccountError::Store(_) => AccountRefusal::Unavailable,
    };
    if error.is_internal() {
        tracing::error!(%error, "a link could not be shown or accepted");
        let why = "it failed on auth, whose log says why".to_owned();
        return AuthToNode::AccountRefused { kind, why };
    }
    AuthToNode::AccountRefused {
        kind,
        why: error.to_string(),
    }
}

pub(super) fn invitation(answer: AuthToNode) -> Result<Invitation, AccountError> {
    match answer {
        AuthToNode::Invitation {
            person,
            is_reset,
            expires,
            otp_uri,
            otp_secret,
        } => Ok(Invitation {
            person,
            kind: if is_reset {
                InviteKind::Reset
            } else {
                InviteKind::Invite
            },
            expires,
            otp_uri: otp_uri.0,
            otp_secret: otp_secret.0,
        }),
        other => Err(refusal(other)),
    }
}

pub(super) fn accepted(answer: AuthToNode) -> Result<(), AccountError> {
    match answer {
        AuthToNode::InviteAccepted => Ok(()),
        other => Err(refusal(other)),
    }
}

pub(super) fn unanswered(error: &AnswerError) -> AccountError {
    AccountError::Away(error.to_string())
}

fn refusal(answer: AuthToNode) -> AccountError {
    let AuthToNode::AccountRefused { kind, why } = answer else {
        return AccountError::Away("auth answered something else".to_owned());
    };
    match kind {
        AccountRefusal::NoInvite => AccountError::NoInvite,
        AccountRefusal::InviteExpired => AccountError::InviteExpired,
        AccountRefusal::InviteUsed => AccountError::InviteUsed,
        AccountRefusal::PasswordTooShort => AccountError::PasswordTooShort,
        AccountRefusal::PasswordTooLong => AccountError::PasswordTooLong,
        AccountRefusal::WrongCode => AccountError::WrongCode,
        AccountRefusal::TooMany => AccountError::TooMany,
        AccountRefusal::Busy => AccountError::Busy,
        AccountRefusal::Unavailable => AccountError::Away(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_same_one_on_the_proxy_and_what_failed_on_auth_is_not_told() {
        for error in [
            AccountError::NoInvite,
            AccountError::InviteExpired,
            AccountError::InviteUsed,
            AccountError::PasswordTooShort,
            AccountError::PasswordTooLong,
            AccountError::WrongCode,
            AccountError::TooMany,
            AccountError::Busy,
        ] {
            let read = accepted(refused(&error)).unwrap_err();
            assert_eq!(read.to_string(), error.to_string());
        }
        let read = accepted(refused(&AccountError::Unreadable("/account/alice".to_owned()))).unwrap_err();
        assert!(
            matches!(&read, AccountError::Away(why) if !why.contains("alice")),
            "{read}"
        );
    }
}
