//! Places where a test of real processes makes the program fail. Compiled to nothing without the feature `fault-points`, which
//! is off by default; a program built with it says so at its start and in `version`.

/// True of a program that can be made to fail.
pub const ENABLED: bool = cfg!(feature = "fault-points");

/// Panics when `POSTERN_FAULT` is `<place>:panic:<subject>`.
#[cfg(feature = "fault-points")]
pub fn point(place: &str, subject: &str) {
    let wanted = std::env::var("POSTERN_FAULT").unwrap_or_default();
    assert!(
        wanted != format!("{place}:panic:{subject}"),
        "fault point {place} for {subject}"
    );
}

#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn point(_place: &str, _subject: &str) {}
