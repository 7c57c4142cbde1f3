//! The embedded store: one SQLite file (WAL, `synchronous=FULL`) with a writer thread and a reader thread of its own.
//!
//! A panic in one of them is the error of what it had in hand, and the thread goes on. Six within ten seconds are more than bad luck:
//! [`SqliteStore::watch_exhausted`] says so, and the node ends.

use super::sqlite_schema::{failed, open_reader, open_writer};
use super::sqlite_writer::{Condition, Write, WriteKind, Writer};
use super::watch::WATCH_CAPACITY;
use super::{Change, Item, MAX_RANGE_ITEMS, PREFIX_END, Store, StoreError, StoreFuture, Watch, check_key, check_value};
use crate::model::{SharedClock, Timestamp};
use crate::telemetry::fault::Trap;
use crate::telemetry::registry::Seat;
use crate::telemetry::threads::{Containment, Exhausted};
use futures::FutureExt;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot, watch};

/// Writes that wait for the writer; with the largest values 64 MiB. A caller beyond it waits for a place.
const WRITE_QUEUE: u32 = 256;
/// Reads that wait for the reader. A read takes some ten microseconds, so this is some milliseconds of waiting.
const READ_QUEUE: u32 = 256;

pub struct SqliteStore {
    writes: Queue<Write>,
    reads: Queue<Read>,
    changes: broadcast::Sender<Change>,
    exhausted: Exhausted,
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
            // Its panics are caught inside.
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
        let exhausted = Exhausted::default();
        let writes = start(path, "store-writer", WRITE_QUEUE, {
            let (path, clock, changes) = (path.to_owned(), Arc::clone(&clock), changes.clone());
            let exhausted = Arc::clone(&exhausted);
            move |writes, seat| {
                Writer {
                    path,
                    connection: writer_connection,
                    clock,
                    changes,
                    writes,
                    trap: Trap::at("store-writer"),
                }
                .run(Containment::new(seat, exhausted));
            }
        })?;
        let reads = start(path, "store-reader", READ_QUEUE, {
            let (path, exhausted) = (path.to_owned(), Arc::clone(&exhausted));
            move |reads, seat| {
                Reader {
                    path,
                    connection: reader_connection,
                    clock,
                    trap: Trap::at("store-reader"),
                }
                .run(&reads, Containment::new(seat, exhausted));
            }
        })?;
        Ok(Arc::new(Self {
            writes,
            reads,
            changes,
            exhausted,
        }))
    }

    /// Why one of the store's threads cannot be relied upon any more, once that is so.
    pub fn watch_exhausted(&self) -> watch::Receiver<Option<String>> {
        self.exhausted.subscribe()
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

struct Reader {
    path: PathBuf,
    connection: Connection,
    clock: SharedClock,
    trap: Trap,
}

impl Reader {
    fn run(mut self, reads: &Receiver<Read>, mut contained: Containment) {
        for read in reads {
            let found = contained.does(read.what.name(), || self.read(&read.what));
            let answer = match found {
                Ok(found) => found.map_err(|e| failed(&self.path, &e)),
                Err(detail) => {
                    self.reconnect();
                    let path = self.path.clone();
                    Err(StoreError::Panicked { path, detail })
                }
            };
            // The caller may have gone.
            drop(read.answer.send(answer));
            drop(read.place);
        }
    }

    /// What the connection knows after a panic is not to be trusted.
    fn reconnect(&mut self) {
        match open_reader(&self.path) {
            Ok(connection) => self.connection = connection,
            Err(error) => tracing::error!(%error, "the store goes on with the connection that it had"),
        }
    }

    fn read(&self, what: &ReadKind) -> rusqlite::Result<Vec<Item>> {
        self.trap.spring();
        let (from, below, limit) = match what {
            ReadKind::Get(key) => (key, format!("{key}\u{1}"), 1),
            ReadKind::Range { prefix, limit } => (prefix, format!("{prefix}{PREFIX_END}"), *limit),
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT key, value, revision, expires FROM item
             WHERE key >= ?1 AND key < ?2 AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4",
        )?;
        let now = self.clock.now().as_micros();
        let found = statement.query_map(params![from, below, now, limit], |row| {
            Ok(Item {
                key: row.get(0)?,
                value: row.get(1)?,
                revision: row.get(2)?,
                expires: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros),
            })
        })?;
        found.collect()
    }
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

    /// The machine's clock, which panics as often as it is told to.
    #[derive(Default)]
    struct FailingClock(std::sync::atomic::AtomicU32);

    impl FailingClock {
        fn fails(&self, times: u32) {
            self.0.store(times, std::sync::atomic::Ordering::SeqCst);
        }
    }

    impl crate::model::Clock for FailingClock {
        fn now(&self) -> Timestamp {
            use std::sync::atomic::Ordering::SeqCst;
            let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            assert!(left.is_err(), "the clock fails");
            SystemClock.now()
        }
    }

    #[tokio::test]
    async fn a_panic_costs_what_the_thread_had_in_hand_and_six_of_them_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FailingClock::default());
        let store = SqliteStore::open(&dir.path().join("state.sqlite"), clock.clone()).unwrap();
        let exhausted = store.watch_exhausted();
        let failed = |done: Result<(), StoreError>| match done {
            Err(StoreError::Panicked { detail, .. }) => assert!(detail.starts_with("panic"), "{detail}"),
            other => panic!("{other:?}"),
        };
        let before = store.put("/kept", b"1".to_vec(), None).await.unwrap();
        clock.fails(1);
        // The reader's turn: the writer looks at the clock by itself, too, and may take the panic.
        let mut seen = store.reads.seat.restarts() + store.writes.seat.restarts();
        while seen == 0 {
            drop(store.get("/kept").await);
            seen = store.reads.seat.restarts() + store.writes.seat.restarts();
        }
        assert_eq!(store.get("/kept").await.unwrap().unwrap().revision, before);
        clock.fails(u32::MAX);
        failed(store.put("/lost", b"1".to_vec(), None).await.map(drop));
        failed(store.get("/kept").await.map(drop));
        while exhausted.borrow().is_none() {
            failed(store.put("/lost", b"1".to_vec(), None).await.map(drop));
        }
        let why = exhausted.borrow().clone().unwrap();
        assert!(why.contains("is exhausted: 6 failures within 10s"), "{why}");
        clock.fails(0);
        assert_eq!(store.get("/lost").await.unwrap(), None, "nothing of it was written");
        let after = store.put("/next", b"1".to_vec(), None).await.unwrap();
        assert_eq!(after, before + 1, "no revision was used up");
    }
}
