//! What one process has of one connection: its records and those that they caused, who serves it, how its bytes stand, and what
//! is wrong with it.

use super::drawn;
use super::look::{ActorLook, RelayLook, Snapshot, kind_of, side_of};
use super::record::{self, Record};
use super::registry;
use super::relays;
use super::stuck::{self, Found};
use super::view::{ExitView, RecordView, Side, TracePart, Whose};
use crate::model::{ConnectionId, MessageId};
use std::collections::{HashMap, HashSet};

/// Records of one part, those of the connection itself first: a session has some thirty, and what a connection of a node causes
/// goes on for as long as that node.
const PART_RECORDS: usize = 4096;
/// Causes that are followed back from a connection's first records.
const CAUSES_MAX: usize = 16;

pub fn of(node: &str, connection: ConnectionId, look: &Snapshot) -> Option<TracePart> {
    let now = look.now;
    let records = records(connection);
    let mut actors: Vec<&ActorLook> = look.actors.iter().filter(|actor| actor.works_for(connection)).collect();
    actors.sort_by(|a, b| drawn::in_tree_order(&a.path, &b.path));
    let is_its = |relay: &&RelayLook| relay.gauge.spec.connection == connection;
    let mut relays: Vec<&RelayLook> = look.relays.iter().filter(is_its).collect();
    relays.sort_by_key(|relay| relay.gauge.spec.side != Side::Proxy);
    let ended = ended(connection);
    if records.is_empty() && actors.is_empty() && relays.is_empty() && ended.is_empty() {
        return None;
    }
    let whose = whose(&relays, &actors, &ended);
    let findings = concerning(stuck::findings(look), connection, &actors, look);
    Some(TracePart {
        node: node.to_owned(),
        side: side(&relays, &actors, &records),
        at: now.to_timestamp().to_string(),
        records: records.iter().map(drawn::record).collect(),
        whole_since: record::whole_since().map(|since| since.to_timestamp().to_string()),
        actors: actors.iter().map(|actor| drawn::actor(actor, now)).collect(),
        relays: relays.iter().map(|relay| drawn::relay(relay, now)).collect(),
        findings: findings.iter().map(|found| found.to_finding(now)).collect(),
        ended,
        whose,
    })
}

/// As the one who knows most says it.
fn whose(relays: &[&RelayLook], actors: &[&ActorLook], ended: &[ExitView]) -> Option<Whose> {
    let relayed = relays.iter().map(|relay| &relay.gauge.spec.whose);
    let served = actors.iter().filter_map(|actor| actor.whose.as_deref());
    let was = ended.iter().filter_map(|exit| exit.whose.as_ref());
    relayed.chain(served).chain(was).next().cloned()
}

/// How the actors of the connection ended, newest first.
fn ended(connection: ConnectionId) -> Vec<ExitView> {
    let relays = relays::ended();
    let exits = registry::exits();
    let own = exits.iter().rev().filter(|exit| exit.connection == Some(connection));
    own.map(|exit| drawn::exit(exit, &relays)).collect()
}

/// The client's connection is the proxy's, also where the agent is the same process. Whoever serves neither end was only asked.
fn side(relays: &[&RelayLook], actors: &[&ActorLook], records: &[Record]) -> Side {
    let relayed = relays.iter().map(|relay| relay.gauge.spec.side);
    let live = actors.iter().filter_map(|actor| side_of(actor.kind()));
    let lived = records.iter().filter_map(|record| side_of(kind_of(&record.to)));
    let sides: Vec<Side> = relayed.chain(live).chain(lived).collect();
    [Side::Proxy, Side::Agent]
        .into_iter()
        .find(|side| sides.contains(side))
        .unwrap_or(Side::Auth)
}

/// The connection's own records, what those of no connection were caused by them, and what caused the first ones.
fn records(connection: ConnectionId) -> Vec<Record> {
    let connection = Some(connection);
    let mut ids = HashSet::new();
    let mut causes: HashMap<MessageId, MessageId> = HashMap::new();
    record::for_each(|record| {
        if record.connection == connection {
            ids.insert(record.id);
        }
        // The cause of an arrival is a message of another process.
        if let (Some(cause), true) = (record.cause, record.kind != record::RecordKind::Arrived)
            && (record.connection.is_none() || record.connection == connection)
        {
            causes.insert(record.id, cause);
        }
    });
    if ids.is_empty() {
        return Vec::new();
    }
    let before = causes_of(&ids, &causes);
    // A message is younger than its cause, so that one pass in their order meets all.
    let mut later: Vec<(MessageId, MessageId)> = causes.into_iter().collect();
    later.sort_unstable();
    for (id, cause) in later {
        if ids.contains(&cause) {
            ids.insert(id);
        }
    }
    ids.extend(before);
    let is_own = |record: &Record| record.connection == connection;
    let mut found = record::find(|record| ids.contains(&record.id) && (record.connection.is_none() || is_own(record)));
    let own = found.iter().filter(|record| is_own(record)).count();
    let (mut room, mut room_of_others) = (PART_RECORDS, PART_RECORDS.saturating_sub(own));
    found.retain(|record| {
        let room = if is_own(record) { &mut room } else { &mut room_of_others };
        let keeps = *room > 0;
        *room -= usize::from(keeps);
        keeps
    });
    found
}

/// What caused the first of these, and what caused that.
fn causes_of(ids: &HashSet<MessageId>, causes: &HashMap<MessageId, MessageId>) -> HashSet<MessageId> {
    let mut before = HashSet::new();
    for first in ids {
        let mut id = first;
        for _ in 0..CAUSES_MAX {
            match causes.get(id) {
                Some(cause) if !ids.contains(cause) && before.insert(*cause) => id = cause,
                _ => break,
            }
        }
    }
    before
}

/// What an actor sent, was sent, and went through, the newest `bound` in the order of time.
pub fn records_of(path: &str, bound: usize) -> Vec<RecordView> {
    let found = record::find(|record| &*record.to == path || record.from.as_deref() == Some(path));
    let skipped = found.len().saturating_sub(bound);
    found.iter().skip(skipped).map(drawn::record).collect()
}

/// The findings of a connection, and those of others that keep it waiting.
fn concerning(found: Vec<Found>, connection: ConnectionId, actors: &[&ActorLook], look: &Snapshot) -> Vec<Found> {
    let mut waited_for: HashSet<String> = HashSet::new();
    for actor in actors {
        let own = actor.connection == Some(connection);
        let waits = actor
            .waits
            .iter()
            .filter(|wait| own || wait.connection == Some(connection));
        waited_for.extend(waits.map(|wait| wait.for_whom.to_string()));
    }
    let is_its = |found: &Found| found.connection == Some(connection);
    waited_for.extend(
        found
            .iter()
            .filter(|found| is_its(found))
            .map(|found| found.peer.clone()),
    );
    for relay in &look.relays {
        if relay.gauge.spec.connection == connection {
            waited_for.insert(relay.gauge.spec.upstream.clone());
        }
    }
    let runtimes: HashSet<&str> = actors.iter().filter_map(|actor| actor.runtime.as_deref()).collect();
    let shares_thread = |room: &str| {
        if let Some(runtime) = room.strip_prefix("thread ") {
            return runtimes.contains(runtime);
        }
        let runtime = look.actor(room).and_then(|actor| actor.runtime.as_deref());
        runtime.is_some_and(|runtime| runtimes.contains(runtime))
    };
    let of_others = |found: &Found| match found.rule {
        stuck::StuckRule::HandlerSlow => shares_thread(&found.room) || waited_for.contains(&found.room),
        stuck::StuckRule::StoreSlow => found.side.is_none() && !waited_for.is_empty(),
        _ => found.connection.is_none() && (waited_for.contains(&found.room) || waited_for.contains(&found.peer)),
    };
    found
        .into_iter()
        .filter(|found| is_its(found) || of_others(found))
        .collect()
}
