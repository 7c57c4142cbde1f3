//! What outlives a rebuild of the actor that watches over sessions: which are open, and whether the node goes down.
//!
//! Made once for each service, and held by its actor's factory alone: when that actor is gone for good, so is the table, and the
//! relays find their end signals closed.

use super::open_sessions::OpenSessions;
use crate::model::{Refusal, SessionId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

#[derive(Default)]
pub struct Table {
    pub open: OpenSessions,
    /// Those that were told to end and may still be at their last words.
    pub ending: HashSet<SessionId>,
    /// Why no session begins any more.
    pub going_down: Option<Refusal>,
}

/// Locked by the one actor for the length of a turn, so that it never waits for anybody.
#[derive(Clone, Default)]
pub struct SessionsStock(Arc<Mutex<Table>>);

impl SessionsStock {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        // Entries go in and out whole. A turn that failed between the list and its index of persons has at worst left an id
        // in the index whose session is gone, and that is not counted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whoever looks now and then which sessions there are.
    pub fn watch(&self) -> SessionsWatch {
        SessionsWatch(Arc::downgrade(&self.0))
    }
}

/// The list of open sessions, from outside. It does not keep the list alive.
#[derive(Clone)]
pub struct SessionsWatch(Weak<Mutex<Table>>);

impl SessionsWatch {
    /// Nothing while the list is in use: whoever looks does not wait. None are open where the list is gone.
    pub fn ids(&self) -> Option<Vec<SessionId>> {
        let Some(table) = self.0.upgrade() else {
            return Some(Vec::new());
        };
        let table = match table.try_lock() {
            Ok(table) => table,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(table.open.ids().collect())
    }
}
