//! The embedded store: one SQLite file (WAL, `synchronous=FULL`) with a writer thread and a reader thread of its own.

use super::sqlite_schema::{failed, open_reader, open_writer};
use super::sqlite_writer::{Condition, Write, WriteKind, Writer};
use super::watch::WATCH_CAPACITY;
use super::{Change, Item, MAX_RANGE_ITEMS, PREFIX_END, Store, StoreError, StoreFuture, Watch, check_key, check_value};
use crate::model::{SharedClock, Timestamp};
use crate::telemetry::registry::Seat;
use futures::FutureExt;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot};

/// Writes that wait for the writer; with the largest values 64 MiB. A caller beyond it waits for a place.
const WRITE_QUEUE: u32 = 256;
/// Reads that wait for the reader. A read takes some ten microseconds, so this is some milliseconds of waiting.
const READ_QUEUE: u32 = 256;

pub struct SqliteStore {
    writes: Queue<Write>,
    reads: Queue<Read>,
    changes: broadcast::Sender<Change>,
}

struct Read {
    what: ReadKind,
    answer: oneshot::Sender<Result<Vec<Item>, StoreError>>,
    place: OwnedSemaphorePermit,
}

enum ReadKind {
    Get(String),
    Range { prefix: String, limit: usize },
}

impl ReadKind {
    fn name(&self) -> &'static str {
        match self {
            Self::Get(_) => "get",
            Self::Range { .. } => "range",
        }
    }
}

/// A bounded queue to a thread, and the thread. The bound is the semaphore's, so that callers wait without blocking; it is that
/// of the thread's seat, where everybody sees what waits and what is in hand.
struct Queue<T> {
    seat: Arc<Seat>,
    sender: Option<Sender<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T> Queue<T> {
    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let waiting = Arc::clone(self.seat.room()).acquire_owned();
        waiting.await.map_err(|_| StoreError::Closed)
    }

    fn push(&self, job: T) -> Result<(), StoreError> {
        let sender = self.sender.as_ref().ok_or(StoreError::Closed)?;
        sender.send(job).map_err(|_| StoreError::Closed)
    }
}

impl<T> Drop for Queue<T> {
    /// The thread finishes what is queued and ends, so that the file is closed when the store is gone.
    fn drop(&mut self) {
        self.sender = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has already failed its callers.
            drop(thread.join());
        }
    }
}

impl SqliteStore {
    /// Opens the file, or creates it with mode 0600; the directory must exist. Blocks for some file operations.
    ///
    /// # Errors
    /// `Open`, `Corrupt` or `NewerSchema`, each with the path and what to do.
    pub fn open(path: &Path, clock: SharedClock) -> Result<Arc<Self>, StoreError> {
        let writer_connection = open_writer(path)?;
        let reader_connection = open_reader(path)?;
        let (changes, _) = broadcast::channel(WATCH_CAPACITY);
        let writes = start(path, "store-writer", WRITE_QUEUE, {
            let (path, clock, changes) = (path.to_owned(), Arc::clone(&clock), changes.clone());
            move |writes, seat| {
                Writer {
                    seat,
                    path,
                    connection: writer_connection,
                    clock,
                    changes,
                    writes,
                }
                .run();
            }
        })?;
        let reads = start(path, "store-reader", READ_QUEUE, {
            let path = path.to_owned();
            move |reads, seat| read_all(&path, &reader_connection, &clock, &reads, &seat)
        })?;
        Ok(Arc::new(Self { writes, reads, changes }))
    }

    async fn write(&self, key: String, change: WriteKind) -> Result<Option<u64>, StoreError> {
        check_key(&key)?;
        if let WriteKind::Set { value, .. } = &change {
            check_value(&key, value)?;
        }
        let place = self.writes.place().await?;
        let (answer, answered) = oneshot::channel();
        self.writes.push(Write {
            key,
            change,
            answer,
            place,
        })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    fn set(&self, key: &str, only_if: Condition, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64> {
        let key = key.to_owned();
        async move {
            let change = WriteKind::Set {
                only_if,
                value,
                expires,
            };
            let revision = self.write(key, change).await?;
            // The writer answers every Set with a revision or an error.
            revision.ok_or(StoreError::Closed)
        }
        .boxed()
    }

    async fn read(&self, what: ReadKind) -> Result<Vec<Item>, StoreError> {
        let place = self.reads.place().await?;
        let (answer, answered) = oneshot::channel();
        self.reads.push(Read { what, answer, place })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Store for SqliteStore {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Item>> {
        let key = key.to_owned();
        async move {
            check_key(&key)?;
            Ok(self.read(ReadKind::Get(key)).await?.pop())
        }
        .boxed()
    }

    fn put(&self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64> {
        self.set(key, Condition::Always, value, expires)
    }

    fn create(&self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64> {
        self.set(key, Condition::Absent, value, expires)
    }

    fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Vec<u8>,
        expires: Option<Timestamp>,
    ) -> StoreFuture<'_, u64> {
        self.set(key, Condition::Revision(expected), value, expires)
    }

    fn delete(&self, key: &str) -> StoreFuture<'_, bool> {
        let key = key.to_owned();
        async move { Ok(self.write(key, WriteKind::Delete).await?.is_some()) }.boxed()
    }

    fn range(&self, prefix: &str, limit: usize) -> StoreFuture<'_, Vec<Item>> {
        let prefix = prefix.to_owned();
        async move {
            if limit > MAX_RANGE_ITEMS {
                return Err(StoreError::RangeTooLarge { limit });
            }
            self.read(ReadKind::Range { prefix, limit }).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &str) -> StoreFuture<'_, Watch> {
        let watch = Watch::new(prefix, self.changes.subscribe());
        async move { Ok(watch) }.boxed()
    }
}

fn start<T: Send + 'static>(
    path: &Path,
    name: &str,
    places: u32,
    work: impl FnOnce(Receiver<T>, Arc<Seat>) + Send + 'static,
) -> Result<Queue<T>, StoreError> {
    let (sender, receiver) = channel();
    let seat = Seat::of_thread(name, places);
    let inside = Arc::clone(&seat);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(receiver, inside))
        .map_err(|e| StoreError::Open {
            path: PathBuf::from(path),
            detail: format!("its thread cannot be started: {e}"),
        })?;
    Ok(Queue {
        seat,
        sender: Some(sender),
        thread: Mutex::new(Some(thread)),
    })
}

fn read_all(path: &Path, connection: &Connection, clock: &SharedClock, reads: &Receiver<Read>, seat: &Seat) {
    for read in reads {
        let found = seat.does(read.what.name(), || read_one(connection, &read.what, clock.now()));
        // The caller may have gone.
        drop(read.answer.send(found.map_err(|e| failed(path, &e))));
        drop(read.place);
    }
}

fn read_one(connection: &Connection, what: &ReadKind, now: Timestamp) -> rusqlite::Result<Vec<Item>> {
    let (from, below, limit) = match what {
        ReadKind::Get(key) => (key, format!("{key}\u{1}"), 1),
        ReadKind::Range { prefix, limit } => (prefix, format!("{prefix}{PREFIX_END}"), *limit),
    };
    let mut statement = connection.prepare_cached(
        "SELECT key, value, revision, expires FROM item
         WHERE key >= ?1 AND key < ?2 AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4",
    )?;
    let found = statement.query_map(params![from, below, now.as_micros(), limit], |row| {
        Ok(Item {
            key: row.get(0)?,
            value: row.get(1)?,
            revision: row.get(2)?,
            expires: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros),
        })
    })?;
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;
    use std::time::Duration;

    #[tokio::test]
    async fn a_store_that_another_process_has_locked_is_seen_at_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.sqlite");
        let store = SqliteStore::open(&path, SystemClock::shared()).unwrap();
        let seat = Arc::clone(&store.writes.seat);
        assert_eq!((seat.name(), seat.rule(), seat.queued()), ("store-writer", "thread", 0));
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let write = store.put("/node/secret-name", b"v".to_vec(), None);
        let seen = async {
            while seat.in_hand().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            done = write => panic!("{done:?}"),
            () = seen => {}
        }
        assert_eq!(seat.in_hand().unwrap().what.name(), "commit");
        assert_eq!(seat.queued(), 1, "its place is its own until it is answered");
        other.execute_batch("COMMIT").unwrap();
        store.put("/node/other", b"v".to_vec(), None).await.unwrap();
        assert!(store.get("/node/other").await.unwrap().is_some());
        assert!(seat.handled() >= 1);
        assert_eq!(store.reads.seat.handled(), 1);
    }
}
