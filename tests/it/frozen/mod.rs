//! Version 1 of the node protocol, as it was frozen, against the nodes of today; and today's nodes against what they do not know.
//!
//! The peers here have real host certificates, TLS and yamux of the program's own, and no message of its: what they say are the
//! frozen bytes ([`bytes`]), what they hear is read by the layouts of then ([`v1`]).

/// What the database service of a v1 agent meets.
mod agent;
mod bytes;
/// What a v1 node asks of auth.
mod links;
/// What a v1 proxy hears of an agent.
mod proxy;
/// What one side says and the other does not know.
mod unknown;
mod v1;

use crate::harness::cluster::Node;
use crate::harness::configuration::{DB_TOKEN, PROXY_TOKEN};
use crate::harness::{Cluster, Form, Kind, Output, PATIENCE, Process, TestDir, postern, run};
use postern::model::{Endpoint, NodeKind, SharedClock, SystemClock};
use postern::net::BoxStream;
use postern::net::auth_dialer::{AuthDialer, AuthRoute};
use postern::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
use postern::net::socket::{self, Listener};
use postern::net::tls::{Http, NodeClient, ServerSides, ServerTls, Spoken};
use postern::net::web_certificates::WebCertificates;
use postern::node::Identity;
use postern::pki::{PrivateKey, TrustAnchors};
use postern::protocol::alpn;
use rustls_pki_types::CertificateDer;
use std::path::PathBuf;
use std::sync::OnceLock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use v1::Said;

fn clock() -> SharedClock {
    SystemClock::shared()
}

/// With the stage set.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let _set = stage();
    drive(future)
}

fn drive<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await.expect("in time") })
}

/// A cluster of today whose own agent is gone, and the identities of two nodes that joined it with frozen bytes.
struct Stage {
    cluster: Cluster,
    agent: Identity,
    proxy: Identity,
}

/// The peers of this module share it; no test changes it for another.
fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let mut cluster = Cluster::start(Form::Apart);
        cluster.node_mut(Kind::Agent).kill9();
        let agent = drive(join(&cluster, "frozen-agent", DB_TOKEN, 2, &[]));
        let proxy = drive(join(&cluster, "frozen-proxy", PROXY_TOKEN, 1, &["proxy.example.com"]));
        Stage { cluster, agent, proxy }
    })
}

fn here(port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

fn auth_of(cluster: &Cluster) -> Endpoint {
    here(cluster.node(Kind::Auth).config.auth_port.expect("it listens"))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) {
    stream.write_all(frame).await.expect("the peer reads");
    stream.flush().await.expect("the peer reads");
}

/// What follows the length field of the next frame; `None` when the peer is done.
async fn next_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?;
    let mut frame = vec![0; usize::try_from(length).expect("short")];
    stream.read_exact(&mut frame).await.expect("a whole frame");
    Some(frame)
}

async fn next<B: v1::Dialect>(stream: &mut (impl AsyncRead + Unpin)) -> Said<B> {
    v1::read(&next_bytes(stream).await.expect("a frame, and no end"))
}

/// The body of an answer to `id`.
async fn answered<B: v1::Dialect>(stream: &mut (impl AsyncRead + Unpin), id: u64) -> B {
    match next::<B>(stream).await {
        Said::Message(header, body) if matches!(header.kind, v1::Kind::Answer) && header.id == id => body,
        other => panic!("no answer to {id} of version 1: {other:?}"),
    }
}

/// The reason that a message with this id was refused for.
async fn refused<B: v1::Dialect>(stream: &mut (impl AsyncRead + Unpin), id: u64) -> String {
    match next::<B>(stream).await {
        Said::Refused { id: refused, why } if refused == id => why,
        other => panic!("no refusal of {id}: {other:?}"),
    }
}

async fn dial_to_join(cluster: &Cluster) -> BoxStream {
    let pin = cluster.ca_pin().parse().expect("a pin");
    let dialer = AuthDialer::joining(AuthRoute::Direct(vec![auth_of(cluster)]), vec![pin], &clock()).expect("a pin");
    dialer.dial().await.expect("auth answers")
}

/// Joins with the frozen question; the kind is the number that version 1 gives it.
async fn join(cluster: &Cluster, name: &str, token: &str, kind: u8, hosts: &[&str]) -> Identity {
    let key = PrivateKey::generate().expect("a key");
    let hosts: Vec<_> = hosts.iter().map(bytes::bytes).collect();
    let fields = [
        bytes::bytes(token),
        bytes::bytes(name),
        bytes::list(&[vec![kind]]),
        bytes::bytes(key.csr(name).expect("a request")),
        bytes::list(&hosts),
    ];
    let mut stream = dial_to_join(cluster).await;
    send(&mut stream, &bytes::ask_with("JoinToAuth::Join", 9, &fields.concat())).await;
    let v1::JoinAnswer::Joined {
        certificate, anchors, ..
    } = answered(&mut stream, 9).await
    else {
        panic!("the token admits it");
    };
    let der = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(CertificateDer::from).collect();
    let anchors = TrustAnchors {
        user: der(anchors.user),
        host: der(anchors.host),
        db: der(anchors.db),
        db_client: der(anchors.db_client),
    };
    Identity::new(certificate.into(), key, anchors, clock().now()).expect("a host certificate")
}

async fn link(node: &Identity, route: AuthRoute) -> Mux {
    let dialer = AuthDialer::linked(route, &node.credentials, &node.anchors, &clock()).expect("an identity");
    let stream = dialer.dial().await.expect("auth answers");
    let (mux, _inbound, driver) = mux::start(stream, MuxSide::Dialled, Window::FIXED);
    tokio::spawn(driver);
    mux
}

/// The link of the v1 agent, through today's proxy.
async fn agents_link() -> Mux {
    let proxy = here(stage().cluster.proxy_port());
    link(&stage().agent, AuthRoute::ThroughProxy(vec![proxy])).await
}

async fn proxys_link() -> Mux {
    link(&stage().proxy, AuthRoute::Direct(vec![auth_of(&stage().cluster)])).await
}

/// Asks on a stream of its own, and hears an answer that version 1 can read.
async fn asks(link: &Mux, frame: &[u8], id: u64) -> v1::AuthToNode {
    let mut stream = link.open().await.expect("the link lives");
    send(&mut stream, frame).await;
    answered(&mut stream, id).await
}

/// A tunnel of a v1 agent to today's proxy, with its control stream.
async fn tunnel(agent: &Identity) -> (Mux, Inbound, MuxStream) {
    let cluster = &stage().cluster;
    let client = NodeClient::mutual(
        &agent.credentials,
        &agent.anchors,
        NodeKind::Proxy,
        alpn::TUNNEL,
        &clock(),
    )
    .expect("an identity");
    let tcp = socket::connect("127.0.0.1", cluster.proxy_port()).await;
    let stream = client.connect(tcp.expect("it listens")).await.expect("a proxy");
    let (mux, inbound, driver) = mux::start(stream, MuxSide::Dialled, Window::FIXED);
    tokio::spawn(driver);
    let control = mux.open().await.expect("a control stream");
    (mux, inbound, control)
}

/// Where nodes of today find a peer of this test.
struct Port {
    listener: Listener,
    sides: ServerSides,
}

impl Port {
    fn of(node: &Identity) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let web = WebCertificates::default();
        Self {
            listener: Listener::bind(any, "frozen").expect("a port"),
            sides: ServerSides::new(&node.credentials, &web, &node.anchors, &clock()).expect("an identity"),
        }
    }

    fn number(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    async fn accept(&self) -> (Spoken, ServerTls) {
        loop {
            let (tcp, _) = self.listener.accept().await.expect("a connection");
            let tcp = socket::adopt(tcp).expect("a socket");
            if let Ok(accepted) = self.sides.accept(tcp, Http::OneText).await {
                return accepted;
            }
        }
    }
}

/// What an administrator types at a node of today, to look into it or others.
fn looks_at(node: &Node, arguments: &[&str]) -> Output {
    let home = TestDir::new();
    let mut command = postern(home.path());
    command.args(arguments).arg("--data-dir").arg(&node.config.data_dir);
    run(command, PATIENCE)
}

/// Starts a node of today, and does not wait for it to be up.
fn node_of_today(config: &crate::harness::NodeConfig, directory: &TestDir) -> (Process, PathBuf) {
    let file = directory.write("node.yaml", config.yaml());
    let log = directory.join("node.log");
    let mut command = postern(directory.path());
    command.arg("start").arg("--config").arg(file);
    (Process::start("node", command, log.clone()), log)
}
