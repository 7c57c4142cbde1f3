//! Actors whose thread is blocked, threads that wait for the disk, and mailboxes that are not emptied.

use super::super::look::{ActorLook, RuntimeLook, Snapshot};
use super::super::registry::InHand;
use super::{CROWDED_AFTER, Found, HANDLER_SLOW_AFTER, STALLED_AFTER, STORE_SLOW_AFTER, StuckRule, few, lasting};
use crate::model::Moment;

pub fn find(look: &Snapshot, found: &mut Vec<Found>) {
    found.extend(look.runtimes.iter().filter_map(|runtime| standing(runtime, look)));
    for actor in &look.actors {
        if works_with_the_disk(actor) {
            found.extend(disk(actor, look));
        } else {
            found.extend(handler(actor, look));
            found.extend(mailbox(actor, look).or_else(|| stalled(actor, look)));
        }
    }
}

/// The store's threads and the spool's; their callers are never blocked, and wait all the same.
fn works_with_the_disk(actor: &ActorLook) -> bool {
    actor.is_thread() && (actor.name().starts_with("store-") || actor.name() == "audit-spool")
}

/// What has been in hand for longer than a turn may take.
pub fn slow_in_hand(actor: &ActorLook, look: &Snapshot) -> Option<InHand> {
    let limit = if actor.is_thread() {
        STORE_SLOW_AFTER
    } else {
        HANDLER_SLOW_AFTER
    };
    actor.in_hand.filter(|in_hand| look.now.since(in_hand.since) > limit)
}

/// The actor on the same thread that keeps all others of it from their turn.
pub fn blocker<'a>(actor: &ActorLook, look: &'a Snapshot) -> Option<&'a ActorLook> {
    let runtime = actor.runtime.as_ref()?;
    look.actors
        .iter()
        .find(|other| other.runtime.as_ref() == Some(runtime) && slow_in_hand(other, look).is_some())
}

pub fn thread_of(runtime: &RuntimeLook) -> String {
    format!("thread {}", runtime.name)
}

pub fn not_turned(runtime: &RuntimeLook) -> String {
    format!(
        "{} of this node has not turned for {}",
        thread_of(runtime),
        lasting(runtime.still)
    )
}

/// A runtime that does not turn although none of its actors has a message in hand for long: then the actor is the finding.
fn standing(runtime: &RuntimeLook, look: &Snapshot) -> Option<Found> {
    let of_it = look
        .actors
        .iter()
        .filter(|actor| actor.runtime.as_deref() == Some(&*runtime.name));
    if !runtime.stands() || of_it.clone().any(|actor| slow_in_hand(actor, look).is_some()) {
        return None;
    }
    let thread = thread_of(runtime);
    let others = match of_it.count() {
        0 => String::new(),
        1 => "; its one actor waits".to_owned(),
        many => format!("; its {many} actors wait"),
    };
    let still = u64::try_from(runtime.still.as_nanos()).unwrap_or(u64::MAX);
    Some(Found {
        rule: StuckRule::HandlerSlow,
        room: thread.clone(),
        peer: thread.clone(),
        sentence: format!(
            "{}: something other than a message blocks it{others}",
            not_turned(runtime)
        ),
        next: format!(
            "is this machine out of memory or processor (uptime, vmstat 1)? If not, take a backtrace of {thread} before you restart \
             the node"
        ),
        since: Moment::from_nanos(look.now.as_nanos().saturating_sub(still)),
        connection: None,
        side: None,
        alarms: false,
    })
}

fn handler(actor: &ActorLook, look: &Snapshot) -> Option<Found> {
    let in_hand = slow_in_hand(actor, look)?;
    let runtime = actor.runtime.as_deref().unwrap_or("its own");
    let others = match look.neighbours(actor) {
        0 => String::new(),
        1 => "; one other actor of that thread waits too".to_owned(),
        many => format!("; {many} other actors of that thread wait too"),
    };
    let age = lasting(look.now.since(in_hand.since));
    let (path, what) = (&actor.path, in_hand.what);
    Some(Found {
        rule: StuckRule::HandlerSlow,
        room: path.to_string(),
        peer: path.to_string(),
        sentence: format!("{path} has had {what} in hand for {age}: thread {runtime} is blocked{others}"),
        next: format!(
            "postern actor {path}; if it does not end, take a backtrace of thread {runtime} before you restart the node"
        ),
        since: in_hand.since,
        connection: in_hand.connection.or(actor.connection),
        side: None,
        alarms: false,
    })
}

fn mailbox(actor: &ActorLook, look: &Snapshot) -> Option<Found> {
    let crowded_since = actor.crowded_since?;
    let is_full = actor.queued >= actor.bound;
    if !is_full && look.now.since(crowded_since) <= CROWDED_AFTER {
        return None;
    }
    let (path, queued, bound) = (&actor.path, actor.queued, actor.bound);
    let blocker = blocker(actor, look).filter(|other| other.path != *path);
    let why = match (&actor.in_hand, blocker) {
        (Some(in_hand), _) => {
            let age = lasting(look.now.since(in_hand.since));
            format!("it has had {} in hand for {age}", in_hand.what)
        }
        (None, Some(other)) => format!("{} blocks their thread", other.path),
        (None, None) => match look.stands_with(actor) {
            Some(runtime) => not_turned(runtime),
            None => format!("it has nothing in hand and is {}", actor.state),
        },
    };
    let waiting = waited_for_by(path, look);
    let peer = blocker.map_or(path, |other| &other.path);
    let age = match look.now.since(crowded_since) {
        // First seen by this look.
        age if age < CROWDED_AFTER => String::new(),
        age => format!(" for {}", lasting(age)),
    };
    Some(Found {
        rule: StuckRule::MailboxFull,
        room: path.to_string(),
        peer: peer.to_string(),
        sentence: format!("the mailbox of {path} has been full{age} ({queued} of {bound}): {why}{waiting}"),
        next: format!("postern actor {peer}"),
        since: crowded_since,
        connection: None,
        side: None,
        alarms: false,
    })
}

/// Who waits for this one, as the end of a sentence.
fn waited_for_by(path: &str, look: &Snapshot) -> String {
    let mut waiting: Vec<&str> = look
        .actors
        .iter()
        .filter(|other| other.waits.iter().any(|wait| &*wait.for_whom == path))
        .map(|other| &*other.path)
        .collect();
    waiting.dedup();
    match waiting.as_slice() {
        [] => String::new(),
        names => format!("; it is waited for by {}", few(names)),
    }
}

/// Messages wait, and the actor takes none, although nobody keeps it from its turn.
fn stalled(actor: &ActorLook, look: &Snapshot) -> Option<Found> {
    let since = actor.stalled_since?;
    let waited = look.now.since(since);
    if waited <= STALLED_AFTER || blocker(actor, look).is_some() || look.stands_with(actor).is_some() {
        return None;
    }
    let (path, state, age) = (&actor.path, actor.state, lasting(waited));
    let messages = match actor.queued {
        1 => "1 message has".to_owned(),
        many => format!("{many} messages have"),
    };
    let waiting = waited_for_by(path, look);
    Some(Found {
        rule: StuckRule::MailboxStalled,
        room: path.to_string(),
        peer: path.to_string(),
        sentence: format!(
            "{messages} waited for {path} for {age}, and it takes none: it is {state}, with nothing in hand{waiting}"
        ),
        next: format!("postern actor {path}"),
        since,
        connection: actor.connection,
        side: None,
        alarms: false,
    })
}

/// Threads work for actors that must not be blocked, with the disk.
fn disk(thread: &ActorLook, look: &Snapshot) -> Option<Found> {
    let (path, queued, bound) = (&thread.path, thread.queued, thread.bound);
    let half_full = bound > 0 && queued.saturating_mul(2) >= bound;
    let (since, what) = match slow_in_hand(thread, look) {
        Some(in_hand) => {
            let age = lasting(look.now.since(in_hand.since));
            let what = format!(
                "has had {} in hand for {age} ({queued} of {bound} waiting)",
                in_hand.what
            );
            (in_hand.since, what)
        }
        None if half_full => {
            let since = thread.in_hand.map_or(look.now, |in_hand| in_hand.since);
            (
                since,
                format!("has {queued} of {bound} waiting: the disk is slower than what comes"),
            )
        }
        None => return None,
    };
    Some(Found {
        rule: StuckRule::StoreSlow,
        room: path.to_string(),
        peer: "the disk".to_owned(),
        sentence: format!("{path} {what}"),
        next: if thread.name().starts_with("store-") {
            "does another program hold the store (fuser -v on the files of backend/ in the data directory)? If not: iostat -x 1, df -h \
             and dmesg on this machine"
        } else {
            "iostat -x 1, df -h and dmesg on this machine: is the disk of the data directory full, slow or broken?"
        }
        .to_owned(),
        since,
        connection: thread.in_hand.and_then(|in_hand| in_hand.connection),
        side: None,
        alarms: false,
    })
}
