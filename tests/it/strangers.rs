//! The outer edge of the proxy's port: a balancer that says who comes, peers that stop in the middle of a handshake, and those
//! who speak something else.

use crate::harness::wire::{SSL_REQUEST, dial, startup, tls, until_the_end};
use crate::harness::{Client, Cluster, Form, Kind, PATIENCE, Stopwatch, Wire, figure, until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Passes connections on to a port, each with these bytes before it.
struct Balancer {
    port: u16,
}

impl Balancer {
    fn before(port: u16, header: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let own = listener.local_addr().expect("bound").port();
        // It ends with the process, as its thread waits for nobody.
        std::thread::spawn(move || {
            for accepted in listener.incoming() {
                let (Ok(client), Ok(mut proxy)) = (accepted, TcpStream::connect(("127.0.0.1", port))) else {
                    return;
                };
                drop(proxy.write_all(header));
                pass(&client, &proxy);
                pass(&proxy, &client);
            }
        });
        Self { port: own }
    }
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Write));
    });
}

#[track_caller]
fn said_to(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut socket = dial(port);
    // The proxy may close before it has read everything.
    drop(socket.write_all(bytes));
    until_the_end(&mut socket)
}

#[track_caller]
fn log_says(cluster: &Cluster, parts: &[&str]) -> String {
    until("the log says it", PATIENCE, || {
        let log = cluster.node(Kind::Proxy).process().log_text();
        let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.map(str::to_owned)
    })
}

#[test]
fn behind_a_balancer_the_client_is_the_one_that_the_header_names_and_nobody_comes_without_one() {
    const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x09\xc6\x33\x64\x01\x13\x89\x01\xbb\x04\0\x02xx";
    let mut cluster = Cluster::start(Form::OneProcess);
    let answer = said_to(cluster.proxy_port(), V1);
    assert!(answer.starts_with(b"This port speaks"), "{}", answer.escape_ascii());
    log_says(&cluster, &["connection closed", "proxy_protocol is off"]);

    let node = cluster.node_mut(Kind::Proxy);
    node.kill9();
    node.config.proxy += "  proxy_protocol: on\n  proxy_protocol_from: [127.0.0.0/8]\n";
    node.start();
    for (header, address) in [(V1, "192.0.2.7:5000"), (V2, "203.0.113.9:5001")] {
        let balancer = Balancer::before(cluster.proxy_port(), header);
        let through = |client: &Client| Client {
            port: balancer.port,
            ..client.clone()
        };
        let client = through(&cluster.client("alice", "app", "app"));
        until("a query passes", PATIENCE, || {
            (client.psql("select 1").code == 0).then_some(())
        });
        cluster.audited("alice", "PDB00I", |event| event["addr.remote"] == address);
        log_says(&cluster, &["session open", &format!("peer={address}")]);
    }
    assert_eq!(said_to(cluster.proxy_port(), &SSL_REQUEST), b"");
    log_says(
        &cluster,
        &["connection closed", "does not begin with a PROXY protocol header"],
    );
}

/// The first bytes of a TLS connection.
fn client_hello(client: &Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    tls(client).expect("a client").write_tls(&mut bytes).expect("memory");
    bytes
}

/// Has shaken hands over TLS, after SSLRequest or at once, and then sends this in place of what it should.
fn stopped_in_tls(client: &Client, asks: bool, said: &[u8]) -> TcpStream {
    let mut socket = dial(client.port);
    if asks {
        socket.write_all(&SSL_REQUEST).expect("the proxy listens");
        socket.read_exact(&mut [0]).expect("an answer");
    }
    let mut tls = tls(client).expect("a client");
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).expect("TLS");
    }
    tls.writer().write_all(said).expect("memory");
    while tls.wants_write() {
        tls.write_tls(&mut socket).expect("the proxy listens");
    }
    socket
}

/// Peers that have stopped, each at another byte of one of the ways into the port.
fn stopped_peers(client: &Client) -> Vec<TcpStream> {
    const HEAD: &[u8] = b"GET /webapi/ping HTTP/1.1\r\nHost: localhost\r\n";
    let hello = client_hello(client);
    let in_plain = [&SSL_REQUEST[..], &hello].concat();
    let sends = |bytes: &[u8]| {
        let mut socket = dial(client.port);
        socket.write_all(bytes).expect("the proxy listens");
        socket
    };
    let step = in_plain.len() / 150 + 1;
    let mut peers: Vec<TcpStream> = (0..16)
        .chain((16..in_plain.len()).step_by(step))
        .map(|count| sends(&in_plain[..count]))
        .collect();
    peers.extend((0..hello.len()).step_by(step).map(|count| sends(&hello[..count])));
    let start = startup("app", "app");
    peers.extend((0..start.len()).map(|count| stopped_in_tls(client, true, &start[..count])));
    let nobody = client.without_certificate();
    peers.extend((0..HEAD.len()).map(|count| stopped_in_tls(&nobody, false, &HEAD[..count])));
    peers
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn hundreds_of_peers_that_have_stopped_anywhere_delay_nobody_and_are_gone_at_their_deadline() {
    const ROUNDS: usize = 25;
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let connect_and_ask = || {
        let began = Stopwatch::start();
        Wire::connect(&client)
            .expect("allowed")
            .query("select 1")
            .expect("allowed");
        began.elapsed()
    };
    let times = || median((0..ROUNDS).map(|_| connect_and_ask()).collect());
    let _first = connect_and_ask();
    let alone = times();
    let began = Stopwatch::start();
    let peers = stopped_peers(&client);
    let among_them = times();
    figure(&format!(
        "connect and query, median of {ROUNDS}: {:.1} ms alone, {:.1} ms beside {} peers that have stopped in a handshake",
        alone.as_secs_f64() * 1000.0,
        among_them.as_secs_f64() * 1000.0,
        peers.len()
    ));
    // What a machine does that runs other tests beside this one is more than what is looked for.
    assert!(
        among_them < alone * 4 + Duration::from_millis(50),
        "{alone:?}, {among_them:?}"
    );
    for mut peer in peers {
        until_the_end(&mut peer);
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    connect_and_ask();
}

#[test]
fn who_speaks_something_else_is_answered_and_cannot_fill_the_log() {
    let cluster = Cluster::start(Form::OneProcess);
    let port = cluster.proxy_port();
    let answer = said_to(port, b"\x1b[2J\nlevel=error all is lost\n");
    assert!(answer.starts_with(b"This port speaks"), "{}", answer.escape_ascii());
    let line = log_says(&cluster, &["connection closed", "it began with"]);
    assert!(
        line.contains(r"\x1b[2J\nlevel=error") || line.contains(r"\\x1b[2J\\nlevel"),
        "escaped: {line}"
    );
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let rdp = b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0";
    for (sent, expected) in [
        (&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], &b"SSH-2.0-Postern\r\n"[..]),
        (b"EHLO mail.example\r\n", b"554 "),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (http2, &[0, 0, 0, 4]),
        (rdp, &[3, 0, 0, 0x13]),
        (b"\x80\x2e\x01\x00\x02", b"This port speaks"),
        // The beginning of something that is known, and no more of it: whoever typed it waits.
        (b"P", b"This port speaks"),
        (b"\r\n\r\n", b"This port speaks"),
        (b"\x03", b"This port speaks"),
    ] {
        let answer = said_to(port, sent);
        assert!(
            answer.starts_with(expected),
            "{}: {}",
            sent.escape_ascii(),
            answer.escape_ascii()
        );
    }
    // An application protocol that nobody speaks: TLS has an alert for it (120, no_application_protocol).
    let client = cluster.client("alice", "app", "app");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut mqtt = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let alert = mqtt.complete_io(&mut dial(port)).expect_err("nobody speaks it");
    assert!(alert.to_string().contains("NoApplicationProtocol"), "{alert}");
    for _ in 0..100 {
        said_to(port, b"EHLO again\r\n");
    }
    let log = cluster.node(Kind::Proxy).process().log_text();
    let lines = log.lines().filter(|line| line.contains("connection closed")).count();
    // One for each minute that this took.
    assert!((1..=3).contains(&lines), "{lines} lines of one stranger");
    client.psql("select 1").ok();
}

#[test]
fn start_ups_without_a_certificate_are_told_once_and_counted() {
    let cluster = Cluster::start(Form::OneProcess);
    let nobody = cluster.client("alice", "app", "app").without_certificate();
    for _ in 0..20 {
        let error = Wire::connect(&nobody).err().expect("it takes a certificate");
        assert_eq!(error.code, "28000", "{error:?}");
    }
    // What comes after them in the log has been shipped after them.
    cluster.client("alice", "app", "app").psql("select 1").ok();
    cluster.audited("alice", "TDB01I", |_| true);
    let told = |events: &[serde_json::Value]| {
        let nobodys = |event: &&serde_json::Value| event["code"] == "T3007W" && event.get("times").is_none();
        events.iter().filter(nobodys).count()
    };
    let events = cluster.audit(&[]);
    // One for each minute that this took.
    assert!((1..=2).contains(&told(&events)), "{events:?}");
    let log = cluster.node(Kind::Proxy).process().log_text();
    let lines = log.lines().filter(|line| line.contains("client refused")).count();
    assert!((1..=2).contains(&lines), "{lines} lines of one stranger");
}
