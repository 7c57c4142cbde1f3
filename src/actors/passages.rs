//! The connections that pass through a service, and what was known of each when it began: on a proxy, which agent has it; on an
//! agent, which proxy opened it.
//!
//! It outlives the connections for a while, so that one that has just failed can still be traced.

use super::sessions::SESSIONS_MAX;
use crate::model::ConnectionId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// All that can be open, and some thousand that are over: for as long as the record of them lasts.
const PASSAGES_MAX: usize = SESSIONS_MAX + 4096;

/// Shared by those who write it and those who ask.
pub struct Passages<T>(Arc<Mutex<Known<T>>>);

struct Known<T> {
    by_connection: HashMap<ConnectionId, Passage<T>>,
    /// Each once, the oldest first.
    order: VecDeque<ConnectionId>,
}

struct Passage<T> {
    what: T,
    /// Upgrades while the connection lives.
    alive: Weak<()>,
}

impl<T> Clone for Passages<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Passages<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Known {
            by_connection: HashMap::new(),
            order: VecDeque::new(),
        })))
    }
}

impl<T: Clone> Passages<T> {
    fn known(&self) -> MutexGuard<'_, Known<T>> {
        // Each use leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection goes this way from now on.
    pub fn note(&self, connection: ConnectionId, what: T, alive: Weak<()>) {
        self.known().note(connection, Passage { what, alive }, PASSAGES_MAX);
    }

    pub fn find(&self, connection: ConnectionId) -> Option<T> {
        let known = self.known();
        known.by_connection.get(&connection).map(|passage| passage.what.clone())
    }
}

impl<T> Known<T> {
    fn note(&mut self, connection: ConnectionId, passage: Passage<T>, bound: usize) {
        if self.by_connection.insert(connection, passage).is_some() {
            return;
        }
        if self.order.len() >= bound {
            self.forget_one();
        }
        self.order.push_back(connection);
    }

    /// The oldest that is over; the oldest where none is.
    fn forget_one(&mut self) {
        let is_over = |id: &ConnectionId| {
            let passage = self.by_connection.get(id);
            passage.is_none_or(|passage| passage.alive.strong_count() == 0)
        };
        let at = self.order.iter().position(is_over).unwrap_or(0);
        if let Some(id) = self.order.remove(at) {
            self.by_connection.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_the_oldest_that_is_over_is_forgotten() {
        let passages = Passages::<u8>::default();
        let id = |number: u8| ConnectionId::from_random([number; 8]);
        let alive = Arc::new(());
        let note = |number: u8, alive| {
            let passage = Passage { what: number, alive };
            passages.known().note(id(number), passage, 3);
        };
        note(1, Arc::downgrade(&alive));
        note(2, Weak::new());
        note(3, Weak::new());
        note(3, Weak::new());
        note(4, Weak::new());
        assert_eq!(
            [1, 2, 3, 4].map(|number| passages.find(id(number))),
            [Some(1), None, Some(3), Some(4)]
        );
    }
}
