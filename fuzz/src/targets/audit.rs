//! What the audit trail finds on a disk: the spool of a node, and the log on auth. Each run has a directory of its own.

use super::is_a_sentence;
use postern::audit::{AuditError, AuditLog, Query, Spool, SpoolLimits};
use postern::model::clock::SystemClock;
use postern::pki::entropy;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Removed with everything in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("postern-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).expect("a file");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The file names its place, or the error its rule.
fn is_an_error(error: &AuditError, directory: &Path) {
    is_a_sentence(error);
    if let AuditError::Corrupt { path, .. } | AuditError::Index { path, .. } | AuditError::Io { path, .. } = error {
        assert!(path.starts_with(directory), "{error}");
    }
}

/// The position in a spool's file: number and tab, checksum and tab; then the event and a line feed.
const HEAD_BYTES: usize = 30;

fn open_spool(directory: &Path) -> Result<Spool, AuditError> {
    Spool::open(directory, SpoolLimits::default(), SystemClock::shared(), entropy::fill)
}

/// The bytes are up to the first line feed what auth has confirmed, up to the second the digits in a segment's name, and then the
/// segment. What is whole at its beginning is kept and shipped as it stands there, the rest is cut off, and a second start finds
/// the same. What was confirmed is not sent again.
pub fn spool(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (confirmed, name, segment) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let Ok(first) = str::from_utf8(name).unwrap_or_default().parse::<u64>() else {
        return;
    };
    let directory = Directory::new();
    directory.write("spool.id", b"00112233445566778899aabbccddeeff\n");
    if !confirmed.is_empty() {
        directory.write("acknowledged", confirmed);
    }
    let file = format!("spool-{first:020}.jsonl");
    directory.write(&file, segment);
    let spool = match open_spool(&directory.0) {
        Ok(spool) => spool,
        Err(error) => return is_an_error(&error, &directory.0),
    };
    let recovered = spool.recovered();
    let acknowledged = str::from_utf8(confirmed)
        .unwrap_or_default()
        .trim_end()
        .parse()
        .unwrap_or(0);
    let kept = segment.len() - usize::try_from(recovered.torn_bytes).expect("it is a part of the file");
    let batch = spool.next_batch(usize::MAX, usize::MAX);
    let batch = batch.unwrap_or_else(|error| panic!("what was found whole cannot be read: {error}"));
    assert_eq!(
        batch.as_ref().map_or(0, |batch| batch.lines.len() as u64),
        recovered.events
    );
    if let Some(batch) = &batch {
        assert_eq!(batch.first_seq, acknowledged + 1);
        let shipped: usize = batch.lines.iter().map(|line| line.len() + HEAD_BYTES + 1).sum();
        let mut at = kept - shipped;
        for (number, line) in (batch.first_seq..).zip(&batch.lines) {
            assert!(segment[at..].starts_with(format!("{number:020}\t").as_bytes()));
            assert!(segment[at + HEAD_BYTES..].starts_with(line.as_bytes()));
            at += HEAD_BYTES + line.len() + 1;
        }
        spool
            .acknowledge(batch.last_seq)
            .expect("what was shipped can be confirmed");
    }
    assert_eq!(spool.next_batch(1, 1), Ok(None), "confirmed events are not sent again");
    let confirmed = batch.as_ref().map_or(acknowledged, |batch| batch.last_seq);
    drop(spool);
    let again = open_spool(&directory.0).unwrap_or_else(|error| panic!("the second start: {error}"));
    assert_eq!((again.recovered().events, again.recovered().torn_bytes), (0, 0));
    if confirmed < i64::MAX as u64 - 9 {
        again.try_enter("{\"a\":1}".to_owned()).expect("there is room");
        again.close().expect("it is written");
        let next = again.next_batch(9, 9999).expect("it is read").expect("it is there");
        assert!(
            next.first_seq > confirmed && next.lines == ["{\"a\":1}"],
            "{next:?} after {confirmed}"
        );
    }
}

/// The bytes are segments of the log, separated by a zero byte. What is whole is found as it stands there, a second start finds the
/// same. The last eight bytes are the first number that a node ships; whether it is taken or not, the next node's events are.
pub fn log(bytes: &[u8]) {
    let directory = Directory::new();
    for (number, segment) in bytes.split(|byte| *byte == 0).take(3).enumerate() {
        directory.write(&format!("{:08}.jsonl", number + 1), segment);
    }
    let everything = Query {
        limit: 10_000,
        ..Query::default()
    };
    let mut found = None;
    for _ in 0..2 {
        let log = match AuditLog::open(&directory.0) {
            Ok(log) => log,
            Err(error) => {
                assert!(found.is_none(), "the second start: {error}");
                return is_an_error(&error, &directory.0);
            }
        };
        let events = log
            .query(&everything)
            .unwrap_or_else(|error| panic!("what was indexed cannot be read: {error}"));
        for event in &events {
            let head = event.strip_suffix('}').expect("an object");
            assert!(bytes.windows(head.len()).any(|part| part == head.as_bytes()), "{event}");
        }
        assert!(
            found.as_ref().is_none_or(|found| *found == events),
            "{found:?}, then {events:?}"
        );
        found = Some(events);
    }
    let mut log = AuditLog::open(&directory.0).expect("the third start");
    let event = r#"{"event":"a","time":"2026-01-01T00:00:00.000Z"}"#.to_owned();
    let claimed = bytes.last_chunk().map_or(1, |last| u64::from_be_bytes(*last));
    if let Err(error) = log.append("claims-a-number", claimed, std::slice::from_ref(&event)) {
        is_an_error(&error, &directory.0);
    }
    assert_eq!(log.append("new-source", 1, std::slice::from_ref(&event)), Ok(1));
    let mine = Query {
        event: Some("a".to_owned()),
        ..everything
    };
    assert!(log.query(&mine).expect("a query").contains(&event));
}
