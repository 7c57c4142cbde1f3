//! Nodes that have fallen silent, and tunnels whose streams nobody takes.

use super::super::look::{Snapshot, TunnelFact};
use super::{Found, PEER_SILENT_AFTER, StuckRule, lasting, next_about};

pub fn find(look: &Snapshot, found: &mut Vec<Found>) {
    for tunnel in &look.facts.tunnels {
        found.extend(silent(tunnel, look));
        found.extend(backlog(tunnel, look));
    }
}

fn silent(tunnel: &TunnelFact, look: &Snapshot) -> Option<Found> {
    let heard = tunnel.heard.max(look.attends_since(look.actor(&tunnel.path)));
    let silent = look.now.since(heard);
    if silent <= PEER_SILENT_AFTER {
        return None;
    }
    let (peer, after) = (&tunnel.peer, tunnel.given_up_after);
    let age = lasting(silent);
    Some(of(
        tunnel,
        format!(
            "{peer} has sent nothing for {age}; the connection to it is given up after {}",
            lasting(after)
        ),
        heard,
    ))
}

fn backlog(tunnel: &TunnelFact, look: &Snapshot) -> Option<Found> {
    let (inbound, bound) = (tunnel.inbound, tunnel.inbound_bound);
    if bound == 0 || inbound.saturating_mul(2) < bound {
        return None;
    }
    let peer = &tunnel.peer;
    let sentence = format!("{inbound} streams of {peer} wait to be taken; one more than {bound} is reset");
    Some(of(tunnel, sentence, look.now))
}

fn of(tunnel: &TunnelFact, sentence: String, since: crate::model::Moment) -> Found {
    let peer = tunnel.peer.clone();
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
