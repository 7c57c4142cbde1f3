//! What is to be seen of this process at the moment.

use super::routes::ConnectionsQuery;
use crate::model::{ConnectionId, Moment, SharedClock};
use crate::telemetry::record::{self, Record};
use crate::telemetry::registry::{self, Exit, Seat};
use crate::telemetry::relays::{self, Gauge, Way};
use crate::telemetry::view::{
    ActorView, ConnectionView, ExitView, FailureView, InHandView, NodeView, RecordView, RelayView, Side, TracePart,
    WAITS_SHOWN, WaitView, WayView,
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Records of one actor that are shown.
const ACTOR_RECORDS: usize = 50;

/// Who the node is.
pub struct NodeFacts {
    pub name: String,
    /// Known when the node has its identity.
    pub id: Arc<OnceLock<String>>,
    pub services: Vec<String>,
    pub clock: SharedClock,
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

impl NodeFacts {
    pub fn announce(&self) {}

    pub fn look(&self) -> NodeView {
        let now = Moment::now();
        let mut actors: Vec<ActorView> = registry::seats().iter().map(|seat| actor(seat, now)).collect();
        actors.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        NodeView {
            node: self.name.clone(),
            node_id: self.id.get().cloned().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services: self.services.clone(),
            at: self.clock.now().to_string(),
            uptime_us: now.as_nanos() / 1000,
            actors,
            exits: registry::exits().iter().rev().map(exit).collect(),
            relays: relays::all().iter().map(|gauge| relay(gauge, now)).collect(),
            findings: Vec::new(),
            records: record::written(),
        }
    }

    /// An actor that lives, and what happened to it lately.
    pub fn actor(&self, path: &str) -> Option<(ActorView, Vec<RecordView>)> {
        let seat = registry::seats().into_iter().find(|seat| &**seat.path() == path)?;
        let mut records = record::find(|record| &*record.to == path || record.from.as_deref() == Some(path));
        let last = records.split_off(records.len().saturating_sub(ACTOR_RECORDS));
        Some((actor(&seat, Moment::now()), last.iter().map(shown).collect()))
    }

    pub fn connections(&self, query: &ConnectionsQuery) -> Vec<ConnectionView> {
        let now = Moment::now();
        let gauges = relays::all();
        let fits = |text: &Option<String>, value: &str| text.as_deref().is_none_or(|text| text == value);
        gauges
            .iter()
            .map(|gauge| relay(gauge, now))
            .filter(|relay| fits(&query.user, &relay.user) && fits(&query.db, &relay.database))
            .filter(|relay| fits(&query.state, &relay.state) && query.side.is_none_or(|side| side == relay.side))
            .map(|relay| ConnectionView {
                connection: relay.connection.clone(),
                node: self.name.clone(),
                side: relay.side,
                state: relay.state.clone(),
                age_us: relay.age_us,
                relay: Some(relay),
            })
            .collect()
    }

    pub fn part(&self, connection: ConnectionId) -> Option<TracePart> {
        let now = Moment::now();
        let records = record::find(|record| record.connection == Some(connection));
        let gauge = relays::all()
            .into_iter()
            .find(|gauge| gauge.spec.connection == connection);
        if records.is_empty() && gauge.is_none() {
            return None;
        }
        let seats = registry::seats();
        let mine = seats.iter().filter(|seat| seat.connection() == Some(connection));
        Some(TracePart {
            node: self.name.clone(),
            side: gauge.as_ref().map_or(Side::Proxy, |gauge| gauge.spec.side),
            at: self.clock.now().to_string(),
            records: records.iter().map(shown).collect(),
            whole_since: record::whole_since().map(|at| at.to_timestamp().to_string()),
            actors: mine.map(|seat| actor(seat, now)).collect(),
            relay: gauge.map(|gauge| relay(&gauge, now)),
            findings: Vec::new(),
        })
    }
}

fn actor(seat: &Arc<Seat>, now: Moment) -> ActorView {
    let (state, entered) = seat.state();
    let (waits, uncounted) = seat.open_waits();
    let waiting = u32::try_from(waits.len()).unwrap_or(u32::MAX).saturating_add(uncounted);
    ActorView {
        path: seat.path().to_string(),
        kind: seat.kind().to_owned(),
        rule: seat.rule().to_owned(),
        runtime: seat.runtime().map(|runtime| runtime.to_string()),
        state: state.name().to_owned(),
        state_age_us: micros(now.since(entered)),
        age_us: micros(now.since(seat.since())),
        queued: seat.queued(),
        bound: seat.bound(),
        in_hand: seat.in_hand().map(|hand| InHandView {
            message: hand.what.name().to_owned(),
            age_us: micros(now.since(hand.since)),
            connection: hand.connection.map(|id| id.to_string()),
        }),
        waits: waits
            .iter()
            .take(WAITS_SHOWN)
            .map(|wait| WaitView {
                message: wait.what.name().to_owned(),
                to: wait.for_whom.to_string(),
                age_us: micros(now.since(wait.since)),
                within_us: micros(wait.within),
                connection: wait.connection.map(|id| id.to_string()),
            })
            .collect(),
        waiting,
        handled: seat.handled(),
        busy_us: micros(seat.busy()),
        restarts: seat.restarts(),
        last_failure: seat.last_failure().map(|failure| FailureView {
            at: failure.at.to_timestamp().to_string(),
            why: failure.why.to_string(),
        }),
        connection: seat.connection().map(|id| id.to_string()),
    }
}

fn exit(exit: &Exit) -> ExitView {
    ExitView {
        path: exit.path.to_string(),
        at: exit.at.to_timestamp().to_string(),
        why: exit.why.to_string(),
        failed: exit.failed,
        connection: exit.connection.map(|id| id.to_string()),
    }
}

fn relay(gauge: &Gauge, now: Moment) -> RelayView {
    let way = |way: &Way| WayView {
        bytes: way.bytes(),
        waits_for: way.waits_for().label().to_owned(),
        still_us: 0,
    };
    let spec = &gauge.spec;
    RelayView {
        connection: spec.connection.to_string(),
        session: spec.session.to_string(),
        side: spec.side,
        user: spec.user.clone(),
        database: spec.database.clone(),
        db_user: spec.db_user.clone(),
        db_name: spec.db_name.clone(),
        client: spec.client.clone(),
        upstream: spec.upstream.clone(),
        process_id: spec.process_id,
        age_us: micros(now.since(gauge.since)),
        state: gauge.state().to_owned(),
        state_age_us: 0,
        to_upstream: way(&gauge.to_upstream),
        to_client: way(&gauge.to_client),
    }
}

fn shown(record: &Record) -> RecordView {
    RecordView {
        at: record.at.to_timestamp().to_string(),
        at_us: record.at.as_nanos() / 1000,
        kind: record.kind,
        what: record.what.name().to_owned(),
        id: record.id.0,
        cause: record.cause.map(|cause| cause.0),
        connection: record.connection.map(|id| id.to_string()),
        from: record.from.as_ref().map(ToString::to_string),
        to: record.to.to_string(),
        queued_us: record.queued_ns / 1000,
        busy_us: record.busy_ns / 1000,
    }
}
