//! The first bytes of an accepted connection: one port tells PostgreSQL, TLS and everything else apart.
//!
//! Strict by construction: exactly the bytes of a packet are read from the socket, nothing is buffered, so that what a client
//! sends in plain text after SSLRequest reaches the TLS handshake (and ends it), never the parser behind it.

use super::BoxStream;
use super::socket::{self, Tcp};
use super::tls::{Http, ServerSides, ServerTls, Spoken};
use crate::config::ProxyProtocol;
use crate::model::{ClusterName, Refusal, RefusalKind};
use crate::protocol::alpn::{self, FirstByte};
use crate::protocol::foreign::{self, Foreign};
use crate::protocol::postgres::startup::{CancelRequest, packet_length, parse};
use crate::protocol::postgres::{FirstPacket, ProtocolError, StartupMessage, backend};
use crate::protocol::proxy_header::{HeaderReader, ProxyHeaderError, Said, V1_MAX_BYTES};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

/// After a last word, what a peer still sends is read for so long and so much: closing a socket that has something to read
/// resets the connection, and what was said may be lost with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX_BYTES: u64 = 64 * 1024;
/// What is foreign and pauses for so long has said what it has to say: two line feeds of a terminal begin a header of the PROXY
/// protocol, and whoever typed them waits for an answer.
const FOREIGN_PAUSE: Duration = Duration::from_secs(2);

/// What a connection turned out to be.
pub enum Greeted {
    PostgreSql {
        tls: ServerTls,
        startup: StartupMessage,
    },
    /// The connection is closed when the cancel was carried out: a client takes that as the answer, and sends its next statement then.
    Cancel {
        request: CancelRequest,
        stream: BoxStream,
        is_encrypted: bool,
    },
    /// A node, or something that speaks HTTP.
    Node {
        spoken: Spoken,
        tls: ServerTls,
    },
}

/// Why a connection came to nothing. All was said to the peer that there is to say.
#[derive(Debug, thiserror::Error)]
pub enum Unwelcome {
    #[error("closed without a byte")]
    SaidNothing,
    #[error("the handshake was not done within {0:?}")]
    Late(Duration),
    #[error("it speaks {}; it began with \"{}\"", foreign.name(), began.escape_ascii())]
    Foreign { foreign: Foreign, began: Vec<u8> },
    /// In PostgreSQL's protocol, before a StartupMessage under TLS.
    #[error("{0}")]
    Refused(Refusal),
    #[error(
        "{0}; proxy_protocol is on in proxy_service, so that every connection has to come through a balancer that sends one"
    )]
    Header(#[from] ProxyHeaderError),
    #[error("it is none of the balancers that proxy_protocol_from in proxy_service names")]
    NotABalancer,
    /// A certificate that is of none of this cluster's authorities, or whose key the peer does not hold.
    #[error("its certificate is not accepted: {0}")]
    Certificate(rustls::Error),
    #[error("the TLS handshake failed: {0}")]
    Tls(rustls::Error),
    #[error("{0}")]
    Lost(io::Error),
}

impl From<io::Error> for Unwelcome {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(why @ rustls::Error::InvalidCertificate(_)) => Self::Certificate(why.clone()),
            Some(why) => Self::Tls(why.clone()),
            None => Self::Lost(error),
        }
    }
}

/// Where the client of an accepted connection is: its peer, or whom the header of a balancer names. Nothing behind the header
/// is read.
///
/// # Errors
/// There is no header where there has to be one, or it cannot be believed.
pub async fn client_of(tcp: &mut Tcp, peer: SocketAddr, protocol: &ProxyProtocol) -> Result<SocketAddr, Unwelcome> {
    let ProxyProtocol::On { from } = protocol else {
        return Ok(peer);
    };
    if !from.is_empty() && !from.iter().any(|network| network.contains(peer.ip())) {
        return Err(Unwelcome::NotABalancer);
    }
    let mut reader = HeaderReader::default();
    // A header of version 1 at once; what is longer comes in as many pieces.
    let mut piece = [0; V1_MAX_BYTES];
    loop {
        let ready = socket::peek(tcp, &mut piece).await?;
        if ready == 0 {
            return Err(Unwelcome::SaidNothing);
        }
        let (count, said) = reader.read(&piece[..ready])?;
        tcp.read_exact(&mut piece[..count]).await?;
        match said {
            Some(Said::Client(client)) => return Ok(client),
            Some(Said::Nobody) => return Ok(peer),
            None => {}
        }
    }
}

/// Reads up to the StartupMessage, or to the end of the TLS handshake, and no longer than until `deadline`, which is `within` of
/// the connection's beginning.
pub async fn greet(
    tcp: Tcp,
    sides: &ServerSides,
    http: Http,
    (deadline, within): (Instant, Duration),
) -> Result<Greeted, Unwelcome> {
    let first = match timeout_at(deadline, socket::first_byte(&tcp)).await {
        Ok(first) => first?.ok_or(Unwelcome::SaidNothing)?,
        Err(_) => {
            // Perhaps it waits for us to begin, as in the protocols where a server speaks first.
            socket::write_at_once(&tcp, &foreign::to_the_silent());
            return Err(Unwelcome::Late(within));
        }
    };
    let spoken = async {
        match alpn::classify(first) {
            FirstByte::PostgreSql => negotiate(tcp, sides).await,
            FirstByte::Tls => match sides.accept(tcp, http).await? {
                (Spoken::PostgreSql, tls) => start(tls).await,
                (spoken, tls) => Ok(Greeted::Node { spoken, tls }),
            },
            FirstByte::Foreign => turn_away(tcp).await,
        }
    };
    timeout_at(deadline, spoken)
        .await
        .unwrap_or(Err(Unwelcome::Late(within)))
}

/// Answers what is not spoken here.
async fn turn_away(mut tcp: Tcp) -> Result<Greeted, Unwelcome> {
    let mut began = Vec::with_capacity(foreign::LOOKED_AT);
    let foreign = loop {
        let room = foreign::LOOKED_AT - began.len();
        let mut more = (&mut tcp).take(room as u64);
        // The first byte is there.
        let count = match timeout(FOREIGN_PAUSE, more.read_buf(&mut began)).await {
            Ok(count) => count?,
            Err(_) => 0,
        };
        match foreign::recognise(&began) {
            Some(foreign) => break foreign,
            None if count == 0 => break foreign::otherwise(&began),
            None => {}
        }
    };
    say(tcp, &foreign.answer()).await?;
    Err(Unwelcome::Foreign { foreign, began })
}

/// What a browser reads on a port without pages.
pub fn http_answer(cluster: &ClusterName) -> Vec<u8> {
    let text = format!(
        "Postern, cluster {cluster}: this is the auth service's port, which serves nodes and has no pages. Open the address of a \
         proxy instead.\n"
    );
    format!(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// PostgreSQL's negotiation in plain text: at most one GSSENCRequest and one SSLRequest, in this or the other order.
async fn negotiate(mut tcp: Tcp, sides: &ServerSides) -> Result<Greeted, Unwelcome> {
    let mut gss_asked = false;
    loop {
        match read_packet(&mut tcp).await? {
            Ok(FirstPacket::SslRequest) => {
                tcp.write_all(b"S").await?;
                return start(sides.accept_postgres(tcp).await?).await;
            }
            Ok(FirstPacket::GssEncRequest) if !gss_asked => {
                gss_asked = true;
                tcp.write_all(b"N").await?;
            }
            Ok(FirstPacket::GssEncRequest) => {
                let twice = Refusal::new(RefusalKind::ProtocolViolation, "received more than one GSSENCRequest");
                return refuse(tcp, twice).await;
            }
            Ok(FirstPacket::Cancel(request)) => {
                return Ok(Greeted::Cancel {
                    request,
                    stream: Box::new(tcp),
                    is_encrypted: false,
                });
            }
            Ok(FirstPacket::Startup(_)) => {
                let plain = Refusal::new(
                    RefusalKind::TlsRequired,
                    "this server accepts connections over TLS only",
                )
                .hint("connect with sslmode=verify-full (and sslrootcert, sslcert, sslkey)");
                return refuse(tcp, plain).await;
            }
            Err(error) => return refuse(tcp, error.refusal()).await,
        }
    }
}

/// Under TLS comes the StartupMessage, or a cancel; nothing else, and nothing twice.
async fn start(mut tls: ServerTls) -> Result<Greeted, Unwelcome> {
    let refusal = match read_packet(&mut tls).await? {
        Ok(FirstPacket::Startup(startup)) => return Ok(Greeted::PostgreSql { tls, startup }),
        Ok(FirstPacket::Cancel(request)) => {
            return Ok(Greeted::Cancel {
                request,
                stream: Box::new(tls),
                is_encrypted: true,
            });
        }
        Ok(FirstPacket::SslRequest) => {
            Refusal::new(RefusalKind::ProtocolViolation, "received more than one SSLRequest")
        }
        Ok(FirstPacket::GssEncRequest) => {
            Refusal::new(RefusalKind::ProtocolViolation, "received a GSSENCRequest inside of TLS")
        }
        Err(error) => error.refusal(),
    };
    refuse(tls, refusal).await
}

async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<FirstPacket, ProtocolError>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let length = match packet_length(header) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(parse(&body))
}

async fn refuse(stream: impl super::Stream, refusal: Refusal) -> Result<Greeted, Unwelcome> {
    say(stream, &backend::error_response(&refusal)).await?;
    Err(Unwelcome::Refused(refusal))
}

async fn say(mut stream: impl super::Stream, last: &[u8]) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    let mut unread = stream.take(LINGER_MAX_BYTES);
    // It was said; whatever the peer does now is not our concern.
    let _over = timeout(LINGER, tokio::io::copy(&mut unread, &mut tokio::io::sink())).await;
    Ok(())
}

#[cfg(test)]
#[path = "greeting_tests.rs"]
mod tests;
