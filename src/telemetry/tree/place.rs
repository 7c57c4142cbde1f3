//! The parts in their order, joined to each other, with their times moved to those of the first.

use super::StepKind;
use crate::telemetry::record::RecordKind;
use crate::telemetry::view::{RecordView, Side, TracePart};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

/// Whose message: the place of the part, and the id there.
pub type Name = (usize, u64);

/// All records of one message, or of one step.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: StepKind,
    pub what: String,
    pub from: Option<String>,
    pub to: String,
    pub cause: Option<u64>,
    /// By the clock of its process.
    pub at_us: i64,
    /// The clock on its wall then.
    pub wall: String,
    pub is_of_connection: bool,
    /// There is a record that it was sent.
    pub is_sent: bool,
    pub queued_us: Option<u64>,
    pub busy_us: Option<u64>,
    pub answered_us: Option<u64>,
    pub dropped: bool,
}

/// One part in its place.
pub struct Placed<'a> {
    pub part: &'a TracePart,
    pub events: BTreeMap<u64, Event>,
    /// What is to be added to its times.
    pub offset_us: i64,
    /// The messages of parts before it that those which arrived here are.
    pub joins: BTreeMap<u64, Name>,
    pub is_joined: bool,
}

/// The part of the client's proxy first, and each other behind one that it is joined to.
pub fn place(parts: &[TracePart]) -> Vec<Placed<'_>> {
    let mut rest: Vec<(&TracePart, BTreeMap<u64, Event>)> = parts.iter().map(|part| (part, events(part))).collect();
    // The order in which they came says nothing.
    rest.sort_by_cached_key(|(part, events)| {
        let is_proxy = part.side == Side::Proxy;
        let has_arrivals = events.values().any(|event| event.kind == StepKind::Arrived);
        let first = events.keys().next().copied();
        (Reverse(is_proxy), has_arrivals, part.node.clone(), first)
    });
    let mut placed: Vec<Placed<'_>> = Vec::new();
    while !rest.is_empty() {
        let joined = rest
            .iter()
            .enumerate()
            .map(|(at, (part, events))| (at, joins(&part.node, events, &placed)))
            .find(|(_, joins)| !joins.is_empty());
        let (at, joins) = joined.unwrap_or_default();
        let is_joined = placed.is_empty() || !joins.is_empty();
        let (part, events) = rest.remove(at);
        let offset_us = offset(&events, &joins, &placed);
        placed.push(Placed {
            part,
            events,
            offset_us,
            joins,
            is_joined,
        });
    }
    join_within(&mut placed);
    placed
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

fn events(part: &TracePart) -> BTreeMap<u64, Event> {
    let mut records: Vec<&RecordView> = part.records.iter().collect();
    records.sort_by_key(|record| (record.id, rank(record.kind), record.at_us));
    let mut events: BTreeMap<u64, Event> = BTreeMap::new();
    for record in records {
        let event = events.entry(record.id).or_insert_with(|| Event::begun_by(record));
        event.is_of_connection |= record.connection.is_some();
        match record.kind {
            RecordKind::Sent => event.is_sent = true,
            RecordKind::Handled => {
                event.queued_us = Some(record.queued_us);
                event.busy_us = Some(record.busy_us);
            }
            RecordKind::Answered => event.answered_us = Some(record.queued_us),
            RecordKind::Dropped => event.dropped = true,
            RecordKind::Arrived | RecordKind::Started | RecordKind::Exited | RecordKind::State => {}
        }
    }
    without_what_was_before(events)
}

/// A node began, and its listener, before the connection did: what is neither of a connection nor caused by what is one's says
/// nothing about it.
fn without_what_was_before(mut events: BTreeMap<u64, Event>) -> BTreeMap<u64, Event> {
    let mut kept: HashSet<u64> = HashSet::new();
    // Causes are older, so that they come first.
    events.retain(|id, event| {
        let is_caused = event.cause.is_some_and(|cause| kept.contains(&cause));
        let keeps = event.is_of_connection || is_caused;
        if keeps {
            kept.insert(*id);
        }
        keeps
    });
    events
}

/// The first record of a message is that it was sent; where that one is overwritten, the next one tells when it was.
const fn rank(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Sent => 0,
        RecordKind::Handled => 1,
        RecordKind::Answered => 2,
        _ => 3,
    }
}

impl Event {
    fn begun_by(record: &RecordView) -> Self {
        let kind = match record.kind {
            RecordKind::Arrived => StepKind::Arrived,
            RecordKind::Started => StepKind::Started,
            RecordKind::Exited => StepKind::Exited,
            RecordKind::State => StepKind::State,
            RecordKind::Sent | RecordKind::Handled | RecordKind::Dropped | RecordKind::Answered => StepKind::Message,
        };
        let since = record.queued_us.saturating_add(record.busy_us);
        Self {
            kind,
            what: record.what.clone(),
            from: record.from.clone(),
            to: record.to.clone(),
            cause: record.cause,
            at_us: signed(record.at_us).saturating_sub(signed(since)),
            wall: record.at.clone(),
            is_of_connection: false,
            is_sent: false,
            queued_us: None,
            busy_us: None,
            answered_us: None,
            dropped: false,
        }
    }
}

/// What arrived here, and was sent by one that has its place already. Ids are of their process, so that a name says more than a
/// number: without the same name, or a way that leads here, it is another message.
fn joins(node: &str, events: &BTreeMap<u64, Event>, placed: &[Placed<'_>]) -> BTreeMap<u64, Name> {
    let arrived = events.iter().filter(|(_, event)| event.kind == StepKind::Arrived);
    let join = |(id, event): (&u64, &Event)| {
        let cause = event.cause?;
        let candidates = placed.iter().enumerate().filter_map(|(place, part)| {
            let sent = part.events.get(&cause).filter(|sent| sent.is_sent)?;
            let leads_here = !node.is_empty() && sent.to.contains(node);
            let score = (sent.what == event.what, leads_here);
            (score != (false, false)).then_some((score, Reverse(place)))
        });
        let (_, Reverse(place)) = candidates.max()?;
        Some((*id, (place, cause)))
    };
    arrived.filter_map(join).collect()
}

/// The least that lets nothing arrive before it was sent. The first part, and one that nothing joins, begin at zero.
fn offset(events: &BTreeMap<u64, Event>, joins: &BTreeMap<u64, Name>, placed: &[Placed<'_>]) -> i64 {
    let least = joins
        .iter()
        .filter_map(|(id, (place, cause))| {
            let sender = placed.get(*place)?;
            let sent = sender.events.get(cause)?.at_us.saturating_add(sender.offset_us);
            Some(sent.saturating_sub(events.get(id)?.at_us))
        })
        .max();
    least.unwrap_or_else(|| {
        let own = events.values().filter(|event| event.is_of_connection);
        let begin = own.map(|event| event.at_us).min();
        begin
            .or_else(|| events.values().map(|event| event.at_us).min())
            .unwrap_or(0)
            .saturating_neg()
    })
}

/// Where proxy and agent share a process, what arrived was sent by itself.
fn join_within(placed: &mut [Placed<'_>]) {
    for (place, part) in placed.iter_mut().enumerate() {
        let arrived = part.events.iter().filter(|(_, event)| event.kind == StepKind::Arrived);
        let own: Vec<(u64, Name)> = arrived
            .filter(|(id, _)| !part.joins.contains_key(id))
            .filter_map(|(id, event)| {
                let cause = event.cause.filter(|cause| cause < id)?;
                let sent = part.events.get(&cause)?;
                let is_it = sent.is_sent && sent.what == event.what && sent.at_us <= event.at_us;
                is_it.then_some((*id, (place, cause)))
            })
            .collect();
        part.joins.extend(own);
    }
}
