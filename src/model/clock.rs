//! Time. This is the one file that reads the clock, so that a test can hold it.

use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment in Coordinated Universal Time, in microseconds since the Unix epoch.
///
/// Written as RFC 3339 with milliseconds and `Z`, the form of the audit log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000)
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Parses RFC 3339, for example `2026-01-31T12:00:00Z`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_microsecond()))
    }

    /// Appends what `Display` writes. There is a time in every line of the audit log: what is of the second is made once in it.
    pub fn push_to(self, out: &mut String) {
        thread_local! {
            /// The second of the last one on this thread, and its text up to the fraction.
            static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
        }
        let micros = self.0.rem_euclid(1_000_000);
        let second = self.0.saturating_sub(micros);
        LAST.with_borrow_mut(|(last, text)| {
            if *last != second || text.is_empty() {
                *text = Self(second).to_string();
                *last = second;
            }
            let millis = micros / 1000;
            match text.strip_suffix("000Z") {
                Some(before) => {
                    out.push_str(before);
                    for place in [100, 10, 1] {
                        // A remainder of ten is a digit.
                        out.push(char::from(b'0' + (millis / place % 10) as u8));
                    }
                    out.push('Z');
                }
                None => out.push_str(&self.to_string()),
            }
        });
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

static RFC_3339: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => RFC_3339.print_timestamp(&t, StdFmtWrite(f)).map_err(|_| fmt::Error),
            Err(_) => write!(f, "(outside the calendar: {} us)", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A moment of this process, in nanoseconds since it first asked. Never goes back, and means nothing to another process: for
/// records of what happens here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        let elapsed = process_start().0.elapsed();
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// What the machine's clock showed then, if it has not been set since.
    pub fn to_timestamp(self) -> Timestamp {
        process_start().1 + Duration::from_nanos(self.0)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn process_start() -> &'static (Instant, Timestamp) {
    static START: OnceLock<(Instant, Timestamp)> = OnceLock::new();
    START.get_or_init(|| (Instant::now(), SystemClock.now()))
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct HeldClock(AtomicI64);

impl HeldClock {
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now.as_micros())))
    }

    pub fn move_to(&self, now: Timestamp) {
        self.0.store(now.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_as_rfc_3339_with_milliseconds() {
        let t = Timestamp::from_micros(1_619_564_426_014_999);
        assert_eq!(t.to_string(), "2021-04-27T23:00:26.014Z");
        assert_eq!(
            Timestamp::parse_rfc3339("2021-04-27T23:00:26.014Z"),
            Some(Timestamp::from_micros(1_619_564_426_014_000))
        );
    }

    #[test]
    fn a_timestamp_is_appended_as_it_is_written_whatever_came_before() {
        let second = 1_619_564_426_000_000;
        let moments = [0, 14_999, 999_999, 1_000_000, 0, -1, -999_001];
        let moments = moments.map(|of_second| second + of_second).into_iter();
        for micros in moments.chain([0, -1, -62_135_596_800_000_001, i64::MAX, i64::MIN, second]) {
            let (t, mut line) = (Timestamp::from_micros(micros), String::from("at "));
            t.push_to(&mut line);
            assert_eq!(line, format!("at {t}"));
        }
    }

    #[test]
    fn time_since_a_later_moment_is_zero() {
        let now = Timestamp::from_secs(10);
        assert_eq!(now.since(now + Duration::from_secs(1)), Duration::ZERO);
    }
}
