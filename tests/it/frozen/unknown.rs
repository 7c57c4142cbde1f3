//! What one side does not know, in each of the seven dialects: refused by its id, or named by whoever asked; and the link goes on.

use super::{
    Port, agents_link, block_on, bytes, clock, dial_to_join, next_bytes, node_of_today, proxys_link, refused, send,
    stage, v1,
};
use crate::harness::configuration::{Join, NodeConfig};
use crate::harness::{Kind, PATIENCE, TestDir};
use postern::net::mux::{self, MuxSide, MuxStream, Window};
use postern::net::tls::Spoken;
use postern::node::Identity;
use postern::protocol::tunnel::{
    AuthToNode, DbToAuth, DbToProxy, Frame, FrameKind, JoinAnswer, JoinToAuth, ProxyToAuth, ProxyToDb, Wire,
};
use tokio::io::AsyncWriteExt as _;

/// A message of each dialect, in the order of their numbers.
const DIALECTS: [&str; 7] = [
    "JoinToAuth::Join",
    "JoinAnswer::Joined",
    "DbToAuth::WatchPolicy",
    "ProxyToAuth::WatchPolicy",
    "AuthToNode::Heard",
    "ProxyToDb::Announced",
    "DbToProxy::Announce",
];

/// What version 1 answers a question of the future with; `None` if it takes it for one of its own.
fn refusal_of_v1(frame: &[u8]) -> Option<Vec<u8>> {
    fn of<B: v1::Dialect>(frame: &[u8]) -> Option<Vec<u8>> {
        match v1::read::<B>(frame) {
            v1::Said::Unknown { id } => Some(bytes::refused(B::NUMBER, id)),
            _ => None,
        }
    }
    match frame[1] {
        1 => of::<v1::JoinToAuth>(frame),
        2 => of::<v1::JoinAnswer>(frame),
        3 => of::<v1::DbToAuth>(frame),
        4 => of::<v1::ProxyToAuth>(frame),
        5 => of::<v1::AuthToNode>(frame),
        6 => of::<v1::ProxyToDb>(frame),
        _ => of::<v1::DbToProxy>(frame),
    }
}

/// The id and the reason of what today's node reads as a refusal.
fn refusal_read_today<B: Wire>(frame: &[u8]) -> Option<(u64, String)> {
    match Frame::<B>::decode(frame).ok()?.header {
        postern::protocol::tunnel::Header {
            id,
            kind: FrameKind::Refused { why },
            ..
        } => Some((id, why)),
        _ => None,
    }
}

/// The id that today's node refuses it by.
fn refused_today<B: Wire>(frame: &[u8]) -> Option<u64> {
    Some(Frame::<B>::decode(frame).err()?.header?.id)
}

#[test]
fn a_variant_that_one_side_does_not_have_is_refused_by_its_id_in_every_dialect() {
    for (place, name) in DIALECTS.iter().enumerate() {
        let question = bytes::unknown_ask(name, 300);
        let question = &question[bytes::PREFIX..];
        let refusal = refusal_of_v1(question).unwrap_or_else(|| panic!("{name}: version 1 knows it"));
        let refusal = &refusal[bytes::PREFIX..];
        let (read, refused) = match place {
            0 => (
                refusal_read_today::<JoinToAuth>(refusal),
                refused_today::<JoinToAuth>(question),
            ),
            1 => (
                refusal_read_today::<JoinAnswer>(refusal),
                refused_today::<JoinAnswer>(question),
            ),
            2 => (
                refusal_read_today::<DbToAuth>(refusal),
                refused_today::<DbToAuth>(question),
            ),
            3 => (
                refusal_read_today::<ProxyToAuth>(refusal),
                refused_today::<ProxyToAuth>(question),
            ),
            4 => (
                refusal_read_today::<AuthToNode>(refusal),
                refused_today::<AuthToNode>(question),
            ),
            5 => (
                refusal_read_today::<ProxyToDb>(refusal),
                refused_today::<ProxyToDb>(question),
            ),
            _ => (
                refusal_read_today::<DbToProxy>(refusal),
                refused_today::<DbToProxy>(question),
            ),
        };
        assert_eq!(read, Some((300, "no".to_owned())), "{name}");
        assert_eq!(refused, Some(300), "{name}");
    }
}

/// A refusal of this node's message is on the audit log.
pub fn audited(node: &Identity, message: &str) {
    crate::harness::until("the refusal is on the audit log", PATIENCE, || {
        let events = stage().cluster.audit(&["--event", "peer.refused"]);
        let found = events.iter().any(|event| {
            event["peer"] == node.node.to_string()
                && event["message"].as_str().is_some_and(|text| text.contains(message))
        });
        found.then_some(())
    });
}

#[test]
fn auth_refuses_what_nodes_of_the_future_ask_and_their_links_live() {
    block_on(async {
        let links = [(agents_link().await, DIALECTS[2]), (proxys_link().await, DIALECTS[3])];
        for (link, question) in links {
            let mut stream = link.open().await.expect("a stream");
            send(&mut stream, &bytes::unknown_ask(question, 41)).await;
            let why = refused::<v1::AuthToNode>(&mut stream, 41).await;
            assert!(why.contains("does not know"), "{why}");
            // A refusal is not refused: the stream ends without a word.
            let mut stream = link.open().await.expect("the link lives");
            send(&mut stream, &bytes::refused(bytes::dialect(question), 42)).await;
            assert_eq!(next_bytes(&mut stream).await, None);
            let mut stream = link.open().await.expect("the link lives");
            send(&mut stream, &bytes::ask_with(question, 43, &[0])).await;
            assert!(next_bytes(&mut stream).await.is_some(), "the same link still serves");
        }
    });
    audited(&stage().agent, "DbToAuth message that version");
    audited(&stage().proxy, "ProxyToAuth message that version");
}

#[test]
fn auth_refuses_a_join_of_the_future_in_words() {
    block_on(async {
        let mut stream = dial_to_join(&stage().cluster).await;
        send(&mut stream, &bytes::unknown_ask(DIALECTS[0], 44)).await;
        let why = refused::<v1::JoinAnswer>(&mut stream, 44).await;
        assert!(why.contains("JoinToAuth message that version"), "{why}");
    });
    crate::harness::until("the refusal is on the audit log", PATIENCE, || {
        let events = stage().cluster.audit(&["--event", "peer.refused"]);
        let of_a_join = |text: &str| text.contains("JoinToAuth message");
        let found = events
            .iter()
            .any(|event| event["message"].as_str().is_some_and(of_a_join));
        found.then_some(())
    });
}

/// The host certificate of today's auth.
fn auths_identity() -> Identity {
    let data_dir = &stage().cluster.node(Kind::Auth).config.data_dir;
    let identity = Identity::load(&data_dir.join("identity"), clock().now()).expect("readable");
    identity.expect("it has one")
}

/// How an auth of another version takes what a node asks, until it gives in.
#[derive(Debug, Clone, Copy)]
enum Estranged {
    /// An older one, to which every question is new.
    Refuses,
    /// A newer one, whose every answer is new, and whose news and rules are, too.
    AnswersTheUnknown,
}

impl Estranged {
    async fn answer(self, stream: &mut MuxStream, question: &v1::ProxyToAuth, id: u64) {
        match (self, question) {
            (Self::Refuses, _) => send(stream, &bytes::refused(bytes::dialect("AuthToNode::Heard"), id)).await,
            (Self::AnswersTheUnknown, v1::ProxyToAuth::WatchPolicy { .. }) => {
                send(stream, &bytes::unknown_tell("AuthToNode::Heard")).await;
                // Its one document is `{}`, which is no rule of today.
                send(stream, &bytes::tell("AuthToNode::PolicyPublished")).await;
                send(stream, &bytes::tell("AuthToNode::PolicyConfirmed")).await;
            }
            (Self::AnswersTheUnknown, _) => send(stream, &bytes::unknown_answer("AuthToNode::Heard", id)).await,
        }
    }
}

/// Which questions have been asked of an estranged auth.
#[derive(Debug, Default)]
struct Asked {
    policy: bool,
    heartbeat: bool,
    audit: bool,
}

/// Takes the one link of a node, and estranges every question until it has heard each; audit is taken after that.
async fn estrange(port: Port, how: Estranged) {
    let (spoken, tls) = port.accept().await;
    assert_eq!(spoken, Spoken::Node);
    let (_mux, mut inbound, driver) = mux::start(tls, MuxSide::Accepted, Window::FIXED);
    tokio::spawn(driver);
    let mut asked = Asked::default();
    let mut open = Vec::new();
    let served = async {
        while let Some(mut stream) = inbound.recv().await {
            let frame = next_bytes(&mut stream).await.expect("a question");
            let v1::Said::Message(header, question) = v1::read::<v1::ProxyToAuth>(&frame) else {
                panic!("version 1 does not know what a proxy asks first");
            };
            let all = asked.policy && asked.heartbeat && asked.audit;
            match &question {
                v1::ProxyToAuth::WatchPolicy { .. } => asked.policy = true,
                v1::ProxyToAuth::Heartbeat { .. } => asked.heartbeat = true,
                // A batch that was not stored comes again, on the same link.
                v1::ProxyToAuth::ShipAudit { .. } if all => return,
                v1::ProxyToAuth::ShipAudit { .. } => asked.audit = true,
                other => panic!("{other:?}"),
            }
            how.answer(&mut stream, &question, header.id).await;
            let _gone = stream.flush().await;
            // A node that lost a stream without a reason would have one to leave the link.
            open.push(stream);
        }
        panic!("the node left the link after {asked:?}");
    };
    tokio::select! {
        () = served => {}
        (again, _) = port.accept() => panic!("the node dialled again: {again:?}"),
    }
}

#[test]
fn a_node_stays_with_an_auth_that_refuses_its_questions_or_answers_them_in_words_of_the_future() {
    let cluster = &stage().cluster;
    let pin = cluster.ca_pin();
    for how in [Estranged::Refuses, Estranged::AnswersTheUnknown] {
        let directory = TestDir::new();
        let data_dir = directory.join("proxy");
        std::fs::create_dir_all(data_dir.join("identity")).expect("ours");
        stage().proxy.save(&data_dir.join("identity")).expect("ours");
        block_on(async {
            let port = Port::of(&auths_identity());
            let join = Join::at_auth(port.number(), &pin);
            let config = NodeConfig::new("frozen-proxy", &data_dir).with_proxy().joining(join);
            let (_node, log) = node_of_today(&config, &directory);
            estrange(port, how).await;
            let log = std::fs::read_to_string(log).expect("its log");
            assert!(log.contains("upgrade"), "{how:?}: {log}");
        });
    }
}

#[test]
fn a_node_that_is_answered_its_join_in_words_of_the_future_says_so() {
    let directory = TestDir::new();
    let pin = stage().cluster.ca_pin();
    block_on(async {
        let port = Port::of(&auths_identity());
        let join = Join::at_auth(port.number(), &pin);
        let config = NodeConfig::new("joiner", directory.join("joiner"))
            .with_proxy()
            .joining(join);
        let (mut node, log) = node_of_today(&config, &directory);
        let (spoken, mut tls) = port.accept().await;
        assert_eq!(spoken, Spoken::Join);
        let frame = next_bytes(&mut tls).await.expect("a question");
        let v1::Said::Message(header, v1::JoinToAuth::Join { .. }) = v1::read(&frame) else {
            panic!("version 1 reads a join of today");
        };
        send(&mut tls, &bytes::unknown_answer(DIALECTS[1], header.id)).await;
        let ended = tokio::task::spawn_blocking(move || node.wait(PATIENCE));
        assert_eq!(ended.await.expect("it ends"), 1);
        let log = std::fs::read_to_string(log).expect("its log");
        assert!(log.contains("upgrade this node"), "{log}");
    });
}
