//! One agent's tunnel, on the proxy.
//!
//! **Owns** the multiplexer of one connection that an agent dialled.
//! **Hears** the agent's announcements, on the control stream (the first that the agent opens).
//! **Tells** `tunnels` what the agent serves; the audit trail, of messages that an agent may not send.
//! **Never** lives on when the agent has been silent for [`PEER_SILENT_AFTER`].
//! **Ends** with the connection, or when it is exhausted: the agent dials again. Transient: the connection is outside of its state
//! ([`Carrier`]), and the sessions on it do not notice a rebuild.

use super::address::Address;
use super::host::{Behavior, Ctx, TaskGuard, spawn_here};
use super::policy::PolicyView;
use super::trail::Trail;
use super::tunnels::AgentAnnounced;
use crate::audit::EventKind;
use crate::net::frames::{ReadFrameError, read_frame, refuse, write_frame};
use crate::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
use crate::net::tls::ServerTls;
use crate::pki::HostIdentity;
use crate::protocol::tunnel::{DatabaseHealth, DatabaseRecord, DbToProxy, Frame, FrameKind, Header, ProxyToDb};
use crate::telemetry::count::Present;
use crate::telemetry::metrics::METRICS;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};

/// The agent announces itself this often.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);
/// Three announcements missed: the agent, its machine or the network is gone, whatever TCP still hopes.
pub const PEER_SILENT_AFTER: Duration = Duration::from_secs(7);
/// What was read of the control stream and not taken yet: the agent is answered while its tunnel's actor is rebuilt, which takes
/// less than its next announcement.
const HEARD_QUEUED: usize = 8;

/// What a turn on the control stream came to.
#[derive(Debug)]
enum Heard {
    Announce(Vec<DatabaseRecord>, Vec<DatabaseHealth>),
    /// Refused, and the tunnel lives.
    Nonsense(String),
    /// The agent refused something of this proxy's, and the tunnel lives.
    Refused(String),
    /// The control stream is of no further use.
    Over(String),
}

/// The connection of a tunnel, and who reads its control stream: tasks of their own, which are there while the tunnel's actor
/// is rebuilt. So no frame is read by half and forgotten. Ends when it is dropped.
pub struct Carrier {
    mux: Mux,
    /// Why the connection has ended.
    ended: watch::Receiver<Option<String>>,
    /// Held by the one actor, for one turn each.
    heard: Arc<Mutex<mpsc::Receiver<Heard>>>,
    _tasks: [TaskGuard<()>; 2],
    _up: Present,
}

impl Carrier {
    /// On the runtime that the caller is on.
    pub fn start(stream: ServerTls) -> Arc<Self> {
        let window = Window::after(stream.get_ref().0.handshake());
        let (mux, inbound, driver) = mux::start(stream, MuxSide::Accepted, window);
        let (sender, heard) = mpsc::channel(HEARD_QUEUED);
        let (driven, ended) = kept_driving(driver);
        Arc::new(Self {
            mux,
            ended,
            heard: Arc::new(Mutex::new(heard)),
            _tasks: [driven, spawn_here(read_control(inbound, sender))],
            _up: METRICS.tunnels.enter(),
        })
    }
}

/// Drives a connection on a task of its own, and says why it has ended.
pub fn kept_driving(
    driver: impl Future<Output = String> + 'static,
) -> (TaskGuard<()>, watch::Receiver<Option<String>>) {
    let (say, ended) = watch::channel(None);
    let driven = spawn_here(driver).join();
    let task = spawn_here(async move {
        let why = driven.await.unwrap_or_else(|panic| panic);
        say.send_replace(Some(why));
    });
    (task, ended)
}

/// Resolves when the reason is there.
pub async fn reason(mut ended: watch::Receiver<Option<String>>) -> String {
    match ended.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => "nobody drives it any more".to_owned(),
    }
}

/// An agent opens one stream, its control stream; whatever else it opens is refused by closing it.
async fn read_control(mut inbound: Inbound, heard: mpsc::Sender<Heard>) {
    let first = tokio::time::timeout(PEER_SILENT_AFTER, inbound.recv()).await;
    let Some(mut control) = first.ok().flatten() else {
        let over = Heard::Over("the agent opened no control stream".to_owned());
        // Nobody is left to hear it when the tunnel has ended meanwhile; here and below.
        let _ended = heard.send(over).await;
        return;
    };
    let listen = async {
        loop {
            let said = tokio::time::timeout(PEER_SILENT_AFTER, hear(&mut control))
                .await
                .unwrap_or_else(|_| Heard::Over(format!("silent for {PEER_SILENT_AFTER:?}")));
            let is_over = matches!(said, Heard::Over(_));
            if heard.send(said).await.is_err() || is_over {
                return;
            }
        }
    };
    let refuse_further = async {
        while inbound.recv().await.is_some() {
            let second = Heard::Nonsense("a second stream opened by the agent".to_owned());
            if heard.send(second).await.is_err() {
                return;
            }
        }
        // The connection is lost, which is noticed elsewhere.
        std::future::pending().await
    };
    tokio::select! {
        () = listen => {}
        () = refuse_further => {}
    }
}

pub struct Tunnel {
    carrier: Arc<Carrier>,
    agent: HostIdentity,
    runtime_index: usize,
    announced: Address<AgentAnnounced>,
    policy: PolicyView,
    trail: Trail,
}

impl Tunnel {
    pub fn new(
        carrier: Arc<Carrier>,
        agent: HostIdentity,
        runtime_index: usize,
        announced: Address<AgentAnnounced>,
        policy: PolicyView,
        trail: Trail,
    ) -> Self {
        Self {
            carrier,
            agent,
            runtime_index,
            announced,
            policy,
            trail,
        }
    }

    fn listen(&self, ctx: &mut Ctx<'_, Self>) {
        let heard = self.carrier.heard.clone();
        // What is not taken when this future ends with the state stays in the channel.
        let next = async move { heard.lock().await.recv().await };
        ctx.run(next, |tunnel, heard, ctx| match heard {
            Some(Heard::Announce(databases, health)) => {
                tunnel.listen(ctx);
                tunnel.announce(databases, health, ctx);
            }
            Some(Heard::Nonsense(what)) => {
                tunnel.listen(ctx);
                tunnel.audit_refusal(&what);
            }
            Some(Heard::Refused(why)) => {
                tunnel.listen(ctx);
                tracing::warn!(agent = %tunnel.agent.node_name, reason = why, "the agent refused a message of this proxy");
            }
            Some(Heard::Over(why)) => tunnel.close(&why, ctx),
            None => tunnel.close("nobody reads the control stream any more", ctx),
        });
    }

    fn announce(&self, databases: Vec<DatabaseRecord>, health: Vec<DatabaseHealth>, ctx: &mut Ctx<'_, Self>) {
        ctx.state("up");
        self.carrier.mux.gauge().hears();
        let said = AgentAnnounced {
            tunnel: ctx.name().clone(),
            agent: self.agent.node_id,
            agent_name: self.agent.node_name.clone(),
            databases,
            health,
            mux: self.carrier.mux.clone(),
            runtime_index: self.runtime_index,
        };
        // A full mailbox is no loss: the agent says it again in two seconds.
        let _said_again_soon = self.announced.tell(&ctx.origin(), said);
    }

    fn audit_refusal(&self, what: &str) {
        tracing::warn!(agent = %self.agent.node_name, reason = what, "message refused");
        self.trail.note_now(refusal_event(&self.trail, &self.agent, what));
    }

    fn close(&self, why: &str, ctx: &mut Ctx<'_, Self>) {
        tracing::info!(agent = %self.agent.node_name, reason = why, "tunnel closed");
        self.carrier.mux.kill();
        ctx.stop();
    }
}

/// The event of a message that a peer may not send, or that is not one.
pub fn refusal_event(trail: &Trail, peer: &HostIdentity, what: &str) -> crate::audit::EventBuilder {
    let kinds: Vec<String> = peer.kinds.iter().map(ToString::to_string).collect();
    trail
        .event(EventKind::PeerRefused)
        .field("peer", peer.node_id.to_string())
        .field("peer_name", peer.node_name.as_str())
        .field("peer_kinds", kinds.join(","))
        .field("message", what)
}

/// One message of the control stream, answered.
async fn hear(control: &mut MuxStream) -> Heard {
    match read_frame::<DbToProxy>(control).await {
        Ok(Some(Frame {
            header,
            // The name in the certificate is the one that counts.
            body:
                Some(DbToProxy::Announce {
                    name: _,
                    databases,
                    health,
                }),
        })) => match write_frame(control, &answer(header.id, ProxyToDb::Announced)).await {
            Ok(()) => Heard::Announce(databases, health),
            Err(error) => Heard::Over(error.to_string()),
        },
        Ok(Some(Frame {
            header: Header {
                kind: FrameKind::Refused { why },
                ..
            },
            ..
        })) => Heard::Refused(why),
        Ok(Some(frame)) => {
            let why = "this message has no place on a control stream";
            nonsense(control, Some(&frame.header), why).await
        }
        Ok(None) => Heard::Over("the agent closed it".to_owned()),
        Err(ReadFrameError::Refused { header, error }) => nonsense(control, header.as_ref(), &error.to_string()).await,
        Err(ReadFrameError::Io(error)) => Heard::Over(error.to_string()),
    }
}

async fn nonsense(control: &mut MuxStream, header: Option<&Header>, why: &str) -> Heard {
    match refuse::<ProxyToDb>(control, header, why).await {
        Ok(()) => Heard::Nonsense(why.to_owned()),
        Err(error) => Heard::Over(error.to_string()),
    }
}

pub fn answer<B>(id: u64, body: B) -> Frame<B>
where
    B: crate::protocol::tunnel::Wire,
{
    let header = Header {
        id,
        kind: FrameKind::Answer,
        cause: None,
        connection: None,
    };
    Frame::new(header, body)
}

impl Behavior for Tunnel {
    /// It hears nothing but its stop; what comes from the agent is read from the stream at its own pace.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        let peer = format!("agent {}", self.agent.node_name).into();
        let me = ctx.origin().from.path().clone();
        self.carrier.mux.gauge().belongs_to(me, peer);
        ctx.state("greeting");
        ctx.run(reason(self.carrier.ended.clone()), |tunnel, why, ctx| {
            tunnel.close(&why, ctx);
        });
        ctx.run(self.policy.clone().removal_of(self.agent.node_id), |tunnel, (), ctx| {
            tunnel.close("the agent was removed from the cluster", ctx);
        });
        self.listen(ctx);
    }
}
