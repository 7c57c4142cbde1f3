//! Nodes of version 1 at today's auth: every question that version 1 has, answered in a form that version 1 reads.

use super::v1::AuthToNode;
use super::{agents_link, answered, asks, block_on, bytes, looks_at, next, proxys_link, send, stage, v1};
use crate::harness::wait::until_ok;
use crate::harness::{Kind, PATIENCE};
use postern::net::mux::Mux;
use postern::node::Identity;
use postern::pki::{PeerUsage, PrivateKey, verify_host};
use rustls_pki_types::CertificateDer;

/// The rules at once, and within the next seconds that they are the newest.
async fn watches(link: &Mux, question: &str) {
    let mut stream = link.open().await.expect("a stream");
    let nothing_yet = [0];
    send(&mut stream, &bytes::ask_with(question, 3, &nothing_yet)).await;
    let said = next::<AuthToNode>(&mut stream).await;
    let v1::Said::Message(
        v1::Header {
            kind: v1::Kind::Tell, ..
        },
        AuthToNode::PolicyPublished {
            version,
            documents,
            max_age_secs,
            ..
        },
    ) = said
    else {
        panic!("{said:?}");
    };
    assert!(max_age_secs > 0 && documents.iter().any(|document| document.contains("\"alice\"")));
    loop {
        match next::<AuthToNode>(&mut stream).await {
            v1::Said::Message(_, AuthToNode::PolicyConfirmed { version: newest }) => break assert!(newest >= version),
            v1::Said::Message(_, AuthToNode::PolicyPublished { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Heartbeat and audit, as frozen.
async fn lives(link: &Mux, heartbeat: &str, ship: &str, first_seq: u64) {
    let heard = asks(link, &bytes::ask(heartbeat, 4), 4).await;
    let AuthToNode::Heard { proxies } = heard else {
        panic!("{heard:?}");
    };
    assert!(proxies.iter().any(|proxy| proxy.name == "proxy-1"), "{proxies:?}");
    // The first of its lines is no event, and never was.
    let declined = asks(link, &bytes::ask(ship, 5), 5).await;
    assert!(matches!(declined, AuthToNode::Declined { .. }), "{declined:?}");
    let lines = bytes::list(&[bytes::bytes("{\"a\":1}")]);
    let fields = [bytes::bytes("ab"), bytes::varint(first_seq), lines];
    let stored = asks(link, &bytes::ask_with(ship, 6, &fields.concat()), 6).await;
    assert!(
        matches!(stored, AuthToNode::AuditStored { last_seq } if last_seq == first_seq),
        "{stored:?}"
    );
}

async fn renews(link: &Mux, node: &Identity, question: &str) {
    let broken = asks(link, &bytes::ask(question, 6), 6).await;
    assert!(matches!(broken, AuthToNode::Declined { .. }), "{broken:?}");
    let key = PrivateKey::generate().expect("a key");
    let csr = bytes::bytes(key.csr(node.name.as_str()).expect("a request"));
    let question = bytes::ask_with(question, 7, &[csr, bytes::list(&[])].concat());
    let issued = asks(link, &question, 7).await;
    let AuthToNode::HostIssued { certificate, .. } = issued else {
        panic!("{issued:?}");
    };
    let leaf = [CertificateDer::from(certificate)];
    let host = verify_host(&leaf, &node.anchors, PeerUsage::Server, super::clock().now());
    assert_eq!(host.expect("a host certificate").node_id, node.node);
}

/// Leaf first, of what `ctl auth sign` gave a client.
pub fn chain_of(client: &crate::harness::Client) -> Vec<Vec<u8>> {
    use rustls_pki_types::pem::PemObject as _;
    let file = client.prefix.with_extension("crt");
    let certificates = CertificateDer::pem_file_iter(file).expect("a PEM file");
    certificates
        .map(|certificate| certificate.expect("a certificate").to_vec())
        .collect()
}

#[test]
fn an_agent_of_version_1_is_answered_by_todays_auth() {
    let client = stage().cluster.client("alice", "app", "app");
    block_on(async {
        let link = agents_link().await;
        watches(&link, "DbToAuth::WatchPolicy").await;
        lives(&link, "DbToAuth::Heartbeat", "DbToAuth::ShipAudit", 70_000).await;
        renews(&link, &stage().agent, "DbToAuth::RenewHost").await;

        let nobodys = asks(&link, &bytes::ask("DbToAuth::IssueDbClient", 8), 8).await;
        assert!(matches!(nobodys, AuthToNode::Declined { .. }), "{nobodys:?}");
        let person: Vec<_> = chain_of(&client).iter().map(bytes::bytes).collect();
        let key = PrivateKey::generate().expect("a key");
        let fields = [
            bytes::list(&person),
            bytes::bytes("orders"),
            bytes::bytes("app"),
            bytes::bytes("app"),
            bytes::bytes(key.csr("app").expect("a request")),
        ];
        let question = bytes::ask_with("DbToAuth::IssueDbClient", 9, &fields.concat());
        let issued = asks(&link, &question, 9).await;
        assert!(
            matches!(&issued, AuthToNode::DbClientIssued { certificate, not_after } if !certificate.is_empty() && *not_after > 0),
            "{issued:?}"
        );

        let broken = asks(&link, &bytes::ask("DbToAuth::IssueDbServer", 10), 10).await;
        assert!(matches!(broken, AuthToNode::Declined { .. }), "{broken:?}");
        let fields = [
            bytes::bytes("orders"),
            bytes::list(&[bytes::bytes("db.internal")]),
            bytes::varint(3600),
            bytes::bytes(key.csr("db.internal").expect("a request")),
        ];
        let question = bytes::ask_with("DbToAuth::IssueDbServer", 11, &fields.concat());
        let issued = asks(&link, &question, 11).await;
        assert!(
            matches!(&issued, AuthToNode::DbServerIssued { clients, .. } if !clients.is_empty()),
            "{issued:?}"
        );
    });
}

#[test]
fn a_proxy_of_version_1_is_answered_by_todays_auth() {
    block_on(async {
        let link = proxys_link().await;
        watches(&link, "ProxyToAuth::WatchPolicy").await;
        lives(&link, "ProxyToAuth::Heartbeat", "ProxyToAuth::ShipAudit", 1).await;
        renews(&link, &stage().proxy, "ProxyToAuth::RenewHost").await;
        for question in ["ProxyToAuth::LookAtInvite", "ProxyToAuth::AcceptInvite"] {
            let mut stream = link.open().await.expect("a stream");
            send(&mut stream, &bytes::ask(question, 12)).await;
            let answer = answered::<AuthToNode>(&mut stream, 12).await;
            let AuthToNode::AccountRefused { kind, .. } = answer else {
                panic!("{question}: {answer:?}");
            };
            assert!(matches!(kind, v1::AccountRefusal::NoInvite), "{question}: {kind:?}");
        }
    });
}

/// What auth asks of nodes is newer than version 1, whose nodes take no streams of auth's.
#[test]
fn auth_says_of_nodes_of_version_1_that_they_do_not_know_what_is_asked_and_their_links_live() {
    block_on(async {
        let links = [
            (agents_link().await, "DbToAuth::Heartbeat", "frozen-agent"),
            (proxys_link().await, "ProxyToAuth::Heartbeat", "frozen-proxy"),
        ];
        for (link, heartbeat, name) in links {
            // So that it is listed.
            let heard = asks(&link, &bytes::ask(heartbeat, 4), 4).await;
            assert!(matches!(heard, AuthToNode::Heard { .. }), "{heard:?}");
            for what in [&["actors"][..], &["actor", "agent"], &["trace", "--user", "nobody"]] {
                let looking = tokio::task::spawn_blocking(move || {
                    let auth = stage().cluster.node(Kind::Auth);
                    let words = [what, &["--node", name]].concat();
                    // Other tests have links of the same node, of which auth asks the newest.
                    until_ok("the node is asked", PATIENCE, || {
                        let said = looks_at(auth, &words).failed_with(1);
                        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
                        if said.contains("does not know this question") {
                            Ok(said)
                        } else {
                            Err(said)
                        }
                    })
                });
                let said = looking.await.expect("it ends");
                let why = "does not know this question: it is of an older version; update it";
                let named = format!("node {name} (version");
                assert!(said.contains(&named) && said.contains(why), "{what:?}: {said}");
            }
            let heard = asks(&link, &bytes::ask(heartbeat, 5), 5).await;
            assert!(matches!(heard, AuthToNode::Heard { .. }), "the link lives: {heard:?}");
        }
    });
}
