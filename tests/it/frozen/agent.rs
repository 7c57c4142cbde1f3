//! An agent of version 1 at today's proxy: its announcement, and the sessions that it is asked to open.

use super::{answered, bytes, join, next, refused, send, stage, tunnel, v1};
use crate::harness::configuration::DB_TOKEN;
use crate::harness::wire::cancel_plain;
use crate::harness::{Client, Kind, Output, Wire};
use postern::net::mux::{Inbound, MuxStream};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ACCEPTED: [u8; 1] = [1];
const ANNOUNCE: &str = "DbToProxy::Announce";

/// Announces the frozen database, and goes on announcing it.
async fn keep_announcing(mut control: MuxStream) -> tokio::task::JoinHandle<()> {
    send(&mut control, &bytes::ask(ANNOUNCE, 1)).await;
    let announced = answered::<v1::ProxyToDb>(&mut control, 1).await;
    assert!(matches!(announced, v1::ProxyToDb::Announced));
    tokio::spawn(async move {
        for id in 2.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            send(&mut control, &bytes::ask(ANNOUNCE, id)).await;
            let announced = answered::<v1::ProxyToDb>(&mut control, id).await;
            assert!(matches!(announced, v1::ProxyToDb::Announced));
        }
    })
}

fn psql(client: &Client) -> tokio::task::JoinHandle<Output> {
    let client = client.clone();
    tokio::task::spawn_blocking(move || client.psql("select 1"))
}

/// The stream of the next client, taken as version 1 takes it, and the id of its question.
async fn opened(inbound: &mut Inbound) -> (MuxStream, u64, Vec<u8>) {
    let mut stream = inbound.recv().await.expect("the proxy opens a stream");
    send(&mut stream, &ACCEPTED).await;
    let v1::Said::Message(header, open) = next::<v1::ProxyToDb>(&mut stream).await else {
        panic!("a question of version 1");
    };
    let v1::ProxyToDb::OpenRelay {
        connection,
        session,
        person,
        service,
        db_user,
        db_name,
        cancel_secret,
        ..
    } = open
    else {
        panic!("{open:?}");
    };
    assert!(matches!(header.kind, v1::Kind::Ask { deadline_ms: 1.. }));
    assert_eq!(header.connection, Some(connection));
    assert_eq!((session.len(), person.is_empty(), cancel_secret.len()), (16, false, 4));
    assert_eq!(
        (service.as_str(), db_user.as_str(), db_name.as_str()),
        ("orders", "app", "app")
    );
    (stream, header.id, cancel_secret)
}

const READY: &[u8] = b"Z\0\0\0\x05I";

/// PostgreSQL, as far as one empty answer to one query.
async fn play_postgresql(stream: &mut MuxStream, secret: &[u8]) {
    greet(stream, secret).await;
    answer_a_query(stream).await;
}

async fn greet(stream: &mut MuxStream, secret: &[u8]) {
    let greeting = [b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67", secret, READY].concat();
    send(stream, &greeting).await;
}

async fn answer_a_query(stream: &mut MuxStream) {
    assert_eq!(stream.read_u8().await.expect("a query"), b'Q');
    let length = stream.read_u32().await.expect("its length");
    let mut text = vec![0; length as usize - 4];
    stream.read_exact(&mut text).await.expect("the query");
    assert_eq!(text, b"select 1\0");
    send(stream, &[b"I\0\0\0\x04", READY].concat()).await;
    // Terminate, or nothing.
    let mut rest = Vec::new();
    let _either = stream.read_to_end(&mut rest).await;
    let _gone = stream.shutdown().await;
}

#[test]
fn an_agent_of_version_1_serves_clients_of_todays_proxy() {
    let client = stage().cluster.client("alice", "app", "app");
    super::block_on(async {
        let (_mux, mut inbound, control) = tunnel(&stage().agent).await;
        let announcing = keep_announcing(control).await;

        let declined = psql(&client);
        let (mut stream, id, _) = opened(&mut inbound).await;
        send(&mut stream, &bytes::answer("DbToProxy::Declined(access_denied)", id)).await;
        let output = declined.await.expect("psql ran");
        assert!(output.stderr.contains("FATAL:  no\n"), "{}", output.stderr);

        // What it does not know it refuses, as it always did; the client reads whom to upgrade.
        let not_known = psql(&client);
        let (mut stream, id, _) = opened(&mut inbound).await;
        send(&mut stream, &bytes::refused(v1_dialect(), id)).await;
        let output = not_known.await.expect("psql ran");
        let said = "agent frozen-agent does not know what this proxy asks of it";
        assert!(output.stderr.contains(said), "{}", output.stderr);
        assert!(output.stderr.contains("upgrade it"), "{}", output.stderr);

        // An answer from the future is named, too.
        let strange = psql(&client);
        let (mut stream, id, _) = opened(&mut inbound).await;
        send(&mut stream, &bytes::unknown_answer(ANNOUNCE, id)).await;
        let output = strange.await.expect("psql ran");
        let said = "agent frozen-agent answered what this proxy does not know";
        assert!(output.stderr.contains(said), "{}", output.stderr);

        // All of that on one tunnel, which serves still.
        let served = psql(&client);
        let (mut stream, id, secret) = opened(&mut inbound).await;
        send(&mut stream, &bytes::answer("DbToProxy::RelayOpened", id)).await;
        play_postgresql(&mut stream, &secret).await;
        let output = served.await.expect("psql ran");
        assert_eq!(output.code, 0, "{}", output.stderr);
        does_not_know_what_a_trace_asks(&client, &mut inbound).await;
        assert!(!announcing.is_finished(), "every announcement was answered");
        is_asked_to_cancel_in_words_that_it_knows(&client, &mut inbound).await;
        the_next_agent_is_asked(&client, &mut inbound).await;
        announcing.abort();
    });
}

/// `postern trace` at the proxy of an open session: the agent refuses the question, which is said, and the session goes on.
async fn does_not_know_what_a_trace_asks(client: &Client, inbound: &mut Inbound) {
    let connects = client.clone();
    let connecting = tokio::task::spawn_blocking(move || Wire::connect(&connects).expect("let in"));
    let (mut session, id, secret) = opened(inbound).await;
    send(&mut session, &bytes::answer("DbToProxy::RelayOpened", id)).await;
    greet(&mut session, &secret).await;
    let mut wire = connecting.await.expect("it connected");

    let proxy = stage().cluster.node(Kind::Proxy);
    let tracing = tokio::task::spawn_blocking(|| super::looks_at(proxy, &["trace", "--user", "alice"]).ok());
    let mut question = inbound.recv().await.expect("the proxy asks");
    send(&mut question, &ACCEPTED).await;
    let v1::Said::Unknown { id } = next::<v1::ProxyToDb>(&mut question).await else {
        panic!("version 1 knows what a trace asks");
    };
    send(&mut question, &bytes::refused(v1_dialect(), id)).await;
    let trace = tracing.await.expect("it ends");
    for part in [
        "alice as app to orders",
        "agent frozen-agent does not know this question: it is of an older version; update it",
        "OpenRelay -> agent frozen-agent",
    ] {
        // Lines are broken where the terminal ends.
        let said = trace.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(part), "{part}: {trace}");
    }

    let querying = tokio::task::spawn_blocking(move || wire.query("select 1"));
    answer_a_query(&mut session).await;
    assert_eq!(querying.await.expect("it asked"), Ok(Vec::new()));
}

/// It refuses what names the client who cancels, and cancels all the same.
async fn is_asked_to_cancel_in_words_that_it_knows(client: &Client, inbound: &mut Inbound) {
    let connecting = tokio::task::spawn_blocking({
        let client = client.clone();
        move || Wire::connect(&client).expect("allowed")
    });
    let (mut stream, id, secret) = opened(inbound).await;
    send(&mut stream, &bytes::answer("DbToProxy::RelayOpened", id)).await;
    let greeting = [
        b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67",
        secret.as_slice(),
        b"Z\0\0\0\x05I",
    ];
    send(&mut stream, &greeting.concat()).await;
    let session = connecting.await.expect("psql ran");
    let (port, key) = (client.port, session.cancel_key.clone());
    let cancelling = tokio::task::spawn_blocking(move || cancel_plain(port, &key));

    let mut asked = inbound.recv().await.expect("the proxy opens a stream");
    send(&mut asked, &ACCEPTED).await;
    let v1::Said::Unknown { id } = next::<v1::ProxyToDb>(&mut asked).await else {
        panic!("a question that version 1 does not know");
    };
    send(&mut asked, &bytes::refused(v1_dialect(), id)).await;
    let mut asked = inbound.recv().await.expect("the proxy opens a stream");
    send(&mut asked, &ACCEPTED).await;
    let v1::Said::Message(header, v1::ProxyToDb::CancelQuery { .. }) = next::<v1::ProxyToDb>(&mut asked).await else {
        panic!("a cancel of version 1");
    };
    send(&mut asked, &bytes::answer("DbToProxy::CancelForwarded", header.id)).await;
    cancelling.await.expect("the cancel's connection ended");
    let _gone = stream.shutdown().await;
}

/// Of two agents of the database, whichever is asked first does not know the question.
async fn the_next_agent_is_asked(client: &Client, first: &mut Inbound) {
    let other = join(&stage().cluster, "frozen-agent-2", DB_TOKEN, 2, &[]).await;
    let (_mux, mut second, control) = tunnel(&other).await;
    let announcing = keep_announcing(control).await;
    let client = psql(client);
    let (mut stream, id, next) = tokio::select! {
        (stream, id, _) = opened(first) => (stream, id, &mut second),
        (stream, id, _) = opened(&mut second) => (stream, id, first),
    };
    send(&mut stream, &bytes::refused(v1_dialect(), id)).await;
    let (mut stream, id, _) = opened(next).await;
    send(&mut stream, &bytes::answer("DbToProxy::Declined(access_denied)", id)).await;
    let output = client.await.expect("psql ran");
    assert!(output.stderr.contains("FATAL:  no\n"), "{}", output.stderr);
    announcing.abort();
}

fn v1_dialect() -> u8 {
    bytes::dialect(ANNOUNCE)
}

#[test]
fn a_proxy_refuses_what_an_agent_of_the_future_says_and_the_tunnel_lives() {
    super::block_on(async {
        let (_mux, _inbound, mut control) = tunnel(&stage().agent).await;
        send(&mut control, &bytes::unknown_ask(ANNOUNCE, 21)).await;
        let why = refused::<v1::ProxyToDb>(&mut control, 21).await;
        assert!(why.contains("does not know"), "{why}");
        // Neither a refusal nor an answer is refused: the next frame is the answer to the next question.
        send(&mut control, &bytes::refused(v1_dialect(), 22)).await;
        send(&mut control, &bytes::unknown_answer(ANNOUNCE, 23)).await;
        send(&mut control, &bytes::ask("DbToProxy::CancelForwarded", 24)).await;
        let why = refused::<v1::ProxyToDb>(&mut control, 24).await;
        assert!(why.contains("no place on a control stream"), "{why}");
    });
    super::unknown::audited(&stage().agent, "DbToProxy message that version");
}
