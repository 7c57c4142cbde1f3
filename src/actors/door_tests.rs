//! The places of strangers, and what is told of those who are turned away.

use super::*;
use crate::actors::places::PlaceLimits;
use crate::actors::sim::cluster::{Cluster, NOW};
use crate::actors::trail::Trail;
use crate::audit::{EventContext, memory_spool};
use crate::model::clock::HeldClock;
use crate::model::{ClusterName, NodeId, NodeKind, NodeName, PersonName, SharedClock, Traits};
use crate::net::tls::{Credentials, NodeClient};
use crate::pki::{CaKind, CertificateAuthority, PersonProfile, PrivateKey, entropy};
use crate::protocol::alpn;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

fn door(per_address: usize, proxy_protocol: ProxyProtocol) -> (Arc<Door>, memory_spool::MemoryWriter) {
    let clock: SharedClock = HeldClock::at(NOW);
    let (spool, writer) = memory_spool::open(clock.clone());
    let cluster = Cluster::of_the_tests();
    let trail = Trail {
        spool,
        context: EventContext::new(&cluster.name, clock, entropy::fill),
        node: NodeId::from_random([1; 16]),
        node_name: NodeName::new("proxy-1").unwrap(),
    };
    let limits = PlaceLimits { all: 100, per_address };
    let door = Door {
        identity: cluster.identity.view(),
        http: Http::Pages,
        proxy_protocol,
        strangers: Strangers::limited(trail, limits),
    };
    (Arc::new(door), writer)
}

/// An accepted connection with its peer, and the client's end.
fn connected() -> (TcpStream, SocketAddr, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    for socket in [&accepted, &client] {
        socket.set_nonblocking(true).unwrap();
    }
    (accepted, peer, client)
}

#[tokio::test(start_paused = true)]
async fn strangers_of_one_address_have_so_many_places_and_give_them_back_at_the_deadline() {
    let (door, _writer) = door(2, ProxyProtocol::Off);
    let began = Instant::now();
    let meet = || {
        let ((accepted, peer, client), door) = (connected(), door.clone());
        (
            tokio::spawn(async move { door.meet(accepted, peer).await.err() }),
            client,
        )
    };
    let (first, second) = (meet(), meet());
    tokio::task::yield_now().await;
    let (third, _client) = meet();
    assert!(matches!(third.await.unwrap(), Some(TurnedAway::TooMany)));
    assert_eq!(began.elapsed().as_secs(), 0, "it is turned away at once");
    for (silent, _client) in [first, second] {
        let why = silent.await.unwrap();
        assert!(matches!(why, Some(TurnedAway::Unwelcome(Unwelcome::Late(_)))));
    }
    assert_eq!(began.elapsed().as_secs(), HANDSHAKE_DEADLINE.as_secs());
    let (later, _client) = meet();
    assert!(matches!(later.await.unwrap(), Some(TurnedAway::Unwelcome(_))));
}

#[tokio::test(start_paused = true)]
async fn behind_a_balancer_the_places_are_those_of_the_address_that_it_names() {
    let (door, _writer) = door(1, ProxyProtocol::On { from: Vec::new() });
    let meet = |named: &str| {
        let ((accepted, peer, mut client), door) = (connected(), door.clone());
        client
            .write_all(format!("PROXY TCP6 {named} ::1 5000 443\r\n").as_bytes())
            .unwrap();
        (
            tokio::spawn(async move { door.meet(accepted, peer).await.err() }),
            client,
        )
    };
    let _first = meet("2001:db8::1");
    let _other = meet("2001:db8:0:1::1");
    tokio::task::yield_now().await;
    // Another address of the first one's network.
    let (same, _client) = meet("2001:db8::2");
    assert!(matches!(same.await.unwrap(), Some(TurnedAway::TooMany)));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_audited_and_many_of_them_are_counted() {
    const TRIES: usize = 7;
    let (door, writer) = door(10, ProxyProtocol::Off);
    let cluster = Cluster::of_the_tests();
    let authority = CertificateAuthority::generate(CaKind::User, &ClusterName::new("gate.example").unwrap(), NOW);
    let key = PrivateKey::generate().unwrap();
    let profile = PersonProfile {
        name: PersonName::new("alice").unwrap(),
        roles: Vec::new(),
        traits: Traits::new(),
        mfa: false,
        route: None,
        pinned_ip: None,
    };
    let leaf = authority.unwrap().issue_person(
        &profile,
        &key.public_key(),
        NOW + std::time::Duration::from_secs(60),
        NOW,
    );
    let foreign = Credentials {
        chain: vec![leaf.unwrap()],
        key,
    };
    let clock: SharedClock = HeldClock::at(NOW);
    let anchors = &cluster.anchors.host;
    let dialer = NodeClient::person(Some(&foreign), anchors, NodeKind::Proxy, alpn::POSTGRESQL, &clock).unwrap();
    for _ in 0..TRIES {
        let (accepted, peer, client) = connected();
        let client = socket::adopt(client).unwrap();
        let (met, _client) = tokio::join!(door.meet(accepted, peer), dialer.connect(client));
        let Err(TurnedAway::Unwelcome(why)) = met else {
            panic!("it was let in");
        };
        assert!(matches!(why, Unwelcome::Certificate(_)), "{why}");
    }
    door.strangers.tell_counts_now();
    let events: Vec<serde_json::Value> = writer
        .next()
        .await
        .unwrap()
        .lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [first, others] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((&first["code"], &others["code"]), (&"T3007W".into(), &"T3007W".into()));
    assert!(
        first["addr.remote"]
            .as_str()
            .is_some_and(|address| address.starts_with("127.0.0.1:")),
        "{first}"
    );
    assert!(
        first["error"]
            .as_str()
            .is_some_and(|error| error.contains("certificate")),
        "{first}"
    );
    assert_eq!(
        (&others["times"], &others["addr.remote"]),
        (&(TRIES - 1).into(), &"127.0.0.1".into())
    );
}
