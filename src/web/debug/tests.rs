use super::*;
use crate::net::socket::connect_owners;
use crate::telemetry::observe::{About, ActorAnswer, Observer};
use crate::telemetry::view::NodeView;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use serde_json::Value;

fn parts() -> DebugParts {
    DebugParts {
        observer: Observer::new(About {
            node: "n".to_owned(),
            services: vec!["auth".to_owned()],
            ..About::default()
        })
        .shared(),
        others: watch::channel(nobody()).1,
    }
}

fn started(path: &Path) -> DebugService {
    DebugService::start(path, parts()).expect("started")
}

async fn ask(path: &Path, uri: &str) -> (u16, Value) {
    ask_over(connect_owners(path).await.expect("it listens"), uri).await
}

async fn ask_over(stream: impl crate::net::Stream, uri: &str) -> (u16, Value) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    let request = hyper::Request::get(uri)
        .header("host", "debug")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let answer = async move {
        let answer = sender.send_request(request).await.expect("answered");
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.expect("whole").to_bytes())
    };
    let ((status, body), _ended) = tokio::join!(answer, connection);
    (status, serde_json::from_slice(&body).expect("JSON"))
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> T {
    serde_json::from_value(answer).expect("of this shape")
}

#[tokio::test]
async fn it_answers_while_the_thread_of_an_actor_is_blocked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("debug.sock");
    let _service = started(&path);
    let (blocked, unblock) = std::sync::mpsc::channel::<()>();
    let seat = Seat::take(SeatSpec {
        path: "debug-tests/blocked".into(),
        rule: "permanent",
        bound: 4,
    });
    let held = seat.clone();
    let thread = std::thread::spawn(move || {
        held.takes(Label::of("Tested"), None, crate::model::Moment::now());
        let _released = unblock.recv();
        held.is_done(Duration::ZERO);
    });
    let in_hand = loop {
        let (status, answer) = ask(&path, "/v1/actors/debug-tests/blocked").await;
        assert_eq!(status, 200, "{answer}");
        let ActorAnswer::One { actor, .. } = read(answer) else {
            panic!("one has this path")
        };
        if let Some(in_hand) = actor.in_hand {
            break in_hand;
        }
    };
    assert_eq!(in_hand.message, "Tested");
    let view: NodeView = read(ask(&path, "/v1/actors").await.1);
    assert_eq!(
        (view.node.as_str(), view.services.as_slice()),
        ("n", &["auth".to_owned()][..])
    );
    let own = view.actors.iter().find(|actor| actor.path == "debug").expect("itself");
    assert_eq!((own.rule.as_str(), own.runtime.as_deref()), ("thread", Some("debug")));
    drop(blocked);
    thread.join().expect("released");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("debug.sock");
    let _service = started(&path);
    for (uri, code, part) in [
        ("/v1/actors/nobody", 404, "`postern actors`"),
        ("/v1/connections/nonsense/trace", 400, "16 hexadecimal digits"),
        ("/v1/connections/00000000deadbeef/trace", 404, "00000000deadbeef"),
    ] {
        let (status, answer) = ask(&path, uri).await;
        assert_eq!(status, code, "{uri}: {answer}");
        assert!(answer["error"].as_str().expect("a sentence").contains(part), "{answer}");
    }
}

#[tokio::test]
async fn the_socket_is_its_owners_replaces_a_stale_one_and_is_gone_with_the_service() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("debug.sock");
    let _of_a_process_that_was_killed = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let service = started(&path);
    assert_eq!(path.symlink_metadata().expect("there").mode() & 0o777, 0o600);
    assert_eq!(ask(&path, "/v1/actors").await.0, 200);
    drop(service);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stranger_reads_for_whom_it_is() {
    let me = nix::unistd::geteuid().as_raw();
    assert!(may_look(0) && may_look(me) && !may_look(me + 1));
    let (near, far) = tokio::io::duplex(4096);
    let refused = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(near), TowerToHyperService::new(routes::refusing(4711)));
    let ((status, answer), _ended) = tokio::join!(ask_over(far, "/v1/actors"), refused);
    assert_eq!(status, 403);
    assert!(
        answer["error"]
            .as_str()
            .expect("a sentence")
            .contains("you are uid 4711"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_say_what_they_ask_gives_their_place_to_others_soon() {
    use tokio::io::AsyncWriteExt as _;
    for begun in ["", "GET /v1/actors HTTP/1.1\r\nhost: deb"] {
        let (mut client, near) = tokio::io::duplex(4096);
        client.write_all(begun.as_bytes()).await.expect("room");
        let begin = tokio::time::Instant::now();
        answer(near, nix::unistd::geteuid().as_raw(), Arc::new(parts())).await;
        let took = begin.elapsed();
        assert!(took >= HEAD_DEADLINE && took < HEAD_DEADLINE * 2, "{begun:?}: {took:?}");
    }
}
