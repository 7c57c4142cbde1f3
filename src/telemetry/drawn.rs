//! The views drawn from a look: the texts and lengths of time that people and their tools read.

use super::look::{ActorLook, RelayLook, WayLook, kind_of, side_of};
use super::record::Record;
use super::registry::{Exit, Wait};
use super::relays::{Ended, RelaySpec, WaitsFor};
use super::view::{
    ActorView, ExitView, FailureView, InHandView, RecordView, RelayView, WAITS_SHOWN, WaitView, WayView,
};
use crate::model::Moment;
use std::cmp::Ordering;
use std::time::Duration;

pub fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

/// A parent before its children, and they before the next of its like.
pub fn in_tree_order(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

pub fn actor(look: &ActorLook, now: Moment) -> ActorView {
    let waiting = u32::try_from(look.waits.len()).unwrap_or(u32::MAX);
    ActorView {
        path: look.path.to_string(),
        kind: look.kind().to_owned(),
        rule: look.rule.to_owned(),
        runtime: look.runtime.as_ref().map(ToString::to_string),
        state: look.state.name().to_owned(),
        state_age_us: micros(now.since(look.state_since)),
        age_us: micros(now.since(look.since)),
        queued: look.queued,
        bound: look.bound,
        in_hand: look.in_hand.map(|in_hand| InHandView {
            message: in_hand.what.name().to_owned(),
            age_us: micros(now.since(in_hand.since)),
            connection: in_hand.connection.map(|connection| connection.to_string()),
        }),
        waits: look
            .waits
            .iter()
            .take(WAITS_SHOWN)
            .map(|open| wait(open, now))
            .collect(),
        waiting: waiting.saturating_add(look.uncounted),
        handled: look.handled,
        busy_us: micros(look.busy),
        restarts: look.restarts,
        last_failure: look.last_failure.as_ref().map(|failure| FailureView {
            at: failure.at.to_timestamp().to_string(),
            why: failure.why.to_string(),
        }),
        connection: look.connection.map(|connection| connection.to_string()),
        whose: look.whose.as_deref().cloned(),
    }
}

fn wait(wait: &Wait, now: Moment) -> WaitView {
    WaitView {
        message: wait.what.name().to_owned(),
        to: wait.for_whom.to_string(),
        age_us: micros(now.since(wait.since)),
        within_us: micros(wait.within),
        connection: wait.connection.map(|connection| connection.to_string()),
    }
}

pub fn relay(look: &RelayLook, now: Moment) -> RelayView {
    RelayView {
        age_us: micros(now.since(look.gauge.since)),
        state: look.state.to_owned(),
        state_age_us: micros(now.since(look.state_since)),
        to_upstream: way(look.to_upstream, now),
        to_client: way(look.to_client, now),
        ..named(&look.gauge.spec)
    }
}

/// How it was at its end.
fn ended(relay: &Ended) -> RelayView {
    let mut view = named(&relay.spec);
    view.age_us = micros(relay.lasted);
    view.state = relay.state.to_owned();
    view.to_upstream.bytes = relay.to_upstream;
    view.to_client.bytes = relay.to_client;
    view
}

fn named(spec: &RelaySpec) -> RelayView {
    let way = || WayView {
        bytes: 0,
        waits_for: WaitsFor::Done.label().to_owned(),
        still_us: 0,
    };
    RelayView {
        connection: spec.connection.to_string(),
        session: spec.session.to_string(),
        side: spec.side,
        user: spec.whose.user.clone(),
        database: spec.whose.database.clone(),
        db_user: spec.whose.db_user.clone(),
        db_name: spec.whose.db_name.clone(),
        client: spec.whose.client.clone(),
        upstream: spec.upstream.clone(),
        process_id: spec.process_id,
        age_us: 0,
        state: String::new(),
        state_age_us: 0,
        to_upstream: way(),
        to_client: way(),
    }
}

fn way(look: WayLook, now: Moment) -> WayView {
    WayView {
        bytes: look.bytes,
        waits_for: look.waits_for.label().to_owned(),
        still_us: micros(now.since(look.since)),
    }
}

/// How an actor ended; that of a connection with its relay, where that is among those that `ended`.
pub fn exit(exit: &Exit, all: &[Ended]) -> ExitView {
    let side = side_of(kind_of(&exit.path));
    let mut fits = all
        .iter()
        .rev()
        .filter(|relay| Some(relay.spec.connection) == exit.connection && Some(relay.spec.side) == side);
    ExitView {
        path: exit.path.to_string(),
        at: exit.at.to_timestamp().to_string(),
        why: exit.why.to_string(),
        failed: exit.failed,
        connection: exit.connection.map(|connection| connection.to_string()),
        relay: fits.next().map(|relay| Box::new(ended(relay))),
        whose: exit.whose.as_deref().cloned(),
    }
}

pub fn record(record: &Record) -> RecordView {
    RecordView {
        at: record.at.to_timestamp().to_string(),
        at_us: record.at.as_nanos() / 1000,
        kind: record.kind,
        what: record.what.name().to_owned(),
        id: record.id.0,
        cause: record.cause.map(|cause| cause.0),
        connection: record.connection.map(|connection| connection.to_string()),
        from: record.from.as_ref().map(ToString::to_string),
        to: record.to.to_string(),
        queued_us: record.queued_ns / 1000,
        busy_us: record.busy_ns / 1000,
    }
}
