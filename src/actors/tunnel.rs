//! One agent's tunnel, on the proxy.
//!
//! **Owns** the multiplexer of one connection that an agent dialled.
//! **Hears** the agent's announcements, on the control stream (the first that the agent opens).
//! **Tells** `tunnels` what the agent serves; the audit trail, of messages that an agent may not send.
//! **Never** lives on when the agent has been silent for [`PEER_SILENT_AFTER`].
//! **Ends** with the connection. Temporary: the agent dials again.

use super::address::Address;
use super::host::{Behavior, Ctx};
use super::policy::PolicyView;
use super::trail::Trail;
use super::tunnels::{AgentAnnounced, LastHeard};
use crate::audit::EventKind;
use crate::net::frames::{ReadFrameError, read_frame, refuse, write_frame};
use crate::net::mux::{self, Inbound, Mux, MuxSide, MuxStream};
use crate::net::tls::ServerTls;
use crate::pki::HostIdentity;
use crate::protocol::tunnel::{DatabaseHealth, DatabaseRecord, DbToProxy, Frame, FrameKind, Header, ProxyToDb};
use crate::telemetry::count::Present;
use crate::telemetry::metrics::METRICS;
use std::time::Duration;

/// The agent announces itself this often.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);
/// Three announcements missed: the agent, its machine or the network is gone, whatever TCP still hopes.
pub const PEER_SILENT_AFTER: Duration = Duration::from_secs(7);

pub struct Tunnel {
    stream: Option<ServerTls>,
    agent: HostIdentity,
    runtime_index: usize,
    announced: Address<AgentAnnounced>,
    policy: PolicyView,
    trail: Trail,
    mux: Option<Mux>,
    heard: LastHeard,
    _up: Present,
}

/// What a turn on the control stream came to.
enum Heard {
    Announce(Vec<DatabaseRecord>, Vec<DatabaseHealth>),
    /// Refused, and the tunnel lives.
    Nonsense(String),
    /// The agent refused something of this proxy's, and the tunnel lives.
    Refused(String),
    /// The control stream is of no further use.
    Over(String),
}

impl Tunnel {
    pub fn new(
        stream: Option<ServerTls>,
        agent: HostIdentity,
        runtime_index: usize,
        announced: Address<AgentAnnounced>,
        policy: PolicyView,
        trail: Trail,
    ) -> Self {
        Self {
            stream,
            agent,
            runtime_index,
            announced,
            policy,
            trail,
            mux: None,
            heard: LastHeard::now(),
            _up: METRICS.tunnels.enter(),
        }
    }

    fn await_control(mut inbound: Inbound, ctx: &mut Ctx<'_, Self>) {
        let first = async move {
            let control = tokio::time::timeout(PEER_SILENT_AFTER, inbound.recv()).await;
            (control.ok().flatten(), inbound)
        };
        ctx.run(first, |tunnel, (control, inbound), ctx| match control {
            Some(control) => {
                Self::refuse_further(inbound, ctx);
                tunnel.listen(control, ctx);
            }
            None => tunnel.close("the agent opened no control stream", ctx),
        });
    }

    /// An agent opens one stream, its control stream; whatever else it opens is refused by closing it.
    fn refuse_further(mut inbound: Inbound, ctx: &mut Ctx<'_, Self>) {
        ctx.run(
            async move { inbound.recv().await.map(|_refused| inbound) },
            |tunnel, more, ctx| {
                if let Some(inbound) = more {
                    tunnel.audit_refusal("a second stream opened by the agent");
                    Self::refuse_further(inbound, ctx);
                }
            },
        );
    }

    fn listen(&mut self, mut control: MuxStream, ctx: &mut Ctx<'_, Self>) {
        let turn = async move {
            let heard = tokio::time::timeout(PEER_SILENT_AFTER, hear(&mut control))
                .await
                .unwrap_or_else(|_| Heard::Over(format!("silent for {PEER_SILENT_AFTER:?}")));
            (heard, control)
        };
        ctx.run(turn, |tunnel, (heard, control), ctx| match heard {
            Heard::Announce(databases, health) => {
                tunnel.announce(databases, health, ctx);
                tunnel.listen(control, ctx);
            }
            Heard::Nonsense(what) => {
                tunnel.audit_refusal(&what);
                tunnel.listen(control, ctx);
            }
            Heard::Refused(why) => {
                tracing::warn!(agent = %tunnel.agent.node_name, why, "the agent refused a message of this proxy");
                tunnel.listen(control, ctx);
            }
            Heard::Over(why) => tunnel.close(&why, ctx),
        });
    }

    fn announce(&self, databases: Vec<DatabaseRecord>, health: Vec<DatabaseHealth>, ctx: &Ctx<'_, Self>) {
        self.heard.again();
        let Some(mux) = self.mux.clone() else { return };
        let said = AgentAnnounced {
            tunnel: ctx.name().clone(),
            agent: self.agent.node_id,
            agent_name: self.agent.node_name.clone(),
            databases,
            health,
            mux,
            heard: self.heard.clone(),
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
        if let Some(mux) = &self.mux {
            mux.kill();
        }
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
        let Some(stream) = self.stream.take() else {
            return ctx.stop();
        };
        let (mux, inbound, driver) = mux::start(stream, MuxSide::Accepted);
        self.mux = Some(mux);
        ctx.run(super::host::spawn_here(driver).join(), |tunnel, why, ctx| {
            tunnel.close(&why.unwrap_or_else(|panic| panic), ctx);
        });
        ctx.run(self.policy.clone().removal_of(self.agent.node_id), |tunnel, (), ctx| {
            tunnel.close("the agent was removed from the cluster", ctx);
        });
        Self::await_control(inbound, ctx);
    }
}
