//! A PostgreSQL that stops at every byte of its part of a start-up, and one that says more than its answer to SSLRequest in plain text.

use super::cryptography::provider;
use super::socket::{self, Tcp};
use super::stops::Stops;
use super::tls::ClockTime;
use super::upstream::{Asked, CONNECT_DEADLINE, DialTls, STARTUP_DEADLINE, UpstreamAnswer, open};
use super::upstream_tls::{UpstreamClient, UpstreamTrust};
use crate::model::clock::HeldClock;
use crate::model::{ClusterName, DbName, DbUser, Endpoint, Moment, Refusal, SharedClock, Timestamp};
use crate::pki::{CaKind, CertificateAuthority, DbServerProfile, HostName, PrivateKey};
use crate::policy::DatabaseTlsMode;
use crate::telemetry::label::Label;
use crate::telemetry::registry::Seat;
use futures::future::join_all;
use rustls::ServerConfig;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// The DER of an ECDSA signature is some bytes longer or shorter, so that one handshake can be whole where another is not.
const SIGNATURES_VARY: usize = 8;
/// AuthenticationOk, a ParameterStatus, BackendKeyData.
const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19server_version\0".as_slice();
const REST: &[u8] = b"15.0\0\0K\0\0\0\x0c\0\0\0\x07kkkk";

struct World {
    server: Arc<ServerConfig>,
    client: UpstreamClient,
}

impl World {
    /// Once per process.
    fn of_the_tests() -> &'static Self {
        static MADE: OnceLock<World> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let authority = CertificateAuthority::generate(CaKind::Db, &ClusterName::new("gate.example").unwrap(), NOW);
        let (authority, key) = (authority.unwrap(), PrivateKey::generate().unwrap());
        let profile = DbServerProfile {
            names: vec![HostName::new("db.internal").unwrap()],
        };
        let until = NOW + Duration::from_secs(3600);
        let leaf = authority
            .issue_db_server(&profile, &key.public_key(), until, NOW)
            .unwrap();
        let clock: SharedClock = HeldClock::at(NOW);
        let server = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock.clone())))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key.to_rustls())
            .unwrap();
        let trust = UpstreamTrust {
            mode: DatabaseTlsMode::VerifyFull,
            server_name: "db.internal".to_owned(),
            authorities: vec![authority.certificate().clone()],
        };
        Self {
            server: Arc::new(server),
            client: UpstreamClient::anonymous(&trust, &clock).unwrap(),
        }
    }
}

/// PostgreSQL's part, of which so many bytes get out. The answer is how many there were.
async fn postgresql(tcp: Tcp, left: usize) -> io::Result<usize> {
    let mut stream = Stops::after(left, tcp);
    stream.read_exact(&mut [0; 8]).await?;
    stream.write_all(b"S").await?;
    let mut tls = TlsAcceptor::from(World::of_the_tests().server.clone())
        .accept(stream)
        .await?;
    let length = tls.read_u32().await? as usize;
    tls.read_exact(&mut vec![0; length - 4]).await?;
    tls.write_all(GREETING).await?;
    tls.write_all(REST).await?;
    tls.flush().await?;
    Ok(tls.get_ref().0.written)
}

/// Opens a session with whoever listens there.
async fn session_at(port: u16) -> Result<(), UpstreamAnswer> {
    let seat = Seat::outside("test");
    let waits = move |what: &'static str, within: Duration| {
        seat.waits(Label::of(what), "PostgreSQL".into(), within, None, Moment::now())
    };
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let (user, name) = (DbUser::new("app").unwrap(), DbName::new("app").unwrap());
    let client = &World::of_the_tests().client;
    let asked = Asked {
        db_user: &user,
        db_name: &name,
        replication: None,
        parameters: &[],
    };
    open(&DialTls, &endpoint, client, asked, &waits).await.map(drop)
}

async fn stopped_at(left: usize) -> (Result<(), UpstreamAnswer>, Option<usize>) {
    let listener = socket::Listener::bind(([127, 0, 0, 1], 0).into(), "test").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (accepted, _) = listener.accept().await?;
        postgresql(socket::adopt(accepted)?, left).await
    });
    let opened = session_at(port).await;
    let written = match &opened {
        Ok(()) => served.await.unwrap().ok(),
        Err(_) => {
            served.abort();
            None
        }
    };
    (opened, written)
}

#[test]
fn a_postgresql_that_stops_at_any_byte_of_its_start_up_is_given_up_at_the_deadline() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (opened, whole) = stopped_at(usize::MAX).await;
        assert!(opened.is_ok(), "{opened:?}");
        let whole = whole.expect("it ended well");
        let greeting = GREETING.len() + REST.len() + 2 * 22;
        tokio::time::pause();
        // Of TLS a sample is enough; PostgreSQL's own bytes are all there.
        let bytes: Vec<_> = (0..whole)
            .filter(|byte| *byte < 20 || byte + greeting > whole || byte % 5 == 0)
            .collect();
        for some in bytes.chunks(250) {
            let began = Instant::now();
            let stopped = some
                .iter()
                .map(|byte| async move { (*byte, stopped_at(*byte).await.0) });
            for (byte, opened) in join_all(stopped).await {
                if opened.is_ok() && byte + SIGNATURES_VARY > whole {
                    continue;
                }
                let Err(UpstreamAnswer::Refused(refusal)) = opened else {
                    panic!("stopped at byte {byte} of {whole}: {opened:?}");
                };
                assert_eq!(refusal.kind.sqlstate(), "08001", "{refusal}");
                assert!(refusal.message.contains("no answer within"), "{refusal}");
            }
            let slack = Duration::from_millis(50);
            assert!(
                began.elapsed() < CONNECT_DEADLINE + STARTUP_DEADLINE + slack,
                "{:?}",
                began.elapsed()
            );
        }
    });
}

/// What is made of a server that answers SSLRequest with this.
async fn refused_by(answer: &[u8]) -> Refusal {
    let listener = socket::Listener::bind(([127, 0, 0, 1], 0).into(), "test").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = async {
        let (accepted, _) = listener.accept().await?;
        let mut tcp = socket::adopt(accepted)?;
        tcp.read_exact(&mut [0; 8]).await?;
        tcp.write_all(answer).await?;
        tcp.read_to_end(&mut Vec::new()).await
    };
    let (opened, _ended) = tokio::join!(session_at(port), served);
    let Err(UpstreamAnswer::Refused(refusal)) = opened else {
        panic!("{opened:?}");
    };
    assert_eq!(refusal.kind.sqlstate(), "08001", "{refusal}");
    refusal
}

#[tokio::test]
async fn what_postgresql_says_in_plain_text_behind_its_answer_to_ssl_request_is_never_read_as_its_greeting() {
    refused_by(&[b"S", GREETING, REST].concat()).await;
}

#[tokio::test]
async fn an_error_in_plain_text_is_told_as_one_and_its_words_are_not_passed_on() {
    let refusal = refused_by(b"Ecould not fork new process for connection: <b>free beer</b>\n\0").await;
    assert!(refusal.message.contains("cannot start a process"), "{refusal}");
    assert!(!refusal.to_string().contains("beer"), "{refusal}");
}
