//! One tunnel to a proxy, on the agent.
//!
//! **Owns** the connection to a proxy, dialled again whenever it is lost.
//! **Hears** nothing; streams that the proxy opens come from the multiplexer.
//! **Tells** the agent of each such stream (`ServeStream`); the proxy, every two seconds and when it changes, what is served
//! (nothing, when the node drains); `dialers` where the configured address has led; the audit trail, of messages that a
//! proxy may not send.
//! **Never** gives up on a proxy that is wanted, and never dials faster than the back-off.
//! **Ends** with the agent, or when its proxy is not listed any more and its tunnel is lost. Transient: the tunnel is outside of its
//! state ([`TunnelSlot`]), and the sessions on it do not notice a rebuild.

use super::address::{Address, Origin};
use super::agent::ServeStream;
use super::databases::DatabasesView;
use super::dialers::SeedTunnel;
use super::host::{Behavior, Ctx, Runtime, TaskGuard, spawn_here};
use super::identity::IdentityView;
use super::phase::NodePhase;
use super::policy::PolicyView;
use super::trail::Trail;
use super::tunnel::{ANNOUNCE_EVERY, PEER_SILENT_AFTER, kept_driving, reason};
use crate::audit::EventKind;
use crate::model::{Endpoint, NodeId, NodeKind, NodeName, SharedClock};
use crate::net::frames::{AnswerError, ReadFrameError, answer_in, read_frame, refuse, write_frame};
use crate::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
use crate::net::{socket, tls};
use crate::pki::{PeerUsage, entropy, verify_host};
use crate::protocol::alpn;
use crate::protocol::tunnel::{DbToProxy, Frame, FrameKind, Header, ProxyRecord, ProxyToDb};
use crate::telemetry::metrics::METRICS;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A second more each time, and a random part so that a proxy's agents do not all come at once. The first dial, and the first
/// after a loss, wait only for the random part. At most four seconds (the reference's eight would be the time that a proxy
/// which is back has to wait for its agents); a dial that is refused costs next to nothing.
const BACK_OFF_STEP: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(4);
/// A tunnel that held for so long was a good one, and its loss is a new fault.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What every dialer of an agent has.
pub struct DialerParts {
    pub own_node: NodeId,
    pub identity: IdentityView,
    pub policy: PolicyView,
    pub node_name: NodeName,
    pub databases: DatabasesView,
    pub serve: Address<ServeStream>,
    pub trail: Trail,
    pub clock: SharedClock,
    /// The node is ready when the first tunnel is up, and serves nothing new when it drains.
    pub phase: NodePhase,
}

/// Where a dialer dials.
#[derive(Debug, Clone)]
pub enum Target {
    /// The configured address, whichever proxy is behind it.
    Seed(Endpoint),
    /// This proxy, at the addresses that the cluster lists for it.
    Listed(NodeId),
}

pub struct Dialer {
    parts: Arc<DialerParts>,
    target: Target,
    wanted: watch::Receiver<Vec<ProxyRecord>>,
    reached: Address<SeedTunnel>,
    tunnel: TunnelSlot,
    failures: u32,
}

/// The tunnel of a dialer, made once for each, outside of the actor.
#[derive(Clone, Default)]
pub struct TunnelSlot(Arc<Mutex<Option<Arc<LiveTunnel>>>>);

impl TunnelSlot {
    fn put(&self, tunnel: Option<Arc<LiveTunnel>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tunnel;
    }

    fn get(&self) -> Option<Arc<LiveTunnel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A tunnel that is up, and the task that announces on it and takes its streams, also while the dialer is rebuilt. It ends when
/// it is dropped.
struct LiveTunnel {
    proxy: NodeId,
    since: tokio::time::Instant,
    ended: watch::Receiver<Option<String>>,
    _life: TaskGuard<()>,
}

/// What one dial needs to know.
struct Dial {
    addresses: Vec<Endpoint>,
    /// No other proxy will do.
    expected: Option<NodeId>,
}

struct Connected {
    mux: Mux,
    inbound: Inbound,
    driver: TaskGuard<String>,
    control: MuxStream,
    proxy: NodeId,
    proxy_name: NodeName,
}

impl Dialer {
    pub fn new(
        parts: Arc<DialerParts>,
        target: Target,
        wanted: watch::Receiver<Vec<ProxyRecord>>,
        reached: Address<SeedTunnel>,
        tunnel: TunnelSlot,
    ) -> Self {
        Self {
            parts,
            target,
            wanted,
            reached,
            tunnel,
            failures: 0,
        }
    }

    /// `None` for a proxy that is not wanted any more.
    fn next_dial(&self) -> Option<Dial> {
        match &self.target {
            Target::Seed(seed) => Some(Dial {
                addresses: vec![seed.clone()],
                expected: None,
            }),
            Target::Listed(proxy) => {
                let wanted = self.wanted.borrow();
                let record = wanted.iter().find(|record| record.node == *proxy)?;
                Some(Dial {
                    addresses: record.addresses.clone(),
                    expected: Some(*proxy),
                })
            }
        }
    }

    fn dial(&mut self, ctx: &mut Ctx<'_, Self>) {
        let Some(dial) = self.next_dial() else {
            tracing::info!(actor = %ctx.name(), "the proxy is not listed any more");
            return ctx.stop();
        };
        let parts = self.parts.clone();
        let wait = back_off(self.failures);
        ctx.state("dialling");
        let origin = ctx.origin();
        let dialled = async move {
            tokio::time::sleep(wait).await;
            let deadline = tokio::time::timeout(tls::HANDSHAKE_DEADLINE, connect_to_one(&parts, &dial, &origin));
            deadline.await.unwrap_or_else(|_| {
                let why = format!("not done within {:?}", tls::HANDSHAKE_DEADLINE);
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            })
        };
        // A task of its own: what a proxy answers must not exhaust the dialers of the others.
        ctx.run(spawn_here(dialled).join(), |dialer, connected, ctx| match connected {
            Ok(Ok(connected)) => dialer.serve(connected, ctx),
            Ok(Err(error)) => dialer.again(&error.to_string(), ctx),
            Err(panic) => dialer.again(&panic, ctx),
        });
    }

    fn again(&mut self, why: &str, ctx: &mut Ctx<'_, Self>) {
        self.failures += 1;
        tracing::warn!(actor = %ctx.name(), reason = why, failures = self.failures, "tunnel not up; dialling again");
        self.dial(ctx);
    }

    fn serve(&mut self, connected: Connected, ctx: &mut Ctx<'_, Self>) {
        tracing::info!(actor = %ctx.name(), proxy = %connected.proxy_name, "tunnel up");
        ctx.state("up");
        let Connected {
            mux,
            inbound,
            driver,
            control,
            proxy,
            proxy_name,
        } = connected;
        let peer = proxy_peer(&proxy_name);
        mux.gauge().belongs_to(ctx.origin().from.path().clone(), peer.clone());
        let parts = self.parts.clone();
        let origin = ctx.origin();
        // One future for the life of the tunnel: whichever part ends first ends it.
        let up = METRICS.dialers.enter();
        self.parts.phase.ready();
        let life = async move {
            let _up = up;
            let why = tokio::select! {
                why = driver.join() => why.unwrap_or_else(|panic| panic),
                why = keep_announcing(&parts, control, &mux, &peer, &origin) => why,
                () = parts.policy.clone().removal_of(proxy) => "the proxy was removed from the cluster".to_owned(),
                () = take_streams(inbound, (&peer, proxy), &parts.serve, &origin) => "the multiplexer ended".to_owned(),
            };
            mux.kill();
            why
        };
        let (life, ended) = kept_driving(life);
        let tunnel = Arc::new(LiveTunnel {
            proxy,
            since: tokio::time::Instant::now(),
            ended,
            _life: life,
        });
        self.tunnel.put(Some(tunnel.clone()));
        self.watch_over(&tunnel, ctx);
    }

    /// Dials again when the tunnel is lost.
    fn watch_over(&self, tunnel: &LiveTunnel, ctx: &mut Ctx<'_, Self>) {
        self.tell_where(Some(tunnel.proxy), ctx);
        let since = tunnel.since;
        ctx.run(reason(tunnel.ended.clone()), move |dialer, why, ctx| {
            dialer.tunnel.put(None);
            // A proxy that accepts and closes at once is not hammered.
            dialer.failures = if since.elapsed() < STEADY_AFTER {
                dialer.failures + 1
            } else {
                0
            };
            tracing::warn!(actor = %ctx.name(), reason = why, "tunnel lost; dialling again");
            dialer.tell_where(None, ctx);
            dialer.dial(ctx);
        });
    }
}

impl Dialer {
    fn tell_where(&self, proxy: Option<NodeId>, ctx: &Ctx<'_, Self>) {
        if let Target::Seed(_) = self.target {
            let dialer = ctx.name().clone();
            // Where there is no room, the next tunnel says it.
            let _next_time = self.reached.tell(&ctx.origin(), SeedTunnel { dialer, proxy });
        }
    }
}

fn back_off(failures: u32) -> Duration {
    let steps = BACK_OFF_STEP
        .saturating_mul(failures.saturating_sub(1))
        .min(BACK_OFF_MAX);
    let [jitter] = entropy::bytes::<1>();
    let spread = if failures == 0 {
        Duration::ZERO
    } else {
        BACK_OFF_STEP.mul_f64(f64::from(jitter) / 512.0)
    };
    steps + spread
}

async fn connect_to_one(parts: &DialerParts, dial: &Dial, origin: &Origin) -> io::Result<Connected> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address of the proxy is known");
    for address in &dial.addresses {
        match connect(parts, address, dial.expected, origin).await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

async fn connect(
    parts: &DialerParts,
    address: &Endpoint,
    expected: Option<NodeId>,
    origin: &Origin,
) -> io::Result<Connected> {
    let waits = origin.waits_for("TCP and TLS", format!("proxy at {address}"), tls::HANDSHAKE_DEADLINE);
    let tcp = socket::connect(&address.host, address.port).await?;
    socket::set_tunnel(&tcp)?;
    let identity = &parts.identity.in_use().identity;
    let client = tls::NodeClient::mutual(
        &identity.credentials,
        &identity.anchors,
        NodeKind::Proxy,
        alpn::TUNNEL,
        &parts.clock,
    );
    let stream = client.map_err(io::Error::other)?.connect(tcp).await?;
    let proxy = verify_host(
        &tls::server_chain(&stream),
        &identity.anchors,
        PeerUsage::Server,
        parts.clock.now(),
    )
    .map_err(io::Error::other)?;
    if !proxy.kinds.contains(&NodeKind::Proxy) {
        return Err(io::Error::other(format!(
            "{} is not a proxy of this cluster",
            proxy.node_name
        )));
    }
    if parts.policy.is_removed(proxy.node_id) {
        let why = format!("proxy {} was removed from the cluster", proxy.node_name);
        return Err(io::Error::other(why));
    }
    if expected.is_some_and(|expected| expected != proxy.node_id) {
        // Several proxies behind one address: the next dial may be luckier.
        return Err(io::Error::other(format!("proxy {} answered there", proxy.node_name)));
    }
    let window = Window::after(stream.get_ref().0.handshake());
    let (mux, inbound, driver) = mux::start(stream, MuxSide::Dialled, window);
    let driver = spawn_here(driver);
    let mut control = mux.open().await.map_err(io::Error::other)?;
    drop(waits);
    // A proxy that does not take the first one is of no use, and no session is on this tunnel yet.
    announce(parts, &mut control, &proxy_peer(&proxy.node_name), origin)
        .await
        .map_err(|error| io::Error::other(format!("proxy {} was told what is served: {error}", proxy.node_name)))?;
    Ok(Connected {
        mux,
        inbound,
        driver,
        control,
        proxy: proxy.node_id,
        proxy_name: proxy.node_name,
    })
}

/// A proxy as the views name it.
fn proxy_peer(proxy: &NodeName) -> Arc<str> {
    format!("proxy {proxy}").into()
}

async fn keep_announcing(
    parts: &DialerParts,
    mut control: MuxStream,
    mux: &Mux,
    proxy: &Arc<str>,
    origin: &Origin,
) -> String {
    let mut phase = parts.phase.view();
    let mut said_draining = false;
    let mut databases = parts.databases.clone();
    loop {
        // At once when there is news, else in time to show that the tunnel lives.
        tokio::select! {
            () = tokio::time::sleep(ANNOUNCE_EVERY) => {}
            () = phase.draining(), if !said_draining => {}
            true = databases.changed() => {}
        }
        said_draining = phase.is_draining();
        match tokio::time::timeout(PEER_SILENT_AFTER, announce(parts, &mut control, proxy, origin)).await {
            Ok(Ok(())) => mux.gauge().hears(),
            // The sessions of this tunnel do not need it.
            Ok(Err(error)) if error.leaves_the_peer() => tracing::warn!(%error, "an announcement was not taken"),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("the proxy has been silent for {PEER_SILENT_AFTER:?}"),
        }
    }
}

async fn announce(
    parts: &DialerParts,
    control: &mut MuxStream,
    proxy: &Arc<str>,
    origin: &Origin,
) -> Result<(), AnswerError> {
    let question = origin.asks("Announce", proxy.clone(), PEER_SILENT_AFTER);
    let header = Header {
        id: question.id(),
        kind: FrameKind::Ask {
            deadline_ms: u32::try_from(PEER_SILENT_AFTER.as_millis()).unwrap_or(u32::MAX),
        },
        cause: question.cause(),
        connection: None,
    };
    let databases = if parts.phase.view().is_draining() {
        Vec::new()
    } else {
        parts.databases.records()
    };
    let body = DbToProxy::Announce {
        name: parts.node_name.clone(),
        databases,
        health: parts.databases.health(),
    };
    write_frame(control, &Frame::new(header, body)).await?;
    match announced(control, question.id(), &parts.trail).await? {
        ProxyToDb::Announced => Ok(()),
        _ => {
            tracing::warn!("the proxy answered an announcement with something else");
            Ok(())
        }
    }
}

/// Reads up to the answer of the announcement with this id. What the proxy asks of its own accord there is refused, as this
/// version knows no question that belongs on a control stream.
async fn announced(control: &mut MuxStream, id: u64, trail: &Trail) -> Result<ProxyToDb, AnswerError> {
    loop {
        let read = read_frame::<ProxyToDb>(control).await;
        let header = match &read {
            Ok(Some(frame)) => Some(&frame.header),
            Err(ReadFrameError::Refused { header, .. }) => header.as_ref(),
            Ok(None) | Err(ReadFrameError::Io(_)) => return answer_in(read),
        };
        match header {
            // A refusal by 0 is of a message whose header was not read, and nothing else of this agent's is under way here.
            Some(header) if header.comes_back() && [0, id].contains(&header.id) => return answer_in(read),
            _ => {
                let why = read.as_ref().err().map(ToString::to_string);
                let why = why.unwrap_or_else(|| "this message has no place on a control stream".to_owned());
                tracing::warn!(reason = why, "a proxy's message was refused");
                let event = trail.event(EventKind::PeerRefused).field("peer_kinds", "proxy");
                trail.note(event.field("message", why.as_str())).await;
                refuse::<DbToProxy>(control, header, &why).await?;
            }
        }
    }
}

async fn take_streams(
    mut inbound: Inbound,
    (peer, proxy): (&Arc<str>, NodeId),
    serve: &Address<ServeStream>,
    origin: &Origin,
) {
    while let Some(stream) = inbound.recv().await {
        let stream = ServeStream {
            stream: Box::new(stream),
            runtime: Runtime::current(),
            from: peer.clone(),
            proxy: Some(proxy),
        };
        // A full mailbox means more new connections than can be started: the stream is reset, and the proxy tries another
        // agent or says so.
        if serve.tell(origin, stream).is_err() {
            tracing::warn!("a connection was turned away: the agent's mailbox is full");
        }
    }
}

impl Behavior for Dialer {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        match self.tunnel.get() {
            Some(tunnel) => self.watch_over(&tunnel, ctx),
            None => self.dial(ctx),
        }
    }
}
