//! What a person's roles say of an open session: how long it may rest, whether it outlives its certificate, and whether its
//! statements wait for the disk.
//!
//! The taps of a relay write into a [`RestMark`] whether the session rests; whoever watches over the sessions of a node looks at
//! the marks now and then. So neither a byte nor a message costs a clock or a timer.

use crate::model::{Refusal, RefusalKind, Timestamp};
use crate::policy::SessionOptions;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Whether a session rests: everything that it asked for is answered, and its client has sent nothing since. A transaction that
/// is open does not matter: a psql that was left in one rests, too.
///
/// An odd number is a rest, and the next rest has another number. Both directions of a relay are polled by one task, so that
/// there is one writer.
#[derive(Debug, Clone, Default)]
pub struct RestMark(Arc<AtomicU64>);

impl RestMark {
    /// The client has sent something; whether nothing of it waits for an answer.
    pub fn client_spoke(&self, rests: bool) {
        let next = (self.0.load(Ordering::Relaxed) | 1) + 1;
        self.0.store(next | u64::from(rests), Ordering::Relaxed);
    }

    /// The client was sent something; whether everything is answered now.
    pub fn answered(&self, rests: bool) {
        let now = self.0.load(Ordering::Relaxed);
        if (now & 1 == 1) != rests {
            self.0.store(now + 1, Ordering::Relaxed);
        }
    }

    fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a statement of the session goes on only when its event is on disk (`audit: strict`). Whoever watches over the sessions
/// writes it, as the rules have it now.
#[derive(Debug, Clone, Default)]
pub struct StrictMark(Arc<AtomicBool>);

impl StrictMark {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, strict: bool) {
        self.0.store(strict, Ordering::Relaxed);
    }
}

/// The limits of one session, as whoever watches over it sees them.
#[derive(Debug)]
pub struct Limits {
    options: SessionOptions,
    /// The end of the certificate that the session was opened with.
    certificate_until: Timestamp,
    rest: RestMark,
    strict: StrictMark,
    /// The number of the mark, and when it was first seen.
    seen: (u64, Instant),
}

impl Limits {
    pub fn new(options: SessionOptions, certificate_until: Timestamp, rest: RestMark, strict: StrictMark) -> Self {
        let seen = (rest.number(), Instant::now());
        let mut limits = Self {
            options,
            certificate_until,
            rest,
            strict,
            seen,
        };
        limits.replace(options);
        limits
    }

    /// The rules have changed.
    pub fn replace(&mut self, options: SessionOptions) {
        self.options = options;
        self.strict.set(options.strict_audit);
    }

    /// Why the session is over, if it is. A rest is measured from the first look that finds it.
    pub fn overstepped(&mut self, now: Timestamp) -> Option<Refusal> {
        if self.options.disconnect_expired_cert && now >= self.certificate_until {
            return Some(certificate_expired(self.certificate_until));
        }
        let number = self.rest.number();
        if number != self.seen.0 {
            self.seen = (number, Instant::now());
        }
        let limit = self.options.client_idle_timeout?;
        let rests = number & 1 == 1;
        (rests && self.seen.1.elapsed() >= limit).then(|| idle_for(limit))
    }
}

fn certificate_expired(at: Timestamp) -> Refusal {
    Refusal::new(
        RefusalKind::CertificateExpired,
        format!("client certificate expired at {at}"),
    )
    .hint("log in again; a role of yours ends sessions with their certificate")
}

fn idle_for(limit: Duration) -> Refusal {
    Refusal::new(
        RefusalKind::IdleTimeout,
        format!("Client exceeded idle timeout of {}", InFull(limit)),
    )
    .hint("connect again; a role of yours ends sessions that send nothing for so long")
}

/// A duration as the audit logs of Teleport have it, with all its units from the largest on: `10m0s`.
struct InFull(Duration);

impl fmt::Display for InFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            _ => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Timestamp = Timestamp::from_secs(1_700_000_000);
    const BEFORE: Timestamp = Timestamp::from_secs(1_699_999_999);

    fn limits(idle_secs: u64, disconnect_expired_cert: bool) -> (Limits, RestMark) {
        let mark = RestMark::default();
        let options = SessionOptions {
            client_idle_timeout: (idle_secs > 0).then(|| Duration::from_secs(idle_secs)),
            disconnect_expired_cert,
            ..SessionOptions::default()
        };
        (Limits::new(options, UNTIL, mark.clone(), StrictMark::default()), mark)
    }

    /// Looks once a second, as often as told, and gives what the last look says.
    async fn look(limits: &mut Limits, seconds: u64) -> Option<Refusal> {
        let mut said = None;
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            said = limits.overstepped(BEFORE);
        }
        said
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_rests_for_as_long_as_the_limit_is_over() {
        let (mut limits, mark) = limits(600, false);
        mark.answered(true);
        assert_eq!(look(&mut limits, 600).await, None, "the first look found it resting");
        let refusal = look(&mut limits, 1).await.unwrap();
        assert_eq!(refusal.message, "Client exceeded idle timeout of 10m0s");
        assert_eq!(refusal.kind.sqlstate(), "57P05");
        assert!(refusal.hint.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_waits_for_an_answer_is_not_idle_however_long_that_takes() {
        let (mut limits, mark) = limits(10, false);
        assert_eq!(look(&mut limits, 60).await, None, "the start-up is not answered");
        mark.answered(true);
        mark.client_spoke(false);
        assert_eq!(look(&mut limits, 3600).await, None);
        mark.answered(true);
        assert_eq!(look(&mut limits, 10).await, None);
        assert!(look(&mut limits, 1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_the_client_sends_between_two_looks_begins_the_rest_anew() {
        let (mut limits, mark) = limits(10, false);
        mark.answered(true);
        for _ in 0..20 {
            assert_eq!(look(&mut limits, 8).await, None);
            mark.client_spoke(false);
            mark.answered(true);
        }
        for _ in 0..3 {
            assert_eq!(look(&mut limits, 8).await, None);
            mark.client_spoke(true);
        }
        for _ in 0..9 {
            assert_eq!(look(&mut limits, 1).await, None);
            mark.answered(true);
        }
        assert!(
            look(&mut limits, 2).await.is_some(),
            "what the server sends is not the client's"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn options_that_change_take_effect_on_what_has_passed() {
        let (mut limits, mark) = limits(0, false);
        mark.answered(true);
        assert_eq!(look(&mut limits, 100).await, None, "no limit");
        limits.options.client_idle_timeout = Some(Duration::from_secs(30));
        assert!(look(&mut limits, 1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_outlives_its_certificate_unless_a_role_says_otherwise() {
        let (mut lasting, _mark) = limits(0, false);
        assert_eq!(lasting.overstepped(UNTIL + Duration::from_secs(3600)), None);
        let (mut ending, _mark) = limits(0, true);
        assert_eq!(ending.overstepped(BEFORE), None);
        let refusal = ending.overstepped(UNTIL).unwrap();
        assert_eq!(
            refusal.message,
            "client certificate expired at 2023-11-14T22:13:20.000Z"
        );
        assert_eq!(refusal.kind.sqlstate(), "28000");
    }

    #[test]
    fn durations_are_written_in_full() {
        let written = [30, 90, 600, 3600, 5405].map(|secs| InFull(Duration::from_secs(secs)).to_string());
        assert_eq!(written, ["30s", "1m30s", "10m0s", "1h0m0s", "1h30m5s"]);
    }
}
