//! Questions to the audit log: the index finds the lines, the segments give them.

use super::AuditError;
use super::index::{INDEX_FILE, failed};
use super::log::{segment_path, split_stored};
use crate::model::Timestamp;
use rusqlite::{Connection, ToSql};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What one answer may hold: a page of a person, or a step of an export.
pub const MAX_QUERY_EVENTS: usize = 10_000;
/// The memory of one answer. Events of statements are usually below a kilobyte; long statements reach it earlier.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// What to look for: all that is given must match.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub user: Option<String>,
    /// The database service.
    pub db: Option<String>,
    /// The event's name, for example `db.session.query`.
    pub event: Option<String>,
    pub sid: Option<String>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// At most `MAX_QUERY_EVENTS`.
    pub limit: usize,
}

struct Found {
    segment: u64,
    offset: u64,
    length: u64,
}

pub(super) fn run(index: &Connection, dir: &Path, query: &Query) -> Result<Vec<String>, AuditError> {
    if query.limit > MAX_QUERY_EVENTS {
        return Err(AuditError::QueryTooLarge {
            asked: query.limit,
            max: MAX_QUERY_EVENTS,
        });
    }
    let mut found = find(index, query).map_err(failed(&dir.join(INDEX_FILE)))?;
    let bytes = found.iter().map(|line| line.length).sum();
    if bytes > MAX_ANSWER_BYTES {
        return Err(AuditError::AnswerTooLarge {
            bytes,
            max: MAX_ANSWER_BYTES,
        });
    }
    found.reverse();
    let mut files = HashMap::new();
    found.iter().map(|line| read_event(dir, &mut files, line)).collect()
}

/// Newest first.
fn find(index: &Connection, query: &Query) -> rusqlite::Result<Vec<Found>> {
    let (since, until) = (
        query.since.map(Timestamp::as_micros),
        query.until.map(Timestamp::as_micros),
    );
    let conditions: [(&str, Option<&dyn ToSql>); 6] = [
        ("user = ?", query.user.as_ref().map(|v| v as _)),
        ("db_service = ?", query.db.as_ref().map(|v| v as _)),
        ("event = ?", query.event.as_ref().map(|v| v as _)),
        ("sid = ?", query.sid.as_ref().map(|v| v as _)),
        ("time >= ?", since.as_ref().map(|v| v as _)),
        ("time < ?", until.as_ref().map(|v| v as _)),
    ];
    let mut sql = String::from("SELECT segment, offset, length FROM event WHERE true");
    let mut values: Vec<&dyn ToSql> = Vec::new();
    for (condition, value) in conditions {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.push(value);
        }
    }
    sql.push_str(" ORDER BY time DESC, id DESC LIMIT ?");
    values.push(&query.limit);
    let mut statement = index.prepare_cached(&sql)?;
    let rows = statement.query_map(values.as_slice(), |row| {
        Ok(Found {
            segment: row.get(0)?,
            offset: row.get(1)?,
            length: row.get(2)?,
        })
    })?;
    rows.collect()
}

fn read_event(dir: &Path, files: &mut HashMap<u64, File>, line: &Found) -> Result<String, AuditError> {
    let path = segment_path(dir, line.segment);
    let failed = AuditError::io(&path, "reading an indexed event");
    let damaged = || AuditError::corrupt(&path, line.offset, "the line is not the one that was indexed");
    let file = match files.entry(line.segment) {
        std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
        std::collections::hash_map::Entry::Vacant(place) => place.insert(File::open(&path).map_err(&failed)?),
    };
    // `find` has bounded the sum of the lengths.
    let mut bytes = vec![0; usize::try_from(line.length).map_err(|_| damaged())?];
    file.read_exact_at(&mut bytes, line.offset).map_err(&failed)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    split_stored(&text).map(|(event, ..)| event).ok_or_else(damaged)
}
