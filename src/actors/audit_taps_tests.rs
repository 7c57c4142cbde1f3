//! What reaches the audit trail of a session, when, and what is passed on meanwhile.

use super::*;
use crate::audit::memory_spool::{self, MemoryWriter};
use crate::audit::{EventContext, SessionIdentity, Spool, SpoolLimits, SpoolState};
use crate::model::clock::HeldClock;
use crate::model::{
    ClusterName, ConnectionId, DbName, DbUser, NodeId, NodeName, PersonName, ServiceName, SessionId, SharedClock,
    SystemClock, Timestamp,
};
use crate::policy::SessionOptions;
use crate::protocol::postgres::{Direction, FrameWalker};
use serde_json::{Value as Json, json};
use std::future::poll_fn;

fn message(message_type: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[message_type][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn done(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// A session of an agent whose spool is the given one.
struct Taps {
    requests: AuditTap,
    results: ResultTap,
    frames: FrameWalker,
}

impl Taps {
    fn over(spool: Spool, clock: SharedClock, strict: bool) -> Self {
        let trail = Trail {
            spool,
            context: EventContext::new(&ClusterName::new("test").unwrap(), clock, |bytes| bytes.fill(7)),
            node: NodeId::from_random([7; 16]),
            node_name: NodeName::new("agent-1").unwrap(),
        };
        let identity = SessionIdentity {
            user: &PersonName::new("alice").unwrap(),
            sid: SessionId::from_random([1; 16]),
            db_service: &ServiceName::new("orders").unwrap(),
            db_uri: "localhost:5432",
            db_name: &DbName::new("app").unwrap(),
            db_user: &DbUser::new("app").unwrap(),
            server_id: NodeId::from_random([2; 16]),
            server_hostname: &NodeName::new("agent-1").unwrap(),
            connection: ConnectionId::from_random([3; 8]),
            replication: None,
        };
        let session = SessionFields::new(&identity, &trail.context);
        let (requests, results) = audit_taps(&trail, &session, strict_mark(strict));
        let mut taps = Self {
            requests,
            results,
            frames: FrameWalker::new(Direction::Backend),
        };
        taps.server(&ready());
        taps
    }

    fn with_memory(strict: bool) -> (Self, MemoryWriter) {
        let clock = SystemClock::shared();
        let (spool, writer) = memory_spool::open(clock.clone());
        (Self::over(spool, clock, strict), writer)
    }

    fn client(&mut self, bytes: &[u8]) {
        self.requests.observe(bytes).expect("sound");
    }

    /// Whether what the client sent may be passed on; without waiting.
    fn passes(&mut self) -> Poll<Result<(), Refusal>> {
        self.requests.poll_admit(&mut Context::from_waker(Waker::noop()))
    }

    fn server(&mut self, bytes: &[u8]) {
        let Self { results, frames, .. } = self;
        frames.walk(bytes, |piece| results.see(&piece)).expect("sound");
    }
}

fn strict_mark(strict: bool) -> StrictMark {
    let mark = StrictMark::default();
    let options = SessionOptions {
        strict_audit: strict,
        ..SessionOptions::default()
    };
    let limits = crate::actors::session_limits::Limits::new(
        options,
        Timestamp::from_secs(1),
        crate::actors::session_limits::RestMark::default(),
        mark.clone(),
    );
    drop(limits);
    mark
}

/// What has entered so far, and is on disk now.
async fn entered(writer: &MemoryWriter) -> Vec<Json> {
    let entered = writer.next().await.expect("events");
    let events = entered.lines.iter().map(|line| serde_json::from_str(line).unwrap());
    let events = events.collect();
    writer.synced(entered);
    events
}

#[tokio::test]
async fn a_result_names_its_request_and_enters_before_its_ready_for_query_goes_on() {
    let (mut taps, writer) = Taps::with_memory(false);
    taps.client(&query("insert; update"));
    assert!(taps.passes().is_ready());
    taps.server(&[done("INSERT 0 5"), done("UPDATE 2")].concat());
    assert_eq!(entered(&writer).await.len(), 1, "the statement alone");
    let ready = ready();
    taps.server(&ready[..5]);
    taps.server(&ready[5..]);
    let events = entered(&writer).await;
    assert_eq!(
        (&events[0]["event"], &events[0]["code"]),
        (&json!("db.session.result"), &json!("TDB10I"))
    );
    assert_eq!(
        (&events[0]["success"], &events[0]["affected_records"]),
        (&json!(true), &json!(7))
    );
    assert_eq!(
        events[0]["results"],
        json!([{"request": 1, "command": "INSERT", "rows": 5}, {"request": 1, "command": "UPDATE", "rows": 2}])
    );
}

#[tokio::test]
async fn an_error_is_told_by_its_sqlstate_and_never_by_its_message() {
    let (mut taps, writer) = Taps::with_memory(false);
    taps.client(&query("select 'secret'::int"));
    taps.server(&message(
        b'E',
        b"SERROR\0VERROR\0C22P02\0Minvalid input: secret\0Hsecret\0\0",
    ));
    taps.server(&ready());
    let events = entered(&writer).await;
    let result = &events[1];
    assert_eq!((&result["success"], &result["error"]), (&json!(false), &json!("22P02")));
    assert_eq!(
        result["results"],
        json!([{"failed_at": "query", "severity": "ERROR", "sqlstate": "22P02", "request": 1}])
    );
    assert!(!result.to_string().contains("secret"), "{result}");
}

#[tokio::test]
async fn the_bytes_and_rows_of_a_copy_are_told_and_its_data_is_not() {
    let (mut taps, writer) = Taps::with_memory(false);
    taps.client(&query("copy t from stdin"));
    taps.server(&message(b'G', b"\0\0\0"));
    taps.client(&[message(b'd', b"secret\n"), message(b'c', b"")].concat());
    taps.server(&[done("COPY 1"), ready()].concat());
    taps.client(&query("copy t to stdout"));
    taps.server(
        &[
            message(b'H', b"\0\0\0"),
            message(b'd', b"secret\n"),
            done("COPY 1"),
            ready(),
        ]
        .concat(),
    );
    let events = entered(&writer).await;
    assert_eq!(
        events[1]["results"],
        json!([{"request": 1, "command": "COPY", "rows": 1, "copy": "in", "bytes_in": 7}])
    );
    assert_eq!(
        events[3]["results"],
        json!([{"request": 2, "command": "COPY", "rows": 1, "copy": "out", "bytes_out": 7}])
    );
    assert!(events.iter().all(|event| !event.to_string().contains("secret")));
}

#[tokio::test]
async fn all_parts_of_a_long_statement_have_one_number_and_its_result_has_it_too() {
    let (mut taps, writer) = Taps::with_memory(false);
    taps.client(&query(&"x".repeat(200_000)));
    taps.client(&query("select 1"));
    taps.server(&[done("SELECT 1"), ready(), done("SELECT 1"), ready()].concat());
    let events = entered(&writer).await;
    let requests: Vec<_> = events.iter().map(|event| event["request"].as_u64()).collect();
    assert_eq!(requests[..5], [Some(1), Some(1), Some(1), Some(1), Some(2)]);
    let of = |event: &Json| event["results"][0]["request"].as_u64();
    assert_eq!((of(&events[5]), of(&events[6])), (Some(1), Some(2)));
}

/// Altinn#4378: shippers that cut lines at 16 KB lost such events.
#[tokio::test]
async fn a_statement_whose_line_is_longer_than_16_kb_is_one_event_with_every_byte() {
    let (mut taps, writer) = Taps::with_memory(false);
    let text = format!("select '{}'", "\u{1}é\"".repeat(10_000));
    taps.client(&query(&text));
    let events = entered(&writer).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["db_query"], json!(text));
}

#[tokio::test]
async fn parameters_in_binary_also_those_that_read_as_text_and_null_are_recorded_byte_for_byte() {
    let (mut taps, writer) = Taps::with_memory(false);
    let body = b"\0s\0\0\x01\0\x01\0\x03\0\0\0\x02\xff\0\xff\xff\xff\xff\0\0\0\x041234\0\0";
    taps.client(&message(b'B', body));
    taps.client(
        &query("\u{e9}")
            .iter()
            .map(|byte| if *byte == 0xc3 { 0xff } else { *byte })
            .collect::<Vec<_>>(),
    );
    let events = entered(&writer).await;
    assert_eq!(
        events[0]["parameters"],
        json!([{"base64": "/wA="}, null, {"base64": "MTIzNA=="}])
    );
    assert_eq!(events[1]["db_query_base64"], json!("/6k="));
}

#[tokio::test]
async fn in_strict_mode_a_statement_is_passed_on_when_it_is_on_disk_and_copy_data_waits_for_nothing() {
    let (mut taps, writer) = Taps::with_memory(true);
    taps.client(&[query("one"), query("two")].concat());
    assert!(taps.passes().is_pending());
    let two = writer.next().await.expect("both have entered");
    assert_eq!(two.lines.len(), 2, "one fsync for both");
    assert!(taps.passes().is_pending(), "they are not on disk yet");
    // A part of the next one comes meanwhile.
    let third = query("three");
    taps.client(&third[..7]);
    writer.synced(two);
    assert!(poll_fn(|cx| taps.requests.poll_admit(cx)).await.is_ok());
    taps.client(&third[7..]);
    assert!(taps.passes().is_pending());
    assert_eq!(entered(&writer).await[0]["db_query"], json!("three"));
    assert!(poll_fn(|cx| taps.requests.poll_admit(cx)).await.is_ok());
    taps.client(&message(b'd', b"data"));
    assert!(taps.passes().is_ready());
}

#[tokio::test]
async fn without_strict_mode_a_statement_is_passed_on_when_it_has_entered() {
    let (mut taps, writer) = Taps::with_memory(false);
    taps.client(&query("one"));
    assert!(taps.passes().is_ready());
    assert_eq!(entered(&writer).await.len(), 1);
}

#[tokio::test]
async fn a_slow_sink_holds_both_directions_back_and_loses_nothing() {
    let (mut taps, writer) = Taps::with_memory(false);
    let text = "x".repeat(60_000);
    let mut sent = 0;
    while taps.passes().is_ready() {
        taps.client(&query(&text));
        sent += 1;
    }
    assert!(sent > 100, "the queue holds 8 MiB: {sent}");
    let held = |taps: &Taps| taps.requests.held_by();
    assert_eq!(held(&taps), WaitsFor::Audit);
    taps.server(&[done("SELECT 1"), ready()].concat());
    let mut cx = Context::from_waker(Waker::noop());
    let small = taps.results.poll_admit(&mut cx);
    let mut events = entered(&writer).await;
    assert!(poll_fn(|cx| taps.requests.poll_admit(cx)).await.is_ok());
    assert!(small.is_ready() || poll_fn(|cx| taps.results.poll_admit(cx)).await.is_ok());
    events.extend(entered(&writer).await);
    let of = |code: &str| events.iter().filter(|event| event["code"] == code).count();
    assert_eq!((of("TDB02I"), of("TDB10I")), (sent, 1));
}

#[tokio::test]
async fn a_disk_that_is_full_ends_the_session_with_57p03_and_lets_no_statement_through() {
    for strict in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let clock = SystemClock::shared();
        let spool = Spool::open(dir.path(), SpoolLimits::default(), clock.clone(), |bytes| bytes.fill(1)).unwrap();
        // A directory where the first segment should be: making the file fails, as on a full disk.
        std::fs::create_dir(dir.path().join("spool-00000000000000000001.jsonl")).unwrap();
        let mut taps = Taps::over(spool.clone(), clock, strict);
        taps.client(&query("one"));
        let passed = poll_fn(|cx| taps.requests.poll_admit(cx)).await;
        // Without strict mode this one may be lost: within the 100 ms in which nobody knows.
        assert_eq!(passed.is_ok(), !strict);
        let blocked = |state: &SpoolState| matches!(state, SpoolState::Blocked { .. });
        spool.watch_state().wait_for(blocked).await.unwrap();
        taps.client(&query("two"));
        let refusal = poll_fn(|cx| taps.requests.poll_admit(cx)).await.expect_err("blocked");
        assert_eq!(refusal.kind.sqlstate(), "57P03");
    }
}

#[tokio::test]
async fn a_result_that_the_disk_did_not_take_is_tried_once_more_when_the_session_ends() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SystemClock::shared();
    let spool = Spool::open(dir.path(), SpoolLimits::default(), clock.clone(), |bytes| bytes.fill(1)).unwrap();
    let in_the_way = dir.path().join("spool-00000000000000000001.jsonl");
    std::fs::create_dir(&in_the_way).unwrap();
    let mut taps = Taps::over(spool.clone(), clock, false);
    taps.client(&query("one"));
    assert!(poll_fn(|cx| taps.requests.poll_admit(cx)).await.is_ok());
    let blocked = |state: &SpoolState| matches!(state, SpoolState::Blocked { .. });
    spool.watch_state().wait_for(blocked).await.unwrap();
    taps.server(&[done("SELECT 1"), ready()].concat());
    let refusal = poll_fn(|cx| taps.results.poll_admit(cx)).await.expect_err("blocked");
    assert_eq!(refusal.kind.sqlstate(), "57P03");

    std::fs::remove_dir(&in_the_way).unwrap();
    spool.watch_state().wait_for(|state| !blocked(state)).await.unwrap();
    drop(taps);
    let on_disk = async {
        loop {
            let batch = spool.next_batch(100, 1 << 20).unwrap();
            if batch.is_some_and(|batch| batch.lines.iter().any(|line| line.contains("TDB10I"))) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(20), on_disk).await;
    found.expect("the result's event");
}

#[tokio::test]
async fn a_client_with_ten_thousand_unanswered_statements_is_held_back_until_postgresql_answers() {
    let (mut taps, writer) = Taps::with_memory(false);
    let group: Vec<u8> = (0..100).flat_map(|_| query("")).collect();
    let mut sent = 0;
    while taps.passes().is_ready() {
        taps.client(&group);
        sent += 100;
    }
    assert!((4096..10_000).contains(&sent), "{sent}");
    assert_eq!(taps.requests.held_by(), WaitsFor::Sink);
    let answers: Vec<u8> = (0..200).flat_map(|_| [message(b'I', b""), ready()].concat()).collect();
    taps.server(&answers);
    assert!(taps.passes().is_ready());
    drop(entered(&writer).await);
}

#[tokio::test]
async fn a_session_that_is_cut_in_a_pipeline_leaves_the_results_that_were_seen() {
    let (mut taps, writer) = Taps::with_memory(false);
    taps.client(
        &[
            message(b'P', b"\0a\0\0\0"),
            message(b'B', b"\0\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
        ]
        .concat(),
    );
    taps.server(&[message(b'1', b""), message(b'2', b""), done("INSERT 0 1")].concat());
    drop(taps);
    let events = entered(&writer).await;
    let result = events.last().unwrap();
    assert_eq!(
        result["results"],
        json!([{"request": 3, "parsed": 1, "command": "INSERT", "rows": 1}])
    );
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_change_the_order_of_events() {
    let clock = HeldClock::at(Timestamp::from_secs(2_000_000_000));
    let (spool, writer) = memory_spool::open(clock.clone());
    let mut taps = Taps::over(spool, clock.clone(), false);
    taps.client(&query("before"));
    clock.move_to(Timestamp::from_secs(1_000_000_000));
    taps.client(&query("after"));
    let events = entered(&writer).await;
    assert!(events[0]["time"].as_str() > events[1]["time"].as_str());
    assert_eq!((&events[0]["request"], &events[1]["request"]), (&json!(1), &json!(2)));
    assert_eq!((&events[0]["ei"], &events[1]["ei"]), (&json!(0), &json!(1)));
}
