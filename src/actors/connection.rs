//! One accepted connection: what its peer speaks, and for PostgreSQL the way into a session.
//!
//! **Owns** the socket, from its first byte to its last.
//! **Hears** nothing; its steps are its own, each the continuation of the one before.
//! **Tells** `sessions` and `cancels` of its session, the audit trail of its decision; hands the connections of nodes to
//! `tunnels` and `links`.
//! **Never** lets a byte of a session pass before there is a permit, the session is registered, and the decision is on disk.
//! **Ends** with the connection. Temporary.

use super::address::{Address, Origin};
use super::agent_way::AgentWay;
use super::cancels::requests::{self, Asked, CancelParts};
use super::cancels::{CancelFailure, ClientKey, ForgetKey};
use super::carried::{self, PersonConnection, ServePeople, ToAuthRoom};
use super::door::{Arrived, Door, TurnedAway};
use super::host::{Behavior, Ctx, Runtime, spawn_here};
use super::identity::IdentityView;
use super::joins::JoinCluster;
use super::links::AdoptLink;
use super::passages::Passages;
use super::places::Place;
use super::policy::PolicyView;
use super::relay::{SessionOutcome, SessionRelay, UPSTREAM_SAID_NO, stop_because};
use super::routing::{self, Opened};
use super::sessions::{RegisterSession, SessionClosed};
use super::trail::Trail;
use super::tunnel::refusal_event;
use super::tunnels::{AdoptTunnel, RoutesView};
use crate::audit::{EventKind, SessionFields};
use crate::model::{ClusterName, ConnectionId, Endpoint, NodeKind, Refusal, RefusalKind, SharedClock};
use crate::net::direction::NoTap;
use crate::net::greeting::{self, Greeted, Unwelcome};
use crate::net::socket;
use crate::net::tls::{ServerTls, Spoken, peer_chain};
use crate::net::{BoxStream, Stream};
use crate::pki::{HostIdentity, PeerUsage, verify_host};
use crate::policy::Permit;
use crate::protocol::postgres::startup::CancelRequest;
use crate::protocol::postgres::{StartupMessage, backend};
use crate::telemetry::metrics::{CancelOutcome, ConnectionKind, METRICS};
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

/// How long the error of a refused connection may take to reach a client that does not read.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(5);

/// What every connection of a port has in common.
pub struct ConnectionParts {
    pub cluster: ClusterName,
    pub identity: IdentityView,
    pub policy: PolicyView,
    pub clock: SharedClock,
    pub trail: Trail,
    pub door: Door,
    /// What this port serves besides telling people where to go.
    pub proxy: Option<ProxyParts>,
    pub auth: Option<AuthParts>,
}

/// What a proxy's connections use.
pub struct ProxyParts {
    pub routes: RoutesView,
    pub register: Address<RegisterSession>,
    pub closed: Address<SessionClosed>,
    pub keep_key: Address<ClientKey>,
    pub forget_key: Address<ForgetKey>,
    pub cancels: CancelParts,
    pub adopt_tunnel: Address<AdoptTunnel>,
    /// Where auth is, for nodes that reach it through this proxy; the first that answers.
    pub auth: Vec<Endpoint>,
    /// Who answers those that speak HTTP.
    pub pages: Arc<dyn ServePages>,
    pub to_auth_room: ToAuthRoom,
    /// Which agent has a connection.
    pub agents: Passages<AgentWay>,
}

/// The pages and programs' answers over HTTP; they are made to the right of the actors.
pub trait ServePages: Send + Sync {
    /// Answers everything that one client asks on its connection, up to its end.
    fn serve(&self, tls: ServerTls, peer: SocketAddr, origin: Origin) -> BoxFuture<'static, ()>;
}

/// What auth's connections use.
pub struct AuthParts {
    pub adopt_link: Address<AdoptLink>,
    pub join: Address<JoinCluster>,
    pub people: Arc<dyn ServePeople>,
}

/// How far a connection has come when its actor begins.
pub enum Arrival {
    Accepted(std::net::TcpStream),
    /// Tests come without a socket: a client of PostgreSQL whose TLS and StartupMessage are done.
    #[cfg(test)]
    Greeted {
        stream: BoxStream,
        chain: Vec<CertificateDer<'static>>,
        startup: StartupMessage,
    },
}

pub struct Connection {
    id: ConnectionId,
    arrival: Option<Arrival>,
    /// The client's address: the socket's, until a balancer has named another.
    peer: SocketAddr,
    /// Among the strangers; given back when it is known who this is, or when others count it.
    place: Option<Place>,
    runtime: usize,
    parts: Arc<ConnectionParts>,
    session: Option<OpenSession>,
    accepted: Instant,
}

/// What is given back when the session is over, however it ends.
pub struct OpenSession {
    pub session: crate::model::SessionId,
    pub connection: ConnectionId,
    pub origin: Origin,
    pub fields: Arc<SessionFields>,
    pub parts: Arc<ConnectionParts>,
    /// Gone with the session; its cancel key holds a weak reference.
    pub alive: Arc<()>,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(proxy) = &self.parts.proxy {
            let _full = proxy.closed.tell(&self.origin, SessionClosed(self.session));
            let _full = proxy.forget_key.tell(&self.origin, ForgetKey(self.connection));
        }
    }
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        arrival: Option<Arrival>,
        peer: SocketAddr,
        runtime: usize,
        parts: Arc<ConnectionParts>,
    ) -> Self {
        Self {
            id,
            arrival,
            peer,
            place: None,
            runtime,
            parts,
            session: None,
            accepted: Instant::now(),
        }
    }

    fn met(&mut self, met: Result<Arrived, TurnedAway>, ctx: &mut Ctx<'_, Self>) {
        let arrived = match met {
            Ok(arrived) => arrived,
            Err(why) => {
                if let TurnedAway::Unwelcome(why) = &why {
                    METRICS.connections.of(kind_of_unwelcome(why)).one_more();
                }
                return ctx.stop();
            }
        };
        let Arrived { client, place, greeted } = arrived;
        (self.peer, self.place) = (client, Some(place));
        METRICS.connections.of(kind_of(&greeted)).one_more();
        match greeted {
            Greeted::PostgreSql { tls, startup } => {
                let chain = peer_chain(&tls);
                if !chain.is_empty() {
                    // Its key was shown in TLS, under this cluster's authority.
                    self.place = None;
                }
                self.connect_client(tls, chain, startup, ctx);
            }
            Greeted::Cancel {
                request,
                stream,
                is_encrypted,
            } => self.cancel(request, is_encrypted, stream, ctx),
            Greeted::Node { spoken, tls } => self.node(spoken, tls, ctx),
        }
    }

    fn connect_client(
        &mut self,
        stream: impl Stream,
        chain: Vec<CertificateDer<'static>>,
        startup: StartupMessage,
        ctx: &mut Ctx<'_, Self>,
    ) {
        crate::telemetry::fault::point("connection.authorise", startup.user());
        if self.parts.proxy.is_none() {
            let refusal = Refusal::new(
                RefusalKind::NotSupported,
                "this is the auth service's port; databases are reached through a proxy",
            )
            .hint("connect to the proxy's address instead");
            return refuse(stream, &refusal, ctx);
        }
        ctx.state("authorising");
        let client = routing::Client {
            connection: self.id,
            peer: self.peer,
            runtime: self.runtime,
            chain,
            startup,
        };
        let (parts, origin) = (self.parts.clone(), ctx.origin());
        let opening = async move {
            let opened = routing::open_session(&parts, &client, &origin).await;
            (opened, stream, client)
        };
        ctx.run(opening, |connection, (opened, stream, client), ctx| match opened {
            Ok(Opened::Session(opened)) => connection.relay(*opened, stream, &client, ctx),
            Ok(Opened::UpstreamSaidNo(error_response)) => {
                send_last(stream, error_response, Some(UPSTREAM_SAID_NO.to_owned()), ctx);
            }
            Err(refusal) => {
                // Who is a stranger is told of with a bound, where that is found out.
                if !client.chain.is_empty() {
                    tracing::info!(
                        peer = %connection.peer, db_user = client.startup.user(), kind = refusal.kind.label(),
                        reason = %refusal, "client refused"
                    );
                }
                METRICS.proxy.refused.of(refusal.kind).one_more();
                refuse(stream, &refusal, ctx);
            }
        });
    }

    fn relay(
        &mut self,
        opened: routing::OpenedSession,
        to_client: impl Stream,
        client: &routing::Client,
        ctx: &mut Ctx<'_, Self>,
    ) {
        let routing::OpenedSession {
            permit,
            watched,
            session,
            stream,
            agent,
            seen,
        } = opened;
        tracing::info!(
            session = %session.session, connection = %self.id, peer = %self.peer, user = %permit.person(),
            database = %permit.service(), db_user = %permit.db_user(), db_name = %permit.db_name(), %agent, "session open"
        );
        self.session = Some(session);
        ctx.state("relaying");
        METRICS.session_opening.took(self.accepted.elapsed());
        let counted = METRICS.proxy.open();
        let negotiation = client.startup.needs_negotiation().then(|| {
            let unknown = client.startup.unknown_protocol_options();
            backend::negotiate_protocol_version(client.startup.spoken_minor(), &unknown)
        });
        let mut relay = SessionRelay::new(permit, watched, to_client, stream, (NoTap, NoTap), seen);
        let task = spawn_here(async move {
            let _counted = counted;
            if let Some(negotiation) = negotiation {
                relay.client().write_all(&negotiation).await?;
            }
            Ok::<_, std::io::Error>(relay.run(|permit| agent_lost(permit, &agent)).await)
        });
        ctx.run(task.join(), |connection, outcome, ctx| connection.ended(outcome, ctx));
    }

    fn ended(&mut self, outcome: Result<std::io::Result<SessionOutcome>, String>, ctx: &mut Ctx<'_, Self>) {
        if let (Ok(Ok(outcome)), Some(session)) = (&outcome, &self.session)
            && let Some(event) = outcome.disconnected(&self.parts.trail, &session.fields)
        {
            self.parts
                .trail
                .note_now(event.field("addr.remote", self.peer.to_string()));
        }
        let why = match &outcome {
            Ok(Ok(outcome)) => outcome.ending("client"),
            Ok(Err(_)) => Some("client lost".to_owned()),
            Err(_) => Some("relay failed".to_owned()),
        };
        match outcome {
            Ok(Ok(SessionOutcome { counts, refusal, .. })) => {
                let kind = refusal.as_ref().map(|refusal| refusal.kind);
                METRICS.proxy.ended(kind);
                METRICS.proxy.relayed(counts.to_upstream, counts.to_client);
                tracing::info!(
                    connection = %self.id, bytes_from_client = counts.to_upstream, bytes_to_client = counts.to_client,
                    kind = kind.map(RefusalKind::label), "session closed"
                );
            }
            Ok(Err(error)) => {
                METRICS.proxy.failed.one_more();
                tracing::debug!(connection = %self.id, %error, "client lost");
            }
            Err(panic) => {
                METRICS.proxy.failed.one_more();
                tracing::error!(connection = %self.id, error = panic, "relay failed");
            }
        }
        self.session = None;
        stop_because(why, ctx);
    }

    fn cancel(&self, request: CancelRequest, is_encrypted: bool, stream: BoxStream, ctx: &mut Ctx<'_, Self>) {
        ctx.state("cancelling");
        let (parts, origin) = (self.parts.clone(), ctx.origin());
        let asked = Asked {
            request,
            is_encrypted,
            from: self.peer,
            runtime: self.runtime,
        };
        // The protocol has no answer to a CancelRequest: whoever guesses learns nothing.
        let done = async move { requests::carry(&parts, asked, &origin).await };
        ctx.run(done, move |_, done, ctx| {
            let outcome = match done {
                Ok(()) => CancelOutcome::CarriedOut,
                Err(CancelFailure::TooOften | CancelFailure::Busy) => CancelOutcome::Limited,
                Err(_) => CancelOutcome::Failed,
            };
            METRICS.cancels.of(outcome).one_more();
            // Only now, as PostgreSQL does: a client that saw the end earlier would have its next statement cancelled. And in order,
            // with TLS's own farewell, without which libpq says that the cancel failed.
            close(stream, Vec::new(), None, ctx);
        });
    }

    fn node(&mut self, spoken: Spoken, tls: ServerTls, ctx: &mut Ctx<'_, Self>) {
        let parts = self.parts.clone();
        if spoken != Spoken::Join {
            // From here on each has limits of its own; whoever joins is a stranger until it has a certificate.
            self.place = None;
        }
        match (spoken, &parts.proxy, &parts.auth) {
            (Spoken::Tunnel, Some(proxy), _) => {
                if let Some(agent) = self.peer_node(&tls, &[NodeKind::Db]) {
                    if let Err(error) = socket::set_tunnel(tls.get_ref().0.get_ref()) {
                        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set");
                    }
                    let adopt = AdoptTunnel {
                        stream: tls,
                        agent,
                        runtime: Runtime::current(),
                        runtime_index: self.runtime,
                    };
                    hand_over(&proxy.adopt_tunnel, adopt, ctx);
                }
            }
            (Spoken::Node, _, Some(auth)) => {
                if let Some(peer) = self.peer_node(&tls, &[NodeKind::Proxy, NodeKind::Db]) {
                    let adopt = AdoptLink {
                        stream: tls,
                        peer,
                        runtime: Runtime::current(),
                    };
                    hand_over(&auth.adopt_link, adopt, ctx);
                }
            }
            (Spoken::Join, _, Some(auth)) => {
                let (join, origin) = (auth.join.clone(), ctx.origin());
                ctx.state("serving");
                let peer = self.peer;
                let joined = async move { super::joins::serve(tls, peer, join, &parts.trail, origin).await };
                return ctx.run(joined, |_, (), ctx| ctx.stop());
            }
            (Spoken::ToAuth, Some(proxy), _) => {
                ctx.state("carrying");
                let carried = carried::carry_node(tls, proxy.auth.clone(), proxy.to_auth_room.clone());
                return ctx.run(carried, |_, (), ctx| ctx.stop());
            }
            (Spoken::PersonToAuth, Some(_), _) => {
                ctx.state("carrying");
                let carried = carried::carry_person(tls, parts.clone(), self.peer);
                return ctx.run(carried, |_, (), ctx| ctx.stop());
            }
            (Spoken::Person, _, Some(auth)) => {
                ctx.state("serving");
                let served = auth.people.serve(PersonConnection::direct(tls, self.peer));
                return ctx.run(served, |_, (), ctx| ctx.stop());
            }
            (Spoken::Carried, _, Some(_)) => {
                if let Some(proxy) = self.peer_node(&tls, &[NodeKind::Proxy]) {
                    ctx.state("serving");
                    let served = carried::serve_carried(tls, parts.clone(), proxy.node_name);
                    return ctx.run(served, |_, (), ctx| ctx.stop());
                }
            }
            (Spoken::Http, Some(proxy), _) => {
                ctx.state("serving");
                let served = proxy.pages.serve(tls, self.peer, ctx.origin());
                return ctx.run(served, |_, (), ctx| ctx.stop());
            }
            _ => {
                let answer = greeting::http_answer(&parts.cluster);
                return send_last(tls, answer, None, ctx);
            }
        }
        ctx.stop();
    }

    /// The node at the other end, if its certificate is one of this cluster for one of these kinds.
    fn peer_node(&self, tls: &ServerTls, kinds: &[NodeKind]) -> Option<HostIdentity> {
        match verify_host(
            &peer_chain(tls),
            &self.parts.identity.in_use().identity.anchors,
            PeerUsage::Client,
            self.parts.clock.now(),
        ) {
            Ok(node) if self.parts.policy.is_removed(node.node_id) => {
                self.turn_away(&node, "a connection of a node that was removed")
            }
            Ok(node) if node.kinds.iter().any(|kind| kinds.contains(kind)) => {
                if let Err(error) = socket::set_user_timeout(tls.get_ref().0.get_ref()) {
                    tracing::debug!(%error, "TCP_USER_TIMEOUT not set");
                }
                Some(node)
            }
            Ok(node) => self.turn_away(&node, "a connection that is not for nodes of its kind"),
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "a node's certificate does not verify");
                let event = self
                    .parts
                    .trail
                    .event(EventKind::AuthFailed)
                    .field("addr.remote", self.peer.to_string())
                    .field("error", error.to_string());
                self.parts.trail.note_now(event);
                None
            }
        }
    }
}

impl Connection {
    fn turn_away(&self, node: &HostIdentity, what: &str) -> Option<HostIdentity> {
        tracing::warn!(node = %node.node_name, peer = %self.peer, reason = what, "a node is turned away");
        self.parts.trail.note_now(refusal_event(&self.parts.trail, node, what));
        None
    }
}

/// Where it is spoken over TLS, what it is for is known from the protocol that was chosen.
fn kind_of(greeted: &Greeted) -> ConnectionKind {
    match greeted {
        Greeted::PostgreSql { .. } => ConnectionKind::PostgreSql,
        Greeted::Cancel { .. } => ConnectionKind::Cancel,
        Greeted::Node { spoken, .. } => match spoken {
            Spoken::Http => ConnectionKind::Http,
            Spoken::Person | Spoken::PersonToAuth => ConnectionKind::Person,
            _ => ConnectionKind::Node,
        },
    }
}

fn kind_of_unwelcome(why: &Unwelcome) -> ConnectionKind {
    match why {
        Unwelcome::SaidNothing | Unwelcome::Late(_) | Unwelcome::Foreign { .. } | Unwelcome::Refused(_) => {
            ConnectionKind::Answered
        }
        Unwelcome::Header(_)
        | Unwelcome::NotABalancer
        | Unwelcome::Certificate(_)
        | Unwelcome::Tls(_)
        | Unwelcome::Lost(_) => ConnectionKind::Failed,
    }
}

fn hand_over<M: super::address::Message<Reply = ()>>(to: &Address<M>, message: M, ctx: &Ctx<'_, Connection>) {
    if let Err(error) = to.tell(&ctx.origin(), message) {
        tracing::warn!(%error, actor = %to.to(), "a node's connection was turned away; it will come again");
    }
}

fn agent_lost(permit: &Permit, agent: &str) -> Refusal {
    Refusal::new(
        RefusalKind::AgentLost,
        format!(
            "the connection to agent {agent}, which serves {}, was lost in the middle of the session",
            permit.service()
        ),
    )
    .hint("what the last statement did is not known; connect again")
}

fn refuse(stream: impl Stream, refusal: &Refusal, ctx: &mut Ctx<'_, Connection>) {
    send_last(
        stream,
        backend::error_response(refusal),
        Some(refusal.kind.ending()),
        ctx,
    );
}

/// The views tell the end as `why`.
fn send_last(stream: impl Stream, last: Vec<u8>, why: Option<String>, ctx: &mut Ctx<'_, Connection>) {
    ctx.state("refusing");
    close(stream, last, why, ctx);
}

fn close(mut stream: impl Stream, last: Vec<u8>, why: Option<String>, ctx: &mut Ctx<'_, Connection>) {
    let said = async move {
        let written = async {
            stream.write_all(&last).await?;
            stream.flush().await?;
            stream.shutdown().await
        };
        // A client that does not want to hear it is not our concern.
        let _not_heard = tokio::time::timeout(REFUSAL_DEADLINE, written).await;
    };
    ctx.run(said, move |_, (), ctx| stop_because(why, ctx));
}

impl Behavior for Connection {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        ctx.serve_only(self.id);
        ctx.state("greeting");
        let socket = match self.arrival.take() {
            Some(Arrival::Accepted(socket)) => socket,
            #[cfg(test)]
            Some(Arrival::Greeted { stream, chain, startup }) => {
                return self.connect_client(stream, chain, startup, ctx);
            }
            None => return ctx.stop(),
        };
        let (parts, peer) = (self.parts.clone(), self.peer);
        let met = async move { parts.door.meet(socket, peer).await };
        ctx.run(met, |connection, met, ctx| connection.met(met, ctx));
    }
}
