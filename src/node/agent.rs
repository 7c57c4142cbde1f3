//! The database service of a node.

use super::roots::Roots;
use super::{AuthAddresses, Common, EndSessions, StartError};
use crate::actors::address::Address;
use crate::actors::agent::{Agent, AgentParts, ServeStream};
use crate::actors::cancels::{Keys, UpstreamKeys};
use crate::actors::databases::Database;
use crate::actors::databases::keeper::{DatabaseKeeper, Definition, KeeperParts, ServedStock};
use crate::actors::databases::server_certificates::{ServerCertificate, ServerCertificates, ServerCertificatesParts};
use crate::actors::databases::server_files::ServerFiles;
use crate::actors::dialer::DialerParts;
use crate::actors::dialers::{Dialers, DialersParts, DialersStock};
use crate::actors::host::Spec;
use crate::actors::passages::Passages;
use crate::actors::sessions::EndService;
use crate::actors::tunnels::ServeLocally;
use crate::config::{DatabaseConfig, JoinAddress};
use crate::model::{Endpoint, ServiceName};
use crate::net::upstream::DialTls;
use crate::net::upstream_tls::UpstreamTrust;
use crate::pki::TrustAnchors;
use crate::pki::pem::certificates_from_pem;
use crate::policy::DatabaseTlsMode;
use futures::FutureExt as _;
use std::net::SocketAddr;
use std::sync::Arc;

/// One tunnel for each runtime of the proxy is what measurement asks for; more tunnels only share the load of a lossy
/// network.
const TUNNELS_PER_AGENT: usize = 4;

pub(super) fn start(
    common: &Arc<Common>,
    auth: &AuthAddresses,
    serve_locally: Option<Address<ServeLocally>>,
    local_proxy: Option<SocketAddr>,
    roots: &mut Roots,
) -> Result<EndSessions, StartError> {
    let keys = Keys::default();
    let clock = common.clock.clone();
    let cancels = roots.start_beside_connections(Spec::permanent("upstream-cancels"), move || {
        UpstreamKeys::new(keys.clone(), clock.clone())
    });
    let sessions = super::start_sessions(common, roots, "agent-sessions");
    start_keeper(common, sessions.address(), roots)?;
    start_server_certificates(common, auth, roots)?;
    let parts = Arc::new(AgentParts {
        node: common.identity.node,
        databases: common.databases.view(),
        anchors: common.identity.anchors.clone(),
        policy: common.policy.clone(),
        trail: common.trail.clone(),
        clock: common.clock.clone(),
        dial: Arc::new(DialTls),
        issue: auth.issue.clone(),
        register: sessions.address(),
        closed: sessions.address(),
        keep_key: cancels.address(),
        find_key: cancels.address(),
        forget_key: cancels.address(),
        opened_by: Passages::default(),
        inspector: common.inspector.clone(),
    });
    let agent = {
        let numbers = Arc::default();
        roots.start_beside_connections(Spec::permanent("agent"), move || {
            Agent::new(parts.clone(), Arc::clone(&numbers))
        })
    };
    let seed = match serve_locally {
        Some(proxy) => {
            tell_local_proxy(common, proxy, agent.address(), roots);
            common.phase.ready();
            None
        }
        None => Some(proxy_endpoint(common, local_proxy)?),
    };
    let parts = Arc::new(DialersParts {
        seed,
        proxies: common.proxies.view(),
        runtimes: common
            .runtimes
            .workers
            .iter()
            .take(TUNNELS_PER_AGENT)
            .cloned()
            .collect(),
        dialer: Arc::new(DialerParts {
            own_node: common.identity.node,
            identity: common.in_use.clone(),
            policy: common.policy.clone(),
            node_name: common.identity.name.clone(),
            databases: common.databases.view(),
            serve: agent.address(),
            trail: common.trail.clone(),
            clock: common.clock.clone(),
            phase: common.phase.clone(),
        }),
    });
    let stock = DialersStock::default();
    roots.start(Spec::permanent("dialers"), move || {
        Dialers::new(parts.clone(), stock.clone())
    });
    Ok(EndSessions::of(&sessions))
}

/// Tells the proxy of this process what is served, now and whenever it changes.
fn tell_local_proxy(
    common: &Arc<Common>,
    proxy: Address<ServeLocally>,
    serve: Address<ServeStream>,
    roots: &mut Roots,
) {
    let common = common.clone();
    roots.follow("own-databases", move |origin| {
        let (common, proxy, serve) = (common.clone(), proxy.clone(), serve.clone());
        async move {
            let mut databases = common.databases.view();
            loop {
                let local = ServeLocally {
                    agent: common.identity.node,
                    agent_name: common.identity.name.clone(),
                    databases: databases.records(),
                    health: databases.health(),
                    serve: serve.clone(),
                };
                if proxy.tell_when_room(&origin, local).await.is_err() || !databases.changed().await {
                    return;
                }
            }
        }
        .boxed_local()
    });
}

fn proxy_endpoint(common: &Common, local: Option<SocketAddr>) -> Result<Endpoint, StartError> {
    if let Some(address) = local {
        return Ok(super::proxy::reachable(address));
    }
    match &common.config.join {
        Some(JoinAddress::Proxy(proxy)) => Ok(proxy.clone()),
        Some(JoinAddress::Auth(endpoints)) if !endpoints.is_empty() => Ok(endpoints[0].clone()),
        _ => Err(StartError::Other(
            "the database service dials a proxy and knows of none: set proxy_server".to_owned(),
        )),
    }
}

/// Keeps what is served up to date, beginning with the databases of the configuration.
fn start_keeper(common: &Common, end_sessions: Address<EndService>, roots: &mut Roots) -> Result<(), StartError> {
    let configured = common.config.db.iter().flat_map(|db| &db.databases);
    let definitions = configured.map(|database| {
        let definition = Definition {
            database: resolve(database, &common.identity.anchors)?,
            dynamic_labels: database.dynamic_labels.clone(),
            renews_certificate: database.server_certificate.is_some(),
        };
        Ok(Arc::new(definition))
    });
    let parts = Arc::new(KeeperParts {
        configured: definitions.collect::<Result<_, StartError>>()?,
        matchers: common.config.db.iter().flat_map(|db| db.resources.clone()).collect(),
        db_authorities: common.identity.anchors.db.clone(),
        policy: common.policy.clone(),
        end_sessions,
        stock: common.databases.clone(),
        report: common.report.clone(),
        clock: common.clock.clone(),
    });
    parts.offer_at_once();
    let served = ServedStock::default();
    roots.start(Spec::permanent("databases"), move || {
        DatabaseKeeper::new(parts.clone(), served.clone())
    });
    Ok(())
}

/// Sees to the certificates of PostgreSQL, where the configuration says so.
fn start_server_certificates(common: &Common, auth: &AuthAddresses, roots: &mut Roots) -> Result<(), StartError> {
    let databases = common.config.db.iter().flat_map(|db| &db.databases);
    let kept = databases
        .filter_map(|database| Some((&database.name, database.server_certificate.as_ref()?)))
        .map(|(service, config)| {
            let owner = config.owner.as_deref().map(|name| account(service, name)).transpose()?;
            Ok(Arc::new(ServerCertificate {
                service: service.clone(),
                hosts: config.hosts.clone(),
                ttl: config.ttl,
                files: ServerFiles {
                    prefix: config.out.clone(),
                    owner,
                },
                reload_command: config.reload_command.clone(),
            }))
        })
        .collect::<Result<Vec<_>, StartError>>()?;
    if kept.is_empty() {
        return Ok(());
    }
    let parts = Arc::new(ServerCertificatesParts {
        node: common.identity.node,
        kept,
        identity: common.in_use.clone(),
        issue: auth.issue_db_server.clone(),
        clock: common.clock.clone(),
    });
    roots.start(Spec::permanent("server-certificates"), move || {
        ServerCertificates::new(parts.clone())
    });
    Ok(())
}

/// The ids of an account of this machine.
fn account(service: &ServiceName, name: &str) -> Result<(u32, u32), StartError> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        _ => Err(StartError::Other(format!(
            "database {service}: server_certificate.owner: there is no account {name} on this machine"
        ))),
    }
}

fn resolve(config: &DatabaseConfig, anchors: &TrustAnchors) -> Result<Database, StartError> {
    let authorities = match (config.tls.mode, &config.tls.ca_cert_file) {
        (DatabaseTlsMode::Insecure, _) => Vec::new(),
        (_, None) => anchors.db.clone(),
        (_, Some(path)) => {
            let pem = std::fs::read(path).map_err(|error| {
                StartError::Other(format!(
                    "database {}: ca_cert_file {}: {error}",
                    config.name,
                    path.display()
                ))
            })?;
            certificates_from_pem(&pem, "ca_cert_file")?
        }
    };
    let named = config.tls.server_name.clone();
    let trust = UpstreamTrust {
        mode: config.tls.mode,
        server_name: named.unwrap_or_else(|| config.uri.host.clone()),
        authorities,
    };
    Ok(Database {
        service: config.name.clone(),
        description: config.description.clone(),
        labels: config.static_labels.clone(),
        endpoint: config.uri.clone(),
        trust: Arc::new(trust),
    })
}
