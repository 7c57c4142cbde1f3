//! Where a connection is now: what is stuck, the cause first, and then each room in which something of it lives.

use super::{Standing, length};
use crate::telemetry::look::{kind_of, side_of};
use crate::telemetry::relays::{Turn, WaitsFor};
use crate::telemetry::stuck::{StuckRule, by_depth};
use crate::telemetry::view::{ActorView, ExitView, Finding, RelayView, Side, TracePart, WayView};

pub fn standing(connection: &str, parts: &[&TracePart]) -> Vec<Standing> {
    let mut now: Vec<Standing> = sorted_findings(parts)
        .into_iter()
        .map(|(part, finding)| Standing {
            node: part.node.clone(),
            side: part.side,
            sentence: finding.sentence.clone(),
            next: Some(finding.next.clone()),
        })
        .collect();
    for part in parts {
        let side = |path: &str| side_of(kind_of(path)).unwrap_or(part.side);
        let mut said: Vec<(Side, String)> = Vec::new();
        for actor in &part.actors {
            said.extend(
                at_work(connection, actor)
                    .into_iter()
                    .map(|sentence| (side(&actor.path), sentence)),
            );
        }
        said.extend(part.relays.iter().map(|relay| (relay.side, relayed(relay))));
        if !part.lives() {
            said.extend(part.ended.iter().map(|exit| (side(&exit.path), ended(exit))));
        }
        now.extend(said.into_iter().map(|(side, sentence)| Standing {
            node: part.node.clone(),
            side,
            sentence,
            next: None,
        }));
    }
    now
}

/// What an actor has in hand for the connection, and what it waits for; or what it is at, where that is not relaying.
fn at_work(connection: &str, actor: &ActorView) -> Vec<String> {
    let serves = actor.connection.as_deref() == Some(connection);
    let is_its = |of: &Option<String>| of.as_deref() == Some(connection) || (serves && of.is_none());
    let mut said = Vec::new();
    if let Some(in_hand) = actor.in_hand.as_ref().filter(|in_hand| is_its(&in_hand.connection)) {
        let age = length(in_hand.age_us);
        said.push(format!("{} has had {} in hand for {age}", actor.path, in_hand.message));
    }
    for wait in actor.waits.iter().filter(|wait| is_its(&wait.connection)) {
        let age = length(wait.age_us);
        said.push(format!(
            "{} has waited {age} for {} ({})",
            actor.path, wait.to, wait.message
        ));
    }
    if said.is_empty() && serves && actor.state != "relaying" {
        said.push(format!(
            "{} has been {} for {}",
            actor.path,
            actor.state,
            length(actor.state_age_us)
        ));
    }
    said
}

fn ended(exit: &ExitView) -> String {
    format!("{} ended at {}: {}", exit.path, exit.at, exit.why)
}

/// The process is looked at each second: what has moved since the last look moves.
const MOVES_UNTIL_US: u64 = 1_000_000;

fn moves(way: &WayView) -> bool {
    way.still_us < MOVES_UNTIL_US
}

/// Where the bytes of a relay stand, as one would say it.
fn relayed(relay: &RelayView) -> String {
    let waits = |way: &WayView, what: WaitsFor| way.waits_for == what.label();
    let (up, down) = (&relay.to_upstream, &relay.to_client);
    let client = match relay.side {
        Side::Proxy => "the client",
        Side::Agent | Side::Auth => "the proxy",
    };
    let upstream = &relay.upstream;
    if waits(up, WaitsFor::Audit) || waits(down, WaitsFor::Audit) {
        let age = length(up.still_us.max(down.still_us));
        return format!("what was read has been held back for {age}: the audit trail takes no more");
    }
    if waits(down, WaitsFor::Sink) {
        if moves(down) {
            return format!("its result is coming: {} bytes to {client} so far", down.bytes);
        }
        let age = length(down.still_us);
        return format!("{client} has taken nothing more for {age}: its result waits until it takes more");
    }
    if waits(up, WaitsFor::Sink) {
        return format!(
            "{upstream} has taken nothing for {}: the client has sent more",
            length(up.still_us)
        );
    }
    if waits(up, WaitsFor::Done) || waits(down, WaitsFor::Done) {
        let (gone, other) = if waits(up, WaitsFor::Done) {
            (client, upstream.as_str())
        } else {
            (upstream.as_str(), client)
        };
        let age = length(up.still_us.min(down.still_us));
        return format!("{gone} has closed its side; {other} has not, for {age}");
    }
    let age = length(relay.state_age_us);
    if relay.state == Turn::Busy.label() {
        let still = up.still_us.min(down.still_us);
        let what = if moves(down) && down.still_us < relay.state_age_us {
            format!("its result is coming: {} bytes to {client} so far", down.bytes)
        } else if still < MOVES_UNTIL_US {
            format!("it is {upstream}'s turn")
        } else {
            format!("{upstream} has sent nothing for {}", length(still))
        };
        format!("the client has waited for PostgreSQL for {age}; {what}")
    } else if relay.state == Turn::Idle.label() {
        format!("idle for {age}: all is answered, and nothing is asked")
    } else if relay.state == Turn::InTransaction.label() {
        format!("idle in a transaction for {age}: all is answered, and it is the client's turn")
    } else if relay.state == Turn::Sending.label() {
        let still = length(up.still_us);
        format!("the client has been in the middle of a request for {age}; the last of it came {still} ago")
    } else if relay.state == Turn::Streaming.label() {
        let still = length(up.still_us.min(down.still_us));
        format!(
            "a replication has streamed for {age}: {} bytes to {client}, the last {still} ago",
            down.bytes
        )
    } else {
        format!("it has been {} for {age}", relay.state)
    }
}

/// The cause first. Who is silent is told by the agent, where it has a part; the proxy would tell it again.
fn sorted_findings<'a>(parts: &[&'a TracePart]) -> Vec<(&'a TracePart, &'a Finding)> {
    let all = parts
        .iter()
        .flat_map(|part| part.findings.iter().map(move |finding| (*part, finding)));
    let mut found: Vec<(&TracePart, &Finding)> = all.collect();
    let is_silence = |(_, finding): &(&TracePart, &Finding)| finding.rule == StuckRule::UpstreamSilent.label();
    if found
        .iter()
        .any(|found| is_silence(found) && found.0.side == Side::Agent)
    {
        found.retain(|found| !(is_silence(found) && found.0.side == Side::Proxy));
    }
    found.sort_by(|(a, one), (b, other)| {
        let (depth, other_depth) = (by_depth(&one.rule, Some(a.side)), by_depth(&other.rule, Some(b.side)));
        let youngest_first = one.rule == StuckRule::ReplyOverdue.label();
        let age = if youngest_first {
            one.age_us.cmp(&other.age_us)
        } else {
            other.age_us.cmp(&one.age_us)
        };
        depth
            .cmp(&other_depth)
            .then(age)
            .then_with(|| (&a.node, &one.room, &one.sentence).cmp(&(&b.node, &other.room, &other.sentence)))
    });
    found
}
