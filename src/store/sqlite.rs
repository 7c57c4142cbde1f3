//! The embedded store: one SQLite file (WAL, `synchronous=FULL`) with a writer thread and a reader thread of its own.

use super::sqlite_schema::{failed, open_reader, open_writer};
use super::sqlite_writer::{Condition, Write, WriteKind, Writer};
use super::watch::WATCH_CAPACITY;
use super::{Change, Item, MAX_RANGE_ITEMS, PREFIX_END, Store, StoreError, StoreFuture, Watch, check_key, check_value};
use crate::model::{SharedClock, Timestamp};
use futures::FutureExt;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot};

/// Writes that wait for the writer; with the largest values 64 MiB. A caller beyond it waits for a place.
const WRITE_QUEUE: usize = 256;
/// Reads that wait for the reader. A read takes some ten microseconds, so this is some milliseconds of waiting.
const READ_QUEUE: usize = 256;

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

/// A bounded queue to a thread, and the thread. The bound is the semaphore's, so that callers wait without blocking.
struct Queue<T> {
    places: Arc<Semaphore>,
    sender: Option<Sender<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T> Queue<T> {
    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let waiting = Arc::clone(&self.places).acquire_owned();
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
            move |writes| {
                Writer {
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
            move |reads| read_all(&path, &reader_connection, &clock, &reads)
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
    places: usize,
    work: impl FnOnce(Receiver<T>) + Send + 'static,
) -> Result<Queue<T>, StoreError> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(receiver))
        .map_err(|e| StoreError::Open {
            path: PathBuf::from(path),
            detail: format!("its thread cannot be started: {e}"),
        })?;
    Ok(Queue {
        places: Arc::new(Semaphore::new(places)),
        sender: Some(sender),
        thread: Mutex::new(Some(thread)),
    })
}

fn read_all(path: &Path, connection: &Connection, clock: &SharedClock, reads: &Receiver<Read>) {
    for read in reads {
        let found = read_one(connection, &read.what, clock.now());
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
