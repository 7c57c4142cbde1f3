//! Invitations and resets: links that set a password and a second factor, once.

use super::password::check_new;
use super::record::{
    Account, Credential, Invite, OpenInvite, account_key, bytes, generate_token, invite_key, is_token, read,
};
use super::{AcceptInvite, AccountError, Books, CreateInvite, Invitation, InviteCreated};
use crate::audit::EventKind;
use crate::model::{PersonName, Secret};
use crate::store::StoreError;
use std::time::Duration;

/// Each round of a race for one account's record has one winner; there are never more racers than logins at one time.
pub(super) const SWAPS_MAX: usize = 128;

impl Books {
    pub(super) async fn invite(self, ask: CreateInvite) -> Result<InviteCreated, AccountError> {
        if ask.ttl < Duration::from_secs(1) || ask.ttl > ask.kind.ttl_max() {
            return Err(AccountError::Ttl);
        }
        self.check_exists(&ask.person)?;
        let (token, now) = (generate_token(), self.now());
        let (key, account_key) = (invite_key(token.expose()), account_key(&ask.person));
        let who = (ask.person.clone(), ask.kind, ask.by.clone());
        let invite = Invite::new(&key, who, (now, ask.ttl), &self.parts.seal)?;
        let forgotten = Some(invite.forgotten());
        self.parts.store.put(&key, bytes(&invite)?, forgotten).await?;
        // A record that cannot be read is replaced: this is what repairs it.
        let older = self.account(&ask.person).await.ok().flatten();
        let account = Account {
            invite: Some(OpenInvite {
                key,
                expires: invite.expires,
            }),
            ..Account::default()
        };
        self.parts.store.put(&account_key, bytes(&account)?, None).await?;
        if let Some(open) = older.and_then(|(_, account)| account.invite) {
            self.put_away(&open.key).await;
        }
        let event = self.parts.trail.event(EventKind::InviteCreated);
        let event = event
            .field("name", ask.person.as_str())
            .field("user", ask.by)
            .field("type", ask.kind.page())
            .field("ttl", format!("{}s", ask.ttl.as_secs()))
            .field("expires", invite.expires);
        self.parts.trail.write(event).await.map_err(AccountError::NotAudited)?;
        Ok(InviteCreated {
            token,
            expires: invite.expires,
        })
    }

    pub(super) async fn look_at(self, token: Secret<String>) -> Result<Invitation, AccountError> {
        let (key, invite) = self.open_invite(&token).await?;
        let secret = invite.code(&key, &self.parts.seal)?;
        Ok(invite.shown(&secret, &self.parts.cluster))
    }

    pub(super) async fn accept(self, ask: AcceptInvite) -> Result<(), AccountError> {
        let place = self.hasher.enter()?;
        let (key, invite) = self.open_invite(&ask.token).await?;
        check_new(&ask.password)?;
        let secret = invite.code(&key, &self.parts.seal)?;
        let step = secret
            .step_of(ask.code.expose(), self.now())
            .ok_or(AccountError::WrongCode)?;
        let password = self.hasher.hash(place, ask.password).await?;
        let code = (&secret, step);
        let credential = Credential::new(&invite.person, password, code, (&self.parts.seal, self.now()))?;
        self.set(&key, &invite, credential).await?;
        self.put_away(&key).await;
        for event in [
            self.event(EventKind::PasswordChanged, &ask.client_address),
            self.event(EventKind::MfaAdded, &ask.client_address)
                .field("mfa_device_name", "otp")
                .field("mfa_device_type", "TOTP"),
        ] {
            let event = event.field("user", invite.person.as_str());
            self.parts.trail.write(event).await.map_err(AccountError::NotAudited)?;
        }
        Ok(())
    }

    /// Puts the credential in the place of the link, if it is still there: of two who try, one does.
    async fn set(&self, key: &str, invite: &Invite, credential: Credential) -> Result<(), AccountError> {
        let account = Account {
            credential: Some(credential),
            ..Account::default()
        };
        let value = bytes(&account)?;
        for _ in 0..SWAPS_MAX {
            let item = self.check_open(key, invite).await?;
            let store = &self.parts.store;
            let swapped = store.compare_and_swap(&item.key, item.revision, value.clone(), None);
            match swapped.await {
                Ok(_) => return Ok(()),
                // Somebody else set it, or a login was counted.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AccountError::Busy)
    }

    pub(super) async fn forget(self, person: PersonName) -> Result<(), AccountError> {
        let account = self.account(&person).await.ok().flatten();
        self.parts.store.delete(&account_key(&person)).await?;
        if let Some(open) = account.and_then(|(_, account)| account.invite) {
            self.parts.store.delete(&open.key).await?;
        }
        Ok(())
    }

    /// The link of a token, if it can be used now.
    async fn open_invite(&self, token: &Secret<String>) -> Result<(String, Invite), AccountError> {
        if !is_token(token.expose()) {
            return Err(AccountError::NoInvite);
        }
        let key = invite_key(token.expose());
        let item = self.parts.store.get(&key).await?.ok_or(AccountError::NoInvite)?;
        let invite: Invite = read(&item)?;
        self.check_open(&key, &invite).await?;
        Ok((key, invite))
    }

    /// The account's record, if this link is the one that may set its password.
    async fn check_open(&self, key: &str, invite: &Invite) -> Result<crate::store::Item, AccountError> {
        if !self.exists(&invite.person).ok_or(AccountError::NotReady)? {
            return Err(AccountError::NoInvite);
        }
        let account = self.account(&invite.person).await?;
        let (item, account) = account.ok_or(AccountError::NoInvite)?;
        if account.invite.is_none_or(|open| open.key != key) {
            return Err(AccountError::InviteUsed);
        }
        if self.now() >= invite.expires {
            return Err(AccountError::InviteExpired);
        }
        Ok(item)
    }

    fn check_exists(&self, person: &PersonName) -> Result<(), AccountError> {
        match self.exists(person) {
            Some(true) => Ok(()),
            Some(false) => Err(AccountError::NoSuchUser(person.clone())),
            None => Err(AccountError::NotReady),
        }
    }

    /// Takes the secret out of a link's record that is worth nothing any more. That this fails changes nothing about that.
    async fn put_away(&self, key: &str) {
        let put_away = async {
            let Some(item) = self.parts.store.get(key).await? else {
                return Ok(());
            };
            let invite = read::<Invite>(&item)?.without_secret();
            let forgotten = Some(invite.forgotten());
            let value = bytes(&invite)?;
            let swapped = self.parts.store.compare_and_swap(key, item.revision, value, forgotten);
            swapped.await.map(drop).map_err(AccountError::from)
        };
        if let Err(error) = put_away.await {
            tracing::warn!(%error, "the record of a link that is used or replaced was not cleared; it expires by itself");
        }
    }
}
