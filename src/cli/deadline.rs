//! The end of a process that does not come to it by itself: because a thread of it is blocked, or a disk that it writes to.

use crate::telemetry::registry;
use std::time::Duration;

/// How many of those that have not ended the log names.
const NAMED_MAX: usize = 16;

/// Ends the process with `code` if it is there still when the time is over, and says who has not ended. A thread of its own:
/// whatever else is blocked, this is not.
pub fn end_within(within: Duration, code: i32) {
    let watch = std::thread::Builder::new().name("deadline".to_owned()).spawn(move || {
        std::thread::sleep(within);
        for seat in registry::seats().iter().take(NAMED_MAX) {
            let (in_hand, now) = (seat.in_hand(), crate::model::Moment::now());
            tracing::error!(
                actor = %seat.path(), runtime = seat.runtime().as_deref(), in_hand = in_hand.map(|held| held.what.name()),
                since = in_hand.map(|held| tracing::field::debug(now.since(held.since))), "actor has not ended"
            );
        }
        tracing::error!(at_most = ?within, "the node did not end in time: the process ends now");
        std::process::exit(code);
    });
    if let Err(error) = watch {
        tracing::error!(%error, "nobody watches over the end of the process: a thread could not be started");
    }
}
