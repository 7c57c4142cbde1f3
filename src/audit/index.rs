//! The log's index: what to look for, and in which block of the log it is. Derived from the segments, and never ahead of them: it
//! is committed after their fsync, and what it lacks is read from them when the log is opened.
//!
//! A block is some hundred lines that stand together. The index has one row for each combination of event, person, service and
//! session that a block holds, not for each line: a session that runs ten thousand statements costs the index some ten rows, and
//! whoever looks for something reads a few blocks of the log itself (`query.rs`).

use super::AuditError;
use super::facts::Facts;
use super::log::MAX_STORED_BYTES;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const INDEX_FILE: &str = "index.sqlite";
/// Another version is deleted and made anew.
const SCHEMA_VERSION: i64 = 2;
/// A reader holds its lock for one question.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A block ends with the line that reaches this size: what a search reads to find one line in it takes less than a millisecond, and a
/// busy node's lines still share their rows.
const BLOCK_BYTES: usize = 256 << 10;
/// With its last line, whatever that is.
pub(super) const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + MAX_STORED_BYTES;

const SCHEMA: &str = "
    CREATE TABLE held (
        id         INTEGER PRIMARY KEY,
        segment    INTEGER NOT NULL,
        offset     INTEGER NOT NULL,
        length     INTEGER NOT NULL,
        event      TEXT NOT NULL,
        user       TEXT,
        db_service TEXT,
        sid        TEXT,
        first      INTEGER NOT NULL,
        last       INTEGER NOT NULL
    );
    CREATE INDEX held_last ON held (last);
    CREATE INDEX held_event ON held (event, last);
    CREATE INDEX held_user ON held (user, last) WHERE user IS NOT NULL;
    CREATE INDEX held_service ON held (db_service, last) WHERE db_service IS NOT NULL;
    CREATE INDEX held_sid ON held (sid, last) WHERE sid IS NOT NULL;
    CREATE TABLE source (id TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE position (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), segment INTEGER NOT NULL, offset INTEGER NOT NULL);
    INSERT INTO position VALUES (1, 0, 0);
";

/// A place in the log: everything before it is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// Lines that are about to be indexed, block by block.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    ended: Vec<Block>,
    /// The last line of each source; they stand in the order of the log.
    sources: Vec<(String, u64)>,
    lines: usize,
}

#[derive(Debug)]
struct Block {
    at: Position,
    length: u64,
    /// By the hash of their facts: a line whose combination is there costs no memory.
    held: HashMap<u64, Vec<(Held, Span)>>,
}

/// What lines are found by, but for their time.
#[derive(Debug)]
struct Held {
    event: String,
    user: Option<String>,
    db_service: Option<String>,
    sid: Option<String>,
}

impl Held {
    fn facts(&self) -> (&str, Option<&str>, Option<&str>, Option<&str>) {
        (
            &self.event,
            self.user.as_deref(),
            self.db_service.as_deref(),
            self.sid.as_deref(),
        )
    }
}

/// The times of the first and the last of them.
#[derive(Debug)]
struct Span {
    first: i64,
    last: i64,
}

impl Blocks {
    /// Adds the line at `at`, which has `length` bytes with its line feed.
    pub fn add(&mut self, facts: &Facts<'_>, (at, length): (Position, usize), (source, seq): (&str, u64)) {
        self.lines += 1;
        match self.sources.last_mut() {
            Some((last, number)) if last == source => *number = seq,
            _ => self.sources.push((source.to_owned(), seq)),
        }
        let follows = |block: &&mut Block| {
            block.length < BLOCK_BYTES as u64
                && (block.at.segment, block.at.offset + block.length) == (at.segment, at.offset)
        };
        if self.ended.last_mut().as_ref().is_none_or(|block| !follows(block)) {
            self.ended.push(Block {
                at,
                length: 0,
                held: HashMap::new(),
            });
        }
        if let Some(block) = self.ended.last_mut() {
            block.length += length as u64;
            block.hold(facts);
        }
    }

    pub fn lines(&self) -> usize {
        self.lines
    }
}

impl Block {
    fn hold(&mut self, facts: &Facts<'_>) {
        let of_facts = (
            &*facts.event,
            facts.user.as_deref(),
            facts.db_service.as_deref(),
            facts.sid.as_deref(),
        );
        let hash = self.held.hasher().hash_one(of_facts);
        let with_its_hash = self.held.entry(hash).or_default();
        match with_its_hash.iter_mut().find(|(held, _)| held.facts() == of_facts) {
            Some((_, span)) => {
                span.first = span.first.min(facts.time);
                span.last = span.last.max(facts.time);
            }
            None => {
                let (event, user, db_service, sid) = of_facts;
                let held = Held {
                    event: event.to_owned(),
                    user: user.map(str::to_owned),
                    db_service: db_service.map(str::to_owned),
                    sid: sid.map(str::to_owned),
                };
                let span = Span {
                    first: facts.time,
                    last: facts.time,
                };
                with_its_hash.push((held, span));
            }
        }
    }
}

pub(super) struct Index {
    path: PathBuf,
    connection: Connection,
}

impl Index {
    /// Opens the index of a log's directory; one that is damaged or of another version is made anew.
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        let path = dir.join(INDEX_FILE);
        match Self::try_open(&path) {
            Ok(Some(connection)) => return Ok(Self { path, connection }),
            Err(e) if !is_damage(&e) => return Err(failed(&path)(e)),
            _ => {}
        }
        for name in [INDEX_FILE, "index.sqlite-wal", "index.sqlite-shm"] {
            super::disk::remove(&dir.join(name))?;
        }
        let fresh = Self::try_open(&path).map_err(failed(&path))?;
        let connection = fresh.ok_or_else(|| AuditError::Index {
            path: path.clone(),
            detail: "a new one is of another version".into(),
        })?;
        Ok(Self { path, connection })
    }

    /// `None`: another version's.
    fn try_open(path: &Path) -> rusqlite::Result<Option<Connection>> {
        // Made by us, with the mode of the other audit files, before SQLite sees it.
        if !path.exists() {
            drop(super::disk::create_private(path));
        }
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Derived: losing the last commits with the power costs a catch-up, not an event.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found == 0 {
            let step = connection.transaction()?;
            step.execute_batch(SCHEMA)?;
            step.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            step.commit()?;
        }
        Ok((found == 0 || found == SCHEMA_VERSION).then_some(connection))
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn position(&self) -> Result<Position, AuditError> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Position {
                segment: row.get(0)?,
                offset: row.get(1)?,
            })
        };
        self.connection
            .query_row("SELECT segment, offset FROM position", [], read)
            .map_err(failed(&self.path))
    }

    /// The last number of a source; 0 for one that was never heard of.
    pub fn last_of(&self, source: &str) -> Result<u64, AuditError> {
        self.connection
            .prepare_cached("SELECT last FROM source WHERE id = ?1")
            .and_then(|mut statement| statement.query_row([source], |row| row.get(0)).optional())
            .map(Option::unwrap_or_default)
            .map_err(failed(&self.path))
    }

    /// Adds lines and moves the position behind them, in one transaction.
    pub fn add(&mut self, blocks: &Blocks, position: Position) -> Result<(), AuditError> {
        let path = self.path.clone();
        let add = |connection: &mut Connection| {
            let step = connection.transaction()?;
            add_blocks(&step, blocks)?;
            step.execute(
                "UPDATE position SET segment = ?1, offset = ?2",
                params![position.segment, position.offset],
            )?;
            step.commit()
        };
        add(&mut self.connection).map_err(failed(&path))
    }

    /// Forgets everything, to be filled again from the segments.
    pub fn clear(&mut self) -> Result<(), AuditError> {
        self.connection
            .execute_batch(
                "BEGIN; DELETE FROM held; DELETE FROM source; UPDATE position SET segment = 0, offset = 0; COMMIT;",
            )
            .map_err(failed(&self.path))
    }
}

fn add_blocks(step: &Transaction<'_>, blocks: &Blocks) -> rusqlite::Result<()> {
    let mut insert = step.prepare_cached(
        "INSERT INTO held (segment, offset, length, event, user, db_service, sid, first, last)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for Block { at, length, held } in &blocks.ended {
        for (held, span) in held.values().flatten() {
            insert.execute(params![
                at.segment,
                at.offset,
                length,
                held.event,
                held.user,
                held.db_service,
                held.sid,
                span.first,
                span.last
            ])?;
        }
    }
    let mut source = step.prepare_cached(
        "INSERT INTO source VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET last = max(last, excluded.last)",
    )?;
    for (id, seq) in &blocks.sources {
        source.execute(params![id, seq])?;
    }
    Ok(())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

pub(super) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> AuditError {
    move |e| AuditError::Index {
        path: path.to_owned(),
        detail: e.to_string(),
    }
}
