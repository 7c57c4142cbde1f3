//! Changes as they are committed. The channel is bounded: a watcher that is too slow is told so and reads again.

use super::Item;
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many changes a watcher may be behind. A start-up of some hundred nodes writes about as many records at once; beyond
/// that, reading the whole range again is cheaper than the backlog.
pub(super) const WATCH_CAPACITY: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Arc<Item>),
    /// Deleted or expired.
    Deleted {
        key: Arc<str>,
        revision: u64,
    },
}

impl Change {
    pub fn key(&self) -> &str {
        match self {
            Self::Put(item) => &item.key,
            Self::Deleted { key, .. } => key,
        }
    }

    pub fn revision(&self) -> u64 {
        match self {
            Self::Put(item) => item.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The watch goes on after it.
    #[error("{missed} changes came faster than they were read; read the whole range again")]
    Lagged { missed: u64 },
    #[error("the store is closed")]
    Closed,
}

/// Changes of the keys that begin with a prefix.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    changes: broadcast::Receiver<Change>,
}

impl Watch {
    pub(super) fn new(prefix: &str, changes: broadcast::Receiver<Change>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            changes,
        }
    }

    /// Waits for the next change. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            match self.changes.recv().await {
                Ok(change) if change.key().starts_with(&self.prefix) => return Ok(change),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Err(WatchError::Lagged { missed });
                }
                Err(broadcast::error::RecvError::Closed) => return Err(WatchError::Closed),
            }
        }
    }
}
