//! A thread that does one piece of work after the other: a panic costs the piece, and too many panics are the end of the node.

use super::panics;
use super::registry::Seat;
use crate::model::failures::Failures;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Why a thread cannot go on; `None` as long as it can. Several threads may share one: the first reason stays.
pub type Exhausted = Arc<watch::Sender<Option<String>>>;

/// The panics of one thread. Work that has panicked must not leave half of anything behind: what it wrote to is rolled back or
/// made anew by whoever calls.
#[derive(Debug)]
pub struct Containment {
    seat: Arc<Seat>,
    failures: Failures,
    exhausted: Exhausted,
}

impl Containment {
    pub fn new(seat: Arc<Seat>, exhausted: Exhausted) -> Self {
        Self {
            seat,
            failures: Failures::default(),
            exhausted,
        }
    }

    /// A piece of work that everybody sees in hand. What is kept of its panic, if it had one.
    pub fn does<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> Result<T, String> {
        let seat = Arc::clone(&self.seat);
        seat.does(what, || self.contains(work))
    }

    /// As `does`, for work that is not worth showing.
    pub fn contains<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, String> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            let why = panics::text(panic.as_ref());
            self.failed(&why);
            why
        })
    }

    fn failed(&mut self, why: &str) {
        let thread = self.seat.path();
        self.seat.restarts_after(why);
        tracing::error!(actor = %thread, reason = why, "a thread failed over a piece of work; it goes on with the next");
        if let Err(too_many) = self.failures.one_more(why, Instant::now().into_std()) {
            self.exhausted.send_if_modified(|reason| {
                let is_first = reason.is_none();
                reason.get_or_insert_with(|| format!("the thread {thread} is exhausted: {too_many}"));
                is_first
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_one_piece_of_work_and_the_sixth_in_ten_seconds_is_the_nodes() {
        let exhausted = Exhausted::default();
        let seat = Seat::of_thread("threads-tests", 1);
        let mut contained = Containment::new(Arc::clone(&seat), Arc::clone(&exhausted));
        for nth in 1..=6 {
            assert_eq!(*exhausted.borrow(), None, "before failure {nth}");
            let failed: Result<(), String> = contained.does("test", || panic!("boom {nth}"));
            assert!(failed.expect_err("a panic").starts_with("panic"));
            assert!(seat.in_hand().is_none() && seat.restarts() == nth);
            assert_eq!(contained.does("test", || nth), Ok(nth), "it goes on");
        }
        let why = exhausted.borrow().clone().expect("too many");
        assert!(
            why.starts_with("the thread threads-tests is exhausted: 6 failures within 10s, the last: panic"),
            "{why}"
        );
        assert!(!why.contains("boom"), "what a panic quotes is not told: {why}");
    }
}
