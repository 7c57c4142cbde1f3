//! What was verified once, so that the next connection of the same person or to the same PostgreSQL does not pay for the same signatures
//! again: of eight verifications that a connection through a proxy and an agent takes, four are of certificates and come out the same each
//! time.
//!
//! Only what depends on nothing but its key is remembered, and only successes: who shows something that does not verify is verified
//! each time, and cannot fill anything. Dates are checked by whoever asks, each time. The key is a SHA-256 of everything that went in, which
//! is what the signatures themselves rest on.

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Certificates of as many people or servers as connect to a node in the life of a certificate. With what is read from one, some 3 KiB
/// each.
const MOST: usize = 1024;

/// A question, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question([u8; SHA256_OUTPUT_LEN]);

impl Question {
    /// Each part is hashed with its length in front, so that no two lists of parts are the same question. A list within the list needs
    /// its own length as a part.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    /// As a part of another.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Answers by question.
#[derive(Debug)]
pub struct Remembered<A>(Mutex<BTreeMap<Question, A>>);

impl<A> Remembered<A> {
    pub const fn nothing() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<A: Clone> Remembered<A> {
    pub fn answer(&self, question: &Question) -> Option<A> {
        self.lock().get(question).cloned()
    }

    pub fn keep(&self, question: Question, answer: A) {
        let mut answers = self.lock();
        if answers.len() >= MOST && !answers.contains_key(&question) {
            // Certificates live for hours: most of them are of people who have gone. The others are verified once more.
            answers.clear();
        }
        answers.insert(question, answer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Question, A>> {
        // An answer is there as a whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(parts: &[&str]) -> Question {
        Question::of(parts.iter().map(|part| part.as_bytes()))
    }

    #[test]
    fn questions_differ_in_where_their_parts_end() {
        let all = [
            question(&["ab", "c"]),
            question(&["a", "bc"]),
            question(&["abc"]),
            question(&["abc", ""]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(at));
        }
        assert_eq!(question(&["a", "b"]), question(&["a", "b"]));
    }

    #[test]
    fn it_grows_to_its_bound_and_begins_anew() {
        let remembered = Remembered::nothing();
        let nth = |n: usize| Question::of([&n.to_be_bytes()[..]]);
        (0..MOST).for_each(|n| remembered.keep(nth(n), n));
        remembered.keep(nth(0), 7);
        assert_eq!(
            (remembered.answer(&nth(0)), remembered.answer(&nth(1))),
            (Some(7), Some(1))
        );
        remembered.keep(nth(MOST), 1);
        assert_eq!(
            (remembered.answer(&nth(0)), remembered.answer(&nth(MOST))),
            (None, Some(1))
        );
    }
}
