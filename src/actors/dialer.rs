//! One tunnel to a proxy, on the agent.
//!
//! **Owns** the connection to a proxy, dialled again whenever it is lost.
//! **Hears** nothing; streams that the proxy opens come from the multiplexer.
//! **Tells** the agent of each such stream (`ServeStream`); the proxy, every two seconds, what is served: nothing, when the node
//! drains.
//! **Never** gives up, and never dials faster than the back-off.
//! **Ends** with the agent. Permanent.

use super::address::Address;
use super::agent::ServeStream;
use super::host::{Behavior, Ctx, Runtime, TaskGuard, spawn_here};
use super::identity::IdentityView;
use super::phase::NodePhase;
use super::policy::PolicyView;
use super::tunnel::{ANNOUNCE_EVERY, PEER_SILENT_AFTER};
use crate::model::{Endpoint, NodeId, NodeKind, NodeName, SharedClock};
use crate::net::frames::{read_frame, write_frame};
use crate::net::mux::{self, Inbound, Mux, MuxSide, MuxStream};
use crate::net::{socket, tls};
use crate::pki::{PeerUsage, entropy, verify_host};
use crate::protocol::alpn;
use crate::protocol::tunnel::{DatabaseRecord, DbToProxy, Frame, FrameKind, Header, ProxyToDb};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The reference's steps: a second more each time, at most eight, and a random part so that a proxy's agents do not all
/// come at once. The first dial, and the first after a loss, wait only for the random part.
const BACK_OFF_STEP: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(8);
/// A tunnel that held for so long was a good one, and its loss is a new fault.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What every dialer of an agent has.
pub struct DialerParts {
    pub proxy: Endpoint,
    pub identity: IdentityView,
    pub policy: PolicyView,
    pub node_name: NodeName,
    pub databases: Vec<DatabaseRecord>,
    pub serve: Address<ServeStream>,
    pub clock: SharedClock,
    /// The node is ready when the first tunnel is up, and serves nothing new when it drains.
    pub phase: NodePhase,
}

pub struct Dialer {
    parts: Arc<DialerParts>,
    failures: u32,
}

struct Connected {
    mux: Mux,
    inbound: Inbound,
    driver: TaskGuard<String>,
    control: MuxStream,
    proxy: NodeId,
}

impl Dialer {
    pub fn new(parts: Arc<DialerParts>) -> Self {
        Self { parts, failures: 0 }
    }

    fn dial(&mut self, ctx: &mut Ctx<'_, Self>) {
        let parts = self.parts.clone();
        let wait = back_off(self.failures);
        let dialled = async move {
            tokio::time::sleep(wait).await;
            let deadline = tokio::time::timeout(tls::HANDSHAKE_DEADLINE, connect(&parts));
            deadline.await.unwrap_or_else(|_| {
                let why = format!("not done within {:?}", tls::HANDSHAKE_DEADLINE);
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            })
        };
        ctx.run(dialled, |dialer, connected, ctx| match connected {
            Ok(connected) => dialer.serve(connected, ctx),
            Err(error) => dialer.again(&error.to_string(), ctx),
        });
    }

    fn again(&mut self, why: &str, ctx: &mut Ctx<'_, Self>) {
        self.failures += 1;
        tracing::warn!(proxy = %self.parts.proxy, why, failures = self.failures, "tunnel not up; dialling again");
        self.dial(ctx);
    }

    fn serve(&mut self, connected: Connected, ctx: &mut Ctx<'_, Self>) {
        tracing::info!(proxy = %self.parts.proxy, "tunnel up");
        let since = tokio::time::Instant::now();
        self.parts.phase.ready();
        let Connected {
            mux,
            inbound,
            driver,
            control,
            proxy,
        } = connected;
        let parts = self.parts.clone();
        let origin = ctx.origin();
        // One future for the life of the tunnel: whichever part ends first ends it.
        let life = async move {
            let why = tokio::select! {
                why = driver.join() => why.unwrap_or_else(|panic| panic),
                why = keep_announcing(&parts, control) => why,
                () = parts.policy.clone().removal_of(proxy) => "the proxy was removed from the cluster".to_owned(),
                () = take_streams(inbound, &parts.serve, &origin) => "the multiplexer ended".to_owned(),
            };
            mux.kill();
            why
        };
        ctx.run(life, move |dialer, why, ctx| {
            // A proxy that accepts and closes at once is not hammered.
            dialer.failures = if since.elapsed() < STEADY_AFTER {
                dialer.failures + 1
            } else {
                0
            };
            tracing::warn!(proxy = %dialer.parts.proxy, why, "tunnel lost; dialling again");
            dialer.dial(ctx);
        });
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

async fn connect(parts: &DialerParts) -> io::Result<Connected> {
    let tcp = socket::connect(&parts.proxy.host, parts.proxy.port).await?;
    socket::set_user_timeout(&tcp)?;
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
    let (mux, inbound, driver) = mux::start(stream, MuxSide::Dialled);
    let driver = spawn_here(driver);
    let mut control = mux.open().await.map_err(io::Error::other)?;
    announce(parts, &mut control, 1).await?;
    Ok(Connected {
        mux,
        inbound,
        driver,
        control,
        proxy: proxy.node_id,
    })
}

async fn keep_announcing(parts: &DialerParts, mut control: MuxStream) -> String {
    let mut phase = parts.phase.view();
    let mut said_draining = false;
    let mut id = 2;
    loop {
        tokio::select! {
            () = tokio::time::sleep(ANNOUNCE_EVERY) => {}
            () = phase.draining(), if !said_draining => {}
        }
        said_draining = phase.is_draining();
        match tokio::time::timeout(PEER_SILENT_AFTER, announce(parts, &mut control, id)).await {
            Ok(Ok(())) => id += 1,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("the proxy has been silent for {PEER_SILENT_AFTER:?}"),
        }
    }
}

async fn announce(parts: &DialerParts, control: &mut MuxStream, id: u64) -> io::Result<()> {
    let header = Header {
        id,
        kind: FrameKind::Ask {
            deadline_ms: u32::try_from(PEER_SILENT_AFTER.as_millis()).unwrap_or(u32::MAX),
        },
        cause: None,
        connection: None,
    };
    let databases = if parts.phase.view().is_draining() {
        Vec::new()
    } else {
        parts.databases.clone()
    };
    let body = DbToProxy::Announce {
        name: parts.node_name.clone(),
        databases,
    };
    write_frame(control, &Frame::new(header, body)).await?;
    match read_frame::<ProxyToDb>(control).await {
        Ok(Some(Frame {
            body: Some(ProxyToDb::Announced),
            ..
        })) => Ok(()),
        Ok(Some(Frame {
            header: Header {
                kind: FrameKind::Refused { why },
                ..
            },
            ..
        })) => Err(io::Error::other(format!("the proxy refused the announcement: {why}"))),
        Ok(_) => Err(io::Error::other("the proxy did not answer the announcement")),
        Err(error) => Err(io::Error::other(error)),
    }
}

async fn take_streams(mut inbound: Inbound, serve: &Address<ServeStream>, origin: &super::address::Origin) {
    while let Some(stream) = inbound.recv().await {
        let stream = ServeStream {
            stream: Box::new(stream),
            runtime: Runtime::current(),
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
        self.dial(ctx);
    }
}
