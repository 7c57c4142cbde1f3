//! Whether the runtimes of this process turn: each writes down every second that it did, and anybody may look from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often a runtime says that it turns.
const EVERY: Duration = Duration::from_secs(1);
/// A runtime that has not turned for this long does not serve anybody: handlers take microseconds, and the longest work that is
/// done on one is far below a second.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
static PULSES: Mutex<Vec<Weak<Pulse>>> = Mutex::new(Vec::new());

/// The last turn of one runtime.
#[derive(Debug)]
pub struct Pulse {
    name: String,
    /// Milliseconds since the beginning.
    last: AtomicU64,
}

impl Pulse {
    /// It is looked at until it is dropped.
    fn of(name: &str) -> Arc<Self> {
        let pulse = Arc::new(Self {
            name: name.to_owned(),
            last: AtomicU64::new(since_beginning()),
        });
        let mut pulses = PULSES.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|known| known.strong_count() > 0);
        pulses.push(Arc::downgrade(&pulse));
        pulse
    }

    fn turns(&self) {
        self.last.store(since_beginning(), Ordering::Relaxed);
    }

    fn still_for(&self) -> Duration {
        Duration::from_millis(since_beginning().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

fn since_beginning() -> u64 {
    u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// To be run on the runtime of this name, for as long as that runs. It is looked at from this call on.
pub fn beat(name: &str) -> impl Future<Output = ()> + Send + use<> {
    let pulse = Pulse::of(name);
    async move {
        loop {
            pulse.turns();
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// How long ago each runtime turned, in the order of their start.
pub fn all() -> Vec<(String, Duration)> {
    let pulses = PULSES.lock().unwrap_or_else(PoisonError::into_inner);
    let living = pulses.iter().filter_map(Weak::upgrade);
    living.map(|pulse| (pulse.name.clone(), pulse.still_for())).collect()
}

/// The first runtime that does not turn any more, and since when.
pub fn stuck() -> Option<(String, Duration)> {
    all().into_iter().find(|(_, still)| *still > STUCK_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_does_not_turn_for_ten_seconds_is_named() {
        let still = |name: &str| {
            all()
                .into_iter()
                .find(|(known, _)| known == name)
                .map(|(_, still)| still)
        };
        let task = tokio::spawn(beat("pulse-tests"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(still("pulse-tests").expect("known") <= EVERY);
        // As a handler does that never comes back: time goes on, and nothing else.
        tokio::time::advance(STUCK_AFTER + EVERY).await;
        let _beating = beat("never polled");
        drop(_beating);
        assert_eq!(still("never polled"), None, "gone with its task");
        task.abort();
        let _gone = task.await;
        assert_eq!(still("pulse-tests"), None);
        let silent = beat("pulse-tests silent");
        tokio::time::advance(STUCK_AFTER + EVERY).await;
        assert!(still("pulse-tests silent").expect("known") > STUCK_AFTER);
        assert!(stuck().is_some());
        drop(silent);
    }
}
