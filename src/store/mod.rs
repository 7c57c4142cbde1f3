//! The cluster's state: who exists, what they may do, which nodes are there. A small ordered map with revisions, behind one
//! trait, so that one machine runs on an embedded file and a cluster on an engine that replicates.
//!
//! Keys are paths (`/roles/dba`), values are bytes that the store does not look into. Every change has a revision: one number
//! for the whole cluster that only grows, so that "has this changed since I read it" is one comparison.
//!
//! ```text
//! caller ──▶ bounded queue ──▶ writer thread: one transaction for all that is queued ──▶ file (fsync) ──▶ watchers ──▶ answer
//!        └─▶ bounded queue ──▶ reader thread: its own snapshot
//! ```

mod error;
pub mod sqlite;
mod sqlite_schema;
mod sqlite_writer;
#[cfg(test)]
mod suite;
mod watch;

pub use error::StoreError;
pub use sqlite::SqliteStore;
pub use watch::{Change, Watch, WatchError};

use crate::model::Timestamp;
use futures::future::BoxFuture;

/// Keys are paths of a few names; a name is at most 320 bytes (`model::names`). PostgreSQL can index 2.7 kB, etcd has no bound.
pub const MAX_KEY_BYTES: usize = 1024;
/// Records are resources written by people and certificates, some kilobytes. etcd refuses requests above 1.5 MiB, and a full
/// queue of values must fit into memory.
pub const MAX_VALUE_BYTES: usize = 256 * 1024;
/// What one `range` may ask for: with records of a kilobyte, ten megabytes in memory at once.
pub const MAX_RANGE_ITEMS: usize = 10_000;

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub value: Vec<u8>,
    /// The revision of the change that wrote this value.
    pub revision: u64,
    /// From this moment on the item is not there any more.
    pub expires: Option<Timestamp>,
}

pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A store. Writes are answered when they are durable. A future that is dropped before its answer leaves the outcome unknown:
/// the write may have been queued.
///
/// Every method fails with `BadKey`, `ValueTooLarge` or `RangeTooLarge` for what breaks a limit, with `Failed` when the engine
/// below does, and with `Closed` while the store shuts down.
pub trait Store: Send + Sync + 'static {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Item>>;

    /// Writes whether or not something is there; the answer is the new revision.
    fn put(&self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64>;

    /// Writes only if nothing is there; fails with `AlreadyExists`.
    fn create(&self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64>;

    /// Writes only if what is there has the revision `expected`; fails with `Conflict`.
    fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Vec<u8>,
        expires: Option<Timestamp>,
    ) -> StoreFuture<'_, u64>;

    /// Whether something was there.
    fn delete(&self, key: &str) -> StoreFuture<'_, bool>;

    /// The first `limit` items whose keys begin with `prefix`, in the order of the keys' bytes.
    fn range(&self, prefix: &str, limit: usize) -> StoreFuture<'_, Vec<Item>>;

    /// Changes from now on of keys that begin with `prefix`, in the order of their revisions. To miss nothing, watch first
    /// and read then.
    fn watch(&self, prefix: &str) -> StoreFuture<'_, Watch>;
}

/// Control characters would break listings and logs, and `PREFIX_END` closes the range of a prefix.
fn check_key(key: &str) -> Result<(), StoreError> {
    let why = if key.is_empty() {
        "it is empty"
    } else if key.len() > MAX_KEY_BYTES {
        "it is longer than 1024 bytes"
    } else if key.chars().any(|c| c.is_control() || c == PREFIX_END) {
        "it contains a control character or U+10FFFF"
    } else {
        return Ok(());
    };
    Err(StoreError::BadKey {
        key: key.chars().take(80).collect(),
        why,
    })
}

fn check_value(key: &str, value: &[u8]) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::ValueTooLarge {
            key: key.to_owned(),
            bytes: value.len(),
        });
    }
    Ok(())
}

/// The largest character: no key contains it, so that every key with a prefix is below the prefix followed by it.
const PREFIX_END: char = '\u{10FFFF}';
