//! Waiting for something to become true, with a deadline; no test sleeps and hopes.

use std::io::Write;
use std::time::Duration;
use tokio::time::Instant;

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Time since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The first `Some` of `attempt`, which is asked again and again; panics after `limit` with `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Stopwatch::start();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(started.elapsed() < limit, "not within {} s: {what}", limit.as_secs());
        std::thread::sleep(POLL_EVERY);
    }
}

/// As [`until`], for an attempt that says why it has not succeeded yet; the last reason is in the panic.
#[track_caller]
pub fn until_ok<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let started = Stopwatch::start();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(reason) => {
                assert!(
                    started.elapsed() < limit,
                    "not within {} s: {what}\nlast: {reason}",
                    limit.as_secs()
                );
            }
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// Says what was measured. `make test` shows these lines at its end, also of tests that passed.
pub fn figure(text: &str) {
    eprintln!("{text}");
    if let Some(path) = std::env::var_os("POSTERN_FIGURES") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        drop(file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes())));
    }
}
