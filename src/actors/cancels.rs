//! Cancel keys: how a CancelRequest finds the session that it is for.
//!
//! A client gets PostgreSQL's process id, which LISTEN clients compare, and a secret of ours. The proxy knows which agent
//! the pair belongs to; the agent knows PostgreSQL's own key, which never leaves it.
//!
//! **Owns** on a proxy ([`ClientKeys`]): process id and minted secret of each session, and the way to its agent. On an agent
//! ([`UpstreamKeys`]): PostgreSQL's key of each session, and the way to its PostgreSQL.
//! **Hears** keys that come and go, and what to cancel.
//! **Tells** nobody; the asker carries the request on.
//! **Never** says whether a key exists; compares secrets in constant time.
//! **Ends** with the node. The keys are kept outside of the state ([`Keys`]): sessions outlive a rebuild, and so do their cancels.

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::tunnels::Transport;
use crate::audit::SessionFields;
use crate::model::{ConnectionId, Endpoint, Secret};
use crate::net::upstream_tls::UpstreamClient;
use crate::protocol::postgres::backend::BackendKeyData;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A key that a client of this proxy holds.
pub struct ClientKey {
    pub process_id: u32,
    pub secret: Secret<Vec<u8>>,
    pub connection: ConnectionId,
    pub transport: Transport,
    /// Upgrades while the session lives.
    pub alive: Weak<()>,
}

pub struct FindClientKey {
    pub process_id: u32,
    pub secret: Secret<Vec<u8>>,
}

pub struct ForgetKey(pub ConnectionId);

message!(
    ClientKey => (),
    FindClientKey => Option<(ConnectionId, Transport)>,
    ForgetKey => (),
    UpstreamKey => (),
    FindUpstreamKey => Option<UpstreamTarget>,
);

/// A session that is over says so; every so many new keys those are let go whose word did not find room in the mailbox.
const SWEEP_AFTER: usize = 1024;

/// The keys of the sessions of a node, by their connections: made once for each actor, outside of it.
pub struct Keys<K>(Arc<Mutex<HashMap<ConnectionId, K>>>);

impl<K> Default for Keys<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Keys<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Keys<K> {
    /// Locked by the one actor for the length of a turn.
    fn all(&self) -> MutexGuard<'_, HashMap<ConnectionId, K>> {
        // Each use leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct ClientKeys {
    keys: Keys<ClientKey>,
    added: usize,
}

impl ClientKeys {
    pub fn new(keys: Keys<ClientKey>) -> Self {
        Self { keys, added: 0 }
    }
}

impl Behavior for ClientKeys {
    /// A message when a session opens and one when it closes.
    const MAILBOX: usize = 1024;
}

impl Handle<ClientKey> for ClientKeys {
    fn handle(&mut self, key: ClientKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.added += 1;
        if self.added.is_multiple_of(SWEEP_AFTER) {
            self.keys.all().retain(|_, key| key.alive.strong_count() > 0);
        }
        self.keys.all().insert(key.connection, key);
        Reply::Now(())
    }
}

impl Handle<ForgetKey> for ClientKeys {
    fn handle(&mut self, ForgetKey(connection): ForgetKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.keys.all().remove(&connection);
        Reply::Now(())
    }
}

impl Handle<FindClientKey> for ClientKeys {
    fn handle(
        &mut self,
        FindClientKey { process_id, secret }: FindClientKey,
        _: &mut Ctx<'_, Self>,
    ) -> Reply<Option<(ConnectionId, Transport)>> {
        // Two databases may give out the same process id; the secret decides between them.
        let keys = self.keys.all();
        let found = keys.values().find(|key| {
            key.process_id == process_id && verify_slices_are_equal(key.secret.expose(), secret.expose()).is_ok()
        });
        Reply::Now(found.map(|key| (key.connection, key.transport.clone())))
    }
}

/// Where and how a session of an agent is cancelled.
#[derive(Clone)]
pub struct UpstreamTarget {
    pub endpoint: Endpoint,
    pub tls: UpstreamClient,
    pub key: Arc<BackendKeyData>,
    /// The session's part of its audit events; upgrades while the session lives.
    pub session: Weak<SessionFields>,
}

pub struct UpstreamKey(pub ConnectionId, pub UpstreamTarget);

pub struct FindUpstreamKey(pub ConnectionId);

pub struct UpstreamKeys {
    keys: Keys<UpstreamTarget>,
    added: usize,
}

impl UpstreamKeys {
    pub fn new(keys: Keys<UpstreamTarget>) -> Self {
        Self { keys, added: 0 }
    }
}

impl Behavior for UpstreamKeys {
    /// As [`ClientKeys`].
    const MAILBOX: usize = 1024;
}

impl Handle<UpstreamKey> for UpstreamKeys {
    fn handle(&mut self, UpstreamKey(connection, target): UpstreamKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.added += 1;
        if self.added.is_multiple_of(SWEEP_AFTER) {
            self.keys.all().retain(|_, target| target.session.strong_count() > 0);
        }
        self.keys.all().insert(connection, target);
        Reply::Now(())
    }
}

impl Handle<ForgetKey> for UpstreamKeys {
    fn handle(&mut self, ForgetKey(connection): ForgetKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.keys.all().remove(&connection);
        Reply::Now(())
    }
}

impl Handle<FindUpstreamKey> for UpstreamKeys {
    fn handle(
        &mut self,
        FindUpstreamKey(connection): FindUpstreamKey,
        _: &mut Ctx<'_, Self>,
    ) -> Reply<Option<UpstreamTarget>> {
        Reply::Now(self.keys.all().get(&connection).cloned())
    }
}
