//! The link of an invitation or a reset: looked at as often as one likes, accepted once.
//!
//! The address holds the secret, and the form holds nothing but what the person typed. No answer repeats a password or a code.

use super::html;
use super::router::{Asker, answer, retry_after, too_many};
use crate::actors::accounts::{
    AcceptInvite, AccountError, Invitation, LookAtInvite, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, Rate,
};
use crate::model::Secret;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Longer than a link to auth waits, so that what it says arrives.
const ASK_DEADLINE: Duration = Duration::from_secs(20);
/// What a person is told to wait when the cluster is busy or away.
const AWAY_SECS: u64 = 30;

/// No `Debug`: it holds a password.
#[derive(Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    password: String,
    #[serde(default)]
    confirm: String,
    #[serde(default)]
    otp: String,
}

/// The same, taken into memory that is cleared.
struct Wanted {
    password: Secret<String>,
    confirm: Secret<String>,
    code: Secret<String>,
}

impl From<Typed> for Wanted {
    fn from(typed: Typed) -> Self {
        let otp = Secret::new(typed.otp);
        let code = otp.expose().chars().filter(|c| !c.is_whitespace()).collect();
        Self {
            password: Secret::new(typed.password),
            confirm: Secret::new(typed.confirm),
            code: Secret::new(code),
        }
    }
}

impl Wanted {
    /// What can be seen to be wrong without asking auth.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let chars = self.password.expose().chars().count();
        if self.password.expose() != self.confirm.expose() {
            problems.push("The two passwords are not the same.".to_owned());
        }
        if chars < PASSWORD_CHARS_MIN {
            problems.push(sentence(&AccountError::PasswordTooShort));
        }
        if chars > PASSWORD_CHARS_MAX {
            problems.push(sentence(&AccountError::PasswordTooLong));
        }
        let code = self.code.expose();
        if code.len() != 6 || !code.bytes().all(|digit| digit.is_ascii_digit()) {
            problems.push("The one-time code has six digits; type those that the app shows now.".to_owned());
        }
        problems
    }
}

pub(super) async fn show(State(asker): State<Arc<Asker>>, Path(token): Path<String>) -> Response {
    match look(&asker, &Secret::new(token)).await {
        Ok(invitation) => form(&asker, StatusCode::OK, &invitation, &[]),
        Err(error) => refused(&error),
    }
}

pub(super) async fn accept(
    State(asker): State<Arc<Asker>>,
    Path(token): Path<String>,
    typed: Result<axum::Form<Typed>, FormRejection>,
) -> Response {
    let token = Secret::new(token);
    let invitation = match look(&asker, &token).await {
        Ok(invitation) => invitation,
        Err(error) => return refused(&error),
    };
    let wanted = match typed {
        Ok(axum::Form(typed)) => Wanted::from(typed),
        Err(rejection) => {
            let status = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let problem = "What was sent could not be read as the form of this page.".to_owned();
            return form(&asker, status, &invitation, &[problem]);
        }
    };
    let problems = wanted.problems();
    if !problems.is_empty() {
        return form(&asker, StatusCode::UNPROCESSABLE_ENTITY, &invitation, &problems);
    }
    let accept = AcceptInvite {
        token,
        password: wanted.password,
        code: wanted.code,
        client_address: asker.peer.to_string(),
    };
    let accepted = asker.parts.accept.ask(&asker.origin, accept, ASK_DEADLINE).await;
    match accepted.unwrap_or_else(|error| Err(AccountError::Away(error.to_string()))) {
        Ok(()) => answer(
            StatusCode::OK,
            html::done(&asker.parts.proxy, invitation.person.as_str()),
        ),
        Err(error @ (AccountError::WrongCode | AccountError::PasswordTooShort | AccountError::PasswordTooLong)) => {
            form(
                &asker,
                StatusCode::UNPROCESSABLE_ENTITY,
                &invitation,
                &[sentence(&error)],
            )
        }
        Err(error) => refused(&error),
    }
}

async fn look(asker: &Asker, token: &Secret<String>) -> Result<Invitation, AccountError> {
    let look = LookAtInvite { token: token.clone() };
    let seen = asker.parts.look_at.ask(&asker.origin, look, ASK_DEADLINE).await;
    seen.unwrap_or_else(|error| Err(AccountError::Away(error.to_string())))
}

fn form(asker: &Asker, status: StatusCode, invitation: &Invitation, problems: &[String]) -> Response {
    let page = html::sign_up(asker.parts.cluster.as_str(), invitation, problems);
    answer(status, page)
}

/// Whoever asks learns of a link only whether it works: the text is the same for one that is used, expired or never was.
pub(super) fn refused(error: &AccountError) -> Response {
    match error {
        AccountError::NoInvite | AccountError::InviteExpired | AccountError::InviteUsed => {
            let text = "It has been used, it has expired, a newer one was made in its place, or not all of it was copied. Ask your \
                        administrator for a new one.";
            answer(StatusCode::NOT_FOUND, html::notice("This link does not work", text))
        }
        AccountError::TooMany => too_many(Rate::GUESSES),
        other => {
            if other.is_internal() {
                tracing::warn!(error = %other, "a link could not be shown or accepted");
            }
            let text = "This cannot be done at the moment. Try again in a minute. If the link does not work any more then, try to \
                        log in; if that fails, ask your administrator for a new link.";
            let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, html::notice("Not now", text));
            retry_after(&mut response, AWAY_SECS);
            response
        }
    }
}

/// An error's text as a line of a page.
fn sentence(error: &AccountError) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(['.']).collect()
}
