//! Answers that are overdue, and who at the end of the chain does not give them.

use super::super::look::{ActorLook, Snapshot};
use super::super::registry::Wait;
use super::actors::{blocker, not_turned, slow_in_hand, thread_of};
use super::{Found, OVERDUE_AFTER, StuckRule, lasting, next_about};
use std::collections::HashMap;
use std::time::Duration;

/// Actors of one chain of asks. It is four deep at most; a cycle is cut here.
const CHAIN_MAX: usize = 8;
/// Whoever gives up so late does not give up: no deadline between actors is longer than minutes.
const NEVER: Duration = Duration::from_secs(3600);

pub fn find(look: &Snapshot, found: &mut Vec<Found>) {
    let mut places = None;
    for actor in &look.actors {
        // The oldest for each of those waited for: a hundred clients that wait for one are one finding for each asker.
        let mut named: Vec<&str> = Vec::new();
        for wait in actor.waits.iter().filter(|wait| is_overdue(actor, wait, look)) {
            if named.contains(&&*wait.for_whom) {
                continue;
            }
            named.push(&wait.for_whom);
            let places = places.get_or_insert_with(|| by_path(look));
            found.push(overdue(actor, wait, look, places));
        }
    }
}

type Places<'a> = HashMap<&'a str, &'a ActorLook>;

fn by_path(look: &Snapshot) -> Places<'_> {
    look.actors.iter().map(|actor| (&*actor.path, actor)).collect()
}

fn is_overdue(actor: &ActorLook, wait: &Wait, look: &Snapshot) -> bool {
    let since = wait.since.max(look.attends_since(Some(actor)));
    look.now.since(since) > OVERDUE_AFTER.min(wait.within / 2)
}

/// The end of a chain of asks: who is waited for in the end, and what is known of them.
struct End {
    peer: String,
    why: String,
}

fn overdue(actor: &ActorLook, wait: &Wait, look: &Snapshot, places: &Places<'_>) -> Found {
    let waited = look.now.since(wait.since);
    let left = match wait.within.saturating_sub(waited) {
        Duration::ZERO => "; its deadline has passed".to_owned(),
        left if left > NEVER => String::new(),
        left => format!("; it gives up in {}", lasting(left)),
    };
    let (path, what, whom, age) = (&actor.path, wait.what, &wait.for_whom, lasting(waited));
    let end = follow(wait, look, places);
    let because = if end.why.is_empty() {
        String::new()
    } else {
        format!(": {}", end.why)
    };
    Found {
        rule: StuckRule::ReplyOverdue,
        room: path.to_string(),
        next: next_about(&end.peer),
        peer: end.peer,
        sentence: format!("{path} has waited {age} for the answer of {whom} to {what}{left}{because}"),
        since: wait.since,
        connection: wait.connection.or(actor.connection),
        side: None,
        alarms: false,
    }
}

/// From one who is waited for to the one that it waits for itself, on behalf of the same connection.
fn follow(first: &Wait, look: &Snapshot, places: &Places<'_>) -> End {
    let mut wait = first;
    let mut passed: Vec<&str> = Vec::new();
    let mut steps: Vec<String> = Vec::new();
    loop {
        let whom = &*wait.for_whom;
        let Some(actor) = places.get(whom).copied() else {
            // Not of this process.
            break End {
                peer: whom.to_owned(),
                why: steps.join(", "),
            };
        };
        if passed.contains(&whom) || passed.len() >= CHAIN_MAX {
            steps.push(format!("{whom} is waited for by itself"));
            break End {
                peer: whom.to_owned(),
                why: steps.join(", "),
            };
        }
        passed.push(whom);
        match waits_itself(actor, wait) {
            Some(next) if slow_in_hand(actor, look).is_none() => {
                let age = lasting(look.now.since(next.since));
                steps.push(format!(
                    "{whom} itself has waited {age} for {} ({})",
                    next.for_whom, next.what
                ));
                wait = next;
            }
            _ => {
                let (peer, why) = stands(actor, look);
                steps.push(why);
                break End {
                    peer,
                    why: steps.join(", "),
                };
            }
        }
    }
}

/// What it waits for on behalf of this wait: the oldest of the same connection, and of a wait of no connection the oldest at all.
fn waits_itself<'a>(actor: &'a ActorLook, asked: &Wait) -> Option<&'a Wait> {
    let later = |wait: &&Wait| wait.since >= asked.since;
    let same = |wait: &&Wait| wait.connection == asked.connection;
    let of_connection = actor.waits.iter().filter(same).find(later);
    of_connection.or_else(|| actor.waits.iter().find(same))
}

/// How the last one of a chain stands, and who is to be looked at.
fn stands(actor: &ActorLook, look: &Snapshot) -> (String, String) {
    let path = &actor.path;
    if let Some(in_hand) = slow_in_hand(actor, look) {
        let age = lasting(look.now.since(in_hand.since));
        let why = format!("{path} has had {} in hand for {age}", in_hand.what);
        return (path.to_string(), why);
    }
    if let Some(other) = blocker(actor, look) {
        let why = format!("{} blocks the thread of {path}", other.path);
        return (other.path.to_string(), why);
    }
    if let Some(runtime) = look.stands_with(actor) {
        let (thread, why) = (thread_of(runtime), not_turned(runtime));
        return (thread, format!("{why}, and {path} is of it"));
    }
    let why = match actor.queued {
        0 => format!("{path} has taken it and not answered (it is {})", actor.state),
        queued => format!("{path} has {queued} messages before it"),
    };
    (path.to_string(), why)
}
