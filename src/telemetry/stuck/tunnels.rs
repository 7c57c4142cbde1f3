//! Agents that have fallen silent, and tunnels whose streams nobody takes.

use super::super::look::{Snapshot, TunnelFact};
use super::{AGENT_SILENT_AFTER, Found, StuckRule, lasting, next_about};

pub fn find(look: &Snapshot, found: &mut Vec<Found>) {
    for tunnel in &look.facts.tunnels {
        found.extend(silent(tunnel, look));
        found.extend(backlog(tunnel, look));
    }
}

fn silent(tunnel: &TunnelFact, look: &Snapshot) -> Option<Found> {
    let silent = look.now.since(tunnel.heard);
    if silent <= AGENT_SILENT_AFTER {
        return None;
    }
    let (agent, after) = (&tunnel.agent, tunnel.given_up_after);
    let age = lasting(silent);
    Some(of(
        tunnel,
        format!(
            "agent {agent} has sent nothing for {age}; its tunnel is given up after {}",
            lasting(after)
        ),
        tunnel.heard,
    ))
}

fn backlog(tunnel: &TunnelFact, look: &Snapshot) -> Option<Found> {
    let (inbound, bound) = (tunnel.inbound, tunnel.inbound_bound);
    if bound == 0 || inbound.saturating_mul(2) < bound {
        return None;
    }
    let agent = &tunnel.agent;
    let sentence = format!("{inbound} streams of agent {agent} wait to be taken; one more than {bound} is reset");
    Some(of(tunnel, sentence, look.now))
}

fn of(tunnel: &TunnelFact, sentence: String, since: crate::model::Moment) -> Found {
    let peer = format!("agent {}", tunnel.agent);
    Found {
        rule: StuckRule::StreamBacklog,
        room: tunnel.path.clone(),
        next: next_about(&peer),
        peer,
        sentence,
        since,
        connection: None,
        side: None,
        alarms: false,
    }
}
