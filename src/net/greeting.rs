//! The first bytes of an accepted connection: one port tells PostgreSQL, TLS and everything else apart.
//!
//! Strict by construction: exactly the bytes of a packet are read from the socket, nothing is buffered, so that what a client
//! sends in plain text after SSLRequest reaches the TLS handshake (and ends it), never the parser behind it.

use super::BoxStream;
use super::socket::{self, Tcp};
use super::tls::{Http, ServerSides, ServerTls, Spoken};
use crate::model::{ClusterName, Refusal, RefusalKind};
use crate::protocol::alpn::{self, FirstByte};
use crate::protocol::postgres::startup::{CancelRequest, packet_length, parse};
use crate::protocol::postgres::{FirstPacket, ProtocolError, StartupMessage, backend};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

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
    /// All was said that there is to say.
    Answered(String),
}

/// Reads up to the StartupMessage, or to the end of the TLS handshake. The caller sets the deadline.
pub async fn greet(socket: std::net::TcpStream, sides: &ServerSides, http: Http) -> io::Result<Greeted> {
    let tcp = socket::adopt(socket)?;
    let Some(first) = socket::first_byte(&tcp).await? else {
        return Ok(Greeted::Answered("closed without a byte".to_owned()));
    };
    match alpn::classify(first) {
        FirstByte::PostgreSql => negotiate(tcp, sides).await,
        FirstByte::Tls => match sides.accept(tcp, http).await? {
            (Spoken::PostgreSql, tls) => start(tls).await,
            (spoken, tls) => Ok(Greeted::Node { spoken, tls }),
        },
        FirstByte::PlainHttp => {
            say(tcp, PLAIN_HTTP.as_bytes()).await?;
            Ok(Greeted::Answered("plain HTTP".to_owned()))
        }
        FirstByte::Unknown => Ok(Greeted::Answered(format!(
            "first byte {first:#04x} is of no protocol spoken here"
        ))),
    }
}

const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This port speaks TLS: use https://, or a PostgreSQL client with sslmode=verify-full.\n";

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
async fn negotiate(mut tcp: Tcp, sides: &ServerSides) -> io::Result<Greeted> {
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
                return refuse(tcp, &twice).await;
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
                return refuse(tcp, &plain).await;
            }
            Err(error) => return refuse(tcp, &error.refusal()).await,
        }
    }
}

/// Under TLS comes the StartupMessage, or a cancel; nothing else, and nothing twice.
async fn start(mut tls: ServerTls) -> io::Result<Greeted> {
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
    refuse(tls, &refusal).await
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

async fn refuse(stream: impl super::Stream, refusal: &Refusal) -> io::Result<Greeted> {
    say(stream, &backend::error_response(refusal)).await?;
    Ok(Greeted::Answered(refusal.message.clone()))
}

async fn say(mut stream: impl super::Stream, last: &[u8]) -> io::Result<()> {
    stream.write_all(last).await?;
    stream.flush().await?;
    stream.shutdown().await
}
