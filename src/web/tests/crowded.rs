//! Somebody who opens connections and says nothing: what it costs the others.

use super::*;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

const SILENT: &str = "203.0.113.9:5000";

/// Connections of one client that say nothing.
fn held(room: &Room, count: usize) -> Vec<(DuplexStream, JoinHandle<()>)> {
    let hold = |_| {
        let (near, far) = tokio::io::duplex(1024);
        let person = PersonConnection {
            stream: Box::new(far),
            chain: Vec::new(),
            client: SILENT.parse().unwrap(),
        };
        (near, tokio::spawn(room.api.serve(person)))
    };
    (0..count).map(hold).collect()
}

#[test]
fn an_address_that_holds_connections_open_keeps_only_itself_out() {
    in_a_room(|room| async move {
        let secret = room.join("alice").await;
        let silent = held(&room, 300);
        let refused = room.ask_from(SILENT, &[], "GET", "/v1/me", &Value::Null).await;
        refused.refused(503, "too many connections of your address");
        room.log_in("alice", PASSWORD, &room.code(&secret), None).await.ok();
        drop(silent);
    });
}

#[test]
fn a_connection_that_says_nothing_is_closed_after_fifteen_seconds() {
    in_a_room(|room| async move {
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        for (_near, served) in held(&room, 1) {
            served.await.unwrap();
        }
        let seconds = began.elapsed().as_secs();
        assert!((14..=16).contains(&seconds), "{seconds} s");
    });
}

#[test]
fn a_place_is_free_again_when_its_connection_ends() {
    in_a_room(|room| async move {
        for (near, served) in held(&room, 300) {
            drop(near);
            served.await.unwrap();
        }
        let answer = room.ask_from(SILENT, &[], "GET", "/v1/me", &Value::Null).await;
        answer.refused(401, "you are not logged in");
    });
}
