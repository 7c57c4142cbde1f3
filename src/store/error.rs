//! What can go wrong in a store.

use super::{MAX_RANGE_ITEMS, MAX_VALUE_BYTES};
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{key:?} is there already, at revision {revision}; read it and use compare-and-swap, or choose another name"
    )]
    AlreadyExists { key: String, revision: u64 },
    #[error("{key:?} is at {}, not at revision {expected}; read it again and repeat the change", at(*.found))]
    Conflict {
        key: String,
        expected: u64,
        /// `None`: nothing is there.
        found: Option<u64>,
    },
    #[error("{key:?} is not a key: {why}")]
    BadKey { key: String, why: &'static str },
    #[error("the value of {key:?} has {bytes} bytes; at most {MAX_VALUE_BYTES} are stored")]
    ValueTooLarge { key: String, bytes: usize },
    #[error("a range of {limit} items was asked for; at most {MAX_RANGE_ITEMS} are read at once")]
    RangeTooLarge { limit: usize },
    #[error("the store {} cannot be opened: {detail}; check that the directory exists and that this process may write it", path.display())]
    Open { path: PathBuf, detail: String },
    #[error(
        "the store {} is damaged: {detail}; stop the node, move the file aside together with its -wal and -shm, and restore a backup",
        path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "the store {} was written by a newer version (schema {found}, this version knows {known}); start the newer version, or restore a backup of before the upgrade",
        path.display()
    )]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("the store {} failed: {detail}; check the disk's space and health, then repeat", path.display())]
    Failed { path: PathBuf, detail: String },
    #[error(
        "the store {} failed in the middle of this and has undone it, with whatever was written at the same time: {detail}; repeat it, and \
         report what the node's log has of it",
        path.display()
    )]
    Panicked { path: PathBuf, detail: String },
    #[error("the store is closed, as the node is going down; repeat on another node")]
    Closed,
}

fn at(found: Option<u64>) -> String {
    match found {
        Some(revision) => format!("revision {revision}"),
        None => "no revision (nothing is there)".to_owned(),
    }
}
