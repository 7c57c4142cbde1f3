//! The decision over a login.
//!
//! Every login does the same work: one record is read, one is written, one password is hashed, one code is made, one event is
//! written. Where there is no account to do it with (nobody of this name, no password set, locked), a decoy takes its place, so
//! that neither the answer nor the time that it takes says who exists.

use super::code::CodeSecret;
use super::invite::SWAPS_MAX;
use super::password::PASSWORD_BYTES_MAX;
use super::record::{Account, Credential, DECOY, bytes};
use super::{AccountError, Books, LogIn, LoginRefused, shown};
use crate::audit::EventKind;
use crate::model::{PersonName, Secret, Timestamp};
use crate::store::StoreError;
use crate::telemetry::metrics::{LoginOutcome, METRICS};

/// What a login is checked against.
enum Against {
    Account(PersonName, Credential),
    /// Nothing that it could match, and why: for the audit log.
    Decoy(String),
}

/// How a login ended; the text is for the audit log.
enum Checked {
    Right(PersonName),
    Wrong(String),
}

impl Books {
    pub(super) async fn log_in(self, mut ask: LogIn) -> Result<PersonName, LoginRefused> {
        let (typed, address) = (shown(&ask.person).to_owned(), std::mem::take(&mut ask.client_address));
        let checked = match self.check(ask).await {
            Ok(checked) => checked,
            Err(AccountError::Busy) => {
                METRICS.logins.of(LoginOutcome::TooMany).one_more();
                return Err(LoginRefused::TooMany);
            }
            Err(error) => {
                METRICS.logins.of(LoginOutcome::Unavailable).one_more();
                tracing::error!(%error, "a login could not be checked");
                return Err(LoginRefused::Unavailable);
            }
        };
        let event = |kind, success: bool| {
            self.event(kind, &address)
                .field("user", &typed)
                .field("method", "local")
                .field("success", success)
        };
        let (event, answer, outcome) = match checked {
            // Password and code are right, and so they are told of the lock, when they are refused their certificate.
            Checked::Right(person) => match self.lock_on(&person) {
                Some(lock) => (
                    event(EventKind::LoginFailed, false).field("error", lock),
                    Ok(person),
                    LoginOutcome::Denied,
                ),
                None => (
                    event(EventKind::LoggedIn, true).field("mfa_device", "otp"),
                    Ok(person),
                    LoginOutcome::Success,
                ),
            },
            Checked::Wrong(why) => {
                let event = event(EventKind::LoginFailed, false).field("error", why);
                (event, Err(LoginRefused::Denied), LoginOutcome::Denied)
            }
        };
        if let Err(refusal) = self.parts.trail.write(event).await {
            METRICS.logins.of(LoginOutcome::Unavailable).one_more();
            tracing::error!(reason = %refusal, "a login was not written to the audit trail");
            return Err(LoginRefused::Unavailable);
        }
        METRICS.logins.of(outcome).one_more();
        answer
    }

    async fn check(&self, ask: LogIn) -> Result<Checked, AccountError> {
        let place = self.hasher.enter()?;
        let against = self.count(&ask.person).await?;
        let is_long = ask.password.expose().len() > PASSWORD_BYTES_MAX;
        let password = if is_long {
            Secret::new(String::new())
        } else {
            ask.password
        };
        let (hash, secret) = match &against {
            Against::Account(person, credential) => (
                Some(credential.password.clone()),
                credential.code(person, &self.parts.seal)?,
            ),
            Against::Decoy(_) => (None, CodeSecret::generate()),
        };
        let password_is_right = self.hasher.check(place, hash, password).await?;
        let step = secret.step_of(ask.code.expose(), self.now());
        let wrong = |why: &str| Ok(Checked::Wrong(why.to_owned()));
        match (against, step) {
            (Against::Decoy(why), _) => Ok(Checked::Wrong(why)),
            (Against::Account(..), _) if !password_is_right => wrong("the password is wrong"),
            (Against::Account(..), None) => wrong("the one-time code is wrong"),
            (Against::Account(person, credential), Some(step)) => self.enter(person, &credential, step).await,
        }
    }

    /// Finds the account, and counts this login among its failures: if it is none, the count is cleared in the end.
    async fn count(&self, typed: &str) -> Result<Against, AccountError> {
        let Ok(person) = PersonName::new(typed) else {
            self.parts.store.get(DECOY).await?;
            return self.decoy("the name is not one of a user".to_owned()).await;
        };
        for _ in 0..SWAPS_MAX {
            let found = self.account(&person).await?;
            if !self.exists(&person).ok_or(AccountError::NotReady)? {
                return self.decoy("there is no such user".to_owned()).await;
            }
            let Some((item, mut account)) = found else {
                return self.decoy("the user has no password".to_owned()).await;
            };
            let now = self.now();
            if let Some(until) = account.failures.locked_until(now) {
                return self.decoy(locked(until)).await;
            }
            let Some(credential) = account.credential.clone() else {
                return self.decoy("the user has no password".to_owned()).await;
            };
            account.failures.count(now);
            if self.swap(&item.key, item.revision, &account).await? {
                return Ok(Against::Account(person, credential));
            }
        }
        Err(AccountError::Busy)
    }

    async fn decoy(&self, why: String) -> Result<Against, AccountError> {
        self.parts.store.put(DECOY, bytes(&Account::default())?, None).await?;
        Ok(Against::Decoy(why))
    }

    /// Takes the code, and clears the failures. Whoever comes second with the same code finds it taken.
    async fn enter(&self, person: PersonName, checked: &Credential, step: i64) -> Result<Checked, AccountError> {
        for _ in 0..SWAPS_MAX {
            let found = self.account(&person).await?;
            let (Some((item, mut account)), Some(true)) = (found, self.exists(&person)) else {
                return Ok(Checked::Wrong("the user was removed meanwhile".to_owned()));
            };
            match &mut account.credential {
                Some(credential) if credential.is_same(checked) && credential.last_step < step => {
                    credential.last_step = step;
                }
                Some(credential) if credential.is_same(checked) => {
                    return Ok(Checked::Wrong("the one-time code was used before".to_owned()));
                }
                _ => return Ok(Checked::Wrong("the password was reset meanwhile".to_owned())),
            }
            account.failures = super::lockout::Failures::default();
            if self.swap(&item.key, item.revision, &account).await? {
                return Ok(Checked::Right(person));
            }
        }
        Err(AccountError::Busy)
    }

    /// Whether the record was still the one that was read.
    async fn swap(&self, key: &str, revision: u64, account: &Account) -> Result<bool, AccountError> {
        let swapped = self.parts.store.compare_and_swap(key, revision, bytes(account)?, None);
        match swapped.await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn locked(until: Timestamp) -> String {
    format!("the account is locked until {until}, after too many failed logins")
}
