//! The log's index: what to look for, and where it is. Derived from the segments, and never ahead of them: it is committed
//! after their fsync, and what it lacks is read from them when the log is opened.

use super::AuditError;
use crate::model::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const INDEX_FILE: &str = "index.sqlite";
/// Another version is deleted and made anew.
const SCHEMA_VERSION: i64 = 1;
/// A reader holds its lock for one question.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE event (
        id         INTEGER PRIMARY KEY,
        time       INTEGER NOT NULL,
        event      TEXT NOT NULL,
        code       TEXT NOT NULL,
        user       TEXT,
        db_service TEXT,
        sid        TEXT,
        segment    INTEGER NOT NULL,
        offset     INTEGER NOT NULL,
        length     INTEGER NOT NULL
    );
    CREATE INDEX event_time ON event (time);
    CREATE INDEX event_name ON event (event, time);
    CREATE INDEX event_user ON event (user, time) WHERE user IS NOT NULL;
    CREATE INDEX event_service ON event (db_service, time) WHERE db_service IS NOT NULL;
    CREATE INDEX event_sid ON event (sid, time) WHERE sid IS NOT NULL;
    CREATE TABLE source (id TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE position (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), segment INTEGER NOT NULL, offset INTEGER NOT NULL);
    INSERT INTO position VALUES (1, 0, 0);
";

/// A place in the log: everything before it is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// What can be asked for.
#[derive(Debug, Default)]
pub(super) struct Facts {
    time: i64,
    event: String,
    code: String,
    user: Option<String>,
    db_service: Option<String>,
    sid: Option<String>,
}

impl Facts {
    /// Reads them from an event. One that is JSON but has no time, or text where none belongs, is indexed by what it has: it is
    /// kept, and can be found.
    pub fn of(event: &str) -> Result<Self, AuditError> {
        #[derive(Deserialize)]
        struct Usual {
            time: String,
            event: String,
            code: String,
            user: Option<String>,
            db_service: Option<String>,
            sid: Option<String>,
        }
        let micros = |time: &str| Timestamp::parse_rfc3339(time).map_or(0, Timestamp::as_micros);
        if let Ok(usual) = serde_json::from_str::<Usual>(event) {
            return Ok(Self {
                time: micros(&usual.time),
                event: usual.event,
                code: usual.code,
                user: usual.user,
                db_service: usual.db_service,
                sid: usual.sid,
            });
        }
        let odd: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(event).map_err(|e| AuditError::NotAnEvent { why: e.to_string() })?;
        let text = |name: &str| odd.get(name).and_then(|v| v.as_str()).map(str::to_owned);
        Ok(Self {
            time: micros(&text("time").unwrap_or_default()),
            event: text("event").unwrap_or_default(),
            code: text("code").unwrap_or_default(),
            user: text("user"),
            db_service: text("db_service"),
            sid: text("sid"),
        })
    }
}

/// One line of the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub facts: Facts,
    pub at: Position,
    pub length: usize,
    pub source: String,
    pub seq: u64,
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
    pub fn add(&mut self, entries: &[Entry], position: Position) -> Result<(), AuditError> {
        let path = self.path.clone();
        let add = |connection: &mut Connection| {
            let step = connection.transaction()?;
            add_entries(&step, entries)?;
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
                "BEGIN; DELETE FROM event; DELETE FROM source; UPDATE position SET segment = 0, offset = 0; COMMIT;",
            )
            .map_err(failed(&self.path))
    }
}

fn add_entries(step: &Transaction<'_>, entries: &[Entry]) -> rusqlite::Result<()> {
    let mut event = step.prepare_cached(
        "INSERT INTO event (time, event, code, user, db_service, sid, segment, offset, length)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut source = step.prepare_cached(
        "INSERT INTO source VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET last = max(last, excluded.last)",
    )?;
    for (at, entry) in entries.iter().enumerate() {
        let Facts {
            time,
            event: name,
            code,
            user,
            db_service,
            sid,
        } = &entry.facts;
        let (segment, offset) = (entry.at.segment, entry.at.offset);
        event.execute(params![
            time,
            name,
            code,
            user,
            db_service,
            sid,
            segment,
            offset,
            entry.length
        ])?;
        // Lines of one source stand together: the last of them is enough.
        if entries.get(at + 1).is_none_or(|next| next.source != entry.source) {
            source.execute(params![entry.source, entry.seq])?;
        }
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
