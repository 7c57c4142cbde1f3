//! The log's promises: each event once, found again, after any crash.

use super::index::INDEX_FILE;
use super::spool_tests::copy_dir;
use super::*;
use crate::model::{SystemClock, Timestamp};
use std::path::Path;
use std::time::Duration;

const SOURCE: &str = "abababababababababababababababab";
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

fn event(n: u64) -> String {
    let time = START + Duration::from_millis(n);
    let (user, service) = (
        ["alice", "bob"][(n % 2) as usize],
        ["orders", "stock", "people"][(n % 3) as usize],
    );
    format!(
        "{{\"event\":\"db.session.query\",\"code\":\"TDB02I\",\"time\":\"{time}\",\"user\":\"{user}\",\"sid\":\"s{}\",\"db_service\":\"{service}\",\
         \"db_query\":\"select ',\\\"src\\\":\\\"x' {n}\"}}",
        n / 10
    )
}

fn events(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(event).collect()
}

fn all(log: &AuditLog) -> Vec<String> {
    let query = Query {
        limit: MAX_QUERY_EVENTS,
        ..Query::default()
    };
    log.query(&query).unwrap()
}

fn lines_on_disk(dir: &Path) -> usize {
    let segments = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let texts = segments.filter(|p| p.extension().is_some_and(|e| e == "jsonl"));
    texts.map(|p| std::fs::read_to_string(p).unwrap().lines().count()).sum()
}

#[test]
fn a_batch_that_is_sent_again_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    assert_eq!(log.append(SOURCE, 1, &events(0..10)).unwrap(), 10);
    assert_eq!(log.append(SOURCE, 1, &events(0..10)).unwrap(), 10);
    assert_eq!(log.append(SOURCE, 6, &events(5..15)).unwrap(), 15);
    assert_eq!(log.append(SOURCE, 3, &events(2..4)).unwrap(), 15);
    assert_eq!(log.append(SOURCE, 16, &[]).unwrap(), 15);
    assert_eq!(log.append("another", 1, &events(90..91)).unwrap(), 1);
    assert_eq!(
        all(&log),
        events(0..15).into_iter().chain([event(90)]).collect::<Vec<_>>()
    );
    assert_eq!(lines_on_disk(dir.path()), 16);
    assert_eq!((log.last_of(SOURCE).unwrap(), log.last_of("nobody").unwrap()), (15, 0));
}

#[test]
fn events_of_two_nodes_with_the_same_numbers_are_kept_apart() {
    let other = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    log.append(SOURCE, 1, &events(0..5)).unwrap();
    log.append(other, 1, &events(5..8)).unwrap();
    // Each is asked for its own next number.
    assert!(log.append(other, 6, &events(8..9)).is_err());
    log.append(SOURCE, 6, &events(9..10)).unwrap();
    let stored = [events(0..8), events(9..10)].concat();
    assert_eq!(all(&log), stored);
    drop(log);
    assert_eq!(all(&AuditLog::open(dir.path()).unwrap()), stored, "and after a start");
}

#[test]
fn a_number_that_the_index_cannot_hold_is_refused_and_stands_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    for first in [u64::MAX, MAX_NUMBER + 1, MAX_NUMBER] {
        let refused = log.append("poison", first, &events(0..2)).unwrap_err();
        assert!(matches!(refused, AuditError::NumberTooLarge { .. }), "{refused}");
    }
    assert_eq!(log.append("last", MAX_NUMBER - 2, &events(0..2)), Ok(MAX_NUMBER - 1));
    assert_eq!(log.append(SOURCE, 1, &events(0..3)), Ok(3));
    drop(log);
    let mut log = AuditLog::open(dir.path()).unwrap();
    assert_eq!(log.append(SOURCE, 4, &events(3..4)), Ok(4));
}

#[test]
fn a_gap_is_refused_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    log.append(SOURCE, 1, &events(0..3)).unwrap();
    let refused = log.append(SOURCE, 5, &events(4..5)).unwrap_err();
    assert!(matches!(
        refused,
        AuditError::Gap {
            expected: 4,
            got: 5,
            ..
        }
    ));
    assert!(
        refused.to_string().contains("continues at event 4, but sent 5"),
        "{refused}"
    );
    assert!(matches!(
        log.append(SOURCE, 0, &events(0..1)),
        Err(AuditError::Gap { .. })
    ));
    assert!(matches!(
        log.append("", 1, &events(0..1)),
        Err(AuditError::NotAnEvent { .. })
    ));
    assert!(matches!(
        log.append("a\"b", 1, &events(0..1)),
        Err(AuditError::NotAnEvent { .. })
    ));
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn what_is_not_json_is_refused_and_what_is_odd_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    for bad in ["{\"a\":}", "{\"a\":1}\n{\"b\":2}", "[1]", "{}", ""] {
        let refused = log.append(SOURCE, 1, &[event(0), bad.to_owned()]);
        assert!(matches!(refused, Err(AuditError::NotAnEvent { .. })), "{bad}");
    }
    let odd = "{\"event\":\"x\",\"user\":5,\"user\":\"u\",\"src\":\"mine\",\"seq\":9}".to_owned();
    log.append(SOURCE, 1, std::slice::from_ref(&odd)).unwrap();
    drop(log);
    std::fs::remove_file(dir.path().join(INDEX_FILE)).unwrap();
    let log = AuditLog::open(dir.path()).unwrap();
    let query = Query {
        event: Some("x".into()),
        user: Some("u".into()),
        limit: 5,
        ..Query::default()
    };
    assert_eq!(log.query(&query).unwrap(), [odd]);
    assert_eq!(log.last_of(SOURCE).unwrap(), 1);
}

#[test]
fn every_condition_of_a_query_narrows_it_and_the_newest_are_given_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    log.append(SOURCE, 1, &events(0..60)).unwrap();
    let count = |query: Query| log.query(&Query { limit: 100, ..query }).unwrap().len();
    let text = |s: &str| Some(s.to_owned());
    assert_eq!(
        count(Query {
            user: text("alice"),
            ..Query::default()
        }),
        30
    );
    assert_eq!(
        count(Query {
            db: text("stock"),
            ..Query::default()
        }),
        20
    );
    assert_eq!(
        count(Query {
            user: text("bob"),
            db: text("stock"),
            ..Query::default()
        }),
        10
    );
    assert_eq!(
        count(Query {
            sid: text("s3"),
            ..Query::default()
        }),
        10
    );
    assert_eq!(
        count(Query {
            event: text("db.session.end"),
            ..Query::default()
        }),
        0
    );
    let at = |n| Some(START + Duration::from_millis(n));
    assert_eq!(
        count(Query {
            since: at(10),
            until: at(15),
            ..Query::default()
        }),
        5
    );
    let newest = Query {
        limit: 3,
        ..Query::default()
    };
    assert_eq!(log.query(&newest).unwrap(), events(57..60));
    let many = Query {
        limit: MAX_QUERY_EVENTS + 1,
        ..Query::default()
    };
    assert!(matches!(log.query(&many), Err(AuditError::QueryTooLarge { .. })));
}

#[test]
fn an_index_that_is_missing_damaged_behind_or_ahead_is_made_right() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join(INDEX_FILE);
    let mut log = AuditLog::open_with(dir.path(), 2000).unwrap();
    log.append(SOURCE, 1, &events(0..4)).unwrap();
    drop(log);
    let behind = std::fs::read(&index).unwrap();
    let mut log = AuditLog::open_with(dir.path(), 2000).unwrap();
    for n in 4..20 {
        log.append(SOURCE, n + 1, &events(n..n + 1)).unwrap();
    }
    drop(log);
    assert!(dir.path().join("00000003.jsonl").exists(), "segments are ended");
    let check = |what: &str, from: u64, to: u64| {
        let mut log = AuditLog::open_with(dir.path(), 2000).unwrap();
        assert_eq!(all(&log), events(from..to), "{what}");
        assert_eq!(log.append(SOURCE, to + 1, &[]).unwrap(), to, "{what}");
    };
    check("as it was", 0, 20);
    std::fs::remove_file(&index).unwrap();
    check("missing", 0, 20);
    std::fs::write(&index, "rubbish, and not a little of it".repeat(100)).unwrap();
    check("damaged", 0, 20);
    std::fs::write(&index, behind).unwrap();
    check("behind", 0, 20);
    let mut segments: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    segments.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
    segments.sort();
    let last = segments.pop().unwrap();
    let lost = std::fs::read_to_string(&last).unwrap().lines().count() as u64;
    std::fs::remove_file(&last).unwrap();
    check("ahead", 0, 20 - lost);
}

#[test]
fn a_torn_end_at_any_byte_is_cut_and_can_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    log.append(SOURCE, 1, &events(0..3)).unwrap();
    drop(log);
    let segment = dir.path().join("00000001.jsonl");
    let bytes = std::fs::read(&segment).unwrap();
    let ends: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at] == b'\n')
        .map(|at| at + 1)
        .collect();
    for length in ends[0]..=bytes.len() {
        let crashed = tempfile::tempdir().unwrap();
        std::fs::write(crashed.path().join("00000001.jsonl"), &bytes[..length]).unwrap();
        let mut log = AuditLog::open(crashed.path()).unwrap();
        let whole = ends.iter().filter(|end| **end <= length).count() as u64;
        assert_eq!(all(&log), events(0..whole));
        assert_eq!(log.append(SOURCE, 1, &events(0..3)).unwrap(), 3);
        assert_eq!(std::fs::read(crashed.path().join("00000001.jsonl")).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_line_before_the_last_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open_with(dir.path(), 10).unwrap();
    log.append(SOURCE, 1, &events(0..1)).unwrap();
    log.append(SOURCE, 2, &events(1..2)).unwrap();
    drop(log);
    std::fs::remove_file(dir.path().join(INDEX_FILE)).unwrap();
    std::fs::write(dir.path().join("00000001.jsonl"), "rubbish\n").unwrap();
    let refused = AuditLog::open(dir.path()).err().unwrap();
    assert!(matches!(refused, AuditError::Corrupt { offset: 0, .. }), "{refused}");
}

fn open_spool(dir: &Path) -> Spool {
    Spool::open(
        dir,
        SpoolLimits::default(),
        SystemClock::shared(),
        crate::pki::entropy::fill,
    )
    .unwrap()
}

/// What a shipper does.
fn ship(spool: &Spool, log: &mut AuditLog) {
    if !spool.has_met_the_log() {
        spool.meet(log.append(&spool.id(), 1, &[]).unwrap()).unwrap();
    }
    while let Some(batch) = spool.next_batch(5000, 4 << 20).unwrap() {
        spool
            .acknowledge(log.append(&spool.id(), batch.first_seq, &batch.lines).unwrap())
            .unwrap();
    }
}

#[tokio::test]
async fn a_spool_asks_the_log_after_a_crash_and_ships_nothing_twice() {
    let (spool_dir, log_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = AuditLog::open(log_dir.path()).unwrap();
    let spool = open_spool(spool_dir.path());
    for n in 0..10 {
        spool.enter_synced(event(n)).await.unwrap();
    }
    ship(&spool, &mut log);
    let crashed = copy_dir(spool_dir.path());
    let again = open_spool(crashed.path());
    assert_eq!(
        again.recovered().events,
        10,
        "it does not know that they were confirmed"
    );
    again.meet(log.append(&again.id(), 1, &[]).unwrap()).unwrap();
    assert_eq!(again.next_batch(100, 1 << 20).unwrap(), None);
    again.enter_synced(event(10)).await.unwrap();
    ship(&again, &mut log);
    assert_eq!(all(&log), events(0..11));
}

#[tokio::test]
async fn what_a_spool_has_entered_since_it_was_set_back_is_on_the_log_all_the_same() {
    let (spool_dir, log_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = AuditLog::open(log_dir.path()).unwrap();
    let spool = open_spool(spool_dir.path());
    spool.enter_synced(event(0)).await.unwrap();
    ship(&spool, &mut log);
    let snapshot = copy_dir(spool_dir.path());
    for n in 1..10 {
        spool.enter_synced(event(n)).await.unwrap();
    }
    ship(&spool, &mut log);
    let restored = open_spool(snapshot.path());
    for n in 20..25 {
        restored.enter_synced(event(n)).await.unwrap();
    }
    ship(&restored, &mut log);
    assert_ne!(restored.id(), spool.id());
    let found = all(&log);
    for expected in events(0..10).into_iter().chain(events(20..25)) {
        assert!(found.contains(&expected), "{expected}");
    }
    drop(restored);
    ship(&open_spool(snapshot.path()), &mut log);
    assert_eq!(all(&log), found, "the new id is kept");
}

#[tokio::test]
async fn a_hundred_thousand_events_go_through_spool_and_log_and_are_found() {
    const EVENTS: u64 = 100_000;
    let (spool_dir, log_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spool = Spool::open(spool_dir.path(), SpoolLimits::default(), SystemClock::shared(), |b| {
        b.fill(1)
    })
    .unwrap();
    let entering = tokio::spawn({
        let spool = spool.clone();
        async move {
            for n in 0..EVENTS {
                spool.enter(event(n)).await.unwrap();
            }
        }
    });
    let mut log = AuditLog::open(log_dir.path()).unwrap();
    let mut last = 0;
    while last < EVENTS {
        assert!(spool.wait_for_more().await);
        while let Some(batch) = spool.next_batch(5000, 4 << 20).unwrap() {
            last = log.append(&spool.id(), batch.first_seq, &batch.lines).unwrap();
            spool.acknowledge(last).unwrap();
            tokio::task::yield_now().await;
        }
    }
    entering.await.unwrap();
    assert_eq!((last, spool.backlog().0), (EVENTS, 0));
    assert_eq!(lines_on_disk(log_dir.path()) as u64, EVENTS);
    let mut found = 0;
    for step in 0..EVENTS / 10_000 {
        let query = Query {
            since: Some(START + Duration::from_millis(step * 10_000)),
            until: Some(START + Duration::from_millis((step + 1) * 10_000)),
            limit: MAX_QUERY_EVENTS,
            ..Query::default()
        };
        let answer = log.query(&query).unwrap();
        assert_eq!(answer, events(step * 10_000..(step + 1) * 10_000));
        found += answer.len() as u64;
    }
    assert_eq!(found, EVENTS);
}

#[test]
fn lines_of_one_session_share_their_rows_and_the_newest_are_found_across_blocks_whose_times_overlap() {
    const EVENTS: u64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let mut log = AuditLog::open(dir.path()).unwrap();
    let of = |n: u64, user: &str| event(n).replace("\"alice\"", user).replace("\"bob\"", user);
    // A node whose events arrive late: the log has them after those of the other, and they are older.
    let (early, late): (Vec<_>, Vec<_>) = (0..EVENTS)
        .map(|n| (of(2 * n, "\"carol\""), of(2 * n + 1, "\"dave\"")))
        .unzip();
    log.append("early", 1, &early).unwrap();
    log.append("late", 1, &late).unwrap();
    let rows: u64 = log
        .index
        .connection()
        .query_row("SELECT count(*) FROM held WHERE sid = 's7'", [], |row| row.get(0))
        .unwrap();
    assert!(rows < 10, "{rows} rows for ten lines of a session");
    let newest = |user: Option<&str>, limit| {
        let query = Query {
            user: user.map(str::to_owned),
            limit,
            ..Query::default()
        };
        log.query(&query).unwrap()
    };
    let both: Vec<_> = early
        .iter()
        .zip(&late)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .collect();
    assert_eq!(newest(None, 7), both[both.len() - 7..]);
    assert_eq!(newest(None, 4000), both[both.len() - 4000..]);
    assert_eq!(newest(Some("carol"), 3000), early[early.len() - 3000..]);
    assert_eq!(newest(Some("nobody"), 3), Vec::<String>::new());
    assert_eq!(newest(None, 0), Vec::<String>::new());
}
