//! Peers that stop at every byte of every handshake, and peers that speak something else. The sockets are real, the time is not.

use super::*;
use crate::model::clock::HeldClock;
use crate::model::{ClusterName, NodeId, NodeKind, NodeName, PersonName, SharedClock, Timestamp, Traits};
use crate::net::stops::Stops;
use crate::net::tls::{Credentials, HANDSHAKE_DEADLINE};
use crate::net::web_certificates::WebCertificates;
use crate::pki::{CaKind, CertificateAuthority, HostName, HostProfile, PersonProfile, PrivateKey, TrustAnchors};
use crate::protocol::postgres::startup::{SSL_REQUEST, encode_cancel};
use futures::future::{BoxFuture, join_all};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
/// `user`, `alice`.
const STARTUP: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0alice\0\0";
/// The DER of an ECDSA signature is some bytes longer or shorter, so that one handshake can be whole where another is not.
const SIGNATURES_VARY: usize = 8;
const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";

type Client = Stops<Tcp>;

/// What a client does until its handshake is done; the answer is its socket.
type Way = fn(&'static World, Client) -> BoxFuture<'static, io::Result<Client>>;

struct World {
    sides: ServerSides,
    person: Arc<ClientConfig>,
    agent: Arc<ClientConfig>,
}

impl World {
    /// Once per process.
    fn of_the_tests() -> &'static Self {
        static MADE: std::sync::OnceLock<World> = std::sync::OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let name = ClusterName::new("gate.example").unwrap();
        let authorities = CaKind::ALL.map(|kind| CertificateAuthority::generate(kind, &name, NOW).unwrap());
        let of = |kind| authorities.iter().find(|authority| authority.kind() == kind).unwrap();
        let anchors = TrustAnchors::from_authorities(&authorities);
        let clock: SharedClock = HeldClock::at(NOW);
        let host = |node: u8, kind| {
            let key = PrivateKey::generate().unwrap();
            let profile = HostProfile {
                node_id: NodeId::from_random([node; 16]),
                node_name: NodeName::new("node").unwrap(),
                kinds: vec![kind],
                names: vec![HostName::new("gate.example").unwrap()],
            };
            let leaf = of(CaKind::Host).issue_host(&profile, &key.public_key(), NOW + HOUR, NOW);
            Credentials {
                chain: vec![leaf.unwrap()],
                key,
            }
        };
        let sides = ServerSides::new(&host(1, NodeKind::Proxy), &WebCertificates::default(), &anchors, &clock).unwrap();
        let key = PrivateKey::generate().unwrap();
        let profile = PersonProfile {
            name: PersonName::new("alice").unwrap(),
            roles: Vec::new(),
            traits: Traits::new(),
            mfa: false,
            route: None,
            pinned_ip: None,
        };
        let leaf = of(CaKind::User).issue_person(&profile, &key.public_key(), NOW + HOUR, NOW);
        let alice = Credentials {
            chain: vec![leaf.unwrap()],
            key,
        };
        let config = |shown: Option<&Credentials>, alpn: &[u8]| {
            client_config(of(CaKind::Host).certificate(), &clock, shown, alpn)
        };
        Self {
            person: config(Some(&alice), alpn::POSTGRESQL),
            agent: config(Some(&host(2, NodeKind::Db)), alpn::TUNNEL),
            sides,
        }
    }
}

fn client_config(
    trusted: &CertificateDer<'static>,
    clock: &SharedClock,
    shown: Option<&Credentials>,
    alpn: &[u8],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = super::super::cryptography::provider();
    let time = Arc::new(super::super::tls::ClockTime(clock.clone()));
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(shown) => builder
            .with_client_auth_cert(shown.chain.clone(), shown.key.to_rustls())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

async fn secured(config: &Arc<ClientConfig>, client: Client) -> io::Result<tokio_rustls::client::TlsStream<Client>> {
    let name = ServerName::try_from("gate.example").unwrap();
    TlsConnector::from(config.clone()).connect(name, client).await
}

async fn with_ssl_request(world: &World, mut client: Client, last: &[u8]) -> io::Result<Client> {
    client.write_all(HEADER).await?;
    client.write_all(&SSL_REQUEST).await?;
    assert_eq!(client.read_u8().await?, b'S');
    let mut tls = secured(&world.person, client).await?;
    tls.write_all(last).await?;
    tls.flush().await?;
    Ok(tls.into_inner().0)
}

fn postgresql(world: &'static World, client: Client) -> BoxFuture<'static, io::Result<Client>> {
    Box::pin(with_ssl_request(world, client, STARTUP))
}

fn cancel_under_tls(world: &'static World, client: Client) -> BoxFuture<'static, io::Result<Client>> {
    let cancel = encode_cancel(7, &crate::model::Secret::new(b"kkkk".to_vec()));
    Box::pin(async move { with_ssl_request(world, client, &cancel).await })
}

fn cancel(_: &'static World, mut client: Client) -> BoxFuture<'static, io::Result<Client>> {
    Box::pin(async move {
        client.write_all(HEADER).await?;
        client
            .write_all(&encode_cancel(7, &crate::model::Secret::new(b"kkkk".to_vec())))
            .await?;
        Ok(client)
    })
}

fn direct_tls(world: &'static World, mut client: Client) -> BoxFuture<'static, io::Result<Client>> {
    Box::pin(async move {
        client.write_all(HEADER).await?;
        let mut tls = secured(&world.person, client).await?;
        tls.write_all(STARTUP).await?;
        tls.flush().await?;
        Ok(tls.into_inner().0)
    })
}

fn tunnel(world: &'static World, mut client: Client) -> BoxFuture<'static, io::Result<Client>> {
    Box::pin(async move {
        client.write_all(HEADER).await?;
        Ok(secured(&world.agent, client).await?.into_inner().0)
    })
}

/// Two ends of a connection: the accepted one and the client's.
fn connected() -> (Tcp, Tcp) {
    // Without waiting, as time passes where something waits.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    for socket in [&accepted, &client] {
        socket.set_nonblocking(true).unwrap();
    }
    (socket::adopt(accepted).unwrap(), socket::adopt(client).unwrap())
}

/// The port's side, as a connection's actor does it.
async fn port(mut tcp: Tcp) -> Result<(SocketAddr, Greeted), Unwelcome> {
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let on = ProxyProtocol::On { from: Vec::new() };
    let peer = ([127, 0, 0, 1], 1).into();
    let client = timeout_at(deadline, client_of(&mut tcp, peer, &on))
        .await
        .unwrap_or(Err(Unwelcome::Late(HANDSHAKE_DEADLINE)))?;
    let sides = &World::of_the_tests().sides;
    let greeted = greet(tcp, sides, Http::Pages, (deadline, HANDSHAKE_DEADLINE)).await?;
    Ok((client, greeted))
}

/// A client that goes this way and sends no more than so many bytes: what the port made of it, and how many bytes it sent.
async fn stopped_at(way: Way, left: usize) -> (Result<(SocketAddr, Greeted), Unwelcome>, usize) {
    let (accepted, client) = connected();
    let client = Stops::after(left, client);
    let mut going = tokio::spawn(way(World::of_the_tests(), client));
    let made = port(accepted).await;
    let written = match (&made, &mut going) {
        (Ok(_), going) => going.await.unwrap().unwrap().written,
        (Err(_), going) => {
            going.abort();
            left
        }
    };
    (made, written)
}

/// TLS counts bytes for itself, so that there a sample is enough; what is ours to count is before and after it.
fn every_byte_of(whole: usize) -> impl Iterator<Item = usize> {
    let plain = HEADER.len() + SSL_REQUEST.len() + 5;
    (0..whole).filter(move |byte| *byte < plain || byte + STARTUP.len() + 40 > whole || byte % 5 == 0)
}

fn each_byte_is_cut_at_the_deadline(way: Way) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (made, whole) = stopped_at(way, usize::MAX).await;
        let (client, _greeted) = made.unwrap_or_else(|error| panic!("the whole handshake: {error}"));
        assert_eq!(client.to_string(), "192.0.2.7:5000");
        tokio::time::pause();
        let bytes: Vec<_> = every_byte_of(whole).collect();
        // Some hundred at a time: each has two sockets.
        for some in bytes.chunks(250) {
            let began = Instant::now();
            let stopped = some
                .iter()
                .map(|byte| async move { (*byte, stopped_at(way, *byte).await.0) });
            for (byte, made) in join_all(stopped).await {
                let is_whole = made.is_ok() && byte + SIGNATURES_VARY > whole;
                assert!(
                    is_whole || matches!(made, Err(Unwelcome::Late(_))),
                    "stopped at byte {byte} of {whole}"
                );
            }
            let took = began.elapsed();
            let slack = Duration::from_millis(50);
            assert!(
                (HANDSHAKE_DEADLINE..HANDSHAKE_DEADLINE + slack).contains(&took),
                "{took:?}"
            );
        }
    });
}

#[test]
fn a_client_that_stops_at_any_byte_of_ssl_request_tls_and_start_up_is_cut_at_the_deadline() {
    each_byte_is_cut_at_the_deadline(postgresql);
}

#[test]
fn a_client_that_stops_at_any_byte_of_direct_tls_is_cut_at_the_deadline() {
    each_byte_is_cut_at_the_deadline(direct_tls);
}

#[test]
fn a_client_that_stops_at_any_byte_of_a_cancel_is_cut_at_the_deadline() {
    each_byte_is_cut_at_the_deadline(cancel);
    each_byte_is_cut_at_the_deadline(cancel_under_tls);
}

#[test]
fn a_node_that_stops_at_any_byte_of_its_tunnels_handshake_is_cut_at_the_deadline() {
    each_byte_is_cut_at_the_deadline(tunnel);
}

#[tokio::test]
async fn a_client_is_greeted_without_waiting_for_hundreds_that_have_stopped() {
    tokio::time::pause();
    let stopped: Vec<_> = (0..300)
        .map(|byte| tokio::spawn(async move { stopped_at(postgresql, byte).await.0.is_err() }))
        .collect();
    tokio::task::yield_now().await;
    tokio::time::resume();
    let began = Instant::now();
    assert!(stopped_at(postgresql, usize::MAX).await.0.is_ok());
    assert!(began.elapsed() < HANDSHAKE_DEADLINE / 2, "{:?}", began.elapsed());
    for one in stopped {
        one.abort();
    }
}

/// What a peer reads that sends this, with the protocol on or off, and what the port made of it.
async fn answered(protocol: ProxyProtocol, sent: &[u8]) -> (Vec<u8>, Result<SocketAddr, Unwelcome>) {
    let (mut accepted, mut client) = connected();
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    let port = async {
        let client = client_of(&mut accepted, ([127, 0, 0, 1], 1).into(), &protocol).await?;
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        let sides = &World::of_the_tests().sides;
        greet(accepted, sides, Http::Pages, (deadline, HANDSHAKE_DEADLINE)).await?;
        Ok(client)
    };
    let made = port.await;
    let mut read = Vec::new();
    // Where nothing is said, what was not read resets the connection.
    drop(client.read_to_end(&mut read).await);
    (read, made)
}

#[tokio::test]
async fn who_speaks_something_else_is_answered_in_it_and_the_log_reads_what_it_was() {
    for (sent, answer, words) in [
        (
            &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..],
            &b"SSH-2.0-"[..],
            "SSH; it began with \"SSH-",
        ),
        (b"EHLO mail.example\r\n", b"554 ", "SMTP"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 ", "HTTP without TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4], "HTTP/2 without TLS"),
        (
            b"\x03\0\0\x2f\x2a\xe0\0\0\0\0\0",
            &[3, 0, 0, 0x13],
            "RDP; it began with \"\\x03",
        ),
        (b"\x1b[2Jnone", b"This port speaks", "began with \"\\x1b[2Jnone\""),
        (b"P", b"This port speaks", "lines of text"),
    ] {
        let (read, made) = answered(ProxyProtocol::Off, sent).await;
        assert!(
            read.starts_with(answer),
            "{}: {}",
            sent.escape_ascii(),
            read.escape_ascii()
        );
        let why = made.expect_err("turned away").to_string();
        assert!(why.contains(words) && !why.contains(char::is_control), "{why}");
    }
}

#[tokio::test]
async fn a_header_is_refused_where_it_is_off_and_its_lack_where_it_is_on() {
    for header in [HEADER, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let (_, made) = answered(ProxyProtocol::Off, header).await;
        let why = made.expect_err("off").to_string();
        assert!(why.contains("proxy_protocol is off"), "{why}");
    }
    let on = || ProxyProtocol::On { from: Vec::new() };
    for sent in [&SSL_REQUEST[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let (read, made) = answered(on(), sent).await;
        let why = made.expect_err("no header").to_string();
        assert!(why.contains("does not begin with") && read.is_empty(), "{why}");
    }
    let twice = [HEADER, HEADER].concat();
    let why = answered(on(), &twice).await.1.expect_err("twice").to_string();
    assert!(why.contains("a PROXY protocol header"), "{why}");
}

#[tokio::test]
async fn a_header_is_believed_of_those_only_who_are_named() {
    let sent = [HEADER, b"GET / HTTP/1.1\r\n\r\n"].concat();
    for (from, is_believed) in [
        (&[][..], true),
        (&["127.0.0.0/8"], true),
        (&["10.0.0.0/8", "::1"], false),
    ] {
        let from = from.iter().map(|text: &&str| text.parse().unwrap()).collect();
        let (_, made) = answered(ProxyProtocol::On { from }, &sent).await;
        let why = made.expect_err("HTTP without TLS");
        assert_eq!(matches!(why, Unwelcome::NotABalancer), !is_believed, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_who_waits_for_us_to_begin_reads_a_line_when_the_time_is_over() {
    let (accepted, mut client) = connected();
    let sides = &World::of_the_tests().sides;
    let deadline = Instant::now() + HANDSHAKE_DEADLINE;
    let made = greet(accepted, sides, Http::Pages, (deadline, HANDSHAKE_DEADLINE)).await;
    assert!(matches!(made, Err(Unwelcome::Late(_))));
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    assert!(read.contains("PostgreSQL") && read.ends_with("\r\n"), "{read:?}");
}

#[tokio::test]
async fn requests_for_encryption_are_taken_once_and_in_plain_text_only() {
    const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
    let off = || ProxyProtocol::Off;
    let (read, made) = answered(off(), &[GSSENC_REQUEST, GSSENC_REQUEST].concat()).await;
    assert_eq!(read[..2], *b"NE");
    assert_eq!(
        made.expect_err("twice").to_string(),
        "received more than one GSSENCRequest"
    );
    // What follows has to be TLS.
    let (read, made) = answered(off(), &[GSSENC_REQUEST, SSL_REQUEST, SSL_REQUEST].concat()).await;
    assert_eq!(read[..2], *b"NS");
    assert!(matches!(made, Err(Unwelcome::Tls(_))));
    for (request, words) in [
        (SSL_REQUEST, "received more than one SSLRequest"),
        (GSSENC_REQUEST, "received a GSSENCRequest inside of TLS"),
    ] {
        let (accepted, client) = connected();
        let world = World::of_the_tests();
        let going = with_ssl_request(world, Stops::after(usize::MAX, client), &request);
        let (made, _client) = tokio::join!(port(accepted), going);
        assert_eq!(made.err().map(|why| why.to_string()).as_deref(), Some(words));
    }
    let made = stopped_at(cancel_under_tls, usize::MAX).await.0;
    assert!(matches!(made, Ok((_, Greeted::Cancel { .. }))));
}
