//! The cluster's four certificate authorities, on auth.
//!
//! **Owns** the authorities' keys.
//! **Hears** `IssueDbClient` and `IssueOwnDbServer` from agents, `IssuePerson` and `IssueDbServer` from the API of administrators and
//! people, `IssueHost` from nodes that join.
//! **Tells** the audit trail, before it answers: a certificate that is not on the record is not given out.
//! **Never** signs for an agent without deciding itself: this person's certificate, a database that this agent serves, this
//! user.
//! **Ends** with the node. Its state is the keys, given to the factory; a rebuild needs nothing else.

use super::address::{Reply, message};
use super::host::{Behavior, Ctx, Handle};
use super::inventory::InventoryView;
use super::rbac::Published;
use super::signable_hosts::SignableHosts;
use super::trail::Trail;
use crate::audit::EventKind;
use crate::model::{
    ConnectionId, DbName, DbUser, NodeId, NodeKind, NodeName, PersonName, Route, ServiceName, SharedClock, Timestamp,
};
use crate::pki::{
    CertificateAuthority, DbClientProfile, DbServerProfile, HostName, HostProfile, PersonProfile, PkiError, PublicKey,
    TrustAnchors, verify_person,
};
use crate::policy::{AccessRequest, PolicySnapshot, decide, max_session_ttl};
use crate::telemetry::count::Labels as _;
use crate::telemetry::metrics::{CertificateKind, METRICS};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A certificate for PostgreSQL lives as long as the login that asked for it, at most this long.
pub const DB_CLIENT_TTL_MAX: Duration = Duration::from_secs(3600);
/// A host certificate.
pub const HOST_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// A certificate of PostgreSQL that its agent asks for: three months and some days, and it is renewed at half of what it has.
pub const OWN_DB_SERVER_TTL_MAX: Duration = Duration::from_secs(100 * 24 * 3600);
/// Never longer than this, whatever the roles say; the reference's limit.
const PERSON_TTL_MAX: Duration = Duration::from_secs(30 * 3600);

/// The authorities of this cluster, opened.
#[derive(Debug)]
pub struct Authorities {
    pub user: CertificateAuthority,
    pub host: CertificateAuthority,
    pub db: CertificateAuthority,
    pub db_client: CertificateAuthority,
}

impl Authorities {
    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_authorities([&self.user, &self.host, &self.db, &self.db_client])
    }
}

/// A certificate to log in to PostgreSQL as `db_user` on behalf of a person.
#[derive(Debug, Clone)]
pub struct IssueDbClient {
    /// The agent that asks, by its own certificate.
    pub agent: NodeId,
    pub connection: ConnectionId,
    pub person: Vec<Vec<u8>>,
    pub service: ServiceName,
    pub db_user: DbUser,
    pub db_name: DbName,
    pub csr: Vec<u8>,
}

/// A person's certificate: for an administrator, or for the person who has logged in.
pub struct IssuePerson {
    pub by: String,
    pub name: PersonName,
    pub route: Option<Route>,
    /// No longer than the roles allow.
    pub ttl: Duration,
    /// Not beyond this: where it is made by virtue of another certificate.
    pub until: Option<Timestamp>,
    /// The second factor was proved.
    pub mfa: bool,
    /// Where the person connects from; `None` when whoever asks is not the person. The certificate is pinned to it where a role
    /// asks for that.
    pub client_ip: Option<IpAddr>,
    pub csr: Vec<u8>,
}

/// The certificate of a PostgreSQL server.
pub struct IssueDbServer {
    pub by: String,
    pub hosts: Vec<String>,
    pub ttl: Duration,
    pub csr: Vec<u8>,
}

/// The certificate of the PostgreSQL of a database, for the agent that serves it.
pub struct IssueOwnDbServer {
    pub agent: NodeId,
    pub service: ServiceName,
    pub hosts: Vec<String>,
    pub ttl: Duration,
    pub csr: Vec<u8>,
}

/// What PostgreSQL is given: its own certificate, and whom it has to believe.
#[derive(Debug, Clone)]
pub struct DbServerIssued {
    pub certificate: Vec<u8>,
    pub not_after: Timestamp,
    /// The authorities of its clients, DER.
    pub clients: Vec<Vec<u8>>,
}

/// A host certificate for a node that has proved itself by a token for these kinds.
pub struct IssueHost {
    pub node: NodeId,
    pub name: NodeName,
    pub kinds: Vec<NodeKind>,
    pub hosts: Vec<String>,
    pub csr: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: Vec<u8>,
    pub not_after: Timestamp,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// Auth decided against it, or what was asked makes no certificate.
    #[error("{0}")]
    Declined(String),
    /// Nobody decided.
    #[error("auth cannot be reached: {0}")]
    AuthAway(String),
    /// Auth is there, but the two programs do not have the words for it in common.
    #[error("auth was asked: {0}")]
    NotUnderstood(String),
}

impl From<String> for CaError {
    fn from(why: String) -> Self {
        Self::Declined(why)
    }
}

type Answer = Result<Issued, CaError>;
message!(IssueDbClient => Answer, IssuePerson => Answer, IssueDbServer => Answer, IssueHost => Answer);
message!(IssueOwnDbServer => Result<DbServerIssued, CaError>);

pub struct Ca {
    authorities: Arc<Authorities>,
    /// Auth's own truth, not a copy of it.
    published: Published,
    inventory: InventoryView,
    trail: Trail,
    clock: SharedClock,
}

impl Ca {
    pub fn new(
        authorities: Arc<Authorities>,
        published: Published,
        inventory: InventoryView,
        trail: Trail,
        clock: SharedClock,
    ) -> Self {
        Self {
            authorities,
            published,
            inventory,
            trail,
            clock,
        }
    }

    /// Audits what was signed and only then gives it out.
    fn give_out(&self, signed: Result<Signed, CaError>, asked_by: &str, ctx: &mut Ctx<'_, Self>) -> Reply<Answer> {
        self.give_out_with(signed, asked_by, |issued| issued, ctx)
    }

    fn give_out_with<T: Send + 'static>(
        &self,
        signed: Result<Signed, CaError>,
        asked_by: &str,
        wrap: impl FnOnce(Issued) -> T + 'static,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<T, CaError>> {
        let signed = match signed {
            Ok(signed) => signed,
            Err(error) => return self.give_reason(error, asked_by, ctx),
        };
        let event = self
            .trail
            .event(EventKind::CertificateIssued)
            .field("cert_type", signed.kind.label())
            .field("user", signed.asked_by)
            .field("identity", signed.identity)
            .field("expires", signed.issued.not_after);
        let (reply, promise) = Reply::later();
        let trail = self.trail.clone();
        ctx.run_for_asker(async move { trail.write(event).await }, move |_, written, _| {
            promise.keep(match written {
                Ok(()) => {
                    METRICS.certificates.of(signed.kind).one_more();
                    Ok(wrap(signed.issued))
                }
                Err(refusal) => Err(CaError::AuthAway(refusal.to_string())),
            });
        });
        reply
    }

    fn snapshot(&self) -> Result<Arc<PolicySnapshot>, CaError> {
        let newest = self.published.borrow().clone();
        newest.ok_or_else(|| CaError::AuthAway("the rules have not been read yet".to_owned()))
    }

    /// Audits what was not signed, too: who tries what they may not is what the log is for.
    fn give_reason<T: Send + 'static>(
        &self,
        error: CaError,
        asked_by: &str,
        ctx: &mut Ctx<'_, Self>,
    ) -> Reply<Result<T, CaError>> {
        tracing::info!(%error, asked_by, "certificate refused");
        METRICS.certificates_refused.one_more();
        let event = self
            .trail
            .event(EventKind::CertificateRefused)
            .field("user", asked_by)
            .field("success", false)
            .field("error", error.to_string());
        let (reply, promise) = Reply::later();
        let trail = self.trail.clone();
        ctx.run_for_asker(async move { trail.note(event).await }, move |_, (), _| {
            promise.keep(Err(error))
        });
        reply
    }

    fn refuse_removed(&self, node: NodeId) -> Result<(), CaError> {
        if self.snapshot()?.removed_nodes.contains(&node) {
            let why = format!("node {node} was removed from the cluster; it can join again with a new token");
            return Err(CaError::Declined(why));
        }
        Ok(())
    }

    /// An agent's heartbeat says what it serves; auth that was just started has not heard it yet.
    fn not_heard(&self, ask: &IssueDbClient) -> CaError {
        let why = format!("this agent is not known to serve database service {}", ask.service);
        let known = self.inventory.nodes().iter().any(|node| node.node == ask.agent);
        if known {
            CaError::Declined(why)
        } else {
            CaError::AuthAway(why)
        }
    }

    fn db_client(&self, ask: &IssueDbClient) -> Result<Signed, CaError> {
        let now = self.clock.now();
        self.refuse_removed(ask.agent)?;
        let chain: Vec<CertificateDer<'_>> = ask
            .person
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let principal = verify_person(&chain, &self.authorities.anchors(), now).map_err(|error| error.to_string())?;
        let labels = self
            .inventory
            .labels_of(ask.agent, &ask.service)
            .ok_or_else(|| self.not_heard(ask))?;
        let snapshot = self.snapshot()?;
        let request = AccessRequest {
            principal: Arc::new(principal),
            service: ask.service.clone(),
            labels,
            db_user: ask.db_user.clone(),
            db_name: ask.db_name.clone(),
            // The certificate is for the database user; whether it is used for replication, proxy and agent decide.
            replication: None,
            nodes: self
                .inventory
                .name_of(ask.agent)
                .map(|name| (ask.agent, name))
                .into_iter()
                .collect(),
            client_ip: None,
        };
        let permit = decide(&snapshot, &request, now).map_err(|denial| denial.to_string())?;
        let not_after = permit.until().min(now + DB_CLIENT_TTL_MAX);
        let profile = DbClientProfile {
            db_user: permit.db_user().clone(),
            principal: permit.person().clone(),
        };
        let certificate = self
            .authorities
            .db_client
            .issue_db_client(&profile, &public_key(&ask.csr)?, not_after, now)
            .map_err(text)?;
        Ok(Signed {
            kind: CertificateKind::DbClient,
            asked_by: format!("node {}", ask.agent),
            identity: serde_json::json!({
                "user": profile.principal,
                "route_to_database": {
                    "service_name": ask.service, "protocol": "postgres",
                    "username": profile.db_user, "database": ask.db_name,
                },
                "connection": ask.connection.to_string(),
            }),
            issued: issued(certificate, not_after),
        })
    }

    fn person(&self, ask: &IssuePerson) -> Result<Signed, CaError> {
        let now = self.clock.now();
        let snapshot = self.snapshot()?;
        let record = snapshot
            .users
            .get(&ask.name)
            .ok_or_else(|| format!("there is no user {}; to see those that exist: ctl get users", ask.name))?;
        if let Some(lock) = snapshot.lock_in_force(&ask.name, &record.roles, &[], now) {
            return Err(format!("{} (lock {})", lock.sentence(), lock.name).into());
        }
        let longest = max_session_ttl(&snapshot, &ask.name)
            .unwrap_or(PERSON_TTL_MAX)
            .min(PERSON_TTL_MAX);
        let not_after = now + ask.ttl.min(longest);
        let not_after = ask.until.map_or(not_after, |until| not_after.min(until));
        let is_pinned = snapshot.options_of(&ask.name).pin_source_ip;
        let profile = PersonProfile {
            name: ask.name.clone(),
            roles: record.roles.clone(),
            traits: record.traits.clone(),
            mfa: ask.mfa,
            route: ask.route.clone(),
            pinned_ip: ask.client_ip.filter(|_| is_pinned).map(|ip| ip.to_canonical()),
        };
        let certificate = self
            .authorities
            .user
            .issue_person(&profile, &public_key(&ask.csr)?, not_after, now)
            .map_err(text)?;
        Ok(Signed {
            kind: CertificateKind::Person,
            asked_by: ask.by.clone(),
            identity: serde_json::json!({
                "user": profile.name, "roles": profile.roles,
                "route_to_database": profile.route.map(|route| serde_json::json!({
                    "service_name": route.service, "username": route.db_user, "database": route.db_name,
                })),
                "mfa_verified": profile.mfa, "pinned_ip": profile.pinned_ip,
            }),
            issued: issued(certificate, not_after),
        })
    }

    fn db_server(&self, ask: &IssueDbServer) -> Result<Signed, CaError> {
        let now = self.clock.now();
        let not_after = now + ask.ttl;
        let profile = DbServerProfile {
            names: host_names(&ask.hosts)?,
        };
        let certificate = self
            .authorities
            .db
            .issue_db_server(&profile, &public_key(&ask.csr)?, not_after, now)
            .map_err(text)?;
        Ok(Signed {
            kind: CertificateKind::DbServer,
            asked_by: ask.by.clone(),
            identity: serde_json::json!({ "hosts": ask.hosts }),
            issued: issued(certificate, not_after),
        })
    }

    /// For hosts of a database that this agent announces, and that nobody else announces as another database.
    fn own_db_server(&self, ask: &IssueOwnDbServer) -> Result<Signed, CaError> {
        self.refuse_removed(ask.agent)?;
        if ask.ttl.is_zero() || ask.ttl > OWN_DB_SERVER_TTL_MAX {
            let max = OWN_DB_SERVER_TTL_MAX.as_secs() / 3600;
            return Err(CaError::Declined(format!(
                "the ttl of PostgreSQL's certificate is more than {max}h, or nothing"
            )));
        }
        let signable = SignableHosts {
            nodes: &self.inventory.nodes(),
            agent: ask.agent,
            service: &ask.service,
        };
        signable.check(&ask.hosts)?;
        self.db_server(&IssueDbServer {
            by: format!("node {}", ask.agent),
            hosts: ask.hosts.clone(),
            ttl: ask.ttl,
            csr: ask.csr.clone(),
        })
    }

    fn host(&self, ask: &IssueHost) -> Result<Signed, CaError> {
        self.refuse_removed(ask.node)?;
        let now = self.clock.now();
        let not_after = now + HOST_TTL;
        // Only a proxy is reached by names of its own; the others are known by what they are.
        let hosts = if ask.kinds.contains(&NodeKind::Proxy) {
            ask.hosts.as_slice()
        } else {
            &[]
        };
        let profile = HostProfile {
            node_id: ask.node,
            node_name: ask.name.clone(),
            kinds: ask.kinds.clone(),
            names: host_names(hosts)?,
        };
        let certificate = self
            .authorities
            .host
            .issue_host(&profile, &public_key(&ask.csr)?, not_after, now)
            .map_err(text)?;
        Ok(Signed {
            kind: CertificateKind::Host,
            asked_by: format!("node {}", ask.node),
            identity: serde_json::json!({ "node": ask.node.to_string(), "name": ask.name, "kinds": ask.kinds }),
            issued: issued(certificate, not_after),
        })
    }
}

struct Signed {
    kind: CertificateKind,
    asked_by: String,
    identity: serde_json::Value,
    issued: Issued,
}

fn issued(certificate: CertificateDer<'static>, not_after: Timestamp) -> Issued {
    Issued {
        certificate: certificate.to_vec(),
        not_after,
    }
}

fn public_key(csr: &[u8]) -> Result<PublicKey, String> {
    PublicKey::from_csr(csr).map_err(text)
}

fn host_names(hosts: &[String]) -> Result<Vec<HostName>, String> {
    hosts.iter().map(|host| HostName::new(host).map_err(text)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn text(error: PkiError) -> String {
    error.to_string()
}

impl Behavior for Ca {
    /// A signature takes a tenth of a millisecond; this many wait at most a few hundredths of a second.
    const MAILBOX: usize = 256;
}

impl Handle<IssueDbClient> for Ca {
    fn handle(&mut self, ask: IssueDbClient, ctx: &mut Ctx<'_, Self>) -> Reply<Answer> {
        ctx.serve(ask.connection);
        let signed = self.db_client(&ask);
        let who = format!(
            "node {}, for database user {} of {}",
            ask.agent, ask.db_user, ask.service
        );
        self.give_out(signed, &who, ctx)
    }
}

impl Handle<IssuePerson> for Ca {
    fn handle(&mut self, ask: IssuePerson, ctx: &mut Ctx<'_, Self>) -> Reply<Answer> {
        let signed = self.person(&ask);
        self.give_out(signed, &ask.by, ctx)
    }
}

impl Handle<IssueDbServer> for Ca {
    fn handle(&mut self, ask: IssueDbServer, ctx: &mut Ctx<'_, Self>) -> Reply<Answer> {
        let signed = self.db_server(&ask);
        self.give_out(signed, &ask.by, ctx)
    }
}

impl Handle<IssueOwnDbServer> for Ca {
    fn handle(&mut self, ask: IssueOwnDbServer, ctx: &mut Ctx<'_, Self>) -> Reply<Result<DbServerIssued, CaError>> {
        let signed = self.own_db_server(&ask);
        let who = format!("node {}, for the PostgreSQL of {}", ask.agent, ask.service);
        let clients = vec![self.authorities.db_client.certificate().to_vec()];
        let wrap = |Issued { certificate, not_after }| DbServerIssued {
            certificate,
            not_after,
            clients,
        };
        self.give_out_with(signed, &who, wrap, ctx)
    }
}

impl Handle<IssueHost> for Ca {
    fn handle(&mut self, ask: IssueHost, ctx: &mut Ctx<'_, Self>) -> Reply<Answer> {
        let signed = self.host(&ask);
        self.give_out(signed, &format!("node {}", ask.node), ctx)
    }
}
