//! The cancel keys of a node's sessions: found by process id and secret, in a time that does not depend on the secret.

use crate::actors::accounts::{Bucket, Rate};
use crate::model::{ConnectionId, Secret, Timestamp};
use crate::protocol::postgres::startup::SHORT_CANCEL_KEY_BYTES;
use crate::protocol::tunnel::KeyDigest;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often one session's key of 4 bytes may be missed, by whomever: 200 times at once, as somebody may guess at the key of
/// another database with the same process id, then 5 times in a second. To try them all takes 27 years.
const GUESSES_AT_A_KEY: Rate = Rate {
    burst: 200,
    refill_micros: 200_000,
};
/// A session that is over says so; every so many new keys those are let go whose word did not find room in the mailbox.
const SWEEP_AFTER: usize = 1024;
const DOMAIN: &[u8] = b"postern cancel key\0";

/// What a client was given to cancel with, or what somebody cancels with.
#[derive(Debug, Clone, Copy)]
pub struct CancelKey {
    pub process_id: u32,
    pub digest: KeyDigest,
    /// The secret is short enough to be guessed, and therefore counted.
    pub is_short: bool,
}

impl CancelKey {
    pub fn new(process_id: u32, secret: &Secret<Vec<u8>>) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(DOMAIN);
        digest.update(&process_id.to_be_bytes());
        digest.update(secret.expose());
        let mut bytes = [0; KeyDigest::BYTES];
        bytes.copy_from_slice(digest.finish().as_ref());
        Self {
            process_id,
            digest: KeyDigest(bytes),
            is_short: secret.expose().len() <= SHORT_CANCEL_KEY_BYTES,
        }
    }
}

/// What a key leads to.
pub trait Target: Clone {
    /// False when its session is over.
    fn is_alive(&self) -> bool;
}

struct Kept<T> {
    key: CancelKey,
    /// Of a short key that was missed; it lives and dies with the session, so that nobody fills a table.
    guesses: Option<Bucket>,
    target: T,
}

struct Table<T> {
    of: HashMap<ConnectionId, Kept<T>>,
    /// Two databases may give out the same process id.
    by_process: HashMap<u32, Vec<ConnectionId>>,
    added: usize,
}

/// Made once for each actor, outside of its state: sessions outlive a rebuild, and so do their cancels.
pub struct Keys<T>(Arc<Mutex<Table<T>>>);

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Table {
            of: HashMap::new(),
            by_process: HashMap::new(),
            added: 0,
        })))
    }
}

impl<T> Clone for Keys<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Target> Keys<T> {
    /// Locked by the one actor for the length of a turn.
    fn table(&self) -> MutexGuard<'_, Table<T>> {
        // Each use leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn keep(&self, connection: ConnectionId, key: CancelKey, target: T) {
        let mut table = self.table();
        table.added += 1;
        if table.added.is_multiple_of(SWEEP_AFTER) {
            table.sweep();
        }
        table.forget(connection);
        let guesses = None;
        table.of.insert(connection, Kept { key, guesses, target });
        table.by_process.entry(key.process_id).or_default().push(connection);
    }

    pub fn forget(&self, connection: ConnectionId) {
        self.table().forget(connection);
    }

    pub fn of(&self, connection: ConnectionId) -> Option<T> {
        let table = self.table();
        let kept = table.of.get(&connection).filter(|kept| kept.target.is_alive());
        kept.map(|kept| kept.target.clone())
    }

    /// The session that this key was given for. One whose short key was missed too often is not looked at for a while.
    pub fn find(&self, wanted: &CancelKey, now: Timestamp) -> Option<(ConnectionId, T)> {
        let mut table = self.table();
        let Table { of, by_process, .. } = &mut *table;
        let alike = by_process.get(&wanted.process_id)?;
        let mut found = None;
        // All of them, whichever it is.
        for connection in alike {
            let Some(kept) = of.get_mut(connection).filter(|kept| kept.target.is_alive()) else {
                continue;
            };
            let may_be_looked_at = kept
                .guesses
                .as_mut()
                .is_none_or(|guesses| guesses.has_try(GUESSES_AT_A_KEY, now));
            let is_it = verify_slices_are_equal(&kept.key.digest.0, &wanted.digest.0).is_ok();
            if is_it & may_be_looked_at {
                found = Some((*connection, kept.target.clone()));
            }
        }
        if found.is_none() {
            for connection in alike {
                if let Some(kept) = of.get_mut(connection).filter(|kept| kept.key.is_short) {
                    let guesses = kept.guesses.get_or_insert(Bucket::full(now));
                    guesses.take(GUESSES_AT_A_KEY, now);
                }
            }
        }
        found
    }
}

impl<T: Target> Table<T> {
    fn forget(&mut self, connection: ConnectionId) {
        let Some(kept) = self.of.remove(&connection) else {
            return;
        };
        if let Some(alike) = self.by_process.get_mut(&kept.key.process_id) {
            alike.retain(|other| *other != connection);
            if alike.is_empty() {
                self.by_process.remove(&kept.key.process_id);
            }
        }
    }

    fn sweep(&mut self) {
        let over = self.of.iter().filter(|(_, kept)| !kept.target.is_alive());
        let over: Vec<ConnectionId> = over.map(|(connection, _)| *connection).collect();
        for connection in over {
            self.forget(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Weak;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
    const PROCESS: u32 = 4711;

    #[derive(Clone)]
    struct Session(Weak<()>);

    impl Target for Session {
        fn is_alive(&self) -> bool {
            self.0.strong_count() > 0
        }
    }

    fn key(secret: &[u8]) -> CancelKey {
        CancelKey::new(PROCESS, &Secret::new(secret.to_vec()))
    }

    fn connection(number: u64) -> ConnectionId {
        ConnectionId::from_random(number.to_be_bytes())
    }

    fn found(keys: &Keys<Session>, wanted: &CancelKey, now: Timestamp) -> Option<ConnectionId> {
        keys.find(wanted, now).map(|(connection, _)| connection)
    }

    #[test]
    fn of_two_sessions_with_one_process_id_the_secret_decides() {
        let (keys, alive) = (Keys::default(), Arc::new(()));
        for (number, secret) in [(1, b"aaaa"), (2, b"bbbb")] {
            keys.keep(connection(number), key(secret), Session(Arc::downgrade(&alive)));
        }
        assert_eq!(found(&keys, &key(b"bbbb"), NOW), Some(connection(2)));
        assert_eq!(found(&keys, &key(b"aaaa"), NOW), Some(connection(1)));
        for wrong in [&b"aaab"[..], b"aaa", b"aaaaa", b"", &[b'a'; 32]] {
            assert_eq!(found(&keys, &key(wrong), NOW), None, "{wrong:?}");
        }
        let of_another_process = CancelKey::new(PROCESS + 1, &Secret::new(b"aaaa".to_vec()));
        assert_eq!(found(&keys, &of_another_process, NOW), None);
    }

    #[test]
    fn a_key_is_worth_nothing_when_its_session_is_over_said_or_not() {
        let (keys, alive) = (Keys::default(), Arc::new(()));
        for number in [1, 2] {
            let secret = [u8::try_from(number).unwrap(); 32];
            keys.keep(connection(number), key(&secret), Session(Arc::downgrade(&alive)));
        }
        keys.forget(connection(1));
        assert_eq!(found(&keys, &key(&[1; 32]), NOW), None);
        assert_eq!(found(&keys, &key(&[2; 32]), NOW), Some(connection(2)));
        drop(alive);
        assert_eq!(found(&keys, &key(&[2; 32]), NOW), None);
        assert!(keys.of(connection(2)).is_none());
    }

    #[test]
    fn keys_of_sessions_that_never_said_that_they_are_over_are_let_go() {
        let keys = Keys::default();
        for number in 0..10 * SWEEP_AFTER as u64 {
            keys.keep(connection(number), key(b"aaaa"), Session(Weak::new()));
        }
        let table = keys.table();
        assert!(table.of.len() <= SWEEP_AFTER, "{}", table.of.len());
        assert_eq!(table.by_process[&PROCESS].len(), table.of.len());
    }

    #[test]
    fn a_short_key_that_is_missed_too_often_is_not_looked_at_for_a_while_and_a_long_one_always_is() {
        let (keys, alive) = (Keys::default(), Arc::new(()));
        keys.keep(connection(1), key(b"aaaa"), Session(Arc::downgrade(&alive)));
        keys.keep(connection(2), key(&[2; 32]), Session(Arc::downgrade(&alive)));
        for guess in 0..GUESSES_AT_A_KEY.burst {
            assert_eq!(
                found(&keys, &key(b"aaaa"), NOW),
                Some(connection(1)),
                "before guess {guess}"
            );
            assert_eq!(found(&keys, &key(&guess.to_be_bytes()), NOW), None);
        }
        assert_eq!(found(&keys, &key(b"aaaa"), NOW), None, "nobody learns that this is it");
        assert_eq!(found(&keys, &key(&[2; 32]), NOW), Some(connection(2)));
        let later = NOW + Duration::from_millis(200);
        assert_eq!(found(&keys, &key(b"aaaa"), later), Some(connection(1)));
        // 2^32 keys, at 5 in a second.
        let years = (1_u64 << 32) / 5 / (365 * 24 * 3600);
        assert_eq!(years, 27);
    }
}
