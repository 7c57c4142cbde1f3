//! How a node that has no CA pin knows the cluster that it joins through a proxy: an authority of its machine vouches for the
//! proxy's certificate, as for that of any website, or the operator said `--insecure`.
//!
//! The proxy says what its cluster is, and the pins of that are then used as if they had been given: what sends the token is the
//! same join, which believes these authorities only.

use super::Failure;
use super::people_client::{Contact, WebTrust, ping};
use crate::config::Config;
use crate::model::Endpoint;
use crate::net::auth_dialer::AuthRoute;
use crate::net::socket;
use crate::node::auth_route;
use crate::node::data_dir::has_joined;
use crate::pki::CaPin;
use crate::pki::pem::certificates_from_pem;
use std::time::Duration;

/// As long as a join waits for a cluster that is just being started.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// The pins that a node which has none is to join with; `None` where it has no need of them, or cannot learn them.
///
/// # Errors
/// No proxy shows that it is of a cluster that can be believed: the text names the ways out.
pub async fn pins(config: &Config, insecure: bool) -> Result<Option<Vec<String>>, Failure> {
    if config.auth.is_some() {
        return nothing_to_do(insecure, "a node with auth joins no cluster");
    }
    if has_joined(&config.data_dir) {
        return nothing_to_do(
            insecure,
            "this node has joined, and knows the cluster by the authorities that it keeps",
        );
    }
    if !config.ca_pins.is_empty() {
        return nothing_to_do(insecure, "the CA pin says which cluster is believed");
    }
    // Without a token nothing can be joined; that is said by the join.
    if config.auth_token.is_none() {
        return Ok(None);
    }
    match auth_route(config)? {
        AuthRoute::ThroughProxy(proxies) => learn(&proxies, insecure).await.map(Some),
        AuthRoute::Direct(_) if insecure => Err(Failure::usage(
            "--insecure is for nodes that join through a proxy, and this one joins auth itself: give --ca-pin, or set ca_pin, \
             with what `postern ctl status` prints on the auth node",
        )),
        AuthRoute::Direct(_) => Ok(None),
    }
}

fn nothing_to_do(insecure: bool, why: &str) -> Result<Option<Vec<String>>, Failure> {
    if insecure {
        tracing::info!("--insecure has no effect: {why}");
    }
    Ok(None)
}

async fn learn(proxies: &[Endpoint], insecure: bool) -> Result<Vec<String>, Failure> {
    let trust = WebTrust {
        insecure,
        ..WebTrust::default()
    };
    let mut why = Vec::new();
    for proxy in up(proxies).await {
        match ping(proxy, &trust).await {
            Ok(contact) => return believed(proxy, &contact),
            Err(failure) => why.push(failure.to_string()),
        }
    }
    Err(Failure::failed(format!(
        "this node has no CA pin, so it cannot tell the cluster from a stranger, and no certificate shows it: {}; there are three \
         ways: give --ca-pin, or set ca_pin, with what `postern ctl status` prints on the auth node; or give the proxy a public \
         certificate (its proxy_service.https_keypairs; an issuer of your own goes into SSL_CERT_FILE here); or start this node once \
         with --insecure, which believes whatever answers",
        why.join("; ")
    )))
}

/// The proxies, as soon as one of them listens: they may come up after the nodes that join.
async fn up(proxies: &[Endpoint]) -> &[Endpoint] {
    for _ in 1..TRIES {
        for proxy in proxies {
            match socket::connect(&proxy.host, proxy.port).await {
                Ok(_) => return proxies,
                Err(error) => tracing::info!(address = %proxy, %error, "the proxy cannot be reached yet"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    proxies
}

fn believed(proxy: &Endpoint, contact: &Contact) -> Result<Vec<String>, Failure> {
    let authorities = certificates_from_pem(contact.ping.host_ca.as_bytes(), "the proxy's answer");
    let pins = authorities
        .map_err(Failure::failed)?
        .iter()
        .map(CaPin::of)
        .collect::<Result<Vec<_>, _>>();
    let pins: Vec<String> = pins.map_err(Failure::failed)?.iter().map(ToString::to_string).collect();
    let (shown, cluster) = (pins.join(" "), &contact.ping.cluster);
    if contact.vouched_for_by_machine {
        tracing::info!(
            address = %proxy, cluster, ca_pin = shown,
            "no CA pin is given; an authority of this machine vouches for the proxy, and the pin that it tells is used"
        );
    } else {
        tracing::warn!(
            address = %proxy, cluster, ca_pin = shown,
            "--insecure: nothing vouches for the proxy, and the token goes to whatever cluster answers there; compare the pin with \
             what `postern ctl status` prints on the auth node, and where they differ, remove the token and stop this node"
        );
    }
    Ok(pins)
}
