//! The agent's side of PostgreSQL's start-up: TLS, StartupMessage, and what PostgreSQL answers until it hands out its key.

use super::BoxStream;
use super::socket::{self, Tcp};
use super::tls::{ClientTls, server_chain};
use super::upstream_tls::UpstreamClient;
use crate::model::{DbName, DbUser, Endpoint, Refusal, RefusalKind, Replication};
use crate::protocol::postgres::backend::{AuthenticationRequest, BackendKeyData, ErrorFields};
use crate::protocol::postgres::startup::{SSL_REQUEST, encode_cancel, encode_startup};
use crate::telemetry::registry::WaitGuard;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What PostgreSQL says before its key: some kilobytes of settings. A server that says more is not PostgreSQL.
const GREETING_MAX_BYTES: usize = 64 * 1024;
/// TCP, SSLRequest and TLS with PostgreSQL.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// From the StartupMessage to PostgreSQL's key. Whoever opens a session has a limit for all of it besides.
pub(super) const STARTUP_DEADLINE: Duration = Duration::from_secs(30);

/// Shows that PostgreSQL is waited for, for which step and how long at most, until what it returns is dropped.
pub type ShowWait<'a> = &'a (dyn Fn(&'static str, Duration) -> WaitGuard + Sync);

/// A session that PostgreSQL has let in.
pub struct Opened {
    pub stream: BoxStream,
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

/// How a PostgreSQL is reached, up to the end of the TLS handshake.
pub trait Dial: Send + Sync {
    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        tls: &'a UpstreamClient,
        waits: ShowWait<'a>,
    ) -> BoxFuture<'a, Result<BoxStream, ConnectError>>;
}

/// TCP, SSLRequest and TLS.
#[derive(Debug, Clone, Copy)]
pub struct DialTls;

impl Dial for DialTls {
    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        tls: &'a UpstreamClient,
        waits: ShowWait<'a>,
    ) -> BoxFuture<'a, Result<BoxStream, ConnectError>> {
        async move {
            let stream: BoxStream = Box::new(connect(endpoint, tls, waits).await?);
            Ok(stream)
        }
        .boxed()
    }
}

/// Whom PostgreSQL is asked to let in.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub db_user: &'a DbUser,
    pub db_name: &'a DbName,
    pub replication: Option<Replication>,
    /// Further start-up parameters.
    pub parameters: &'a [(String, String)],
}

pub async fn open(
    dial: &dyn Dial,
    endpoint: &Endpoint,
    tls: &UpstreamClient,
    asked: Asked<'_>,
    waits: ShowWait<'_>,
) -> Result<Opened, UpstreamAnswer> {
    let connected = tokio::time::timeout(CONNECT_DEADLINE, dial.dial(endpoint, tls, waits)).await;
    let mut stream = connected
        .unwrap_or(Err(ConnectError::NoAnswer(CONNECT_DEADLINE)))
        .map_err(|error| error.refusal(endpoint))?;
    let _waits = waits("start-up", STARTUP_DEADLINE);
    let startup = encode_startup(asked.db_user, asked.db_name, asked.replication, asked.parameters)
        .map_err(|error| error.refusal())?;
    let started = async {
        let sent = async {
            stream.write_all(&startup).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| handshake_failed(endpoint, &error))?;
        greet(endpoint, stream).await
    };
    tokio::time::timeout(STARTUP_DEADLINE, started)
        .await
        .unwrap_or_else(|_| Err(ConnectError::NoAnswer(STARTUP_DEADLINE).refusal(endpoint).into()))
}

/// Reads messages until BackendKeyData.
async fn greet(endpoint: &Endpoint, mut stream: BoxStream) -> Result<Opened, UpstreamAnswer> {
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

async fn read_message(stream: &mut BoxStream, room: usize) -> io::Result<(u8, Vec<u8>)> {
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

/// Why there is no TLS with PostgreSQL.
#[derive(Debug)]
pub enum ConnectError {
    Unreachable(io::Error),
    NoAnswer(Duration),
    WithoutTls,
    /// An error in answer to SSLRequest: PostgreSQL could not start a process (`report_fork_failure_to_client` in postmaster.c).
    NoProcess,
    NotPostgreSql(String),
    Handshake(io::Error),
}

impl ConnectError {
    fn refusal(&self, endpoint: &Endpoint) -> Refusal {
        match self {
            Self::Unreachable(error) => unreachable_server(endpoint, &error.to_string()),
            Self::NoAnswer(within) => unreachable_server(endpoint, &format!("no answer within {within:?}")),
            Self::WithoutTls => Refusal::new(
                RefusalKind::UpstreamWithoutTls,
                format!("the database server at {endpoint} has TLS switched off"),
            )
            .hint(
                "on its host set ssl = on, with ssl_cert_file, ssl_key_file and ssl_ca_file from: \
                 postern ctl auth sign --format=db --host=HOST --out=server",
            ),
            Self::NoProcess => Refusal::new(
                RefusalKind::UpstreamUnreachable,
                format!("the database server at {endpoint} answered with an error before TLS, as where it cannot start a process for a connection"),
            )
            .hint("its own log says why"),
            Self::NotPostgreSql(what) => not_postgresql(endpoint, what),
            Self::Handshake(error) => handshake_failed(endpoint, error),
        }
    }

    /// For the operator of the agent, in a sentence.
    pub fn sentence(&self, endpoint: &Endpoint, server_name: &str) -> String {
        match self {
            Self::Unreachable(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                format!("connection refused at {endpoint}")
            }
            Self::Unreachable(error) => format!("{endpoint} cannot be reached: {error}"),
            Self::NoAnswer(within) => format!("no answer from {endpoint} within {within:?}"),
            Self::WithoutTls => format!("the server at {endpoint} does not offer TLS: set ssl = on"),
            Self::NoProcess => {
                format!(
                    "the server at {endpoint} answered with an error before TLS, as where it cannot start a process: see its log"
                )
            }
            Self::NotPostgreSql(what) => format!("what answers at {endpoint} does not speak PostgreSQL: {what}"),
            Self::Handshake(error) => match invalid_certificate(error) {
                Some(why) => untrusted(why, endpoint, server_name),
                None => format!("the server at {endpoint} ended the handshake: {error}"),
            },
        }
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn invalid_certificate(error: &io::Error) -> Option<&rustls::CertificateError> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Some(why),
        _ => None,
    }
}

fn untrusted(why: &rustls::CertificateError, endpoint: &Endpoint, server_name: &str) -> String {
    use rustls::CertificateError as E;
    match why {
        E::UnknownIssuer => format!(
            "the certificate of {endpoint} is not of an authority that is trusted here: set ca_cert_file to its authority, or \
             give it one with postern ctl auth sign --format=db --host={server_name}"
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => format!(
            "the certificate of {endpoint} is not for the name {server_name}: set server_name to a name that it has, or renew it \
             with that name"
        ),
        E::Expired | E::ExpiredContext { .. } => format!(
            "the certificate of {endpoint} has ended: renew it with postern ctl auth sign --format=db --host={server_name}"
        ),
        other => format!("the certificate of {endpoint} is not accepted: {other}"),
    }
}

async fn connect(
    endpoint: &Endpoint,
    tls: &UpstreamClient,
    waits: ShowWait<'_>,
) -> Result<ClientTls<Tcp>, ConnectError> {
    let tcp_waits = waits("TCP", CONNECT_DEADLINE);
    let mut tcp = socket::connect(&endpoint.host, endpoint.port)
        .await
        .map_err(ConnectError::Unreachable)?;
    drop(tcp_waits);
    let tls_asked = waits("SSLRequest", CONNECT_DEADLINE);
    let answer = async {
        tcp.write_all(&SSL_REQUEST).await?;
        tcp.read_u8().await
    };
    match answer.await {
        Ok(b'S') => {}
        Ok(b'N') => return Err(ConnectError::WithoutTls),
        // The text that follows is of a server that nobody has verified, and is not shown by libpq either (CVE-2024-10977).
        Ok(b'E') => return Err(ConnectError::NoProcess),
        Ok(other) => {
            return Err(ConnectError::NotPostgreSql(format!(
                "it answered {other:#04x} to SSLRequest"
            )));
        }
        Err(error) => return Err(ConnectError::Unreachable(error)),
    }
    drop(tls_asked);
    let _waits = waits("TLS", CONNECT_DEADLINE);
    tls.connect(tcp).await.map_err(ConnectError::Handshake)
}

/// Connects up to the end of the TLS handshake and closes again. PostgreSQL logs nothing of a connection that ends before its
/// StartupMessage (`ProcessStartupPacket` in backend_startup.c). The answer is the certificate that it presented.
///
/// # Errors
/// Why a session would not get that far either.
pub async fn probe(
    endpoint: &Endpoint,
    tls: &UpstreamClient,
    within: Duration,
    waits: ShowWait<'_>,
) -> Result<Option<CertificateDer<'static>>, ConnectError> {
    let looked = async {
        let mut stream = connect(endpoint, tls, waits).await?;
        let certificate = server_chain(&stream).into_iter().next();
        // It may have closed already; there is nothing left to lose.
        let _closed = stream.shutdown().await;
        Ok(certificate)
    };
    tokio::time::timeout(within, looked)
        .await
        .unwrap_or(Err(ConnectError::NoAnswer(within)))
}

/// Sends a CancelRequest with PostgreSQL's own key, under TLS.
///
/// # Errors
/// PostgreSQL is not reached, or refuses the handshake. Whether it found the key, it tells nobody.
pub async fn cancel(
    dial: &dyn Dial,
    endpoint: &Endpoint,
    tls: &UpstreamClient,
    key: &BackendKeyData,
    waits: ShowWait<'_>,
) -> Result<(), Refusal> {
    let sent = async {
        let mut stream = dial
            .dial(endpoint, tls, waits)
            .await
            .map_err(|error| error.refusal(endpoint))?;
        let request = encode_cancel(key.process_id, &key.secret);
        let written = async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            // PostgreSQL closes when it has sent the signal.
            stream.read(&mut [0; 1]).await
        };
        match written.await {
            // In TLS 1.3 a server's refusal of the handshake comes only now.
            Err(error) if is_of_tls(&error) => Err(handshake_failed(endpoint, &error)),
            // PostgreSQL closes without a word of TLS, and may do so before the last byte has been sent.
            _closed => Ok(()),
        }
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
    .hint("the agent's configuration says where it connects to: uri of this database must be PostgreSQL's own host and port")
}

/// For the client, who knows neither the agent's configuration nor rustls' words.
fn in_words(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError as E;
    match why {
        E::UnknownIssuer => "its authority is not trusted here".to_owned(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "it is not for the name that is connected to".to_owned()
        }
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
            "certificate expired or is not yet valid".to_owned()
        }
        other => other.to_string(),
    }
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
            format!("the agent does not trust the certificate of the database server at {endpoint}: {}", in_words(why)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CertificateError as E;

    #[test]
    fn each_failure_of_a_database_is_told_with_its_address_its_sqlstate_and_the_next_step() {
        let endpoint = Endpoint::parse("db.internal:5432", 5432).unwrap();
        let tls = |error: rustls::Error| ConnectError::Handshake(io::Error::new(io::ErrorKind::InvalidData, error));
        let untrusted = |why: E| tls(rustls::Error::InvalidCertificate(why));
        let failures = [
            (
                ConnectError::Unreachable(io::ErrorKind::ConnectionRefused.into()),
                "08001",
                "refused",
                "listen_addresses",
            ),
            (
                ConnectError::NoAnswer(Duration::from_secs(5)),
                "08001",
                "no answer within 5s",
                "listen_addresses",
            ),
            (ConnectError::WithoutTls, "08001", "TLS switched off", "ssl = on"),
            (
                ConnectError::NoProcess,
                "08001",
                "cannot start a process",
                "its own log",
            ),
            (
                ConnectError::NotPostgreSql("SSH".to_owned()),
                "08006",
                "does not speak PostgreSQL: SSH",
                "uri",
            ),
            (
                untrusted(E::UnknownIssuer),
                "08001",
                "does not trust the certificate",
                "ca_cert_file",
            ),
            (
                untrusted(E::Expired),
                "08001",
                "certificate expired or is not yet valid",
                "postern ctl auth sign --format=db",
            ),
            (
                untrusted(E::NotValidForName),
                "08001",
                "not for the name",
                "tls: server_name",
            ),
            (
                tls(rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA)),
                "28000",
                "does not accept the agent's certificate",
                "ssl_ca_file",
            ),
            (
                ConnectError::Handshake(io::ErrorKind::UnexpectedEof.into()),
                "08001",
                "ended the handshake",
                "its own log",
            ),
        ];
        for (failure, code, words, next) in failures {
            let refusal = failure.refusal(&endpoint);
            assert_eq!(refusal.kind.sqlstate(), code, "{refusal}");
            assert!(
                refusal.message.contains("db.internal:5432") && refusal.message.contains(words),
                "{words}: {refusal}"
            );
            let hint = refusal.hint.unwrap_or_default();
            assert!(hint.contains(next), "{next}: {hint}");
        }
        let refusal = asks_for(&endpoint, "a password");
        assert_eq!(refusal.kind.sqlstate(), "28000");
        assert!(
            refusal
                .hint
                .is_some_and(|hint| hint.contains("hostssl all all 0.0.0.0/0 cert"))
        );
    }
}
