//! The database service of this node.
//!
//! **Owns** the certificates that it has for PostgreSQL.
//! **Hears** `ServeStream` (a stream that a proxy opened), `GetUpstreamClient` from its connections.
//! **Tells** auth when it needs a certificate; starts an `upstream#id` for every stream, on the runtime of its tunnel.
//! **Never** dials what is not among its own databases, whoever asks.
//! **Ends** with the node. Permanent; its connections outlive a rebuild, and the certificates are asked for again after one.

use super::address::{Address, Reply, message};
use super::ca::{CaError, IssueDbClient, Issued};
use super::cancels::{FindUpstreamKey, ForgetKey, UpstreamKey};
use super::databases::{Database, DatabasesView};
use super::host::{Behavior, Ctx, Handle, Runtime, Spec};
use super::inspector::Inspector;
use super::passages::Passages;
use super::policy::PolicyView;
use super::sessions::{RegisterSession, SessionClosed};
use super::trail::Trail;
use super::upstream::Upstream;
use crate::model::{
    ConnectionId, DbName, DbUser, NodeId, PersonName, Refusal, RefusalKind, ServiceName, SharedClock, Timestamp,
};
use crate::net::BoxStream;
use crate::net::tls::Credentials;
use crate::net::upstream::Dial;
use crate::net::upstream_tls::{UpstreamClient, UpstreamTrust};
use crate::pki::{PrivateKey, TrustAnchors};
use crate::policy::{DENIED_HINT, DENIED_MESSAGE};
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Certificates kept: persons times database users times services that are in use. Beyond it the ones that end first go.
const CERTIFICATES_MAX: usize = 4096;
/// A certificate is asked for anew when it has less than this left.
const CERTIFICATE_SPARE: Duration = Duration::from_secs(5 * 60);
/// Auth signs in a millisecond; what takes longer than this is a lost connection.
const ISSUE_DEADLINE: Duration = Duration::from_secs(10);

/// A stream that a proxy opened: its first frame says what for.
pub struct ServeStream {
    pub stream: BoxStream,
    /// Where the stream's tunnel lives; what it leads to lives there too.
    pub runtime: Runtime,
    /// `proxy NAME`, by the certificate at the other end of the tunnel.
    pub from: Arc<str>,
    /// Which proxy, by its certificate; `None` of the one in this process.
    pub proxy: Option<NodeId>,
}

/// A TLS client that proves `db_user` to a service's PostgreSQL, for this person.
pub struct GetUpstreamClient {
    pub connection: ConnectionId,
    pub person: PersonName,
    pub person_until: Timestamp,
    pub chain: Vec<Vec<u8>>,
    /// As it is defined for this connection.
    pub database: Arc<Database>,
    pub db_user: DbUser,
    pub db_name: DbName,
}

message!(ServeStream => (), GetUpstreamClient => Result<UpstreamClient, Refusal>);

/// What the agent and every connection of it have in common.
pub struct AgentParts {
    pub node: NodeId,
    pub databases: DatabasesView,
    pub anchors: TrustAnchors,
    pub policy: PolicyView,
    pub trail: Trail,
    pub clock: SharedClock,
    /// How its databases are reached.
    pub dial: Arc<dyn Dial>,
    pub issue: Address<IssueDbClient>,
    pub register: Address<RegisterSession>,
    pub closed: Address<SessionClosed>,
    pub keep_key: Address<UpstreamKey>,
    pub find_key: Address<FindUpstreamKey>,
    pub forget_key: Address<ForgetKey>,
    /// Which proxy opened a connection: the one that may ask about it.
    pub opened_by: Passages<Option<NodeId>>,
    pub inspector: Inspector,
}

type CertificateKey = (PersonName, ServiceName, DbUser);

struct Kept {
    client: UpstreamClient,
    until: Timestamp,
    /// What the client verifies: it does not serve a definition of the database that demands something else.
    trust: Arc<UpstreamTrust>,
}

pub struct Agent {
    parts: Arc<AgentParts>,
    certificates: HashMap<CertificateKey, Kept>,
    /// Of the connections so far. Outside of the state, as they are: no two have the same name.
    upstreams: Arc<AtomicU64>,
}

impl Agent {
    pub fn new(parts: Arc<AgentParts>, upstreams: Arc<AtomicU64>) -> Self {
        Self {
            parts,
            certificates: HashMap::new(),
            upstreams,
        }
    }

    fn keep(&mut self, key: CertificateKey, kept: Kept) {
        if self.certificates.len() >= CERTIFICATES_MAX {
            let first_to_end = self.certificates.iter().min_by_key(|(_, kept)| kept.until);
            if let Some(key) = first_to_end.map(|(key, _)| key.clone()) {
                self.certificates.remove(&key);
            }
        }
        self.certificates.insert(key, kept);
    }
}

impl Behavior for Agent {
    /// New connections of all proxies, and what they ask for; beyond it a proxy tries another agent.
    const MAILBOX: usize = 1024;
}

impl Handle<ServeStream> for Agent {
    fn handle(&mut self, ask: ServeStream, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let ServeStream {
            stream,
            runtime,
            from,
            proxy,
        } = ask;
        let number = self.upstreams.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("upstream#{number}");
        let parts = self.parts.clone();
        let client = ctx.address::<GetUpstreamClient>();
        let mut stream = Some(stream);
        ctx.spawn_child(&runtime, Spec::temporary(&name), move || {
            Upstream::new(stream.take(), (from.clone(), proxy), parts.clone(), client.clone())
        });
        Reply::Now(())
    }
}

impl Handle<GetUpstreamClient> for Agent {
    fn handle(&mut self, want: GetUpstreamClient, ctx: &mut Ctx<'_, Self>) -> Reply<Result<UpstreamClient, Refusal>> {
        ctx.serve(want.connection);
        let key = (want.person.clone(), want.database.service.clone(), want.db_user.clone());
        let trust = want.database.trust.clone();
        let now = self.parts.clock.now();
        let spare = CERTIFICATE_SPARE.min(want.person_until.since(now) / 2);
        match self.certificates.get(&key) {
            Some(kept) if kept.until > now + spare && kept.trust == trust => {
                return Reply::Now(Ok(kept.client.clone()));
            }
            _ => {}
        }
        let (reply, promise) = Reply::later();
        let (parts, origin) = (self.parts.clone(), ctx.origin());
        ctx.run_for_asker(
            async move { ask_for_certificate(&parts, want, &origin).await },
            |agent, made, _| {
                if let Ok((client, until)) = &made {
                    let (client, until) = (client.clone(), *until);
                    agent.keep(key, Kept { client, until, trust });
                }
                promise.keep(made.map(|(client, _)| client));
            },
        );
        reply
    }
}

async fn ask_for_certificate(
    parts: &AgentParts,
    want: GetUpstreamClient,
    origin: &super::address::Origin,
) -> Result<(UpstreamClient, Timestamp), Refusal> {
    let key = PrivateKey::generate().map_err(|error| internal(&error))?;
    let csr = key.csr(want.db_user.as_str()).map_err(|error| internal(&error))?;
    let ask = IssueDbClient {
        agent: parts.node,
        connection: want.connection,
        person: want.chain,
        service: want.database.service.clone(),
        db_user: want.db_user,
        db_name: want.db_name,
        csr,
    };
    let Issued { certificate, not_after } = parts
        .issue
        .ask(origin, ask, ISSUE_DEADLINE)
        .await
        .map_err(|error| auth_away(&error))?
        .map_err(|error| match error {
            CaError::Declined(why) => {
                tracing::warn!(reason = %why, "auth refused a certificate for PostgreSQL");
                Refusal::new(RefusalKind::AccessDenied, DENIED_MESSAGE).hint(DENIED_HINT)
            }
            CaError::AuthAway(_) => auth_away(&error),
            CaError::NotUnderstood(_) => auth_of_another_version(&error),
        })?;
    let credentials = Credentials {
        chain: vec![CertificateDer::from(certificate)],
        key,
    };
    let client =
        UpstreamClient::new(&credentials, &want.database.trust, &parts.clock).map_err(|error| internal(&error))?;
    Ok((client, not_after))
}

pub fn not_served(service: &ServiceName) -> Refusal {
    Refusal::new(
        RefusalKind::DatabaseUnknown,
        format!("this agent does not serve a database called {service}"),
    )
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "a certificate for PostgreSQL could not be made");
    Refusal::new(
        RefusalKind::Internal,
        "the agent could not prepare a connection to the database server",
    )
    .hint("the agent's log says why")
}

fn auth_of_another_version(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "no certificate for PostgreSQL");
    Refusal::new(
        RefusalKind::Internal,
        "the agent and the auth service do not understand each other, so there is no certificate for this database user",
    )
    .hint("are they of different versions? An administrator should upgrade the older one; the agent's log says more")
}

fn auth_away(error: &dyn std::fmt::Display) -> Refusal {
    tracing::warn!(%error, "no certificate for PostgreSQL");
    Refusal::new(
        RefusalKind::PolicyStale,
        "the agent cannot reach the auth service, which has to issue a certificate for this database user first",
    )
    .hint("sessions that are open go on; try again when the auth service is back")
}
