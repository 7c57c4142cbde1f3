//! The SQLite file: its mode, its pragmas, its schema.

use super::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// The schema that this version writes, in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;
/// How long to wait for the lock of another connection: longer than a checkpoint, shorter than a caller's patience.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// `expires` is in microseconds since the Unix epoch. The text order of SQLite's BINARY collation is that of the bytes.
const SCHEMA: &str = "
    CREATE TABLE item (
        key      TEXT PRIMARY KEY NOT NULL,
        value    BLOB NOT NULL,
        revision INTEGER NOT NULL,
        expires  INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX item_expires ON item (expires) WHERE expires IS NOT NULL;
    CREATE TABLE revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), last INTEGER NOT NULL);
    INSERT INTO revision VALUES (1, 0);
";

/// Opens the file for writing, creating it (mode 0600) and its schema where needed.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    create_private(path)?;
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&mut connection, path)?;
    Ok(connection)
}

/// Opens the file, which is as it should be, once more for writing.
pub(super) fn reopen_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    is_durable(&connection).map_err(|e| opening(path, &e))?;
    Ok(connection)
}

/// FULL: a commit is answered only after its fsync; NORMAL could lose it with the power.
fn is_durable(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Opens the file, which the writer has prepared, for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// SQLite gives its -wal and -shm the mode of the file itself, so the mode is right before SQLite sees it.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let refused = |e: std::io::Error| StoreError::Open {
        path: path.to_owned(),
        detail: e.to_string(),
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(refused)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(refused)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| opening(path, &e))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|e| opening(path, &e))?;
    Ok(connection)
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let refused = |e: rusqlite::Error| opening(path, &e);
    connection.pragma_update(None, "journal_mode", "WAL").map_err(refused)?;
    is_durable(connection).map_err(refused)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(refused)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        });
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(refused)?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            detail: verdict,
        });
    }
    if found < SCHEMA_VERSION {
        let step = connection.transaction().map_err(refused)?;
        step.execute_batch(SCHEMA).map_err(refused)?;
        step.pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(refused)?;
        step.commit().map_err(refused)?;
    }
    Ok(())
}

fn opening(path: &Path, error: &rusqlite::Error) -> StoreError {
    match failed(path, error) {
        StoreError::Failed { path, detail } => StoreError::Open { path, detail },
        damaged => damaged,
    }
}

/// An SQLite error in the store's words.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path, detail },
        _ => StoreError::Failed { path, detail },
    }
}
