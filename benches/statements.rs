//! What the audit trail costs an agent for each statement of the simple protocol: its own event, and its result's. Nanoseconds of
//! the thread that relays, medians over interleaved rounds; the thread that writes the spool is another one.

use postern::actors::audit_taps::{AuditTap, ResultTap, audit_taps};
use postern::actors::session_limits::StrictMark;
use postern::actors::session_taps::AnswerTap;
use postern::actors::trail::Trail;
use postern::audit::{EventContext, SessionFields, SessionIdentity, Spool, SpoolLimits};
use postern::model::{
    ClusterName, ConnectionId, DbName, DbUser, NodeId, NodeName, PersonName, ServiceName, SessionId, SystemClock,
};
use postern::net::direction::{NoTap, Tap};
use postern::pki::entropy;
use postern::protocol::postgres::{Direction, FrameWalker};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

const ROUNDS: usize = 400;
/// Statements that are looked at together: a clock costs as much as a branch or two of theirs.
const BATCH: usize = 100;

fn message(message_type: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[message_type][..], &length.to_be_bytes(), body].concat()
}

/// As of `pgbench -S`.
fn exchange() -> (Vec<u8>, Vec<u8>) {
    let query = message(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 52718;\0");
    let answer = [
        message(
            b'T',
            b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
        ),
        message(b'D', b"\0\x01\0\0\0\x010"),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ];
    (query, answer.concat())
}

fn session(trail: &Trail) -> Arc<SessionFields> {
    let identity = SessionIdentity {
        user: &PersonName::new("alice").expect("a name"),
        sid: SessionId::from_random([1; 16]),
        db_service: &ServiceName::new("orders").expect("a name"),
        db_uri: "localhost:5432",
        db_name: &DbName::new("app").expect("a name"),
        db_user: &DbUser::new("app").expect("a name"),
        server_id: trail.node,
        server_hostname: &trail.node_name,
        connection: ConnectionId::from_random([3; 8]),
        replication: None,
    };
    SessionFields::new(&identity, &trail.context)
}

fn open(dir: &std::path::Path) -> Trail {
    let clock = SystemClock::shared();
    Trail {
        spool: Spool::open(dir, SpoolLimits::default(), clock.clone(), entropy::fill).expect("a spool"),
        context: EventContext::new(&ClusterName::new("bench").expect("a name"), clock, entropy::fill),
        node: NodeId::from_random([7; 16]),
        node_name: NodeName::new("agent-1").expect("a name"),
    }
}

/// Nanoseconds for each of a batch.
fn each(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..BATCH {
        work();
    }
    begin.elapsed().as_nanos() as f64 / BATCH as f64
}

fn request(tap: &mut AuditTap, query: &[u8]) {
    tap.observe(query).expect("sound");
    let admitted = tap.poll_admit(&mut Context::from_waker(Waker::noop()));
    assert!(admitted.is_ready(), "the spool has room");
}

fn answer(frames: &mut FrameWalker, tap: &mut impl AnswerTap, bytes: &[u8]) {
    frames.walk(bytes, |piece| tap.see(&piece)).expect("sound");
    let admitted = tap.poll_admit(&mut Context::from_waker(Waker::noop()));
    assert!(admitted.is_ready(), "the spool has room");
}

/// Until everything is written: the queue is empty at the beginning of each round.
fn settle(spool: &Spool) {
    while spool.queued_bytes() > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (events, _) = spool.backlog();
    if events > 0 {
        let batch = spool.next_batch(1, 1).expect("readable").expect("events");
        spool.acknowledge(batch.first_seq + events - 1).expect("they are there");
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = open(dir.path());
    let (mut requests, mut results): (AuditTap, ResultTap) =
        audit_taps(&trail, &session(&trail), StrictMark::default());
    let mut frames = FrameWalker::new(Direction::Backend);
    let (query, answered) = exchange();
    answer(&mut frames, &mut results, &message(b'Z', b"I"));
    let (mut asked, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        asked.push(each(|| request(&mut requests, &query)));
        with.push(each(|| answer(&mut frames, &mut results, &answered)));
        without.push(each(|| answer(&mut frames, &mut NoTap, &answered)));
        if round % 20 == 0 {
            settle(&trail.spool);
        }
    }
    let (asked, with, without) = (median(asked), median(with), median(without));
    println!("a statement's event:              {asked:6.0} ns");
    println!("its answer, without a result:     {without:6.0} ns");
    println!("its answer, with its result:      {with:6.0} ns");
    println!("the result:                       {:6.0} ns", with - without);
}
