//! The steps of the tree in their order.

use super::place::{Name, Placed};
use super::{Step, StepKind};
use std::collections::BTreeMap;

/// The steps, and what the wall's clock showed at the first one of the connection.
pub fn tree(placed: &[Placed<'_>]) -> (Vec<Step>, Option<String>) {
    let mut children: BTreeMap<Option<Name>, Vec<(i64, Name)>> = BTreeMap::new();
    for (place, part) in placed.iter().enumerate() {
        for (id, event) in &part.events {
            let at = event.at_us.saturating_add(part.offset_us);
            let name = (place, *id);
            children.entry(cause(placed, name)).or_default().push((at, name));
        }
    }
    for siblings in children.values_mut() {
        siblings.sort_unstable();
    }
    // Of a part that nothing joins, times mean nothing beside those of the others.
    if let Some(roots) = children.get_mut(&None) {
        let is_apart = |place: usize| placed.get(place).is_some_and(|part| !part.is_joined);
        roots.sort_by_key(|(at, (place, id))| (is_apart(*place).then_some(*place), *at, *place, *id));
    }
    (in_order(placed, &mut children), began(placed))
}

/// What caused it, if that is in the tree. A message is younger than its cause, so that there is no cycle within a part; and one
/// part is joined to another that was placed before it.
fn cause(placed: &[Placed<'_>], (place, id): Name) -> Option<Name> {
    let part = placed.get(place)?;
    if let Some(sent) = part.joins.get(&id) {
        return Some(*sent);
    }
    let event = part.events.get(&id)?;
    let cause = event.cause.filter(|cause| *cause < id)?;
    let is_here = event.kind != StepKind::Arrived && part.events.contains_key(&cause);
    is_here.then_some((place, cause))
}

fn in_order(placed: &[Placed<'_>], children: &mut BTreeMap<Option<Name>, Vec<(i64, Name)>>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut ahead: Vec<(i64, Name, Option<usize>)> = Vec::new();
    let mut push = |ahead: &mut Vec<_>, of: Option<Name>, parent: Option<usize>| {
        let caused = children.remove(&of).unwrap_or_default();
        ahead.extend(caused.into_iter().rev().map(|(at, name)| (at, name, parent)));
    };
    push(&mut ahead, None, None);
    while let Some((at, name, parent)) = ahead.pop() {
        let Some((part, event)) = placed
            .get(name.0)
            .and_then(|part| Some((part, part.events.get(&name.1)?)))
        else {
            continue;
        };
        let above = parent.and_then(|parent| steps.get(parent));
        let step = Step {
            depth: above.map_or(0, |above| above.depth + 1),
            parent,
            node: part.part.node.clone(),
            at_us: above.map_or(at, |above| at.max(above.at_us)),
            kind: event.kind,
            what: event.what.clone(),
            from: event.from.clone(),
            to: event.to.clone(),
            queued_us: event.queued_us,
            busy_us: event.busy_us,
            answered_us: event.answered_us,
            dropped: event.dropped,
        };
        let place = steps.len();
        steps.push(step);
        push(&mut ahead, Some(name), Some(place));
    }
    steps
}

fn began(placed: &[Placed<'_>]) -> Option<String> {
    let own = placed.first()?.events.values().filter(|event| event.is_of_connection);
    own.min_by_key(|event| event.at_us).map(|event| event.wall.clone())
}
