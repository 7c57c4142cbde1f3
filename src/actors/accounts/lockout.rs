//! The lock that wrong logins put on an account: for passwords only. A valid certificate and an administrator are never locked out.

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The reference's: more than anybody mistypes, far fewer than a guess needs.
pub const FAILURES_MAX: usize = 5;
/// Failures count together when they are so close to each other.
pub const FAILURES_WITHIN: Duration = Duration::from_secs(15 * 60);
/// The reference's older value: 360 guesses a day at most, and somebody who is locked out can wait for it.
pub const LOCKED_FOR: Duration = Duration::from_secs(20 * 60);

/// The failed logins of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    at: Vec<Timestamp>,
    locked_until: Option<Timestamp>,
}

impl Failures {
    pub fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.locked_until.filter(|until| now < *until)
    }

    /// Counts one more. A login is counted before its password is looked at, so that many at once get no more tries than as
    /// many after each other; one that succeeds clears the account.
    pub fn count(&mut self, now: Timestamp) {
        self.at.retain(|at| *at + FAILURES_WITHIN > now);
        self.at.push(now);
        if self.at.len() >= FAILURES_MAX {
            self.at.clear();
            self.locked_until = Some(now + LOCKED_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    #[test]
    fn five_failures_lock_and_four_do_not() {
        let mut failures = Failures::default();
        for _ in 0..4 {
            failures.count(START);
        }
        assert_eq!(failures.locked_until(START), None);
        failures.count(START);
        assert_eq!(failures.locked_until(START), Some(START + LOCKED_FOR));
        assert_eq!(failures.locked_until(START + LOCKED_FOR), None);
    }

    #[test]
    fn failures_that_are_far_apart_do_not_lock_and_are_not_kept() {
        let mut failures = Failures::default();
        for number in 0..100 {
            let now = START + Duration::from_secs(4 * 60) * number;
            failures.count(now);
            assert_eq!(failures.locked_until(now), None);
        }
        assert!(failures.at.len() < FAILURES_MAX);
    }
}
