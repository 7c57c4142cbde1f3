//! Questions to the audit log: the index finds the blocks, and the lines are found in them.
//!
//! Blocks are read from the newest on, and the newest lines so far are kept; a block whose last matching line is older than the
//! oldest of them ends the search.

use super::AuditError;
use super::facts::Facts;
use super::index::{BLOCK_BYTES_MAX, INDEX_FILE, Position, failed};
use super::log::{segment_path, split_stored};
use crate::model::Timestamp;
use rusqlite::{Connection, ToSql};
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
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

/// A line that matches. Lines of one time are in the order of the log.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    time: i64,
    at: Position,
    length: usize,
}

/// A block that holds a matching line.
struct Held {
    at: Position,
    length: u64,
    /// When its last line was that has what is looked for.
    last: i64,
}

pub(super) fn run(index: &Connection, dir: &Path, query: &Query) -> Result<Vec<String>, AuditError> {
    if query.limit > MAX_QUERY_EVENTS {
        return Err(AuditError::QueryTooLarge {
            asked: query.limit,
            max: MAX_QUERY_EVENTS,
        });
    }
    let mut segments = Segments::of(dir);
    let found = find(index, &mut segments, query)?;
    let bytes = found.iter().map(|line| line.length as u64).sum();
    if bytes > MAX_ANSWER_BYTES {
        return Err(AuditError::AnswerTooLarge {
            bytes,
            max: MAX_ANSWER_BYTES,
        });
    }
    let read = |line: &Found| {
        let text = String::from_utf8(segments.read(line.at, line.length)?);
        let event = text.ok().and_then(|text| Some(split_stored(&text)?.0));
        event.ok_or_else(|| not_as_indexed(dir, line.at))
    };
    found.iter().map(read).collect()
}

/// The newest, oldest first.
fn find(index: &Connection, segments: &mut Segments<'_>, query: &Query) -> Result<Vec<Found>, AuditError> {
    let path = segments.dir.join(INDEX_FILE);
    let failed = failed(&path);
    let mut newest = BinaryHeap::new();
    let mut seen = HashSet::new();
    let (sql, values) = (select(query), values(query));
    let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
    let mut statement = index.prepare_cached(&sql).map_err(&failed)?;
    let mut rows = statement.query(values.as_slice()).map_err(&failed)?;
    while let Some(row) = rows.next().map_err(&failed)? {
        let held = held(row).map_err(&failed)?;
        let oldest = newest.peek().map(|Reverse(found): &Reverse<Found>| found.time);
        if newest.len() >= query.limit && oldest.is_none_or(|oldest| held.last < oldest) {
            break;
        }
        if !seen.insert(held.at) {
            continue;
        }
        for found in lines_of(&held, segments, query)? {
            newest.push(Reverse(found));
            if newest.len() > query.limit {
                newest.pop();
            }
        }
    }
    let mut found: Vec<_> = newest.into_iter().map(|Reverse(found)| found).collect();
    found.sort_unstable();
    Ok(found)
}

const CONDITIONS: [&str; 6] = [
    "user = ?",
    "db_service = ?",
    "event = ?",
    "sid = ?",
    "last >= ?",
    "first < ?",
];

/// What is given for each of the conditions.
fn given(query: &Query) -> [Option<Box<dyn ToSql>>; CONDITIONS.len()] {
    fn text(value: &Option<String>) -> Option<Box<dyn ToSql>> {
        value.clone().map(|value| Box::new(value) as _)
    }
    let time = |value: Option<Timestamp>| value.map(|value| Box::new(value.as_micros()) as _);
    [
        text(&query.user),
        text(&query.db),
        text(&query.event),
        text(&query.sid),
        time(query.since),
        time(query.until),
    ]
}

fn values(query: &Query) -> Vec<Box<dyn ToSql>> {
    given(query).into_iter().flatten().collect()
}

/// The blocks that hold what is looked for, those with the newest first.
fn select(query: &Query) -> String {
    let mut sql = String::from("SELECT segment, offset, length, last FROM held WHERE true");
    for (condition, given) in CONDITIONS.iter().zip(given(query)) {
        if given.is_some() {
            sql.push_str(" AND ");
            sql.push_str(condition);
        }
    }
    sql.push_str(" ORDER BY last DESC");
    sql
}

fn held(row: &rusqlite::Row<'_>) -> rusqlite::Result<Held> {
    Ok(Held {
        at: Position {
            segment: row.get(0)?,
            offset: row.get(1)?,
        },
        length: row.get(2)?,
        last: row.get(3)?,
    })
}

/// The lines of a block that match.
fn lines_of(held: &Held, segments: &mut Segments<'_>, query: &Query) -> Result<Vec<Found>, AuditError> {
    let dir = segments.dir;
    let damaged = || not_as_indexed(dir, held.at);
    let length = usize::try_from(held.length)
        .ok()
        .filter(|length| *length <= BLOCK_BYTES_MAX);
    let bytes = segments.read(held.at, length.ok_or_else(damaged)?)?;
    let text = str::from_utf8(&bytes).map_err(|_| damaged())?;
    let (mut found, mut at) = (Vec::new(), held.at);
    for line in text.split_inclusive('\n') {
        let stored = line.strip_suffix('\n').and_then(split_stored);
        let (event, ..) = stored.ok_or_else(damaged)?;
        let facts = Facts::of(&event).map_err(|_| damaged())?;
        if query.asks_for(&facts) {
            found.push(Found {
                time: facts.time,
                at,
                length: line.len() - 1,
            });
        }
        at.offset += line.len() as u64;
    }
    Ok(found)
}

impl Query {
    fn asks_for(&self, facts: &Facts<'_>) -> bool {
        let is = |asked: &Option<String>, has: Option<&str>| asked.as_deref().is_none_or(|asked| has == Some(asked));
        is(&self.user, facts.user.as_deref())
            && is(&self.db, facts.db_service.as_deref())
            && is(&self.event, Some(&facts.event))
            && is(&self.sid, facts.sid.as_deref())
            && self.since.is_none_or(|since| facts.time >= since.as_micros())
            && self.until.is_none_or(|until| facts.time < until.as_micros())
    }
}

/// The segments that an answer is read from; each is opened once.
struct Segments<'d> {
    dir: &'d Path,
    open: HashMap<u64, File>,
}

impl<'d> Segments<'d> {
    fn of(dir: &'d Path) -> Self {
        Self {
            dir,
            open: HashMap::new(),
        }
    }

    fn read(&mut self, at: Position, length: usize) -> Result<Vec<u8>, AuditError> {
        let path = segment_path(self.dir, at.segment);
        let failed = AuditError::io(&path, "reading indexed events");
        let file = match self.open.entry(at.segment) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(File::open(&path).map_err(&failed)?),
        };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at.offset).map_err(&failed)?;
        Ok(bytes)
    }
}

fn not_as_indexed(dir: &Path, at: Position) -> AuditError {
    let path = segment_path(dir, at.segment);
    AuditError::corrupt(&path, at.offset, "the lines are not those that were indexed")
}
