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
//! **Ends** with the node. After a failure the keys are lost: sessions go on, a cancel finds nothing.

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::tunnels::Transport;
use crate::audit::SessionFields;
use crate::model::{ConnectionId, Endpoint, Secret};
use crate::net::upstream_tls::UpstreamClient;
use crate::protocol::postgres::backend::BackendKeyData;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

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

#[derive(Default)]
pub struct ClientKeys {
    by_connection: HashMap<ConnectionId, ClientKey>,
    added: usize,
}

impl Behavior for ClientKeys {
    /// A message when a session opens and one when it closes.
    const MAILBOX: usize = 1024;
}

impl Handle<ClientKey> for ClientKeys {
    fn handle(&mut self, key: ClientKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.added += 1;
        if self.added.is_multiple_of(SWEEP_AFTER) {
            self.by_connection.retain(|_, key| key.alive.strong_count() > 0);
        }
        self.by_connection.insert(key.connection, key);
        Reply::Now(())
    }
}

impl Handle<ForgetKey> for ClientKeys {
    fn handle(&mut self, ForgetKey(connection): ForgetKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.by_connection.remove(&connection);
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
        let found = self.by_connection.values().find(|key| {
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

#[derive(Default)]
pub struct UpstreamKeys {
    by_connection: HashMap<ConnectionId, UpstreamTarget>,
    added: usize,
}

impl Behavior for UpstreamKeys {
    /// As [`ClientKeys`].
    const MAILBOX: usize = 1024;
}

impl Handle<UpstreamKey> for UpstreamKeys {
    fn handle(&mut self, UpstreamKey(connection, target): UpstreamKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.added += 1;
        if self.added.is_multiple_of(SWEEP_AFTER) {
            self.by_connection.retain(|_, target| target.session.strong_count() > 0);
        }
        self.by_connection.insert(connection, target);
        Reply::Now(())
    }
}

impl Handle<ForgetKey> for UpstreamKeys {
    fn handle(&mut self, ForgetKey(connection): ForgetKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.by_connection.remove(&connection);
        Reply::Now(())
    }
}

impl Handle<FindUpstreamKey> for UpstreamKeys {
    fn handle(
        &mut self,
        FindUpstreamKey(connection): FindUpstreamKey,
        _: &mut Ctx<'_, Self>,
    ) -> Reply<Option<UpstreamTarget>> {
        Reply::Now(self.by_connection.get(&connection).cloned())
    }
}
