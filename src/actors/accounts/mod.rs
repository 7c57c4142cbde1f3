//! Accounts of people, on auth: passwords, second factors, invitations, and the decision over a login.
//!
//! **Owns** the records below `/account/` and `/invite/` in the store, and how often each client address may try.
//! **Hears** `CreateInvite`, `ForgetAccount` from administrators; `LookAtInvite`, `AcceptInvite`, `LogIn` from those
//! who serve people.
//! **Tells** the audit trail, before it answers.
//! **Never** stores a password or a token, only their hashes; never says what was wrong with a login; never takes a code or an
//! invitation twice, whoever else writes the store; never locks out a certificate or an administrator.
//! **Ends** with the node. Permanent; its state is the store, but for the tries of client addresses.

mod addresses;
mod code;
mod invite;
mod lockout;
mod login;
mod password;
mod record;
mod refused;

pub use addresses::{AddressRates, Bucket, Rate, Try, network_of};
pub use lockout::{FAILURES_MAX, FAILURES_WITHIN, LOCKED_FOR};
pub use password::{PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
pub use refused::{AccountError, LoginRefused};

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::rbac::Published;
use super::trail::Trail;
use crate::audit::{EventBuilder, EventKind};
use crate::model::{ClusterName, PersonName, Secret, SharedClock, Timestamp};
use crate::pki::SealKey;
use crate::store::{Item, Store};
use crate::telemetry::metrics::{LoginOutcome, METRICS};
use password::Hasher;
use record::{Account, account_key, read};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The reference's: an invitation is opened while the one who sent it is still there to ask.
pub const INVITE_TTL: Duration = Duration::from_secs(3600);
pub const INVITE_TTL_MAX: Duration = Duration::from_secs(48 * 3600);
/// The reference's: a working day.
pub const RESET_TTL: Duration = Duration::from_secs(8 * 3600);
pub const RESET_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// What is read of a client's address and of a name that nobody has; an event holds no more of them.
const SHOWN_BYTES_MAX: usize = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteKind {
    /// Of somebody who is new.
    Invite,
    /// Of somebody who has lost the password or the second factor.
    Reset,
}

impl InviteKind {
    pub const fn ttl_max(self) -> Duration {
        match self {
            Self::Invite => INVITE_TTL_MAX,
            Self::Reset => RESET_TTL_MAX,
        }
    }

    /// The page of the web interface that takes the token: `https://PROXY/web/invite/TOKEN`.
    pub const fn page(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Reset => "reset",
        }
    }
}

/// Makes a link by which a person sets a password and a second factor. From here on those that were set, and every older link
/// of the person, are worth nothing, and the account is not locked any more. Audited.
pub struct CreateInvite {
    pub by: String,
    pub person: PersonName,
    /// See [`INVITE_TTL`], [`RESET_TTL`] and [`InviteKind::ttl_max`].
    pub ttl: Duration,
    pub kind: InviteKind,
}

#[derive(Debug)]
pub struct InviteCreated {
    /// 32 hexadecimal digits, 128 bits; the store has their hash only.
    pub token: Secret<String>,
    pub expires: Timestamp,
}

/// Asks what a link is for. It uses nothing up: the secret is the same each time.
pub struct LookAtInvite {
    pub token: Secret<String>,
}

#[derive(Debug)]
pub struct Invitation {
    pub person: PersonName,
    pub kind: InviteKind,
    pub expires: Timestamp,
    /// `otpauth://totp/…`, to be shown as a picture.
    pub otp_uri: Secret<String>,
    /// The same secret in base32, to be typed.
    pub otp_secret: Secret<String>,
}

/// Sets the password and the second factor: once for each link. Audited.
pub struct AcceptInvite {
    pub token: Secret<String>,
    pub password: Secret<String>,
    /// Shows that the person's app has the secret. It is used up: it does not log in.
    pub code: Secret<String>,
    /// `IP` or `IP:port`, for the audit log and the limit of tries.
    pub client_address: String,
}

/// Asks whether somebody is who they say. The answer is the person's name; what they may do is not decided here. Audited.
pub struct LogIn {
    /// As it was typed.
    pub person: String,
    pub password: Secret<String>,
    pub code: Secret<String>,
    /// As in [`AcceptInvite`].
    pub client_address: String,
}

/// A person is gone: what they logged in with goes too, and their links.
pub struct ForgetAccount {
    pub person: PersonName,
}

message!(
    CreateInvite => Result<InviteCreated, AccountError>,
    LookAtInvite => Result<Invitation, AccountError>,
    AcceptInvite => Result<(), AccountError>,
    LogIn => Result<PersonName, LoginRefused>,
    ForgetAccount => Result<(), AccountError>,
);

/// What the actor is made of.
#[derive(Clone)]
pub struct AccountParts {
    pub cluster: ClusterName,
    pub store: Arc<dyn Store>,
    pub seal: Arc<SealKey>,
    /// Who exists. Somebody who does not cannot log in, whatever the store has of them.
    pub published: Published,
    pub trail: Trail,
    pub clock: SharedClock,
}

/// The walks through the store; each message is one, beside the others, and what they race for is settled by revisions.
#[derive(Clone)]
struct Books {
    parts: AccountParts,
    hasher: Hasher,
}

pub struct Accounts {
    books: Books,
    rates: AddressRates,
}

impl Accounts {
    pub fn new(parts: AccountParts) -> Self {
        Self {
            books: Books {
                parts,
                hasher: Hasher::new(),
            },
            rates: AddressRates::new(Rate::GUESSES),
        }
    }

    /// Whether this address may try once more.
    fn may_try(&mut self, address: &str, ctx: &mut Ctx<'_, Self>) -> bool {
        let tried = self.rates.take(address, self.books.now());
        if tried == Try::FirstRefused {
            let (trail, event) = (
                self.books.parts.trail.clone(),
                self.books
                    .event(EventKind::LoginFailed, address)
                    .field("method", "local")
                    .field("success", false)
                    .field("error", "this address tries too often; further tries are not logged"),
            );
            ctx.run_for_asker(async move { trail.note(event).await }, |_, (), _| {});
        }
        tried == Try::Allowed
    }
}

impl Books {
    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// `None`: the users have not been read yet.
    fn exists(&self, person: &PersonName) -> Option<bool> {
        let newest = self.parts.published.borrow();
        newest.as_ref().map(|snapshot| snapshot.users.contains_key(person))
    }

    /// The lock that keeps this person out, as a sentence.
    fn lock_on(&self, person: &PersonName) -> Option<String> {
        let snapshot = self.parts.published.borrow().clone()?;
        let record = snapshot.users.get(person)?;
        let lock = snapshot.lock_in_force(person, &record.roles, &[], self.now())?;
        Some(lock.sentence())
    }

    async fn account(&self, person: &PersonName) -> Result<Option<(Item, Account)>, AccountError> {
        match self.parts.store.get(&account_key(person)).await? {
            Some(item) => {
                let account = read(&item)?;
                Ok(Some((item, account)))
            }
            None => Ok(None),
        }
    }

    fn event(&self, kind: EventKind, address: &str) -> EventBuilder {
        self.parts.trail.event(kind).field("addr.remote", shown(address))
    }
}

/// The beginning of a text that somebody typed.
fn shown(text: &str) -> &str {
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Behavior for Accounts {
    /// As many logins as may wait for a core; what comes beyond them is refused rather than queued.
    const MAILBOX: usize = 64;
}

fn answer<T: 'static>(ctx: &mut Ctx<'_, Accounts>, work: impl Future<Output = T> + 'static) -> Reply<T> {
    let (reply, promise) = Reply::later();
    ctx.run_for_asker(work, |_, done, _| promise.keep(done));
    reply
}

impl Handle<CreateInvite> for Accounts {
    fn handle(&mut self, ask: CreateInvite, ctx: &mut Ctx<'_, Self>) -> Reply<Result<InviteCreated, AccountError>> {
        answer(ctx, self.books.clone().invite(ask))
    }
}

impl Handle<LookAtInvite> for Accounts {
    fn handle(&mut self, ask: LookAtInvite, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Invitation, AccountError>> {
        answer(ctx, self.books.clone().look_at(ask.token))
    }
}

impl Handle<AcceptInvite> for Accounts {
    fn handle(&mut self, ask: AcceptInvite, ctx: &mut Ctx<'_, Self>) -> Reply<Result<(), AccountError>> {
        if !self.may_try(&ask.client_address, ctx) {
            return Reply::Now(Err(AccountError::TooMany));
        }
        answer(ctx, self.books.clone().accept(ask))
    }
}

impl Handle<LogIn> for Accounts {
    fn handle(&mut self, ask: LogIn, ctx: &mut Ctx<'_, Self>) -> Reply<Result<PersonName, LoginRefused>> {
        if !self.may_try(&ask.client_address, ctx) {
            METRICS.logins.of(LoginOutcome::TooMany).one_more();
            return Reply::Now(Err(LoginRefused::TooMany));
        }
        answer(ctx, self.books.clone().log_in(ask))
    }
}

impl Handle<ForgetAccount> for Accounts {
    fn handle(&mut self, ask: ForgetAccount, ctx: &mut Ctx<'_, Self>) -> Reply<Result<(), AccountError>> {
        answer(ctx, self.books.clone().forget(ask.person))
    }
}

#[cfg(test)]
mod tests;
