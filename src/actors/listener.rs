//! One listening port of this node.
//!
//! **Owns** the listening socket and the number of connections.
//! **Hears** nothing; connections come from the socket.
//! **Tells** nobody; starts a `connection#id` for each accepted socket, on the next runtime in turn, where it stays.
//! **Never** waits for a peer: what a peer sends is read on the connection's runtime.
//! **Ends** with the node. After a failure it goes on with the same socket; connections are not touched. When the node drains, the
//! socket is closed, and the connections go on.

use super::connection::{Arrival, Connection, ConnectionParts};
use super::host::{Behavior, Ctx, Runtimes, Spec};
use super::phase::PhaseView;
use super::strangers::{self, Matter};
use super::supervisor::ChildExited;
use crate::model::ConnectionId;
use crate::net::socket::Listener;
use crate::pki::entropy;
use crate::telemetry::metrics::METRICS;
use futures::future::LocalBoxFuture;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Connections of one port, in whatever state; the reference's limit. Beyond it a connection is closed at once.
pub(super) const CONNECTIONS_MAX: usize = 15_000;
/// When the system has no more file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that is listened on, made once per node; empty when the port is closed.
#[derive(Clone)]
pub struct Port(Arc<Mutex<Option<Arc<Listener>>>>);

impl Port {
    pub fn new(socket: Listener) -> Self {
        Self(Arc::new(Mutex::new(Some(Arc::new(socket)))))
    }

    fn socket(&self) -> Option<Arc<Listener>> {
        // Each use leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

pub struct PortListener {
    port: Port,
    phase: PhaseView,
    runtimes: Runtimes,
    parts: Arc<ConnectionParts>,
    /// Outside of the state, as the connections are: a rebuilt listener still knows how many there are.
    open: Arc<AtomicUsize>,
    next_runtime: usize,
}

impl PortListener {
    pub fn new(
        port: Port,
        phase: PhaseView,
        runtimes: Runtimes,
        parts: Arc<ConnectionParts>,
        open: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            port,
            phase,
            runtimes,
            parts,
            open,
            next_runtime: 0,
        }
    }

    fn accept_next(&self, ctx: &mut Ctx<'_, Self>) {
        let Some(socket) = self.port.socket() else { return };
        let mut phase = self.phase.clone();
        let accepted = async move {
            tokio::select! {
                biased;
                () = phase.draining() => None,
                accepted = socket.accept() => Some(accepted),
            }
        };
        ctx.run(accepted, |listener, accepted, ctx| match accepted {
            None => {
                listener.port.close();
                tracing::info!(actor = %ctx.name(), "no new connections are accepted");
            }
            Some(Ok((stream, peer))) => {
                listener.start(stream, peer, ctx);
                listener.accept_next(ctx);
            }
            Some(Err(error)) => listener.pause(&error, ctx),
        });
    }

    fn pause(&self, error: &io::Error, ctx: &mut Ctx<'_, Self>) {
        tracing::error!(%error, retry_in = ?ACCEPT_PAUSE, "a connection could not be accepted");
        ctx.after(ACCEPT_PAUSE, |listener, ctx| listener.accept_next(ctx));
    }

    /// What was counted of strangers and not told, also when nobody else comes.
    fn tell_of_strangers(&self, ctx: &mut Ctx<'_, Self>) {
        self.parts.door.strangers.tell_counts();
        ctx.after(strangers::WINDOW, |listener, ctx| listener.tell_of_strangers(ctx));
    }

    fn start(&mut self, stream: TcpStream, peer: SocketAddr, ctx: &mut Ctx<'_, Self>) {
        if self.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            METRICS.connections_turned_away.one_more();
            if self.parts.door.strangers.is_to_be_told(Matter::Full, peer) {
                tracing::warn!(%peer, "connection closed: {CONNECTIONS_MAX} are open, which is the limit");
            }
            return;
        }
        let index = self.next_runtime % self.runtimes.workers.len();
        self.next_runtime = self.next_runtime.wrapping_add(1);
        let connection = ConnectionId::from_random(entropy::bytes());
        ctx.serve(connection);
        let parts = self.parts.clone();
        let mut stream = Some(stream);
        let spec = Spec::temporary(&format!("connection#{connection}"));
        ctx.spawn_child(&self.runtimes.workers[index].clone(), spec, move || {
            Connection::new(
                connection,
                stream.take().map(Arrival::Accepted),
                peer,
                index,
                parts.clone(),
            )
        });
        self.open.fetch_add(1, Ordering::Relaxed);
    }
}

impl Behavior for PortListener {
    /// The ends of its connections, which are delivered whatever the bound; nothing else is sent to it.
    const MAILBOX: usize = 64;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.accept_next(ctx);
        self.tell_of_strangers(ctx);
    }

    fn stopping(&mut self, _: &mut Ctx<'_, Self>) -> Option<LocalBoxFuture<'static, ()>> {
        self.parts.door.strangers.tell_counts_now();
        None
    }

    fn child_exited(&mut self, _: ChildExited, _: &mut Ctx<'_, Self>) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
