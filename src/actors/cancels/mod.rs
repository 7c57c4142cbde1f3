//! Cancel keys: how a CancelRequest finds the session that it is for.
//!
//! A client gets PostgreSQL's process id, which LISTEN clients compare, and a secret of ours. The proxy that the client came
//! through knows which agent the pair belongs to; the agent knows it too, for those that reach another proxy (`requests.rs`),
//! and PostgreSQL's own key, which never leaves it.
//!
//! **Owns** on a proxy ([`ClientKeys`]): digests of the keys that it gave out, and the way to the agent of each; how often
//! client addresses have failed. On an agent ([`UpstreamKeys`]): the same digests, and for each PostgreSQL's key and the way to it.
//! **Hears** keys that come and go, what to cancel, and on a proxy how it went.
//! **Tells** the audit trail of cancels that failed, not more than `failures.rs` allows; otherwise nobody: the asker carries the
//! request on.
//! **Never** says whether a key exists; compares in constant time.
//! **Ends** with the node. The keys are kept outside of the state ([`Keys`]): sessions outlive a rebuild, and so do their cancels.

mod failures;
mod gate;
mod keys;
pub mod requests;
pub mod upstream;

pub use failures::CancelFailure;
pub use gate::Tried;
pub use keys::{CancelKey, Keys};

use super::address::{Reply, message};
use super::agent_way::AgentWay;
use super::host::{Behavior, Ctx, Handle};
use super::trail::Trail;
use crate::audit::{EventKind, SessionFields};
use crate::model::{ConnectionId, Endpoint, NodeId, SharedClock};
use crate::net::upstream_tls::UpstreamTrust;
use crate::protocol::postgres::backend::BackendKeyData;
use failures::{Failures, WINDOW};
use gate::Gate;
use keys::Target;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

/// Where a client's session is.
#[derive(Clone)]
pub struct ClientTarget {
    pub agent: AgentWay,
    /// Upgrades while the session lives.
    pub alive: Weak<()>,
}

impl Target for ClientTarget {
    fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

/// A key that a client of this proxy holds.
pub struct ClientKey {
    pub connection: ConnectionId,
    pub key: CancelKey,
    pub target: ClientTarget,
}

/// A CancelRequest came in.
#[derive(Debug, Clone)]
pub struct TryCancel {
    pub key: CancelKey,
    pub from: IpAddr,
    pub is_encrypted: bool,
}

/// A key was found elsewhere: it was no guess.
pub struct FoundElsewhere(pub IpAddr);

pub struct CancelFailed {
    pub from: SocketAddr,
    pub why: CancelFailure,
}

pub struct ForgetKey(pub ConnectionId);

message!(
    ClientKey => (),
    TryCancel => Tried<ClientTarget>,
    FoundElsewhere => (),
    CancelFailed => (),
    ForgetKey => (),
    UpstreamKey => (),
    FindUpstreamKey => Option<(ConnectionId, UpstreamTarget)>,
);

pub struct ClientKeys {
    keys: Keys<ClientTarget>,
    gate: Gate<ClientTarget>,
    clock: SharedClock,
    trail: Trail,
    failures: Failures,
}

impl ClientKeys {
    pub fn new(keys: Keys<ClientTarget>, takes_without_tls: bool, clock: SharedClock, trail: Trail) -> Self {
        Self {
            gate: Gate::new(keys.clone(), takes_without_tls, clock.now()),
            keys,
            clock,
            trail,
            failures: Failures::default(),
        }
    }

    fn audit_the_rest(&mut self) {
        for more in self.failures.take() {
            let from = match more.network {
                Some(IpAddr::V6(network)) => format!("{network}/64"),
                Some(address) => address.to_string(),
                None => "other addresses".to_owned(),
            };
            let event = self
                .trail
                .event(EventKind::CancelFailed)
                .field("addr.remote", from)
                .field("success", false)
                .field("failures", more.failures)
                .field("error", "more of them, since the one that was written");
            self.trail.note_now(event);
        }
    }
}

impl Behavior for ClientKeys {
    /// A message when a session opens and one when it closes, and some for each cancel.
    const MAILBOX: usize = 1024;
}

impl Handle<ClientKey> for ClientKeys {
    fn handle(&mut self, new: ClientKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.keys.keep(new.connection, new.key, new.target);
        Reply::Now(())
    }
}

impl Handle<ForgetKey> for ClientKeys {
    fn handle(&mut self, ForgetKey(connection): ForgetKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.keys.forget(connection);
        Reply::Now(())
    }
}

impl Handle<TryCancel> for ClientKeys {
    fn handle(&mut self, asked: TryCancel, _: &mut Ctx<'_, Self>) -> Reply<Tried<ClientTarget>> {
        Reply::Now(self.gate.try_cancel(&asked, self.clock.now()))
    }
}

impl Handle<FoundElsewhere> for ClientKeys {
    fn handle(&mut self, FoundElsewhere(from): FoundElsewhere, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.gate.found_elsewhere(from);
        Reply::Now(())
    }
}

impl Handle<CancelFailed> for ClientKeys {
    fn handle(&mut self, CancelFailed { from, why }: CancelFailed, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        if self.failures.is_empty() {
            ctx.after(WINDOW, |keys, _| keys.audit_the_rest());
        }
        if self.failures.count(from.ip()) {
            tracing::info!(peer = %from, reason = %why, "cancel not carried out");
            let event = self
                .trail
                .event(EventKind::CancelFailed)
                .field("addr.remote", from.to_string())
                .field("success", false)
                .field("error", why.to_string());
            self.trail.note_now(event);
        }
        Reply::Now(())
    }
}

/// Where and how a session of an agent is cancelled.
#[derive(Clone)]
pub struct UpstreamTarget {
    pub endpoint: Endpoint,
    /// What PostgreSQL's certificate must be. A cancel shows none of ours: PostgreSQL asks for none before it, and the one that
    /// the session began with may have ended long ago.
    pub trust: Arc<UpstreamTrust>,
    /// PostgreSQL's own.
    pub key: Arc<BackendKeyData>,
    /// The proxy that opened the session, by its certificate; `None` of the one in this process.
    pub proxy: Option<NodeId>,
    /// The session's part of its audit events; upgrades while the session lives.
    pub session: Weak<SessionFields>,
}

impl Target for UpstreamTarget {
    fn is_alive(&self) -> bool {
        self.session.strong_count() > 0
    }
}

/// A session of this agent, and the key that its client was given.
pub struct UpstreamKey {
    pub connection: ConnectionId,
    pub key: CancelKey,
    pub target: UpstreamTarget,
}

pub enum FindUpstreamKey {
    /// For the proxy that opened it, and no other.
    OfConnection(ConnectionId, Option<NodeId>),
    /// For whoever has the key.
    ByKey(CancelKey),
}

pub struct UpstreamKeys {
    keys: Keys<UpstreamTarget>,
    clock: SharedClock,
}

impl UpstreamKeys {
    pub fn new(keys: Keys<UpstreamTarget>, clock: SharedClock) -> Self {
        Self { keys, clock }
    }

    fn found(&self, find: &FindUpstreamKey) -> Option<(ConnectionId, UpstreamTarget)> {
        match find {
            FindUpstreamKey::OfConnection(connection, proxy) => {
                let target = self.keys.of(*connection).filter(|target| target.proxy == *proxy);
                target.map(|target| (*connection, target))
            }
            FindUpstreamKey::ByKey(key) => self.keys.find(key, self.clock.now()),
        }
    }
}

impl Behavior for UpstreamKeys {
    /// As [`ClientKeys`].
    const MAILBOX: usize = 1024;
}

impl Handle<UpstreamKey> for UpstreamKeys {
    fn handle(&mut self, new: UpstreamKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.keys.keep(new.connection, new.key, new.target);
        Reply::Now(())
    }
}

impl Handle<ForgetKey> for UpstreamKeys {
    fn handle(&mut self, ForgetKey(connection): ForgetKey, _: &mut Ctx<'_, Self>) -> Reply<()> {
        self.keys.forget(connection);
        Reply::Now(())
    }
}

impl Handle<FindUpstreamKey> for UpstreamKeys {
    fn handle(
        &mut self,
        find: FindUpstreamKey,
        _: &mut Ctx<'_, Self>,
    ) -> Reply<Option<(ConnectionId, UpstreamTarget)>> {
        Reply::Now(self.found(&find))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{EventContext, SessionIdentity};
    use crate::model::clock::HeldClock;
    use crate::model::{ClusterName, DbName, DbUser, NodeName, PersonName, Secret, ServiceName, SessionId, Timestamp};
    use crate::policy::DatabaseTlsMode;

    const PROCESS: u32 = 4711;

    fn session() -> Arc<SessionFields> {
        let identity = SessionIdentity {
            user: &PersonName::new("alice").unwrap(),
            sid: SessionId::from_random([1; 16]),
            connection: ConnectionId::from_random([1; 8]),
            db_service: &ServiceName::new("orders").unwrap(),
            db_uri: "pg.example:5432",
            db_user: &DbUser::new("app").unwrap(),
            db_name: &DbName::new("app").unwrap(),
            server_id: NodeId::from_random([2; 16]),
            server_hostname: &NodeName::new("agent-1").unwrap(),
            replication: None,
        };
        let cluster = ClusterName::new("test").unwrap();
        let clock = HeldClock::at(Timestamp::from_secs(1_700_000_000));
        SessionFields::new(&identity, &EventContext::new(&cluster, clock, |bytes| bytes.fill(7)))
    }

    #[test]
    fn a_proxy_cancels_by_id_what_it_opened_and_nothing_else() {
        let clock: SharedClock = HeldClock::at(Timestamp::from_secs(1_700_000_000));
        let trust = UpstreamTrust {
            mode: DatabaseTlsMode::Insecure,
            server_name: "pg.example".to_owned(),
            authorities: Vec::new(),
        };
        let proxy = |number| Some(NodeId::from_random([number; 16]));
        let (session, connection) = (session(), ConnectionId::from_random([1; 8]));
        let secret = |byte| Secret::new(vec![byte; 4]);
        let target = UpstreamTarget {
            endpoint: Endpoint::parse("pg.example:5432", 5432).unwrap(),
            trust: Arc::new(trust),
            key: Arc::new(BackendKeyData {
                process_id: PROCESS,
                secret: secret(9),
            }),
            proxy: proxy(1),
            session: Arc::downgrade(&session),
        };
        let keys = Keys::default();
        keys.keep(connection, CancelKey::new(PROCESS, &secret(5)), target);
        let keys = UpstreamKeys::new(keys, clock);
        let is_found = |find| keys.found(&find).is_some();

        assert!(is_found(FindUpstreamKey::OfConnection(connection, proxy(1))));
        assert!(!is_found(FindUpstreamKey::OfConnection(connection, proxy(2))));
        assert!(!is_found(FindUpstreamKey::OfConnection(connection, None)));
        assert!(is_found(FindUpstreamKey::ByKey(CancelKey::new(PROCESS, &secret(5)))));
        let postgresqls_own = CancelKey::new(PROCESS, &secret(9));
        assert!(!is_found(FindUpstreamKey::ByKey(postgresqls_own)));
        drop(session);
        assert!(!is_found(FindUpstreamKey::OfConnection(connection, proxy(1))));
    }
}
