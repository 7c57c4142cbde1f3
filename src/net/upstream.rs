//! The agent's side of PostgreSQL's start-up: TLS, StartupMessage, and what PostgreSQL answers until it hands out its key.

use super::socket::{self, Tcp};
use super::tls::{ClientTls, UpstreamClient};
use crate::model::{DbName, DbUser, Endpoint, Refusal, RefusalKind};
use crate::protocol::postgres::backend::{AuthenticationRequest, BackendKeyData, ErrorFields};
use crate::protocol::postgres::startup::{SSL_REQUEST, encode_cancel, encode_startup};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What PostgreSQL says before its key: some kilobytes of settings. A server that says more is not PostgreSQL.
const GREETING_MAX_BYTES: usize = 64 * 1024;
/// TCP, SSLRequest and TLS with PostgreSQL.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// A session that PostgreSQL has let in.
pub struct Opened {
    pub stream: ClientTls<Tcp>,
    pub key: BackendKeyData,
    /// All messages before BackendKeyData, as PostgreSQL sent them.
    pub greeting: Vec<u8>,
}

/// Why there is no session.
#[derive(Debug)]
pub enum UpstreamAnswer {
    Refused(Refusal),
    /// PostgreSQL's ErrorResponse, whole.
    SaidNo {
        why: String,
        error_response: Vec<u8>,
    },
}

impl From<Refusal> for UpstreamAnswer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

pub async fn open(
    endpoint: &Endpoint,
    tls: &UpstreamClient,
    db_user: &DbUser,
    db_name: &DbName,
    parameters: &[(String, String)],
) -> Result<Opened, UpstreamAnswer> {
    let connected = tokio::time::timeout(CONNECT_DEADLINE, connect(endpoint, tls)).await;
    let mut stream = connected.unwrap_or_else(|_| {
        Err(unreachable_server(
            endpoint,
            &format!("no answer within {CONNECT_DEADLINE:?}"),
        ))
    })?;
    let startup = encode_startup(db_user, db_name, parameters).map_err(|error| error.refusal())?;
    let sent = async {
        stream.write_all(&startup).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| handshake_failed(endpoint, &error))?;
    greet(endpoint, stream).await
}

/// Reads messages until BackendKeyData.
async fn greet(endpoint: &Endpoint, mut stream: ClientTls<Tcp>) -> Result<Opened, UpstreamAnswer> {
    let mut greeting = Vec::new();
    loop {
        let (message_type, message) = read_message(&mut stream, GREETING_MAX_BYTES.saturating_sub(greeting.len()))
            .await
            .map_err(|error| handshake_failed(endpoint, &error))?;
        let body = &message[5..];
        match message_type {
            b'R' => match AuthenticationRequest::parse(body) {
                Ok(AuthenticationRequest::Ok) => greeting.extend_from_slice(&message),
                Ok(other) => return Err(asks_for(endpoint, other.label()).into()),
                Err(error) => return Err(not_postgresql(endpoint, &error.to_string()).into()),
            },
            b'E' => {
                let why = ErrorFields::parse(body)
                    .map_or_else(|error| error.to_string(), |fields| fields.message.unwrap_or_default());
                return Err(UpstreamAnswer::SaidNo {
                    why,
                    error_response: message,
                });
            }
            b'K' => {
                let key = BackendKeyData::parse(body).map_err(|error| not_postgresql(endpoint, &error.to_string()))?;
                return Ok(Opened { stream, key, greeting });
            }
            b'S' | b'N' => greeting.extend_from_slice(&message),
            other => {
                let what = format!("message {:?} before its key", char::from(other));
                return Err(not_postgresql(endpoint, &what).into());
            }
        }
    }
}

async fn read_message(stream: &mut ClientTls<Tcp>, room: usize) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let [message_type, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    // The type byte counts towards the room, too.
    if length < 4 || length >= room {
        let what = format!("a message of {length} bytes during start-up");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut message = header.to_vec();
    message.resize(length + 1, 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok((message_type, message))
}

async fn connect(endpoint: &Endpoint, tls: &UpstreamClient) -> Result<ClientTls<Tcp>, Refusal> {
    let mut tcp = socket::connect(&endpoint.host, endpoint.port)
        .await
        .map_err(|error| unreachable_server(endpoint, &error.to_string()))?;
    let answer = async {
        tcp.write_all(&SSL_REQUEST).await?;
        tcp.read_u8().await
    };
    match answer.await {
        Ok(b'S') => {}
        Ok(b'N') => {
            return Err(Refusal::new(
                RefusalKind::UpstreamWithoutTls,
                format!("the database server at {endpoint} has TLS switched off"),
            )
            .hint(
                "on its host set ssl = on, with ssl_cert_file, ssl_key_file and ssl_ca_file from: \
                 postern ctl auth sign --format=db --host=HOST --out=server",
            ));
        }
        Ok(other) => {
            return Err(not_postgresql(
                endpoint,
                &format!("it answered {other:#04x} to SSLRequest"),
            ));
        }
        Err(error) => return Err(unreachable_server(endpoint, &error.to_string())),
    }
    tls.connect(tcp)
        .await
        .map_err(|error| handshake_failed(endpoint, &error))
}

/// Sends a CancelRequest with PostgreSQL's own key, under TLS.
pub async fn cancel(endpoint: &Endpoint, tls: &UpstreamClient, key: &BackendKeyData) -> Result<(), Refusal> {
    let sent = async {
        let mut stream = connect(endpoint, tls).await?;
        let request = encode_cancel(key.process_id, &key.secret);
        let written = async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            // PostgreSQL closes when it has sent the signal.
            stream.read(&mut [0; 1]).await
        };
        let _closed = written.await;
        Ok(())
    };
    tokio::time::timeout(CONNECT_DEADLINE, sent)
        .await
        .unwrap_or_else(|_| Err(unreachable_server(endpoint, "no answer to the cancel")))
}

fn unreachable_server(endpoint: &Endpoint, why: &str) -> Refusal {
    Refusal::new(
        RefusalKind::UpstreamUnreachable,
        format!("the agent cannot reach the database server at {endpoint}: {why}"),
    )
    .hint("is it running, and does it listen on that address? See listen_addresses and port in postgresql.conf")
}

fn not_postgresql(endpoint: &Endpoint, what: &str) -> Refusal {
    Refusal::new(
        RefusalKind::UpstreamLost,
        format!("what answers at {endpoint} does not speak PostgreSQL: {what}"),
    )
}

fn asks_for(endpoint: &Endpoint, method: &str) -> Refusal {
    Refusal::new(
        RefusalKind::UpstreamRefusedCertificate,
        format!("the database server at {endpoint} asks for {method} instead of accepting the agent's certificate"),
    )
    .hint(
        "in pg_hba.conf put a line for certificates before the others: hostssl all all 0.0.0.0/0 cert (and ::/0), \
         then reload",
    )
}

/// TLS failed, or PostgreSQL closed right after it: in TLS 1.3 a server's refusal of our certificate comes then.
fn handshake_failed(endpoint: &Endpoint, error: &io::Error) -> Refusal {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => Refusal::new(
            RefusalKind::UpstreamUntrusted,
            format!("the agent does not trust the certificate of the database server at {endpoint}: {why:?}"),
        )
        .hint(
            "give it one of this cluster (postern ctl auth sign --format=db --host=HOST --out=server), or name its authority in the \
             agent's configuration: tls: ca_cert_file; HOST must be the host of uri or tls: server_name",
        ),
        Some(rustls::Error::AlertReceived(alert)) => Refusal::new(
            RefusalKind::UpstreamRefusedCertificate,
            format!("the database server at {endpoint} does not accept the agent's certificate (TLS alert {alert:?})"),
        )
        .hint(
            "its ssl_ca_file must hold this cluster's authority for database clients: server.cas from \
             postern ctl auth sign --format=db; then reload it",
        ),
        _ => Refusal::new(
            RefusalKind::UpstreamUnreachable,
            format!("the database server at {endpoint} ended the handshake: {error}"),
        )
        .hint("its own log says why"),
    }
}
