//! Peers that are nodes of the cluster and say what they may not, or what nobody understands.
//!
//! The test takes the identity of a real node and speaks for it, with the program's own protocol code and a few bytes of
//! its own.

use crate::harness::configuration::{Join, NodeConfig, usual_database};
use crate::harness::{Form, Kind, PATIENCE, Process, TestDir, postern, shared};
use postern::model::{ConnectionId, Endpoint, NodeKind, SharedClock, SystemClock, Timestamp};
use postern::net::auth_dialer::{AuthDialer, AuthRoute};
use postern::net::frames::{read_frame, write_frame};
use postern::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
use postern::net::socket::{self, Listener};
use postern::net::tls::{Http, NodeClient, ServerSides, Spoken};
use postern::net::web_certificates::WebCertificates;
use postern::node::Identity;
use postern::protocol::alpn;
use postern::protocol::tunnel::{
    AuthToNode, DbToAuth, DbToProxy, Frame, FrameKind, Header, NodeReport, PREFIX_BYTES, ProxyToAuth, ProxyToDb,
    STREAM_ACCEPTED, Wire,
};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn clock() -> SharedClock {
    SystemClock::shared()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

fn header(id: u64) -> Header {
    Header {
        id,
        kind: FrameKind::Ask { deadline_ms: 5000 },
        cause: None,
        connection: None,
    }
}

fn frame<B: Wire>(id: u64, body: B) -> Vec<u8> {
    Frame::new(header(id), body).encode().expect("short")
}

/// Frames that a peer of this dialect must not send, each with a word of why, and the id it is refused by where its header
/// can be read.
fn bad_frames<B: Wire>(good: B, another_peers: Vec<u8>) -> Vec<(&'static str, Vec<u8>, u64)> {
    let good = frame(11, good);
    let mut unknown = good.clone();
    let message = unknown.len() - 1;
    unknown.truncate(message);
    unknown.push(250);
    let length = u32::try_from(unknown.len() - PREFIX_BYTES).expect("short");
    unknown[..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    let mut version = good.clone();
    version[PREFIX_BYTES] = 9;
    // Longer than any dialect's limit: the frame is read to its end and refused, by the id in its first bytes.
    let mut long = good;
    long.resize(PREFIX_BYTES + 4 * 1024 * 1024, 0);
    let length = u32::try_from(long.len() - PREFIX_BYTES).expect("fits");
    long[..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    vec![
        ("another peer's enum", another_peers, 12),
        ("an unknown message", unknown, 11),
        ("another version", version, 0),
        ("a message too long", long, 11),
        ("an empty frame", vec![0, 0, 0, 0], 0),
    ]
}

async fn refused<B: Wire>(stream: &mut MuxStream, what: &str, bytes: &[u8], id: u64) {
    stream.write_all(bytes).await.expect(what);
    stream.flush().await.expect(what);
    let answer = read_frame::<B>(stream).await;
    let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
    let answer = answer.unwrap_or_else(|| panic!("{what}: closed without an answer"));
    assert!(
        matches!(answer.header.kind, FrameKind::Refused { .. }) && answer.header.id == id,
        "{what}: {answer:?}"
    );
}

fn identity(kind: Kind) -> Identity {
    let cluster = shared(Form::Apart);
    let data_dir = &cluster.node(kind).config.data_dir;
    let now = clock().now();
    Identity::load(&data_dir.join("identity"), now)
        .expect("readable")
        .expect("it has joined")
}

fn proxy() -> Endpoint {
    Endpoint {
        host: "127.0.0.1".to_owned(),
        port: shared(Form::Apart).proxy_port(),
    }
}

async fn link_to_auth(identity: &Identity) -> Mux {
    let dialer = AuthDialer::linked(
        AuthRoute::ThroughProxy(vec![proxy()]),
        &identity.credentials,
        &identity.anchors,
        &clock(),
    )
    .expect("an identity");
    let stream = dialer.dial().await.expect("auth answers");
    let (mux, _inbound, driver) = mux::start(stream, MuxSide::Dialled, Window::FIXED);
    tokio::spawn(driver);
    mux
}

#[test]
fn auth_refuses_what_an_agent_may_not_say_and_the_link_lives() {
    let agent = identity(Kind::Agent);
    let not_an_agents = frame(
        12,
        ProxyToAuth::Heartbeat {
            report: NodeReport {
                version: String::new(),
                instance: 0,
                started: Timestamp::from_secs(0),
                databases: Vec::new(),
                health: Vec::new(),
                proxy_addresses: Vec::new(),
            },
        },
    );
    block_on(async {
        let mux = link_to_auth(&agent).await;
        for (what, bytes, id) in bad_frames(DbToAuth::WatchPolicy { have: None }, not_an_agents) {
            let mut stream = mux.open().await.expect(what);
            refused::<AuthToNode>(&mut stream, what, &bytes, id).await;
        }
        let mut stream = mux.open().await.expect("the link lives");
        let watch = Frame::new(header(1), DbToAuth::WatchPolicy { have: None });
        write_frame(&mut stream, &watch).await.expect("the link lives");
        let news = read_frame::<AuthToNode>(&mut stream).await.expect("an answer");
        assert!(
            matches!(
                news.and_then(|frame| frame.body),
                Some(AuthToNode::PolicyPublished { .. })
            ),
            "the same link still serves"
        );
    });
    audited(&agent, 5);
}

#[test]
fn auth_refuses_a_proxy_that_asks_for_what_only_agents_may() {
    let proxy = identity(Kind::Proxy);
    block_on(async {
        let mux = link_to_auth(&proxy).await;
        let mut stream = mux.open().await.expect("a stream");
        let ask = frame(
            12,
            DbToAuth::IssueDbClient {
                person: Vec::new(),
                service: "orders".parse().expect("a name"),
                db_user: "app".parse().expect("a name"),
                db_name: "app".parse().expect("a name"),
                csr: Vec::new(),
            },
        );
        refused::<AuthToNode>(&mut stream, "a certificate for a proxy", &ask, 12).await;
    });
    audited(&proxy, 1);
}

#[test]
fn a_proxy_refuses_what_an_agent_may_not_say_and_the_tunnel_lives() {
    let agent = identity(Kind::Agent);
    let not_an_agents = frame(12, ProxyToDb::Announced);
    let announce = DbToProxy::Announce {
        name: agent.name.clone(),
        databases: Vec::new(),
        health: Vec::new(),
    };
    block_on(async {
        let client = NodeClient::mutual(
            &agent.credentials,
            &agent.anchors,
            NodeKind::Proxy,
            alpn::TUNNEL,
            &clock(),
        )
        .expect("an identity");
        let to = proxy();
        let tcp = socket::connect(&to.host, to.port).await.expect("the proxy listens");
        let stream = client.connect(tcp).await.expect("the proxy is one");
        let (mux, _inbound, driver) = mux::start(stream, MuxSide::Dialled, Window::FIXED);
        tokio::spawn(driver);
        let mut control = mux.open().await.expect("a control stream");
        for (what, bytes, id) in bad_frames(announce.clone(), not_an_agents) {
            refused::<ProxyToDb>(&mut control, what, &bytes, id).await;
        }
        let frame = Frame::new(header(1), announce);
        write_frame(&mut control, &frame).await.expect("the tunnel lives");
        let answer = read_frame::<ProxyToDb>(&mut control).await.expect("an answer");
        assert_eq!(
            answer.and_then(|frame| frame.body),
            Some(ProxyToDb::Announced),
            "the same tunnel still serves"
        );
        // A second stream is no control stream; it is closed, and the tunnel lives.
        let mut second = mux.open().await.expect("a stream");
        second.write_all(&[0]).await.expect("a byte");
        assert!(second.read_u8().await.is_err(), "nothing answers there");
    });
    audited(&agent, 5);
}

/// An agent of its own for this test, with the identity of the cluster's agent, that dials `port` as its proxy.
fn agent_that_dials(port: u16, directory: &TestDir) -> (Process, PathBuf) {
    let cluster = shared(Form::Apart);
    let data_dir = directory.join("agent");
    std::fs::create_dir_all(data_dir.join("identity")).expect("ours");
    let kept = "identity/identity.json";
    let of_agent = cluster.node(Kind::Agent).config.data_dir.join(kept);
    std::fs::copy(of_agent, data_dir.join(kept)).expect("it has joined");
    let config = NodeConfig::new("agent-1", &data_dir)
        .with_databases(&usual_database(&cluster.postgres))
        .joining(Join::through_proxy(port, &cluster.ca_pin()));
    let file = directory.write("agent.yaml", config.yaml());
    let mut command = postern(directory.path());
    command.arg("start").arg("--config").arg(file);
    (Process::start("agent", command, directory.join("agent.log")), data_dir)
}

/// Waits for a tunnel and answers its first announcement.
async fn accept_tunnel(listener: &Listener, sides: &ServerSides) -> (Mux, Inbound, MuxStream) {
    loop {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let accepted = sides.accept(socket::adopt(tcp).expect("a socket"), Http::OneText).await;
        // The agent's way to auth leads through its proxy, too; it ends here.
        let Ok((Spoken::Tunnel, tls)) = accepted else {
            continue;
        };
        let (mux, mut inbound, driver) = mux::start(tls, MuxSide::Accepted, Window::FIXED);
        tokio::spawn(driver);
        let mut control = inbound.recv().await.expect("a control stream");
        answer_announcement(&mut control).await;
        return (mux, inbound, control);
    }
}

async fn answer_announcement(control: &mut MuxStream) {
    let announced = read_frame::<DbToProxy>(control).await.expect("a frame").expect("one");
    let header = Header {
        kind: FrameKind::Answer,
        ..header(announced.header.id)
    };
    let answer = Frame::new(header, ProxyToDb::Announced);
    write_frame(control, &answer).await.expect("the agent listens");
}

#[test]
fn an_agent_refuses_what_a_proxy_may_not_say_and_the_tunnel_lives() {
    let directory = TestDir::new();
    let proxy = identity(Kind::Proxy);
    let connection = ConnectionId::from_random([7; 8]);
    let cancel = ProxyToDb::CancelQuery { connection };
    block_on(async {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(any, "proxy").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let sides = ServerSides::new(
            &proxy.credentials,
            &WebCertificates::default(),
            &proxy.anchors,
            &clock(),
        )
        .expect("an identity");
        let (_agent, data_dir) = agent_that_dials(port, &directory);
        let (mux, _inbound, mut control) = accept_tunnel(&listener, &sides).await;
        let not_a_proxys = frame(12, DbToProxy::CancelForwarded);
        for (what, bytes, id) in bad_frames(ProxyToDb::Announced, not_a_proxys) {
            let mut stream = mux.open().await.expect(what);
            // The status byte comes at once, whatever is sent; the refusal after it.
            stream.write_all(&bytes[..1]).await.expect(what);
            assert_eq!(stream.read_u8().await.expect(what), STREAM_ACCEPTED);
            refused::<DbToProxy>(&mut stream, what, &bytes[1..], id).await;
        }
        answer_announcement(&mut control).await;
        let mut stream = mux.open().await.expect("the tunnel lives");
        let ask = Frame::new(header(1), cancel);
        write_frame(&mut stream, &ask).await.expect("the tunnel lives");
        assert_eq!(stream.read_u8().await.expect("accepted"), STREAM_ACCEPTED);
        let answer = read_frame::<DbToProxy>(&mut stream).await.expect("an answer");
        assert!(
            matches!(answer.and_then(|frame| frame.body), Some(DbToProxy::Declined(_))),
            "no session is cancelled, and the question was understood"
        );
        // Its link to auth ends in this test, so its events wait in its spool.
        crate::harness::until("the refusals are in the agent's spool", PATIENCE, || {
            let spool = std::fs::read_dir(data_dir.join("spool")).expect("it is there");
            let segments = spool.filter_map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).ok());
            let refusals: usize = segments.map(|text| text.matches("PND01W").count()).sum();
            (refusals >= 5).then_some(())
        });
    });
}

/// At least so many refusals of this node are on the audit log.
fn audited(node: &Identity, count: usize) {
    let cluster = shared(Form::Apart);
    crate::harness::until("the refusals are on the audit log", PATIENCE, || {
        let events = cluster.audit(&["--event", "peer.refused"]);
        let of_node = events
            .iter()
            .filter(|event| event["code"] == "PND01W" && event["peer"] == node.node.to_string());
        (of_node.count() >= count).then_some(())
    });
}
