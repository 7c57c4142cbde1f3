//! The spool's promises, kept over crashes and full disks.

use super::*;
use crate::model::SystemClock;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn open_with(dir: &Path, limits: SpoolLimits) -> Spool {
    Spool::open(dir, limits, SystemClock::shared(), |bytes| bytes.fill(0xab)).unwrap()
}

fn open(dir: &Path) -> Spool {
    open_with(dir, SpoolLimits::default())
}

fn event(n: u64) -> String {
    format!("{{\"event\":\"e\",\"n\":{n}}}")
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(ending));
    found.sort();
    found
}

/// As a killed process leaves it.
pub(super) fn copy_dir(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for path in files(from, "") {
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

/// Everything that can be shipped, acknowledged as it comes.
fn drain(spool: &Spool) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(batch) = spool.next_batch(1000, 1 << 20).unwrap() {
        assert_eq!(batch.last_seq - batch.first_seq + 1, batch.lines.len() as u64);
        all.extend(batch.lines);
        spool.acknowledge(batch.last_seq).unwrap();
    }
    all
}

#[tokio::test]
async fn what_has_entered_can_be_shipped_in_order_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..500 {
        if n % 2 == 0 {
            spool.enter(event(n)).await.unwrap();
        } else {
            spool.try_enter(event(n)).unwrap();
        }
    }
    assert!(spool.wait_for_more().await);
    spool.enter_synced(event(500)).await.unwrap();
    let first = spool.next_batch(10, 1 << 20).unwrap().unwrap();
    assert_eq!((first.first_seq, first.last_seq), (1, 10));
    assert_eq!(
        spool.next_batch(10, 1 << 20).unwrap(),
        Some(first),
        "not acknowledged: the same again"
    );
    let small = spool.next_batch(10, 1).unwrap().unwrap();
    assert_eq!(small.lines.len(), 1, "a batch holds at least one event");
    assert_eq!(drain(&spool), (0..=500).map(event).collect::<Vec<_>>());
    assert_eq!(spool.backlog().0, 0);
    assert_eq!(spool.next_batch(10, 10).unwrap(), None);
}

#[tokio::test]
async fn an_event_is_written_and_synced_in_time_without_anyone_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.enter(event(1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), spool.wait_for_more())
        .await
        .unwrap();
    assert_eq!(spool.next_batch(1, 1).unwrap().unwrap().lines, [event(1)]);
}

#[tokio::test]
async fn a_crash_at_any_byte_of_the_last_two_lines_keeps_all_whole_lines_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..5 {
        spool.enter_synced(event(n)).await.unwrap();
    }
    let segment = files(dir.path(), ".jsonl").pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    let line = bytes.len() / 5;
    for length in line * 3..=bytes.len() {
        let crashed = copy_dir(dir.path());
        let torn = crashed.path().join(segment.file_name().unwrap());
        std::fs::OpenOptions::new()
            .write(true)
            .open(&torn)
            .unwrap()
            .set_len(length as u64)
            .unwrap();
        let again = open(crashed.path());
        let whole = (length / line) as u64;
        let expected = Recovered {
            events: whole,
            torn_bytes: (length % line) as u64,
        };
        assert_eq!(again.recovered(), expected);
        assert_eq!(again.id(), spool.id());
        again.enter_synced(event(99)).await.unwrap();
        let expected: Vec<_> = (0..whole).chain([99]).map(event).collect();
        assert_eq!(drain(&again), expected);
    }
}

#[tokio::test]
async fn a_copy_taken_in_mid_write_opens_with_a_beginning_of_what_was_entered() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        segment_bytes: 64 << 10,
        ..SpoolLimits::default()
    };
    let spool = open_with(dir.path(), limits);
    let writer = tokio::spawn({
        let spool = spool.clone();
        async move {
            for n in 0..20_000 {
                spool.enter(event(n)).await.unwrap();
                if n % 500 == 0 {
                    spool.enter_synced(event(n)).await.unwrap();
                }
            }
        }
    });
    while !writer.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let synced = spool.backlog().0;
        let crashed = copy_dir(dir.path());
        let again = open(crashed.path());
        let recovered = again.recovered().events;
        assert!(recovered >= synced, "{recovered} of {synced}");
        assert_eq!(drain(&again).len() as u64, recovered);
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn numbers_go_on_after_a_restart_and_the_unconfirmed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..10 {
        spool.enter(event(n)).await.unwrap();
    }
    spool.close().unwrap();
    assert_eq!(spool.enter(event(10)).await, Err(AuditError::Closed));
    assert_eq!(spool.try_enter(event(10)), Err((event(10), Full::Closed)));
    spool.acknowledge(4).unwrap();
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.recovered().events, 6);
    spool.enter(event(10)).await.unwrap();
    drop(spool);
    let spool = open(dir.path());
    let batch = spool.next_batch(100, 1 << 20).unwrap().unwrap();
    assert_eq!((batch.first_seq, batch.last_seq), (5, 11));
    assert_eq!(batch.lines, (4..=10).map(event).collect::<Vec<_>>());
    spool.acknowledge(11).unwrap();
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(files(dir.path(), ".jsonl").len(), 0, "confirmed segments are deleted");
    spool.enter_synced(event(11)).await.unwrap();
    assert_eq!(spool.next_batch(1, 1).unwrap().unwrap().first_seq, 12);
    assert!(matches!(
        spool.acknowledge(13),
        Err(AuditError::AcknowledgedAhead { last: 12, .. })
    ));
}

#[tokio::test]
async fn after_a_crash_a_segment_that_was_confirmed_may_come_again_with_its_numbers_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        segment_bytes: 1 << 10,
        ..SpoolLimits::default()
    };
    let spool = open_with(dir.path(), limits.clone());
    let (mut deleted, mut most_left) = (0, 0);
    for n in 0..100 {
        spool.enter_synced(event(n)).await.unwrap();
        let segments = files(dir.path(), ".jsonl").len();
        spool.acknowledge(n + 1).unwrap();
        deleted += segments - files(dir.path(), ".jsonl").len();
        let crashed = copy_dir(dir.path());
        let again = open_with(crashed.path(), limits.clone());
        let left = again.recovered().events;
        most_left = most_left.max(left);
        again.enter_synced(event(n + 1)).await.unwrap();
        let batch = again.next_batch(1000, 1 << 20).unwrap().unwrap();
        assert_eq!((batch.first_seq, batch.last_seq), (n + 2 - left, n + 2));
        assert_eq!(batch.lines, (n + 1 - left..=n + 1).map(event).collect::<Vec<_>>());
    }
    assert!(deleted > 2, "{deleted} segments were confirmed as a whole");
    let of_a_segment = (1 << 10) / event(0).len() as u64;
    assert!((1..=of_a_segment).contains(&most_left), "{most_left} of a segment");
    drop(spool);
    assert_eq!(open(dir.path()).recovered().events, 0, "a spool that was closed knows");
}

#[tokio::test]
async fn no_segment_is_deleted_before_it_is_written_down_that_it_was_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        segment_bytes: 1,
        ..SpoolLimits::default()
    };
    let spool = open_with(dir.path(), limits.clone());
    // A directory where the number would be written first.
    let obstacle = dir.path().join("acknowledged.new");
    std::fs::create_dir(&obstacle).unwrap();
    for n in 0..3 {
        spool.enter_synced(event(n)).await.unwrap();
        spool.acknowledge(n + 1).unwrap();
    }
    assert_eq!(files(dir.path(), ".jsonl").len(), 3);
    assert_eq!(spool.backlog().0, 0, "they need not be shipped again for that");
    std::fs::remove_dir(&obstacle).unwrap();
    let crashed = copy_dir(dir.path());
    assert_eq!(open_with(crashed.path(), limits).recovered().events, 3);
    spool.enter_synced(event(3)).await.unwrap();
    spool.acknowledge(4).unwrap();
    assert_eq!(files(dir.path(), ".jsonl").len(), 0);
}

#[tokio::test]
async fn a_full_disk_bound_blocks_and_recovers_after_an_acknowledge() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        queue_bytes: 0,
        segment_bytes: 100_000,
        disk_bytes: 0,
        write_every: Duration::from_millis(5),
        ..SpoolLimits::default()
    };
    let spool = open_with(dir.path(), limits);
    let large = |n: u64| format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(20_000));
    let mut entered = 0;
    let refused = loop {
        match spool.enter(large(entered)).await {
            Ok(()) => entered += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, AuditError::Blocked { .. }), "{refused}");
    assert!(matches!(spool.state(), SpoolState::Blocked { why, .. } if why.contains("not confirmed")));
    assert!(spool.enter_synced(large(0)).await.is_err());
    assert!(matches!(spool.try_enter(large(0)), Err((_, Full::Blocked))));
    let on_disk: u64 = files(dir.path(), ".jsonl")
        .iter()
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert!(on_disk <= 2 * (MAX_LINE_BYTES as u64 + 31), "{on_disk}");

    let mut state = spool.watch_state();
    let obstacle = dir.path().join("acknowledged.new");
    std::fs::create_dir(&obstacle).unwrap();
    let mut shipped = drain(&spool);
    let says_what_it_is =
        |state: &SpoolState| matches!(state, SpoolState::Blocked { why, .. } if why.contains("acknowledged"));
    state.wait_for(says_what_it_is).await.unwrap();
    std::fs::remove_dir(&obstacle).unwrap();
    state.wait_for(|state| *state == SpoolState::Open).await.unwrap();
    spool.enter_synced(large(entered)).await.unwrap();
    shipped.extend(drain(&spool));
    assert_eq!(
        shipped,
        (0..=entered).map(large).collect::<Vec<_>>(),
        "nothing was lost"
    );
}

#[tokio::test]
async fn a_disk_that_refuses_blocks_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // A directory where the first segment should be: making the file fails, as on a broken disk.
    let obstacle = dir.path().join("spool-00000000000000000001.jsonl");
    std::fs::create_dir(&obstacle).unwrap();
    let refused = spool.enter_synced(event(1)).await;
    assert!(matches!(refused, Err(AuditError::Blocked { .. })), "{refused:?}");
    let mut state = spool.watch_state();
    std::fs::remove_dir(&obstacle).unwrap();
    state.wait_for(|state| *state == SpoolState::Open).await.unwrap();
    spool.enter_synced(event(2)).await.unwrap();
    assert_eq!(drain(&spool), [event(1), event(2)], "what had entered was kept");
}

#[test]
fn callers_on_several_threads_share_the_fsync_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let one = |thread: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let callers = (0..20).map(|caller| {
                let spool = spool.clone();
                async move {
                    for n in 0..10 {
                        spool
                            .enter_synced(event(thread * 10_000 + caller * 100 + n))
                            .await
                            .unwrap();
                    }
                }
            });
            futures::future::join_all(callers).await;
        });
    };
    std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || one(thread)))));
    let shipped = drain(&spool);
    assert_eq!(shipped.len(), 800);
    for caller in (0..4).flat_map(|t| (0..20).map(move |c| t * 10_000 + c * 100)) {
        let places: Vec<_> = (0..10)
            .map(|n| shipped.iter().position(|line| *line == event(caller + n)).unwrap())
            .collect();
        assert!(places.is_sorted());
    }
}

#[tokio::test]
async fn a_queue_without_room_refuses_at_once_or_waits() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        queue_bytes: 0,
        ..SpoolLimits::default()
    };
    let spool = open_with(dir.path(), limits);
    let large = format!("{{\"t\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES - 8));
    assert_eq!(large.len(), MAX_LINE_BYTES);
    let mut entered = 0_u64;
    while spool.try_enter(large.clone()).is_ok() {
        entered += 1;
    }
    for _ in 0..3 {
        spool.enter(large.clone()).await.unwrap();
        entered += 1;
    }
    spool.close().unwrap();
    assert_eq!(drain(&open(dir.path())).len() as u64, entered);
    assert!(entered > 3);
}

#[tokio::test]
async fn what_is_not_one_line_of_json_does_not_enter() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert!(matches!(
        spool.enter("{\n}".into()).await,
        Err(AuditError::NotAnEvent { .. })
    ));
    assert!(matches!(spool.try_enter("x".into()), Err((_, Full::NotAnEvent))));
    let long = format!("{{{}}}", "x".repeat(MAX_LINE_BYTES));
    assert!(matches!(spool.enter(long).await, Err(AuditError::LineTooLong { .. })));
}

#[tokio::test]
async fn damage_other_than_a_torn_end_is_refused_with_the_file_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        segment_bytes: 1,
        ..SpoolLimits::default()
    };
    let spool = open_with(dir.path(), limits);
    for n in 0..3 {
        spool.enter_synced(event(n)).await.unwrap();
    }
    drop(spool);
    let segments = files(dir.path(), ".jsonl");
    assert_eq!(segments.len(), 3);
    for path in files(dir.path(), "") {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
    }
    std::fs::remove_file(&segments[0]).unwrap();
    let refused = Spool::open(dir.path(), SpoolLimits::default(), SystemClock::shared(), |_| ())
        .err()
        .unwrap();
    assert!(refused.to_string().contains("event 1 is the next to ship"), "{refused}");
    assert!(
        refused.to_string().contains("save its directory elsewhere"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_number_that_no_event_can_have_is_refused_with_the_file() {
    let beyond = MAX_NUMBER + 1;
    for (file, text) in [
        (String::from("spool-00000000000000000000.jsonl"), String::new()),
        (format!("spool-{beyond:020}.jsonl"), String::new()),
        (String::from("acknowledged"), u64::MAX.to_string()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("spool.id"), "ab".repeat(16)).unwrap();
        std::fs::write(dir.path().join(&file), text).unwrap();
        let opened = Spool::open(dir.path(), SpoolLimits::default(), SystemClock::shared(), |_| ());
        let refused = opened.err().expect("it is no spool").to_string();
        assert!(
            refused.contains(&file) && refused.contains("the number of an event"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn waiting_for_more_ends_when_the_spool_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let waiting = tokio::spawn({
        let spool = spool.clone();
        async move { spool.wait_for_more().await }
    });
    tokio::task::yield_now().await;
    spool.close().unwrap();
    assert!(!waiting.await.unwrap());
}

/// The machine's clock, which panics once it is told to.
#[derive(Default)]
struct FailingClock(std::sync::atomic::AtomicBool);

impl crate::model::Clock for FailingClock {
    fn now(&self) -> crate::model::Timestamp {
        assert!(!self.0.load(std::sync::atomic::Ordering::SeqCst), "the clock fails");
        SystemClock.now()
    }
}

#[tokio::test]
async fn after_a_panic_of_the_writer_nothing_enters_and_everybody_reads_why_and_what_was_synced_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(FailingClock::default());
    let spool = Spool::open(dir.path(), SpoolLimits::default(), clock.clone(), |bytes| {
        bytes.fill(0xab)
    })
    .unwrap();
    spool.enter_synced(event(1)).await.unwrap();
    clock.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let failed = |done: Result<(), AuditError>| {
        let error = done.expect_err("the writer is gone");
        assert!(matches!(error, AuditError::WriterFailed { .. }), "{error}");
        assert!(error.to_string().contains("panic"), "{error}");
    };
    failed(spool.enter_synced(event(2)).await);
    failed(spool.enter_synced(event(3)).await);
    failed(spool.enter(event(4)).await);
    assert_eq!(spool.try_enter(event(5)), Err((event(5), Full::Blocked)));
    assert!(matches!(spool.state(), SpoolState::Failed { .. }));
    failed(spool.close());
    drop(spool);
    let again = drain(&open(dir.path()));
    assert_eq!(again[0], event(1), "what was acknowledged is there");
    assert!(again.len() <= 2, "and nothing that was refused at the door: {again:?}");
}
