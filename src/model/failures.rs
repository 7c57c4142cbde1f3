//! How many failures are bad luck, and how many are not: the same numbers for actors and for threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More failures than this within [`FAILURE_WINDOW`] are not bad luck; whoever is responsible has to know.
pub const FAILURES_MAX: usize = 5;
pub const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// One thing's failures in the window.
#[derive(Debug, Default)]
pub struct Failures(VecDeque<Instant>);

impl Failures {
    /// One more. How many there are with it, or why they are too many.
    pub fn one_more(&mut self, why: &str, now: Instant) -> Result<usize, String> {
        let is_past = |at: &Instant| now.duration_since(*at) > FAILURE_WINDOW;
        while self.0.front().is_some_and(is_past) || self.0.len() > FAILURES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(now);
        match self.0.len() {
            count if count > FAILURES_MAX => {
                Err(format!("{count} failures within {FAILURE_WINDOW:?}, the last: {why}"))
            }
            count => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_failure_in_ten_seconds_is_one_too_many_and_so_is_each_after_it() {
        let mut failures = Failures::default();
        let start = tokio::time::Instant::now().into_std();
        for nth in 1..=FAILURES_MAX {
            assert_eq!(failures.one_more("boom", start), Ok(nth));
        }
        for _ in 0..100 {
            let why = failures.one_more("boom", start).expect_err("too many");
            assert_eq!(why, "6 failures within 10s, the last: boom");
        }
        assert_eq!(failures.one_more("boom", start + 2 * FAILURE_WINDOW), Ok(1));
    }
}
