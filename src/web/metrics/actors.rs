//! The actors of this process by their kind, as the registry has them.

use super::page::{Page, number};
use crate::telemetry::registry::{Seat, seats};
use std::collections::BTreeMap;
use std::fmt;

/// Of all actors of a kind together.
#[derive(Debug, Default)]
struct OfKind {
    count: u64,
    queued: u64,
    bound: u64,
    /// Of those that live as long as the process, so that the sums only grow; nothing where there is none.
    work: Option<Work>,
}

#[derive(Debug, Default)]
struct Work {
    handled: u64,
    busy_seconds: f64,
    restarts: u64,
}

impl OfKind {
    fn add(&mut self, seat: &Seat) {
        self.count += 1;
        self.queued += u64::from(seat.queued());
        self.bound += u64::from(seat.bound());
        if seat.rule() == "permanent" {
            let work = self.work.get_or_insert_default();
            work.handled += seat.handled();
            work.busy_seconds += seat.busy().as_secs_f64();
            work.restarts += u64::from(seat.restarts());
        }
    }
}

pub(super) fn actor_metrics(page: &mut Page<'_>) -> fmt::Result {
    let mut kinds = BTreeMap::<String, OfKind>::new();
    for seat in seats() {
        kinds.entry(seat.kind().to_owned()).or_default().add(&seat);
    }
    let now = |what: fn(&OfKind) -> u64| {
        let of = move |(kind, all)| ([("kind", String::as_str(kind))], number(what(all)));
        kinds.iter().map(of)
    };
    page.gauges(("postern_actors", "Actors that live."), now(|all| all.count))?;
    page.gauges(
        ("postern_actor_mailbox_messages", "Messages that wait in mailboxes."),
        now(|all| all.queued),
    )?;
    page.gauges(
        (
            "postern_actor_mailbox_limit_messages",
            "How many messages the mailboxes hold.",
        ),
        now(|all| all.bound),
    )?;
    let done = |what: fn(&Work) -> f64| {
        let of = move |(kind, all): (_, &OfKind)| Some(([("kind", String::as_str(kind))], what(all.work.as_ref()?)));
        kinds.iter().filter_map(of)
    };
    page.counters(
        (
            "postern_actor_messages_handled",
            "Messages that permanent actors have handled.",
        ),
        done(|work| number(work.handled)),
    )?;
    page.counters(
        ("postern_actor_busy_seconds", "How long permanent actors were at work."),
        done(|work| work.busy_seconds),
    )?;
    page.counters(
        (
            "postern_actor_restarts",
            "How often permanent actors failed and were built anew.",
        ),
        done(|work| number(work.restarts)),
    )
}
