//! A proxy of version 1 in front of an agent of today, which joins and reaches auth through it.

use super::links::chain_of;
use super::{Port, answered, auth_of, block_on, bytes, next, node_of_today, refused, send, stage, v1};
use crate::harness::TestDir;
use crate::harness::configuration::{Join, NodeConfig, database};
use postern::net::mux::{self, Inbound, Mux, MuxSide, MuxStream, Window};
use postern::net::socket;
use postern::net::tls::Spoken;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

/// Today's agent reaches today's proxy, too, where a database called as another test's would be in its way.
const SERVICE: &str = "ledger";
const ANNOUNCED: &str = "ProxyToDb::Announced";

/// Carries the agent to auth, and hands its tunnels on.
async fn serve(port: Arc<Port>, tunnels: mpsc::Sender<(Mux, Inbound)>) {
    loop {
        let (spoken, mut tls) = port.accept().await;
        match spoken {
            Spoken::ToAuth => {
                let auth = auth_of(&stage().cluster);
                let mut tcp = socket::connect(&auth.host, auth.port).await.expect("auth listens");
                tokio::spawn(async move {
                    let _ended = tokio::io::copy_bidirectional(&mut tls, &mut tcp).await;
                });
            }
            Spoken::Tunnel => {
                let (mux, inbound, driver) = mux::start(tls, MuxSide::Accepted, Window::FIXED);
                tokio::spawn(driver);
                tunnels.send((mux, inbound)).await.expect("the test goes on");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The id of the next announcement, which version 1 reads, and whether it names the database.
async fn announcement(control: &mut MuxStream) -> (u64, bool) {
    let said = next::<v1::DbToProxy>(control).await;
    let v1::Said::Message(header, v1::DbToProxy::Announce { name, databases, .. }) = said else {
        panic!("{said:?}");
    };
    assert_eq!(name, "today");
    (header.id, databases.iter().any(|database| database.service == SERVICE))
}

fn keep_answering(mut control: MuxStream) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (id, _) = announcement(&mut control).await;
            send(&mut control, &bytes::answer(ANNOUNCED, id)).await;
        }
    })
}

/// A stream that the agent has accepted, with this on it.
async fn ask(mux: &Mux, frame: &[u8]) -> MuxStream {
    let mut stream = mux.open().await.expect("the tunnel lives");
    send(&mut stream, frame).await;
    assert_eq!(stream.read_u8().await.expect("at once"), 1, "the status byte");
    stream
}

fn open_relay(person: &[Vec<u8>]) -> Vec<u8> {
    let person: Vec<_> = person.iter().map(bytes::bytes).collect();
    let pair = [bytes::bytes("application_name"), bytes::bytes("psql")].concat();
    let fields = [
        bytes::varint(0x0123_4567_89ab_cdef),
        bytes::bytes([2; 16]),
        bytes::list(&person),
        bytes::bytes(SERVICE),
        bytes::bytes("app"),
        bytes::bytes("app"),
        bytes::list(&[pair]),
        bytes::bytes("192.0.2.1:5000"),
        bytes::bytes([1, 2, 3, 4]),
        bytes::varint(12),
    ];
    bytes::ask_with("ProxyToDb::OpenRelay", 31, &fields.concat())
}

/// Refuses one announcement, says what no agent knows, and asks for a session all the same.
async fn converse(mux: &Mux, mut control: MuxStream, person: &[Vec<u8>]) {
    let (id, _) = announcement(&mut control).await;
    send(&mut control, &bytes::answer(ANNOUNCED, id)).await;
    let (id, names_it) = announcement(&mut control).await;
    assert!(names_it);
    // A question of the proxy's own in between, which the agent refuses; then its announcement is refused.
    send(&mut control, &bytes::unknown_ask(ANNOUNCED, 77)).await;
    let why = refused::<v1::DbToProxy>(&mut control, 77).await;
    assert!(why.contains("does not know"), "{why}");
    send(&mut control, &bytes::refused(bytes::dialect(ANNOUNCED), id)).await;
    let _its_id = announcement(&mut control).await;
    send(&mut control, &bytes::refused(bytes::dialect(ANNOUNCED), 0)).await;
    // The next is answered with something from the future, and the one after it as ever: it is the same tunnel.
    let (id, _) = announcement(&mut control).await;
    send(&mut control, &bytes::unknown_answer(ANNOUNCED, id)).await;
    let (id, _) = announcement(&mut control).await;
    send(&mut control, &bytes::answer(ANNOUNCED, id)).await;
    let answering = keep_answering(control);

    let mut stream = ask(mux, &bytes::unknown_ask(ANNOUNCED, 30)).await;
    let why = refused::<v1::DbToProxy>(&mut stream, 30).await;
    assert!(why.contains("does not know"), "{why}");

    let mut stream = ask(mux, &bytes::ask("ProxyToDb::OpenRelay", 29)).await;
    let declined = answered::<v1::DbToProxy>(&mut stream, 29).await;
    assert!(matches!(declined, v1::DbToProxy::Declined(_)), "{declined:?}");

    let mut stream = ask(mux, &bytes::ask("ProxyToDb::CancelQuery", 28)).await;
    let declined = answered::<v1::DbToProxy>(&mut stream, 28).await;
    assert!(matches!(declined, v1::DbToProxy::Declined(_)), "{declined:?}");

    let mut stream = ask(mux, &open_relay(person)).await;
    let opened = answered::<v1::DbToProxy>(&mut stream, 31).await;
    assert!(
        matches!(opened, v1::DbToProxy::RelayOpened { process_id: 1.. }),
        "{opened:?}"
    );
    let mut authentication_ok = [0; 9];
    stream.read_exact(&mut authentication_ok).await.expect("PostgreSQL");
    assert_eq!(&authentication_ok, b"R\0\0\0\x08\0\0\0\0");
    assert!(!answering.is_finished(), "the tunnel lives");
    answering.abort();
}

#[test]
fn an_agent_of_today_serves_a_proxy_of_version_1_and_refuses_what_neither_knows() {
    let cluster = &stage().cluster;
    let client = cluster.client_for(SERVICE, "alice", "app", "app");
    let directory = TestDir::new();
    block_on(async {
        let port = Arc::new(Port::of(&stage().proxy));
        let join = Join::through_proxy(port.number(), &cluster.ca_pin());
        let config = NodeConfig::new("today", directory.join("today"))
            .with_databases(&database(SERVICE, &format!("localhost:{}", cluster.postgres.port), ""))
            .joining(join);
        let (sender, mut tunnels) = mpsc::channel(8);
        let serving = tokio::spawn(serve(port, sender));
        let (_agent, _log) = node_of_today(&config, &directory);
        let (mux, mut inbound) = tunnels.recv().await.expect("a tunnel");
        let control = inbound.recv().await.expect("a control stream");
        converse(&mux, control, &chain_of(&client)).await;
        serving.abort();
    });
    // What the agent refused is on its way to auth over the same proxy, or in its spool.
    crate::harness::until(
        "the refusals are in the agent's trail",
        crate::harness::PATIENCE,
        || {
            let spool = std::fs::read_dir(directory.join("today/spool")).expect("it is there");
            let segments = spool.filter_map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).ok());
            let kept: usize = segments.map(|text| text.matches("PND01W").count()).sum();
            let shipped = cluster.audit(&["--event", "peer.refused"]);
            let shipped = shipped.iter().filter(|event| event["server_hostname"] == "today");
            (kept + shipped.count() >= 2).then_some(())
        },
    );
}
