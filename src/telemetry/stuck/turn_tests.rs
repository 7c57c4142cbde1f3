//! Mailboxes of which nobody takes anything, and runtimes that do not turn: what is theirs is nobody else's.

use super::super::label::Label;
use super::super::look::{Facts, Memory, RuntimeFact, TunnelFact};
use super::super::registry::{Seat, SeatSpec};
use super::*;
use std::sync::Arc;

fn at(millis: u64) -> Moment {
    Moment::from_nanos((1_000_000 + millis) * 1_000_000)
}

fn seat(path: &str) -> Arc<Seat> {
    let seat = Seat::take(SeatSpec {
        path: path.into(),
        rule: "permanent",
        bound: 256,
    });
    seat.enter(Label::of("running"), None, None);
    seat
}

fn turned(still: &[(&str, u64)]) -> Facts {
    let fact = |(name, millis): &(&str, u64)| RuntimeFact {
        name: (*name).to_owned(),
        still: Duration::from_millis(*millis),
    };
    Facts {
        runtimes: still.iter().map(fact).collect(),
        ..Facts::default()
    }
}

fn hears(mut facts: Facts, path: &str, heard: Moment) -> Facts {
    facts.tunnels.push(TunnelFact {
        path: path.to_owned(),
        peer: "auth".to_owned(),
        heard,
        given_up_after: Duration::from_secs(20),
        inbound: 0,
        inbound_bound: 256,
    });
    facts
}

/// A seat on a runtime of this name.
fn seat_on(runtime: &str, path: &str) -> Arc<Seat> {
    let (runtime, path) = (runtime.to_owned(), path.to_owned());
    let thread = std::thread::spawn(move || {
        super::super::registry::name_runtime(&runtime);
        let seat = seat(&path);
        seat.sits_here();
        seat
    });
    thread.join().expect("seated")
}

fn told(found: &[Found]) -> Vec<(StuckRule, &str)> {
    found
        .iter()
        .map(|found| (found.rule, found.sentence.as_str()))
        .collect()
}

#[test]
fn an_actor_that_takes_no_message_is_found_after_two_seconds_although_its_mailbox_is_not_full() {
    let held = seat("turns-ca");
    let _waits = Arc::clone(held.room()).try_acquire_owned().expect("room");
    let mut memory = Memory::default();
    let seats = [held];
    let mut look = |millis| findings(&memory.look(Vec::new(), &seats, Facts::default(), at(millis)));
    assert!(look(0).is_empty() && look(1000).is_empty() && look(2000).is_empty());
    let found = look(11_000);
    assert_eq!(
        told(&found),
        [(
            StuckRule::MailboxStalled,
            "1 message has waited for turns-ca for 11 s, and it takes none: it is running, with nothing in hand"
        )]
    );
    assert!(found[0].is_alarm());
    seats[0].is_done(Duration::ZERO);
    assert!(look(12_000).is_empty(), "it has taken one");
}

#[test]
fn an_actor_whose_thread_another_blocks_is_not_named_beside_it() {
    let (held, blocks) = (
        seat_on("turns-thread", "turns-held"),
        seat_on("turns-thread", "turns-blocks"),
    );
    let _waits = Arc::clone(held.room()).try_acquire_owned().expect("room");
    blocks.takes(Label::of("PublishPolicy"), None, at(0));
    let mut memory = Memory::default();
    let seats = [held, blocks];
    memory.look(Vec::new(), &seats, Facts::default(), at(0));
    let found = findings(&memory.look(Vec::new(), &seats, Facts::default(), at(5000)));
    let rooms: Vec<_> = found.iter().map(|found| (found.rule, found.room.as_str())).collect();
    assert_eq!(rooms, [(StuckRule::HandlerSlow, "turns-blocks")]);
}

#[test]
fn a_thread_that_does_not_turn_is_found_and_no_peer_is_silent_that_only_it_would_hear() {
    let link = seat_on("control", "turns-link");
    let asks = link.waits(
        Label::of("GetRoute"),
        "auth".into(),
        Duration::from_secs(4),
        None,
        at(0),
    );
    let mut memory = Memory::default();
    let seats = [link];
    let mut look = |millis: u64, still| {
        let facts = hears(turned(&[("control", still), ("worker-0", 300)]), "turns-link", at(0));
        findings(&memory.look(Vec::new(), &seats, facts, at(millis)))
    };
    for millis in [0, 1000, 2000] {
        assert!(look(millis, millis).is_empty(), "{millis}");
    }
    assert!(look(3000, 2600).len() == 1);
    assert_eq!(
        told(&look(4400, 4400)),
        [(
            StuckRule::HandlerSlow,
            "thread control of this node has not turned for 4.4 s: something other than a message blocks it; its one actor waits"
        )]
    );
    assert!(look(5000, 500).is_empty(), "what it missed is nobody's silence");
    assert!(look(6000, 500).is_empty());
    assert_eq!(
        look(7000, 500).len(),
        1,
        "the answer is overdue by now, and not yet the peer"
    );
    assert_eq!(look(8000, 500).len(), 2, "now the peer is silent, too");
    drop(asks);
}

#[test]
fn a_process_that_was_stopped_counts_the_silence_of_its_peers_from_when_it_went_on() {
    let mut memory = Memory::default();
    let mut look = |millis, still| {
        let facts = hears(turned(&[("control", still)]), "turns-none", at(0));
        findings(&memory.look(Vec::new(), &[], facts, at(millis)))
    };
    assert!(look(0, 100).is_empty() && look(1000, 100).is_empty());
    assert!(look(21_000, 20_100).is_empty(), "nobody of this process ran");
    for millis in [22_000, 23_000, 24_000] {
        assert!(look(millis, 100).is_empty(), "{millis}");
    }
    assert_eq!(
        told(&look(25_000, 100)),
        [(
            StuckRule::StreamBacklog,
            "auth has sent nothing for 4.0 s; the connection to it is given up after 20 s"
        )]
    );
}
