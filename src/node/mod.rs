//! A node: one process with any of the auth, proxy and database services, put together from a configuration.
//!
//! Here the actors are started, each with the addresses of its collaborators, in an order in which everything that an actor
//! needs is there before it; they end in reverse. An actor that is exhausted ends the node with 70, because what it did for
//! the others cannot be replaced one by one.

mod agent;
mod auth;
pub mod data_dir;
mod debug;
mod diag;
mod facts;
mod follower;
mod joining;
mod life;
mod observed_store;
mod proxy;
mod roots;
mod threads;

pub use crate::actors::identity::Identity;
pub use data_dir::DataDir;
pub use life::{END_DEADLINE, NodeEnd, Order};

use crate::actors::accounts::{AcceptInvite, LookAtInvite};
use crate::actors::address::Address;
use crate::actors::agent_way::AgentWay;
use crate::actors::audit::{AuditShipper, StoreLines};
use crate::actors::auth_link::{AuthLink, AuthLinkParts};
use crate::actors::ca::{IssueDbClient, IssueHost, IssueOwnDbServer};
use crate::actors::databases::DatabasesStock;
use crate::actors::host::ActorRef;
use crate::actors::host::{Runtimes, Spec};
use crate::actors::identity::{IdentityKeeper, IdentityParts, IdentityStock, IdentityView, InUse};
use crate::actors::inspector::Inspector;
use crate::actors::passages::Passages;
use crate::actors::phase::NodePhase;
use crate::actors::policy::{Policy, PolicyConfirmed, PolicyReceived, PolicyStock, PolicyView};
use crate::actors::proxies::ProxiesStock;
use crate::actors::sessions::{Drain, EndAll, Sessions};
use crate::actors::sessions_stock::SessionsStock;
use crate::actors::trail::Trail;
use crate::audit::{EventContext, EventKind, Spool, SpoolLimits};
use crate::config::{Config, ConfigError, JoinAddress};
use crate::model::{NodeKind, SharedClock};
use crate::net::auth_dialer::AuthRoute;
use crate::net::web_certificates::WebCertificates;
use crate::pki::entropy;
use crate::protocol::tunnel::NodeReport;
use crate::web::diag::{Diag, Health};
use crate::web::metrics::{NodeParts, Sources};
use debug::{Debug, others_of};
use facts::FactSources;
use roots::Roots;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use threads::Threads;
use tokio::sync::watch;

/// How an agent in the same process as the proxy is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InProcess {
    /// Without a tunnel between; all else is the same code.
    #[default]
    Direct,
    /// Through a real tunnel over loopback.
    Tunnel,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    #[error(transparent)]
    Tls(#[from] crate::net::tls::TlsError),
    #[error("proxy_service.https_keypairs: {0}")]
    WebCertificate(#[from] crate::net::web_certificates::WebCertificateError),
    #[error(transparent)]
    Resource(#[from] crate::policy::ResourceError),
    #[error(transparent)]
    Identity(#[from] crate::actors::identity::IdentityError),
    #[error("{0}")]
    Listen(String),
    #[error("the diagnostic port cannot be served: {0}")]
    Diag(#[from] std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// What is known of a node that runs.
pub struct Node {
    roots: Roots,
    threads: Threads,
    /// What is read by watching (the databases, the node's report) is there as long as the node is.
    common: Arc<Common>,
    /// Told first of all when the node stops.
    sessions: Vec<EndSessions>,
    /// Taken when all actors have ended.
    spool: Spool,
    /// Answers for as long as there is anything to ask about.
    debug: Debug,
    data_dir: DataDir,
    pub identity: Identity,
    pub auth_address: Option<SocketAddr>,
    pub proxy_address: Option<SocketAddr>,
    /// It ends last.
    diag: Option<Diag>,
    pub phase: NodePhase,
}

/// How the sessions of one service end.
pub(crate) struct EndSessions {
    drain: Address<Drain>,
    end_all: Address<EndAll>,
}

impl EndSessions {
    pub fn of(sessions: &ActorRef<Sessions>) -> Self {
        Self {
            drain: sessions.address(),
            end_all: sessions.address(),
        }
    }
}

/// Everything that the services of one node share.
pub(crate) struct Common {
    pub config: Config,
    pub runtimes: Runtimes,
    pub clock: SharedClock,
    pub identity: Identity,
    pub trail: Trail,
    pub policy: PolicyView,
    pub phase: NodePhase,
    /// The identity in use; what never changes of it is in `identity`.
    pub in_use: IdentityView,
    /// What this node serves; nothing where it has no database service.
    pub databases: DatabasesStock,
    /// What this node says of itself, kept up to date by its services.
    pub report: Arc<watch::Sender<NodeReport>>,
    /// The proxies of the cluster.
    pub proxies: ProxiesStock,
    /// Why this node must not go on, once auth has said so.
    pub condemned: Arc<watch::Sender<Option<String>>>,
    /// What the proxy presents to people.
    pub web: WebCertificates,
    /// Where the observer finds what the actors do not show by themselves.
    pub facts: Arc<FactSources>,
    /// Which agent has a connection of the proxy of this process.
    pub agents: Passages<AgentWay>,
    /// What this process answers about itself.
    pub inspector: Inspector,
}

/// What a node asks of auth, wherever auth is.
#[derive(Clone)]
pub(crate) struct AuthAddresses {
    pub issue: Address<IssueDbClient>,
    pub store_lines: Address<StoreLines>,
    pub issue_host: Address<IssueHost>,
    pub issue_db_server: Address<IssueOwnDbServer>,
    pub look_at: Address<LookAtInvite>,
    pub accept: Address<AcceptInvite>,
}

/// Starts the services of a configuration.
pub async fn start(
    config: Config,
    in_process: InProcess,
    runtimes: Runtimes,
    clock: SharedClock,
) -> Result<Node, StartError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    data_dir.forget_listening()?;
    let debug = Debug::start(&config, &data_dir);
    let mut roots = Roots::new(runtimes.clone());
    let (phase, stock) = (NodePhase::default(), PolicyStock::default());
    let view = stock.view(clock.clone());
    let sources = Sources {
        policy: view.clone(),
        observer: debug.observer(),
        parts: Arc::default(),
    };
    let health = Health {
        phase: phase.view(),
        sources: sources.clone(),
    };
    let diag = diag::start(&config, &runtimes, health)?;
    let keys = auth::open_keys(&config, &data_dir, &clock).await?;
    let identity = match &keys {
        Some(keys) => keys.own_identity(&config, &data_dir, clock.now())?,
        None => joining::identity(&config, &data_dir, &clock).await?,
    };
    debug.knows_who_it_is(identity.node);
    let services = config
        .services()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",");
    tracing::info!(
        node = %identity.name, node_id = %identity.node, cluster = %identity.cluster, %services,
        version = env!("CARGO_PKG_VERSION"), "node starts"
    );
    let spool = Spool::open(&data_dir.spool(), SpoolLimits::default(), clock.clone(), entropy::fill)?;
    let threads = Threads::new(&spool, keys.as_ref().map(|keys| keys.exhausted.clone()));
    let recovered = spool.recovered();
    if recovered.torn_bytes > 0 {
        tracing::warn!(
            torn_bytes = recovered.torn_bytes,
            "the end of the audit spool was torn by a crash and has been cut off"
        );
    }
    let trail = Trail {
        spool: spool.clone(),
        context: EventContext::new(&identity.cluster, clock.clone(), entropy::fill),
        node: identity.node,
        node_name: identity.name.clone(),
    };
    let policy = {
        let (stock, clock) = (stock.clone(), clock.clone());
        roots.start(Spec::permanent("policy"), move || {
            Policy::new(stock.clone(), clock.clone())
        })
    };
    let web = WebCertificates::default();
    web.load(proxy::keypairs(&config))?;
    let identity_stock = IdentityStock::new(InUse::new(identity.clone(), &web, &clock)?);
    let databases = DatabasesStock::default();
    let report = NodeReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: u64::from_be_bytes(entropy::bytes()),
        started: clock.now(),
        databases: Vec::new(),
        health: Vec::new(),
        proxy_addresses: Vec::new(),
    };
    let facts = Arc::new(FactSources::new(databases.view()));
    debug.knows(facts.clone());
    let agents = Passages::default();
    let inspector = Inspector::new(debug.observer(), identity.node, agents.clone());
    debug.asks_others(others_of(inspector.clone()));
    let common = Arc::new(Common {
        facts,
        inspector,
        agents,
        in_use: identity_stock.view(),
        databases,
        report: Arc::new(watch::Sender::new(report)),
        proxies: ProxiesStock::default(),
        condemned: Arc::default(),
        web,
        config,
        runtimes,
        clock,
        trail,
        policy: view,
        phase: phase.clone(),
        identity: identity.clone(),
    });
    let _first = sources.parts.set(NodeParts {
        spool: spool.clone(),
        identity: common.in_use.clone(),
        databases: common.databases.view(),
        clock: common.clock.clone(),
        needs_tunnel: common.config.db.is_some() && !(common.config.proxy.is_some() && in_process == InProcess::Direct),
    });
    let received = policy.address::<PolicyReceived>();
    let confirmed = policy.address::<PolicyConfirmed>();
    let mut auth_address = None;
    let addresses = match keys {
        Some(keys) => {
            let auth = auth::start(&common, keys, &data_dir, &mut roots, (received, confirmed)).await?;
            auth_address = Some(auth.listening);
            auth.addresses
        }
        None => link_to_auth(&common, &mut roots, (received, confirmed))?,
    };
    start_identity(&common, &mut roots, &addresses, identity_stock, data_dir.identity());
    start_shipper(&common, &mut roots, &addresses);
    let mut proxy_address = None;
    let mut serve_locally = None;
    let mut sessions = Vec::new();
    if common.config.proxy.is_some() {
        let proxy = proxy::start(&common, &addresses, auth_address, &mut roots)?;
        proxy_address = Some(proxy.listening);
        sessions.push(proxy.end_sessions);
        serve_locally = Some(proxy.serve_locally);
    }
    if common.config.db.is_some() {
        let local = serve_locally.filter(|_| in_process == InProcess::Direct);
        sessions.push(agent::start(&common, &addresses, local, proxy_address, &mut roots)?);
    } else {
        phase.ready();
    }
    common
        .trail
        .note(common.trail.event(EventKind::NodeStarted).field("services", services))
        .await;
    Ok(Node {
        roots,
        threads,
        common,
        sessions,
        spool,
        debug,
        data_dir,
        identity,
        auth_address,
        proxy_address,
        diag,
        phase,
    })
}

fn link_to_auth(
    common: &Arc<Common>,
    roots: &mut Roots,
    (received, confirmed): (Address<PolicyReceived>, Address<PolicyConfirmed>),
) -> Result<AuthAddresses, StartError> {
    let route = auth_route(&common.config)?;
    let kind = if common.config.db.is_some() {
        NodeKind::Db
    } else {
        NodeKind::Proxy
    };
    let parts = Arc::new(AuthLinkParts {
        route,
        identity: common.in_use.clone(),
        clock: common.clock.clone(),
        kind,
        report: common.report.subscribe(),
        condemned: common.condemned.clone(),
        proxies: common.proxies.clone(),
        received,
        confirmed,
        policy: common.policy.clone(),
        inspector: common.inspector.clone(),
    });
    let link = roots.start(Spec::permanent("auth-link"), move || AuthLink::new(parts.clone()));
    Ok(AuthAddresses {
        issue: link.address(),
        store_lines: link.address(),
        issue_host: link.address(),
        issue_db_server: link.address(),
        look_at: link.address(),
        accept: link.address(),
    })
}

/// A database node reaches auth through the proxy that it dials anyway; a proxy reaches it directly.
pub(crate) fn auth_route(config: &Config) -> Result<AuthRoute, StartError> {
    match &config.join {
        Some(JoinAddress::Proxy(proxy)) => Ok(AuthRoute::ThroughProxy(vec![proxy.clone()])),
        Some(JoinAddress::Auth(endpoints)) if config.db.is_some() && config.proxy.is_none() => {
            Ok(AuthRoute::ThroughProxy(endpoints.clone()))
        }
        Some(JoinAddress::Auth(endpoints)) => Ok(AuthRoute::Direct(endpoints.clone())),
        None => Err(nowhere()),
    }
}

fn nowhere() -> StartError {
    StartError::Other("the configuration names no proxy_server or auth_server to join".to_owned())
}

/// The sessions of one service: where proxy and agent share a process, each registers and decides for itself.
pub(crate) fn start_sessions(common: &Common, roots: &mut Roots, name: &str) -> ActorRef<Sessions> {
    let (stock, policy, clock) = (SessionsStock::default(), common.policy.clone(), common.clock.clone());
    common.facts.has_sessions(stock.watch());
    roots.start_beside_connections(Spec::permanent(name), move || {
        Sessions::new(stock.clone(), policy.clone(), clock.clone())
    })
}

fn start_identity(
    common: &Arc<Common>,
    roots: &mut Roots,
    addresses: &AuthAddresses,
    stock: IdentityStock,
    directory: PathBuf,
) {
    let parts = Arc::new(IdentityParts {
        stock,
        directory,
        kinds: common.config.services(),
        hosts: proxy::host_names(&common.config),
        web: common.web.clone(),
        issue: addresses.issue_host.clone(),
        clock: common.clock.clone(),
    });
    roots.start(Spec::permanent("identity"), move || IdentityKeeper::new(parts.clone()));
}

fn start_shipper(common: &Arc<Common>, roots: &mut Roots, addresses: &AuthAddresses) {
    let (spool, log) = (common.trail.spool.clone(), addresses.store_lines.clone());
    roots.start(Spec::permanent("audit"), move || {
        AuditShipper::new(spool.clone(), log.clone())
    });
}
