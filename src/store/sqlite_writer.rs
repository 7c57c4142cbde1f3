//! The one thread that writes: all that is queued goes into one transaction, each write in a savepoint of its own, so that
//! one's conflict does not fail the others. Watchers hear of it, and callers are answered, after the commit. A panic costs the
//! transaction that it was in: it is rolled back, its callers are told, and the next one has a new connection.

use super::sqlite_schema::{failed, reopen_writer};
use super::{Change, Item, StoreError};
use crate::model::{SharedClock, Timestamp};
use crate::telemetry::fault::Trap;
use crate::telemetry::threads::Containment;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot};

/// Writes in one transaction. Beyond this the fsync is a small part of the cost, and the first caller waits for the last.
const MAX_GROUP: usize = 256;
/// How often an idle store looks for what has expired. Heartbeats expire after tens of seconds; readers never see an expired
/// item anyway, only watchers wait for this.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Expired items removed in one transaction, so that a write never waits behind a long sweep.
const MAX_SWEEP: usize = 1000;

pub(super) struct Write {
    pub key: String,
    pub change: WriteKind,
    /// The new revision; `None` when there was nothing to delete.
    pub answer: oneshot::Sender<Result<Option<u64>, StoreError>>,
    /// A place in the queue, given back with the answer.
    pub place: OwnedSemaphorePermit,
}

pub(super) enum WriteKind {
    Set {
        only_if: Condition,
        value: Vec<u8>,
        expires: Option<Timestamp>,
    },
    Delete,
}

pub(super) enum Condition {
    Always,
    Absent,
    Revision(u64),
}

pub(super) struct Writer {
    pub path: PathBuf,
    pub connection: Connection,
    pub clock: SharedClock,
    pub changes: broadcast::Sender<Change>,
    pub writes: Receiver<Write>,
    pub trap: Trap,
}

/// What a committed transaction did.
struct Committed {
    answers: Vec<Result<Option<u64>, StoreError>>,
    changes: Vec<Change>,
}

impl Writer {
    /// Ends when the queue's other end is dropped and the queue is empty.
    pub fn run(mut self, mut contained: Containment) {
        loop {
            match self.writes.recv_timeout(SWEEP_EVERY) {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(self.writes.try_iter().take(MAX_GROUP - 1));
                    self.commit_group(&mut contained, "commit", group);
                }
                Err(RecvTimeoutError::Timeout) => self.sweep_when_idle(&mut contained),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit_group(&mut self, contained: &mut Containment, what: &'static str, group: Vec<Write>) {
        let done = contained.does(what, || self.transaction(&group));
        let error = match done {
            Ok(Ok(committed)) => {
                // A send fails only when nobody watches.
                committed.changes.into_iter().for_each(|c| drop(self.changes.send(c)));
                for (write, answer) in group.into_iter().zip(committed.answers) {
                    answer_one(write, answer);
                }
                return;
            }
            Ok(Err(error)) => failed(&self.path, &error),
            Err(panic) => {
                self.reconnect();
                StoreError::Panicked {
                    path: self.path.clone(),
                    detail: panic,
                }
            }
        };
        group
            .into_iter()
            .for_each(|write| answer_one(write, Err(error.clone())));
    }

    /// The transaction was rolled back when it was dropped; what else the connection knows is not to be trusted.
    fn reconnect(&mut self) {
        match reopen_writer(&self.path) {
            Ok(connection) => self.connection = connection,
            Err(error) => tracing::error!(%error, "the store goes on with the connection that it had"),
        }
    }

    /// A failed sweep is not reported: the same trouble meets the next write, whose caller hears of it.
    fn sweep_when_idle(&mut self, contained: &mut Containment) {
        let due = contained.contains(|| {
            let now = self.clock.now();
            let expired = self
                .connection
                .prepare_cached("SELECT 1 FROM item WHERE expires <= ?1 LIMIT 1");
            expired.and_then(|mut statement| statement.exists([now.as_micros()]))
        });
        match due {
            Ok(Ok(true)) => self.commit_group(contained, "sweep", Vec::new()),
            Ok(_) => {}
            Err(_panic) => self.reconnect(),
        }
    }

    fn transaction(&mut self, group: &[Write]) -> rusqlite::Result<Committed> {
        let now = self.clock.now();
        let mut transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut revision: u64 = transaction.query_row("SELECT last FROM revision", [], |row| row.get(0))?;
        let mut changes = sweep(&transaction, now, &mut revision)?;
        let mut answers = Vec::with_capacity(group.len());
        for write in group {
            let step = transaction.savepoint()?;
            let outcome = apply(&step, write, now, revision + 1);
            let answer = match outcome {
                Ok(change) => {
                    step.commit()?;
                    Ok(change.map(|change| {
                        revision = change.revision();
                        changes.push(change);
                        revision
                    }))
                }
                Err(Refused::ByRule(error)) => Err(error),
                Err(Refused::BySqlite(error)) => Err(failed(&self.path, &error)),
            };
            answers.push(answer);
        }
        self.trap.spring();
        transaction.execute("UPDATE revision SET last = ?1", [revision])?;
        transaction.commit()?;
        Ok(Committed { answers, changes })
    }
}

fn answer_one(write: Write, answer: Result<Option<u64>, StoreError>) {
    // The caller may have gone; the write stands.
    drop(write.answer.send(answer));
    drop(write.place);
}

enum Refused {
    ByRule(StoreError),
    BySqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::BySqlite(error)
    }
}

fn apply(connection: &Connection, write: &Write, now: Timestamp, revision: u64) -> Result<Option<Change>, Refused> {
    let key = &write.key;
    match &write.change {
        WriteKind::Set {
            only_if,
            value,
            expires,
        } => {
            check_condition(only_if, key, current(connection, key, now)?).map_err(Refused::ByRule)?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO item (key, value, revision, expires) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![key, value, revision, expires.map(Timestamp::as_micros)])?;
            Ok(Some(Change::Put(Arc::new(Item {
                key: key.clone(),
                value: value.clone(),
                revision,
                expires: *expires,
            }))))
        }
        WriteKind::Delete => {
            if current(connection, key, now)?.is_none() {
                return Ok(None);
            }
            connection
                .prepare_cached("DELETE FROM item WHERE key = ?1")?
                .execute([key])?;
            Ok(Some(Change::Deleted {
                key: key.as_str().into(),
                revision,
            }))
        }
    }
}

/// The revision of what is there and has not expired.
fn current(connection: &Connection, key: &str, now: Timestamp) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached("SELECT revision FROM item WHERE key = ?1 AND (expires IS NULL OR expires > ?2)")?
        .query_row(params![key, now.as_micros()], |row| row.get(0))
        .optional()
}

fn check_condition(only_if: &Condition, key: &str, found: Option<u64>) -> Result<(), StoreError> {
    match (only_if, found) {
        (Condition::Absent, Some(revision)) => Err(StoreError::AlreadyExists {
            key: key.to_owned(),
            revision,
        }),
        (Condition::Revision(expected), found) if found != Some(*expected) => Err(StoreError::Conflict {
            key: key.to_owned(),
            expected: *expected,
            found,
        }),
        _ => Ok(()),
    }
}

fn sweep(connection: &Connection, now: Timestamp, revision: &mut u64) -> rusqlite::Result<Vec<Change>> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM item WHERE key IN (SELECT key FROM item WHERE expires <= ?1 ORDER BY expires LIMIT ?2) RETURNING key",
    )?;
    let keys = statement.query_map(params![now.as_micros(), MAX_SWEEP], |row| row.get::<_, String>(0))?;
    keys.map(|key| {
        *revision += 1;
        Ok(Change::Deleted {
            key: key?.into(),
            revision: *revision,
        })
    })
    .collect()
}
