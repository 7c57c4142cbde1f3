//! The database service of a node.

use super::roots::Roots;
use super::{AuthAddresses, Common, EndSessions, StartError};
use crate::actors::address::{Address, Origin};
use crate::actors::agent::{Agent, AgentParts, Database};
use crate::actors::cancels::UpstreamKeys;
use crate::actors::dialer::{Dialer, DialerParts};
use crate::actors::host::Spec;
use crate::actors::tunnels::ServeLocally;
use crate::config::{DatabaseConfig, JoinAddress};
use crate::model::{Endpoint, ServiceName};
use crate::pki::TrustAnchors;
use crate::pki::pem::certificates_from_pem;
use crate::protocol::tunnel::DatabaseRecord;
use std::collections::BTreeMap;
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
    let cancels = roots.start(Spec::permanent("upstream-cancels"), UpstreamKeys::default);
    let sessions = super::start_sessions(common, roots, "agent-sessions");
    let databases = databases(common)?;
    let records: Vec<DatabaseRecord> = databases.values().map(Database::record).collect();
    let parts = Arc::new(AgentParts {
        node: common.identity.node,
        databases,
        anchors: common.identity.anchors.clone(),
        policy: common.policy.clone(),
        trail: common.trail.clone(),
        clock: common.clock.clone(),
        issue: auth.issue.clone(),
        register: sessions.address(),
        closed: sessions.address(),
        keep_key: cancels.address(),
        find_key: cancels.address(),
        forget_key: cancels.address(),
    });
    let agent = roots.start(Spec::permanent("agent"), move || Agent::new(parts.clone()));
    if let Some(proxy) = serve_locally {
        let local = ServeLocally {
            agent: common.identity.node,
            agent_name: common.identity.name.clone(),
            databases: records,
            serve: agent.address(),
        };
        proxy
            .tell(&Origin::outside("start"), local)
            .map_err(|error| StartError::Other(format!("the proxy of this process did not take the agent: {error}")))?;
        common.phase.ready();
        return Ok(EndSessions::of(&sessions));
    }
    let identity = &common.identity;
    let parts = Arc::new(DialerParts {
        proxy: proxy_endpoint(common, local_proxy)?,
        identity: common.in_use.clone(),
        policy: common.policy.clone(),
        node_name: identity.name.clone(),
        databases: records,
        serve: agent.address(),
        clock: common.clock.clone(),
        phase: common.phase.clone(),
    });
    for (number, runtime) in common.runtimes.workers.iter().take(TUNNELS_PER_AGENT).enumerate() {
        let parts = parts.clone();
        let spec = Spec::permanent(&format!("dialer#{}", number + 1));
        roots.start_on(runtime, spec, move || Dialer::new(parts.clone()));
    }
    Ok(EndSessions::of(&sessions))
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

/// What the configuration's databases look like to the rest of the cluster.
pub(super) fn records(common: &Common) -> Result<Vec<DatabaseRecord>, StartError> {
    Ok(databases(common)?.values().map(Database::record).collect())
}

fn databases(common: &Common) -> Result<BTreeMap<ServiceName, Database>, StartError> {
    let configured = common.config.db.iter().flat_map(|db| &db.databases);
    configured
        .map(|database| Ok((database.name.clone(), resolve(database, &common.identity.anchors)?)))
        .collect()
}

fn resolve(config: &DatabaseConfig, anchors: &TrustAnchors) -> Result<Database, StartError> {
    let trusted = match &config.tls.ca_cert_file {
        None => anchors.db.clone(),
        Some(path) => {
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
    Ok(Database {
        service: config.name.clone(),
        description: config.description.clone(),
        labels: config.static_labels.clone(),
        endpoint: config.uri.clone(),
        server_name: config
            .tls
            .server_name
            .clone()
            .unwrap_or_else(|| config.uri.host.clone()),
        trusted,
    })
}
