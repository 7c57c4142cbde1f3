//! When an actor that failed is rebuilt, and when its failure becomes its parent's.
//!
//! The rules are those of Erlang/OTP. This file decides; [`host`](super::host) carries out.

use crate::model::failures::Failures;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The first rebuild is at once: most panics are about one message. Later ones wait, so that a fault that comes back does
/// not eat a core.
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(500);

/// What happens when an actor ends by failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Rebuilt, always: the node is not whole without it.
    Permanent,
    /// Rebuilt after a failure, not after a normal end.
    Transient,
    /// Never rebuilt: it served one thing, and that is over.
    Temporary,
}

impl Restart {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        }
    }
}

/// Why an actor is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// Its work was done.
    Finished,
    /// It was told to.
    Stopped,
    /// It failed and its rule does not rebuild it.
    Failed(String),
    /// It failed more often than is bad luck ([`Failures`]).
    Exhausted(String),
}

impl ExitReason {
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Exhausted(_))
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Stopped => f.write_str("stopped"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Exhausted(why) => write!(f, "exhausted: {why}"),
        }
    }
}

/// What a parent hears of its child's end.
#[derive(Debug, Clone)]
pub struct ChildExited {
    pub name: Arc<str>,
    pub rule: Restart,
    pub reason: ExitReason,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    RebuildAfter(Duration),
    GiveUp(ExitReason),
}

/// One actor's failures in the window.
#[derive(Debug)]
pub struct RestartHistory {
    rule: Restart,
    failures: Failures,
}

impl RestartHistory {
    pub fn new(rule: Restart) -> Self {
        Self {
            rule,
            failures: Failures::default(),
        }
    }

    pub fn rule(&self) -> Restart {
        self.rule
    }

    pub fn failed(&mut self, why: &str, now: Instant) -> Verdict {
        if self.rule == Restart::Temporary {
            return Verdict::GiveUp(ExitReason::Failed(why.to_owned()));
        }
        let count = match self.failures.one_more(why, now.into_std()) {
            Ok(count) => count,
            Err(too_many) => return Verdict::GiveUp(ExitReason::Exhausted(too_many)),
        };
        let doublings = u32::try_from(count.saturating_sub(2)).unwrap_or(u32::MAX);
        let wait = match count {
            1 => Duration::ZERO,
            _ => BACK_OFF_FIRST.saturating_mul(2u32.saturating_pow(doublings)),
        };
        Verdict::RebuildAfter(wait.min(BACK_OFF_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_failure_in_ten_seconds_becomes_the_parents() {
        let mut history = RestartHistory::new(Restart::Permanent);
        let start = Instant::now();
        for nth in 0..5 {
            let verdict = history.failed("boom", start + Duration::from_secs(nth));
            assert!(matches!(verdict, Verdict::RebuildAfter(_)), "failure {nth}");
        }
        let verdict = history.failed("boom", start + Duration::from_secs(5));
        assert!(matches!(verdict, Verdict::GiveUp(ExitReason::Exhausted(_))));
    }

    #[test]
    fn failures_far_apart_never_exhaust() {
        let mut history = RestartHistory::new(Restart::Permanent);
        let start = Instant::now();
        for nth in 0..100 {
            let verdict = history.failed("boom", start + Duration::from_secs(11 * nth));
            assert_eq!(verdict, Verdict::RebuildAfter(Duration::ZERO));
        }
    }

    #[test]
    fn a_temporary_actor_is_not_rebuilt() {
        let mut history = RestartHistory::new(Restart::Temporary);
        assert_eq!(
            history.failed("boom", Instant::now()),
            Verdict::GiveUp(ExitReason::Failed("boom".into()))
        );
    }
}
