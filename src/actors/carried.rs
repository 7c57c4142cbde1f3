//! Connections to auth that a proxy carries: of nodes, and of people who use the API that auth offers them. Either is TLS with
//! auth, end to end: the proxy forwards bytes that it cannot read.
//!
//! A person's comes inside of TLS between proxy and auth with both host certificates, and begins with the client's address
//! (`protocol/carried.rs`): what limits logins of one address, and what a certificate is pinned to, can be believed.

use super::connection::ConnectionParts;
use super::places::{PlaceLimits, Places};
use crate::model::{Endpoint, NodeKind, NodeName};
use crate::net::greeting::Unwelcome;
use crate::net::tls::{HANDSHAKE_DEADLINE, NodeClient, ServerTls, peer_chain};
use crate::net::{BoxStream, Stream, carry, socket};
use crate::protocol::{alpn, carried};
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

/// Connections of nodes that are carried at a time: one for each agent of a large cluster, and some that join.
pub const TO_AUTH_MAX: usize = 2048;
/// The same of people. A request takes well below a second; whoever holds connections open takes no node's place, and the
/// places of their own address only. More of an address than auth serves at a time, so that auth can say why it does not.
const PEOPLE_TO_AUTH: PlaceLimits = PlaceLimits {
    all: 512,
    per_address: 64,
};

/// What a proxy carries at a time.
#[derive(Clone)]
pub struct ToAuthRoom {
    nodes: Arc<Semaphore>,
    people: Places,
}

impl Default for ToAuthRoom {
    fn default() -> Self {
        Self {
            nodes: Arc::new(Semaphore::new(TO_AUTH_MAX)),
            people: Places::new(PEOPLE_TO_AUTH),
        }
    }
}

/// A person at auth's port, after the handshake.
pub struct PersonConnection {
    pub stream: BoxStream,
    /// Checked to be of the user authority, and nothing else; empty where there is no certificate.
    pub chain: Vec<CertificateDer<'static>>,
    pub client: SocketAddr,
}

impl PersonConnection {
    pub fn direct(tls: ServerTls, client: SocketAddr) -> Self {
        Self {
            chain: peer_chain(&tls),
            stream: Box::new(tls),
            client,
        }
    }
}

/// Answers people.
pub trait ServePeople: Send + Sync {
    fn serve(&self, person: PersonConnection) -> BoxFuture<'static, ()>;
}

/// On a proxy. Whoever is at the other end has proved nothing here: auth has its own deadline for strangers.
pub(super) async fn carry_node(tls: ServerTls, auth: Vec<Endpoint>, room: ToAuthRoom) {
    let Ok(_permit) = room.nodes.try_acquire() else {
        tracing::warn!("a node's connection to auth was turned away: {TO_AUTH_MAX} are open, which is the limit");
        return;
    };
    if let Some(tcp) = reach(&auth).await {
        carry(tls, tcp).await;
    }
}

/// On a proxy.
pub(super) async fn carry_person(tls: ServerTls, parts: Arc<ConnectionParts>, client: SocketAddr) {
    let Some(proxy) = &parts.proxy else { return };
    let Some(_place) = proxy.to_auth_room.people.enter(client.ip()) else {
        let PlaceLimits { all, per_address } = PEOPLE_TO_AUTH;
        tracing::warn!(
            peer = %client,
            "a person's connection to auth was turned away: {per_address} of this address are open, or {all} of all, which is the limit"
        );
        return;
    };
    let Some(tcp) = reach(&proxy.auth).await else { return };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, introduce(&parts, tcp, client)).await {
        Ok(Ok(to_auth)) => carry(tls, to_auth).await,
        Ok(Err(error)) => tracing::warn!(%error, "auth did not take a person's connection"),
        Err(_) => tracing::warn!("auth did not take a person's connection in time"),
    }
}

/// This proxy's own TLS with auth, and whom it is for.
async fn introduce(parts: &ConnectionParts, tcp: socket::Tcp, client: SocketAddr) -> io::Result<impl Stream + use<>> {
    let in_use = parts.identity.in_use();
    let (credentials, anchors) = (&in_use.identity.credentials, &in_use.identity.anchors);
    let dialer = NodeClient::mutual(credentials, anchors, NodeKind::Auth, alpn::CARRIED, &parts.clock);
    let mut to_auth = dialer.map_err(io::Error::other)?.connect(tcp).await?;
    to_auth.write_all(&carried::write_client(client)).await?;
    Ok(to_auth)
}

async fn reach(auth: &[Endpoint]) -> Option<socket::Tcp> {
    for endpoint in auth {
        match socket::connect(&endpoint.host, endpoint.port).await {
            Ok(tcp) => {
                if let Err(error) = socket::set_user_timeout(&tcp) {
                    tracing::debug!(%error, "TCP_USER_TIMEOUT not set");
                }
                return Some(tcp);
            }
            Err(error) => {
                tracing::warn!(address = %endpoint, %error, "auth cannot be reached for a client of this proxy")
            }
        }
    }
    None
}

/// Where one side ends, both do.
async fn carry(client: ServerTls, auth: impl Stream) {
    let ended = carry::carry(client, auth).await;
    tracing::debug!(reason = ?ended, "a carried connection to auth ended");
}

/// On auth: a person whom this proxy carries.
pub(super) async fn serve_carried(tls: ServerTls, parts: Arc<ConnectionParts>, proxy: NodeName) {
    let Some(auth) = &parts.auth else { return };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, meet(tls, &parts)).await {
        Ok(Ok(person)) => auth.people.serve(person).await,
        Ok(Err(error)) => tracing::debug!(%proxy, %error, "a carried connection was closed"),
        Err(_) => tracing::debug!(%proxy, "a carried connection did not speak in time"),
    }
}

async fn meet(mut tls: ServerTls, parts: &ConnectionParts) -> io::Result<PersonConnection> {
    let mut client = [0; carried::CLIENT_BYTES];
    tls.read_exact(&mut client).await?;
    let client = carried::read_client(client);
    let in_use = parts.identity.in_use();
    let inner = in_use.sides.accept_person(tls).await.map_err(|error| {
        let why = Unwelcome::from(error);
        parts.door.strangers.turned_away(client, &why);
        io::Error::other(why)
    })?;
    Ok(PersonConnection {
        chain: peer_chain(&inner),
        stream: Box::new(inner),
        client,
    })
}
