//! The proxy service of a node.

use super::roots::Roots;
use super::{AuthAddresses, Common, EndSessions, StartError};
use crate::actors::address::Address;
use crate::actors::cancels::requests::CancelParts;
use crate::actors::cancels::{ClientKeys, Keys};
use crate::actors::carried::ToAuthRoom;
use crate::actors::connection::{ConnectionParts, ProxyParts};
use crate::actors::door::Door;
use crate::actors::host::Spec;
use crate::actors::listener::{Port, PortListener};
use crate::actors::strangers::Strangers;
use crate::actors::tunnels::{RoutesStock, ServeLocally, Tunnels};
use crate::config::{Config, JoinAddress, KeyPair, ListenAddr, ListenHost, ProxyConfig, ProxyProtocol};
use crate::model::{Endpoint, NodeKind};
use crate::net::socket::Listener;
use crate::net::tls::Http;
use crate::web::pages::{PageParts, Pages};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

pub(super) struct Proxy {
    pub listening: SocketAddr,
    pub serve_locally: Address<ServeLocally>,
    pub end_sessions: EndSessions,
}

pub(super) fn start(
    common: &Arc<Common>,
    to_auth: &AuthAddresses,
    local_auth: Option<SocketAddr>,
    roots: &mut Roots,
) -> Result<Proxy, StartError> {
    let Some(config) = &common.config.proxy else {
        return Err(StartError::Other("the proxy service is not configured".to_owned()));
    };
    let (socket, listening) = listen(&config.web_listen_addr, NodeKind::Proxy.label())?;
    let stock = RoutesStock::default();
    let routes = stock.view();
    let tunnels = {
        let (policy, trail, clock) = (common.policy.clone(), common.trail.clone(), common.clock.clone());
        roots.start(Spec::permanent("tunnels"), move || {
            Tunnels::new(stock.clone(), policy.clone(), trail.clone(), clock.clone())
        })
    };
    let keys = Keys::default();
    let cancels = {
        let (clock, trail, without_tls) = (common.clock.clone(), common.trail.clone(), config.cancel_without_tls);
        roots.start_beside_connections(Spec::permanent("cancels"), move || {
            ClientKeys::new(keys.clone(), without_tls, clock.clone(), trail.clone())
        })
    };
    let sessions = super::start_sessions(common, roots, "proxy-sessions");
    let addresses = addresses(&common.config, config, listening);
    let pages = Pages::new(PageParts {
        cluster: common.identity.cluster.clone(),
        // There is always one: where nothing is configured, the address that it listens on.
        proxy: addresses.first().map(ToString::to_string).unwrap_or_default(),
        identity: common.in_use.clone(),
        clock: common.clock.clone(),
        look_at: to_auth.look_at.clone(),
        accept: to_auth.accept.clone(),
    });
    let parts = Arc::new(ConnectionParts {
        cluster: common.identity.cluster.clone(),
        identity: common.in_use.clone(),
        policy: common.policy.clone(),
        clock: common.clock.clone(),
        trail: common.trail.clone(),
        door: Door {
            identity: common.in_use.clone(),
            http: Http::Pages,
            proxy_protocol: config.proxy_protocol.clone(),
            strangers: Strangers::new(common.trail.clone()),
        },
        proxy: Some(ProxyParts {
            routes,
            register: sessions.address(),
            closed: sessions.address(),
            keep_key: cancels.address(),
            forget_key: cancels.address(),
            cancels: CancelParts {
                try_cancel: cancels.address(),
                found_elsewhere: cancels.address(),
                failed: cancels.address(),
                searches: CancelParts::searches(),
            },
            adopt_tunnel: tunnels.address(),
            auth: auth_endpoints(&common.config, local_auth)?,
            pages: Arc::new(pages),
            to_auth_room: ToAuthRoom::default(),
            agents: common.agents.clone(),
        }),
        auth: None,
    });
    if matches!(&config.proxy_protocol, ProxyProtocol::On { from } if from.is_empty()) {
        tracing::warn!(
            "proxy_protocol is on and believes everybody: whoever reaches the port can claim any address; name the balancers' \
             networks in proxy_protocol_from"
        );
    }
    start_listener(common, roots, "listener", socket, parts);
    common.report.send_modify(|report| report.proxy_addresses = addresses);
    tracing::info!(%listening, "the proxy listens");
    Ok(Proxy {
        listening,
        serve_locally: tunnels.address(),
        end_sessions: EndSessions::of(&sessions),
    })
}

pub(super) fn start_listener(
    common: &Common,
    roots: &mut Roots,
    name: &str,
    socket: Listener,
    parts: Arc<ConnectionParts>,
) {
    let (port, phase, runtimes) = (Port::new(socket), common.phase.view(), common.runtimes.clone());
    let open = Arc::default();
    roots.start_beside_connections(Spec::permanent(name), move || {
        let open = Arc::clone(&open);
        PortListener::new(port.clone(), phase.clone(), runtimes.clone(), parts.clone(), open)
    });
}

/// Where this proxy reaches auth for nodes that come through it.
fn auth_endpoints(config: &Config, local: Option<SocketAddr>) -> Result<Vec<Endpoint>, StartError> {
    if let Some(address) = local {
        return Ok(vec![reachable(address)]);
    }
    match &config.join {
        Some(JoinAddress::Auth(endpoints)) if !endpoints.is_empty() => Ok(endpoints.clone()),
        _ => Err(StartError::Other(
            "a proxy without an auth service beside it needs the address of one: set auth_server".to_owned(),
        )),
    }
}

pub(super) fn keypairs(config: &Config) -> &[KeyPair] {
    config
        .proxy
        .as_ref()
        .map_or(&[], |proxy| proxy.https_keypairs.as_slice())
}

/// Where others reach this proxy: its public addresses, or else where it listens, by this node's name if that is everywhere.
fn addresses(config: &Config, proxy: &ProxyConfig, listening: SocketAddr) -> Vec<Endpoint> {
    if !proxy.public_addr.is_empty() {
        let with_port = |endpoint: &Endpoint| Endpoint {
            host: endpoint.host.clone(),
            port: if endpoint.port == 0 {
                listening.port()
            } else {
                endpoint.port
            },
        };
        return proxy.public_addr.iter().map(with_port).collect();
    }
    let host = if listening.ip().is_unspecified() {
        config.nodename.to_string()
    } else {
        listening.ip().to_string()
    };
    vec![Endpoint {
        host,
        port: listening.port(),
    }]
}

/// From this machine, an address that stands for all of them is reached on loopback.
pub(super) fn reachable(address: SocketAddr) -> Endpoint {
    let ip = if address.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        address.ip()
    };
    Endpoint {
        host: ip.to_string(),
        port: address.port(),
    }
}

pub(super) fn listen(address: &ListenAddr, what: &str) -> Result<(Listener, SocketAddr), StartError> {
    let addresses = address
        .to_socket_addrs()
        .map_err(|error| StartError::Listen(format!("the {what} service cannot listen on {address}: {error}")))?;
    let mut last = format!("the {what} service cannot listen on {address}: it is no address of this machine");
    for candidate in addresses {
        match Listener::bind(candidate, what) {
            Ok(socket) => {
                let listening = socket
                    .local_addr()
                    .map_err(|error| StartError::Listen(error.to_string()))?;
                return Ok((socket, listening));
            }
            Err(error) => last = error,
        }
    }
    Err(StartError::Listen(last))
}

/// The names and addresses that clients reach this proxy by: what is configured, and loopback.
pub(super) fn host_names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Some(proxy) = &config.proxy {
        names.extend(proxy.public_addr.iter().map(|endpoint| endpoint.host.clone()));
        if let ListenHost::Ip(ip) = &proxy.web_listen_addr.host
            && !ip.is_unspecified()
        {
            names.push(ip.to_string());
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}
