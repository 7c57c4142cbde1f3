//! The way to auth: directly, or through a proxy that forwards the bytes. Either way TLS with auth itself, end to end.

use super::socket;
use super::tls::{HANDSHAKE_DEADLINE, NodeClient, TlsError, server_chain};
use super::{BoxStream, tls};
use crate::model::{Endpoint, NodeKind, SharedClock};
use crate::pki::{CaPin, PeerUsage, TrustAnchors, verify_host};
use crate::protocol::alpn;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::io;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthRoute {
    Direct(Vec<Endpoint>),
    /// Through the first of these that carries the connection.
    ThroughProxy(Vec<Endpoint>),
}

impl AuthRoute {
    /// The same, with more proxies to try after those that are known already.
    #[must_use]
    pub fn or_through(mut self, more: impl IntoIterator<Item = Endpoint>) -> Self {
        if let Self::ThroughProxy(proxies) = &mut self {
            for proxy in more {
                if !proxies.contains(&proxy) {
                    proxies.push(proxy);
                }
            }
        }
        self
    }
}

/// Dials auth.
pub struct AuthDialer {
    route: AuthRoute,
    /// For the outer connection, where there is a proxy.
    to_proxy: NodeClient,
    to_auth: NodeClient,
    /// After joining: the peer's certificate is checked against these once more, for its kind and cluster.
    checked: Option<(TrustAnchors, SharedClock)>,
}

impl fmt::Display for AuthRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(endpoints) => f.write_str(&listed(endpoints)),
            Self::ThroughProxy(proxies) => write!(f, "auth through proxy {}", listed(proxies)),
        }
    }
}

fn listed(endpoints: &[Endpoint]) -> String {
    let texts: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl fmt::Display for AuthDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.route, f)
    }
}

impl AuthDialer {
    /// For a node that has a host certificate.
    pub fn linked(
        route: AuthRoute,
        host: &tls::Credentials,
        anchors: &TrustAnchors,
        clock: &SharedClock,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            route,
            to_proxy: NodeClient::mutual(host, anchors, NodeKind::Proxy, alpn::TO_AUTH, clock)?,
            to_auth: NodeClient::mutual(host, anchors, NodeKind::Auth, alpn::NODE, clock)?,
            checked: Some((anchors.clone(), clock.clone())),
        })
    }

    /// For a node's first contact: it knows the cluster by its pins only.
    pub fn joining(route: AuthRoute, pins: Vec<CaPin>, clock: &SharedClock) -> Result<Self, TlsError> {
        Ok(Self {
            route,
            to_proxy: NodeClient::joining(pins.clone(), NodeKind::Proxy, alpn::TO_AUTH, clock)?,
            to_auth: NodeClient::joining(pins, NodeKind::Auth, alpn::JOIN, clock)?,
            checked: None,
        })
    }

    /// For a person, with a certificate or before the login.
    pub fn person(
        route: AuthRoute,
        certificate: Option<&tls::Credentials>,
        host_authorities: &[CertificateDer<'static>],
        clock: &SharedClock,
    ) -> Result<Self, TlsError> {
        let anchors = TrustAnchors {
            host: host_authorities.to_vec(),
            ..TrustAnchors::default()
        };
        Ok(Self {
            route,
            // The proxy learns nothing of the person: it forwards bytes that it cannot read.
            to_proxy: NodeClient::person(None, host_authorities, NodeKind::Proxy, alpn::PERSON_TO_AUTH, clock)?,
            to_auth: NodeClient::person(certificate, host_authorities, NodeKind::Auth, alpn::PERSON, clock)?,
            checked: Some((anchors, clock.clone())),
        })
    }

    /// The addresses in turn, each with [`HANDSHAKE_DEADLINE`].
    pub async fn dial(&self) -> io::Result<BoxStream> {
        let (endpoints, through) = match &self.route {
            AuthRoute::Direct(endpoints) => (endpoints, false),
            AuthRoute::ThroughProxy(proxies) => (proxies, true),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address of auth is known");
        for endpoint in endpoints {
            let dialled = async {
                if through {
                    self.through(endpoint).await
                } else {
                    self.direct(endpoint).await
                }
            };
            match within_deadline(dialled).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn through(&self, proxy: &Endpoint) -> io::Result<BoxStream> {
        let tcp = socket::connect(&proxy.host, proxy.port).await?;
        socket::set_user_timeout(&tcp)?;
        let outer = self.to_proxy.connect(tcp).await?;
        let inner = self.to_auth.connect(outer).await?;
        self.check(&server_chain(&inner))?;
        Ok(Box::new(inner))
    }

    async fn direct(&self, endpoint: &Endpoint) -> io::Result<BoxStream> {
        let tcp = socket::connect(&endpoint.host, endpoint.port).await?;
        socket::set_user_timeout(&tcp)?;
        let stream = self.to_auth.connect(tcp).await?;
        self.check(&server_chain(&stream))?;
        Ok(Box::new(stream))
    }

    fn check(&self, chain: &[CertificateDer<'static>]) -> io::Result<()> {
        let Some((anchors, clock)) = &self.checked else {
            return Ok(());
        };
        let peer = verify_host(chain, anchors, PeerUsage::Server, clock.now()).map_err(io::Error::other)?;
        if peer.kinds.contains(&NodeKind::Auth) {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "{} is not the auth service of this cluster",
                peer.node_name
            )))
        }
    }
}

async fn within_deadline<T>(dialled: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HANDSHAKE_DEADLINE, dialled)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the handshake was not done in time",
            ))
        })
}
