//! Join tokens, on auth: those that administrators add, and those of auth's configuration.
//!
//! **Owns** the records below `/token/` in the store, and the tokens of the configuration.
//! **Hears** `AddToken`, `ListTokens`, `RemoveToken` from administrators; `UseToken`, `GiveBackUse` from joins.
//! **Tells** nobody; it answers when the store has it on disk.
//! **Never** stores a token, only its hash; never admits more nodes than a token has uses, whoever else writes the store.
//! **Ends** with the node. Permanent; its state is the configuration and the store.

mod record;
mod refused;

pub use record::{KEPT_AFTER_END, TokenName, TokenRecord, Uses};
pub use refused::{TokenError, TokenRefused, list};

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use crate::model::{Labels, NodeKind, Secret, SharedClock, Timestamp};
use crate::store::{Item, Store, StoreError};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use record::{TOKENS, broken_rule, generate, key_of};
use std::sync::Arc;
use std::time::Duration;

/// The reference's: long enough to log in to a machine and paste two commands.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30 * 60);
/// Whoever needs a token for longer says so in the configuration, where it is seen.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Records, those of the last day that have ended among them: a token for each node of a large cluster, made in one day.
pub const TOKENS_MAX: usize = 4096;
/// The length of all labels of a token as text; they are notes of the administrator's.
const LABELS_BYTES_MAX: usize = 4096;
/// Each round of a race for the same token has one winner; there are never more racers than joins at one time.
const SWAPS_MAX: usize = 512;

/// A token of auth's configuration: it does not end.
#[derive(Debug, Clone)]
pub struct StaticToken {
    pub kinds: Vec<NodeKind>,
    pub secret: Secret<String>,
}

impl StaticToken {
    /// Hashes first, so that neither the length nor a common beginning shows in the time it takes.
    fn matches(&self, presented: &str) -> bool {
        let ours = digest(&SHA256, self.secret.expose().as_bytes());
        let theirs = digest(&SHA256, presented.as_bytes());
        verify_slices_are_equal(ours.as_ref(), theirs.as_ref()).is_ok()
    }
}

/// Makes a token.
pub struct AddToken {
    pub by: String,
    pub kinds: Vec<NodeKind>,
    pub ttl: Duration,
    pub uses: Uses,
    /// Of the administrator's own choice; `None` makes one.
    pub value: Option<Secret<String>>,
    pub labels: Labels,
}

#[derive(Debug)]
pub struct Added {
    pub token: Secret<String>,
    pub name: TokenName,
    pub expires: Timestamp,
}

/// Asks for the tokens that admit nodes now.
pub struct ListTokens;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    Configured { name: TokenName, kinds: Vec<NodeKind> },
    Stored(TokenRecord),
}

/// Removes a token, named by itself or by its first characters.
pub struct RemoveToken(pub Secret<String>);

/// A node of these kinds joins with a token: one use of it is taken.
pub struct UseToken {
    pub token: Secret<String>,
    pub kinds: Vec<NodeKind>,
}

/// Nothing came of a join: its use is there again.
pub struct GiveBackUse(pub Taken);

/// A use that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub name: TokenName,
    /// Of the record whose uses are counted.
    counted: Option<String>,
}

message!(
    AddToken => Result<Added, TokenError>,
    ListTokens => Result<Vec<Listed>, TokenError>,
    RemoveToken => Result<TokenName, TokenError>,
    UseToken => Result<Taken, TokenRefused>,
    GiveBackUse => (),
);

#[derive(Clone)]
pub struct Tokens {
    configured: Arc<Vec<StaticToken>>,
    store: Arc<dyn Store>,
    clock: SharedClock,
}

impl Tokens {
    pub fn new(configured: Arc<Vec<StaticToken>>, store: Arc<dyn Store>, clock: SharedClock) -> Self {
        Self {
            configured,
            store,
            clock,
        }
    }

    fn configured(&self, token: &str) -> Option<&StaticToken> {
        self.configured.iter().find(|configured| configured.matches(token))
    }

    async fn add(self, ask: AddToken) -> Result<Added, TokenError> {
        check(&ask)?;
        let token = ask.value.unwrap_or_else(generate);
        let name = TokenName::of(&token);
        if self.configured(token.expose()).is_some() {
            return Err(TokenError::Exists(name));
        }
        if self.store.range(TOKENS, TOKENS_MAX).await?.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let now = self.clock.now();
        let record = TokenRecord {
            name: name.clone(),
            kinds: ask.kinds,
            labels: ask.labels,
            created: now,
            created_by: ask.by,
            expires: now + ask.ttl,
            uses: ask.uses,
        };
        let (key, value, forgotten) = (key_of(token.expose()), bytes(&record)?, record.forgotten(now));
        match self.store.create(&key, value.clone(), Some(forgotten)).await {
            Ok(_) => {}
            Err(StoreError::AlreadyExists { .. }) => {
                let ended = self.stored(&key).await?.filter(|(_, old)| !old.is_usable(now));
                let (item, _) = ended.ok_or_else(|| TokenError::Exists(name.clone()))?;
                let swapped = self.store.compare_and_swap(&key, item.revision, value, Some(forgotten));
                swapped.await.map_err(|error| match error {
                    StoreError::Conflict { .. } => TokenError::Exists(name.clone()),
                    other => other.into(),
                })?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Added {
            expires: record.expires,
            token,
            name,
        })
    }

    async fn stored(&self, key: &str) -> Result<Option<(Item, TokenRecord)>, TokenError> {
        match self.store.get(key).await? {
            Some(item) => {
                let record = read(&item)?;
                Ok(Some((item, record)))
            }
            None => Ok(None),
        }
    }

    /// Those that admit nodes now, with their keys.
    async fn usable(&self) -> Result<Vec<(String, TokenRecord)>, TokenError> {
        let now = self.clock.now();
        let mut usable = Vec::new();
        for item in self.store.range(TOKENS, TOKENS_MAX).await? {
            let record = read(&item)?;
            if record.is_usable(now) {
                usable.push((item.key, record));
            }
        }
        usable.sort_by(|(_, a), (_, b)| (a.expires, &a.name).cmp(&(b.expires, &b.name)));
        Ok(usable)
    }

    async fn list(self) -> Result<Vec<Listed>, TokenError> {
        let configured = self.configured.iter().map(|token| Listed::Configured {
            name: TokenName::of(&token.secret),
            kinds: token.kinds.clone(),
        });
        let stored = self
            .usable()
            .await?
            .into_iter()
            .map(|(_, record)| Listed::Stored(record));
        Ok(stored.chain(configured).collect())
    }

    async fn remove(self, named: Secret<String>) -> Result<TokenName, TokenError> {
        let key = key_of(named.expose());
        if let Some((_, record)) = self.stored(&key).await? {
            self.store.delete(&key).await?;
            return Ok(record.name);
        }
        if let Some(token) = self.configured(named.expose()) {
            return Err(TokenError::Configured(TokenName::of(&token.secret)));
        }
        let meant: Vec<_> = self
            .usable()
            .await?
            .into_iter()
            .filter(|(_, record)| record.name.is_meant_by(named.expose()))
            .collect();
        match meant.as_slice() {
            [] => {
                let names = self.configured.iter().map(|token| TokenName::of(&token.secret));
                match names.into_iter().find(|name| name.is_meant_by(named.expose())) {
                    Some(name) => Err(TokenError::Configured(name)),
                    None => Err(TokenError::NotFound {
                        typed: TokenName::of(&named).to_string(),
                    }),
                }
            }
            [(key, record)] => {
                self.store.delete(key).await?;
                Ok(record.name.clone())
            }
            [(_, record), ..] => Err(TokenError::Ambiguous {
                name: record.name.clone(),
                count: meant.len(),
            }),
        }
    }

    async fn take(self, ask: UseToken) -> Result<Taken, TokenRefused> {
        if let Some(token) = self.configured(ask.token.expose()) {
            let name = TokenName::of(&token.secret);
            admits(&name, &token.kinds, &ask.kinds)?;
            return Ok(Taken { name, counted: None });
        }
        let key = key_of(ask.token.expose());
        for _ in 0..SWAPS_MAX {
            let Some((item, record)) = self.stored(&key).await.map_err(store_failed)? else {
                return Err(TokenRefused::Unknown { asked: ask.kinds });
            };
            let (now, name) = (self.clock.now(), record.name.clone());
            admits(&name, &record.kinds, &ask.kinds)?;
            let left = match record.uses {
                Uses::Left(0) => return Err(TokenRefused::UsedUp { name, asked: ask.kinds }),
                _ if now >= record.expires => {
                    let (at, asked) = (record.expires, ask.kinds);
                    return Err(TokenRefused::Expired { name, at, asked });
                }
                Uses::Unlimited => return Ok(Taken { name, counted: None }),
                Uses::Left(left) => left - 1,
            };
            if self.swap(item, record, left).await.map_err(store_failed)? {
                let counted = Some(key);
                return Ok(Taken { name, counted });
            }
        }
        let name = TokenName::of(&ask.token);
        Err(TokenRefused::Contended { name })
    }

    async fn give_back(self, taken: Taken) -> Result<(), TokenError> {
        let Some(key) = taken.counted else { return Ok(()) };
        for _ in 0..SWAPS_MAX {
            // Removed or forgotten meanwhile: there is nothing to give back to.
            let Some((item, record)) = self.stored(&key).await? else {
                return Ok(());
            };
            let Uses::Left(left) = record.uses else { return Ok(()) };
            if self.swap(item, record, left.saturating_add(1)).await? {
                return Ok(());
            }
        }
        tracing::warn!(token = %taken.name, "a use of a join token could not be given back; make a new token if one is missing");
        Ok(())
    }

    /// Whether the record was still the one that was read.
    async fn swap(&self, item: Item, mut record: TokenRecord, left: u64) -> Result<bool, TokenError> {
        record.uses = Uses::Left(left);
        let forgotten = record.forgotten(self.clock.now());
        let swapped = self
            .store
            .compare_and_swap(&item.key, item.revision, bytes(&record)?, Some(forgotten));
        match swapped.await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn check(ask: &AddToken) -> Result<(), TokenError> {
    let labels = ask.labels.to_string().len();
    if ask.kinds.is_empty() {
        Err(TokenError::NoKinds)
    } else if ask.kinds.contains(&NodeKind::Auth) {
        Err(TokenError::AuthKind)
    } else if ask.uses == Uses::Left(0) {
        Err(TokenError::NoUses)
    } else if ask.ttl < Duration::from_secs(1) || ask.ttl > TTL_MAX {
        Err(TokenError::Ttl)
    } else if labels > LABELS_BYTES_MAX {
        Err(TokenError::Labels {
            bytes: labels,
            max: LABELS_BYTES_MAX,
        })
    } else {
        let rule = ask.value.as_ref().and_then(|value| broken_rule(value.expose()));
        rule.map_or(Ok(()), |rule| Err(TokenError::BadValue(rule)))
    }
}

/// A token of some kinds admits a node that runs these and no other.
fn admits(name: &TokenName, kinds: &[NodeKind], asked: &[NodeKind]) -> Result<(), TokenRefused> {
    match asked.iter().find(|kind| !kinds.contains(kind)) {
        Some(missing) => Err(TokenRefused::WrongType {
            name: name.clone(),
            kinds: kinds.to_vec(),
            missing: *missing,
            asked: asked.to_vec(),
        }),
        None => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn store_failed(error: TokenError) -> TokenRefused {
    tracing::error!(%error, "join tokens cannot be read or counted");
    TokenRefused::StoreFailed
}

fn read(item: &Item) -> Result<TokenRecord, TokenError> {
    serde_json::from_slice(&item.value).map_err(|error| TokenError::Unreadable(error.to_string()))
}

fn bytes(record: &TokenRecord) -> Result<Vec<u8>, TokenError> {
    serde_json::to_vec(record).map_err(|error| TokenError::Unreadable(error.to_string()))
}

impl Behavior for Tokens {
    /// As of joins, which are most of what it hears.
    const MAILBOX: usize = 64;
}

/// Each message is a walk through the store beside the others; what they race for is settled by its revisions.
fn answer<T: 'static>(ctx: &mut Ctx<'_, Tokens>, work: impl Future<Output = T> + 'static) -> Reply<T> {
    let (reply, promise) = Reply::later();
    ctx.run_for_asker(work, |_, done, _| promise.keep(done));
    reply
}

impl Handle<AddToken> for Tokens {
    fn handle(&mut self, ask: AddToken, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Added, TokenError>> {
        answer(ctx, self.clone().add(ask))
    }
}

impl Handle<ListTokens> for Tokens {
    fn handle(&mut self, _: ListTokens, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Vec<Listed>, TokenError>> {
        answer(ctx, self.clone().list())
    }
}

impl Handle<RemoveToken> for Tokens {
    fn handle(
        &mut self,
        RemoveToken(named): RemoveToken,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<TokenName, TokenError>> {
        answer(ctx, self.clone().remove(named))
    }
}

impl Handle<UseToken> for Tokens {
    fn handle(&mut self, ask: UseToken, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Taken, TokenRefused>> {
        answer(ctx, self.clone().take(ask))
    }
}

impl Handle<GiveBackUse> for Tokens {
    fn handle(&mut self, GiveBackUse(taken): GiveBackUse, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let given_back = self.clone().give_back(taken);
        answer(ctx, async move {
            if let Err(error) = given_back.await {
                tracing::error!(%error, "a use of a join token was not given back");
            }
        })
    }
}

#[cfg(test)]
mod tests;
