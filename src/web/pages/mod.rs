//! What a proxy answers over HTTPS: the pages that set a password, and what the command line asks before it logs in.
//!
//! The connections are those of the proxy's port (`actors/connection.rs`); nothing here is kept between two requests but how
//! often each address asks. Browsers are asked for no certificate: who may do what follows from the link alone.

mod html;
mod picture;
mod router;
mod sign_up;
#[cfg(test)]
mod tests;

use crate::actors::accounts::{AcceptInvite, LookAtInvite};
use crate::actors::address::{Address, Origin};
use crate::actors::connection::ServePages;
use crate::actors::identity::IdentityView;
use crate::actors::places::{PlaceLimits, Places};
use crate::model::{ClusterName, SharedClock};
use crate::net::tls::{ServerTls, speaks_http_2};
use axum::Router;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use router::{Asker, Rates};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// People who set a password, and command lines that ask where they are: each for a moment. Behind one address may be an office.
const PLACES: PlaceLimits = PlaceLimits {
    all: 1024,
    per_address: 64,
};
/// From the first byte of a request to the end of its headers, and between two requests. As long as a TLS handshake may take.
const HEADERS_DEADLINE: Duration = Duration::from_secs(15);
/// No page needs more than a few hundred bytes of headers; browsers send some kilobytes where cookies of others are.
const HEADERS_MAX_BYTES: u32 = 32 * 1024;
/// After so long a connection takes no further request: whoever holds one open makes place for others.
const LIFETIME: Duration = Duration::from_secs(60);
/// For the request that is under way then.
const LAST_ANSWER: Duration = Duration::from_secs(20);
/// Requests of one HTTP/2 connection at a time: a page and its style.
const STREAMS_MAX: u32 = 8;
/// Requests that a client of HTTP/2 has taken back and that were not looked at yet (CVE-2023-44487).
const RESETS_MAX: usize = 16;
/// An HTTP/2 client that has gone without a word is noticed.
const PING_EVERY: Duration = Duration::from_secs(15);

/// What the pages are made of.
pub struct PageParts {
    pub cluster: ClusterName,
    /// Where people reach the cluster, `host:port`.
    pub proxy: String,
    pub identity: IdentityView,
    pub clock: SharedClock,
    /// On auth, which may be this process or another one.
    pub look_at: Address<LookAtInvite>,
    pub accept: Address<AcceptInvite>,
}

pub struct Pages {
    parts: Arc<PageParts>,
    rates: Arc<Mutex<Rates>>,
    places: Places,
}

impl Pages {
    pub fn new(parts: PageParts) -> Self {
        Self {
            parts: Arc::new(parts),
            rates: Arc::new(Mutex::new(Rates::new())),
            places: Places::new(PLACES),
        }
    }
}

impl ServePages for Pages {
    fn serve(&self, tls: ServerTls, peer: SocketAddr, origin: Origin) -> BoxFuture<'static, ()> {
        let Some(place) = self.places.enter(peer.ip()) else {
            tracing::warn!(%peer, "an HTTP connection was turned away: as many are open as may be");
            return Box::pin(std::future::ready(()));
        };
        let router = router::router(Arc::new(Asker {
            parts: self.parts.clone(),
            rates: self.rates.clone(),
            peer,
            origin,
        }));
        Box::pin(async move {
            serve(tls, peer, router).await;
            drop(place);
        })
    }
}

/// HTTP in the version that the handshake has settled.
async fn serve(tls: ServerTls, peer: SocketAddr, router: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_DEADLINE)
        .max_buf_size(HEADERS_MAX_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_MAX_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    let builder = if speaks_http_2(&tls) {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(LIFETIME) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_ANSWER, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%peer, "an HTTP connection was cut at the end of its time"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP connection ended");
    }
}
