use super::super::label::Label;
use super::super::look::{ActorLook, DatabaseFact, Lacks, RelayLook, TunnelFact, WayLook};
use super::super::registry::{InHand, Seat, Wait};
use super::super::relays::{Gauge, RelaySpec, WaitsFor};
use super::super::view::Whose;
use super::*;
use crate::model::SessionId;

const NOW_SECS: u64 = 100_000;

fn ago(length: Duration) -> Moment {
    Moment::from_nanos((Duration::from_secs(NOW_SECS) - length).as_nanos() as u64)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const JUST: Duration = Duration::from_millis(1);

fn connection() -> ConnectionId {
    ConnectionId::from_random(*b"stuck-id")
}

fn actor(path: &str) -> ActorLook {
    ActorLook {
        path: path.into(),
        rule: "permanent",
        runtime: Some("control".into()),
        state: Label::of("running"),
        state_since: ago(secs(1000)),
        since: ago(secs(1000)),
        queued: 0,
        bound: 10,
        crowded_since: None,
        stalled_since: None,
        in_hand: None,
        waits: Vec::new(),
        uncounted: 0,
        handled: 0,
        busy: Duration::ZERO,
        restarts: 0,
        last_failure: None,
        connection: None,
        whose: None,
    }
}

fn thread(path: &str) -> ActorLook {
    ActorLook {
        rule: "thread",
        runtime: None,
        ..actor(path)
    }
}

fn in_hand(what: &'static str, age: Duration) -> Option<InHand> {
    Some(InHand {
        what: Label::of(what),
        since: ago(age),
        connection: None,
    })
}

fn wait(what: &'static str, whom: &str, age: Duration, within: Duration) -> Wait {
    let seat = Seat::outside("stuck-tests");
    let _open = seat.waits(Label::of(what), whom.into(), within, Some(connection()), ago(age));
    seat.open_waits().0.remove(0)
}

fn look(actors: Vec<ActorLook>) -> Snapshot {
    Snapshot {
        now: ago(Duration::ZERO),
        actors,
        ..Snapshot::default()
    }
}

fn only(look: &Snapshot, rule: StuckRule) -> Found {
    let found = findings(look);
    assert_eq!(found.len(), 1, "{found:#?}");
    let found = found.into_iter().next().expect("one");
    assert_eq!(found.rule, rule);
    found
}

fn nothing(look: &Snapshot) {
    let found = findings(look);
    assert!(found.is_empty(), "{found:#?}");
}

fn relay(side: Side, state: &'static str) -> RelayLook {
    let upstream = match side {
        Side::Proxy => "agent db-1",
        Side::Agent | Side::Auth => "PostgreSQL at 127.0.0.1:5432",
    };
    let gauge = Gauge::begin(RelaySpec {
        connection: connection(),
        session: SessionId::from_random([3; 16]),
        side,
        whose: Whose {
            user: "bob".to_owned(),
            database: "aurora".to_owned(),
            db_user: "bob".to_owned(),
            db_name: "postgres".to_owned(),
            client: "10.0.0.7:51000".to_owned(),
        },
        upstream: upstream.to_owned(),
        process_id: 4711,
    });
    let way = WayLook {
        bytes: 10,
        waits_for: WaitsFor::Source,
        since: ago(secs(3600)),
    };
    RelayLook {
        gauge,
        state,
        state_since: ago(secs(3600)),
        to_upstream: way,
        to_client: way,
        answered: false,
        lacks: None,
    }
}

fn still(waits_for: WaitsFor, age: Duration) -> WayLook {
    WayLook {
        bytes: 10,
        waits_for,
        since: ago(age),
    }
}

fn with(relays: Vec<RelayLook>) -> Snapshot {
    Snapshot {
        relays,
        ..look(Vec::new())
    }
}

#[test]
fn a_message_in_hand_for_more_than_a_second_blocks_its_thread() {
    let slow = ActorLook {
        in_hand: in_hand("PublishPolicy", secs(3)),
        ..actor("rbac")
    };
    let elsewhere = ActorLook {
        runtime: Some("worker-0".into()),
        ..actor("listener")
    };
    let found = only(
        &look(vec![slow, actor("ca"), actor("links"), elsewhere]),
        StuckRule::HandlerSlow,
    );
    assert_eq!(
        found.sentence,
        "rbac has had PublishPolicy in hand for 3.0 s: thread control is blocked; 2 other actors of that thread wait too"
    );
    assert!(found.next.contains("postern actor rbac"));
}

#[test]
fn a_message_in_hand_for_just_a_second_is_no_finding() {
    let busy = ActorLook {
        in_hand: in_hand("PublishPolicy", HANDLER_SLOW_AFTER),
        ..actor("rbac")
    };
    nothing(&look(vec![busy]));
}

#[test]
fn a_full_mailbox_names_what_is_in_hand_and_who_waits() {
    let full = ActorLook {
        queued: 10,
        crowded_since: Some(ago(Duration::ZERO)),
        in_hand: in_hand("RegisterSession", Duration::from_millis(400)),
        ..actor("sessions")
    };
    let waiting = ActorLook {
        waits: vec![wait("RegisterSession", "sessions", secs(1), secs(15))],
        ..actor("listener/connection#1")
    };
    let found = only(&look(vec![full, waiting]), StuckRule::MailboxFull);
    assert!(found.sentence.contains("(10 of 10)"), "{}", found.sentence);
    assert!(
        found.sentence.contains("RegisterSession in hand for 400 ms"),
        "{}",
        found.sentence
    );
    assert!(
        found.sentence.contains("waited for by listener/connection#1"),
        "{}",
        found.sentence
    );
}

#[test]
fn a_full_mailbox_of_a_blocked_thread_is_its_blockers_fault() {
    let full = ActorLook {
        queued: 10,
        crowded_since: Some(ago(secs(2))),
        ..actor("sessions")
    };
    let slow = ActorLook {
        in_hand: in_hand("PublishPolicy", secs(3)),
        ..actor("rbac")
    };
    let found = findings(&look(vec![full, slow]));
    let rules: Vec<_> = found.iter().map(|found| (found.rule, found.peer.as_str())).collect();
    assert_eq!(
        rules,
        [(StuckRule::HandlerSlow, "rbac"), (StuckRule::MailboxFull, "rbac")]
    );
}

#[test]
fn a_mailbox_that_is_nearly_full_for_a_moment_is_a_burst() {
    let crowded = |age| ActorLook {
        queued: 9,
        crowded_since: Some(ago(age)),
        ..actor("sessions")
    };
    nothing(&look(vec![crowded(CROWDED_AFTER)]));
    only(&look(vec![crowded(CROWDED_AFTER + JUST)]), StuckRule::MailboxFull);
}

#[test]
fn an_answer_is_overdue_at_half_of_its_deadline_and_after_five_seconds_at_the_latest() {
    let asks = |age, within| {
        let asker = ActorLook {
            waits: vec![wait("GetRoute", "elsewhere", age, within)],
            ..actor("listener/connection#1")
        };
        look(vec![asker])
    };
    nothing(&asks(secs(2), secs(4)));
    only(&asks(secs(2) + JUST, secs(4)), StuckRule::ReplyOverdue);
    nothing(&asks(secs(5), secs(40)));
    let found = only(&asks(secs(6), secs(40)), StuckRule::ReplyOverdue);
    assert_eq!(
        found.sentence,
        "listener/connection#1 has waited 6.0 s for the answer of elsewhere to GetRoute; it gives up in 34 s"
    );
    assert_eq!(found.connection, Some(connection()));
}

#[test]
fn an_overdue_answer_is_the_fault_of_whoever_ends_the_chain() {
    let asker = ActorLook {
        waits: vec![wait("Prepare", "routing", secs(8), secs(40))],
        ..actor("listener/connection#1")
    };
    let between = ActorLook {
        waits: vec![wait("OpenRelay", "agent db-1", secs(7), secs(40))],
        ..actor("routing")
    };
    let found = findings(&look(vec![asker, between]));
    let told: Vec<_> = found
        .iter()
        .map(|found| (found.room.as_str(), found.peer.as_str()))
        .collect();
    assert_eq!(
        told,
        [("routing", "agent db-1"), ("listener/connection#1", "agent db-1")]
    );
    assert!(
        found[1]
            .sentence
            .contains("routing itself has waited 7.0 s for agent db-1"),
        "{}",
        found[1].sentence
    );
    assert!(found[1].next.contains("--node db-1"), "{}", found[1].next);
}

#[test]
fn an_overdue_answer_of_a_blocked_actor_names_what_blocks_it() {
    let asker = ActorLook {
        waits: vec![wait("Prepare", "ca", secs(8), secs(40))],
        ..actor("listener/connection#1")
    };
    let slow = ActorLook {
        in_hand: in_hand("PublishPolicy", secs(9)),
        ..actor("rbac")
    };
    let found = findings(&look(vec![asker, actor("ca"), slow]));
    assert_eq!(
        (found[0].rule, found[0].peer.as_str()),
        (StuckRule::HandlerSlow, "rbac")
    );
    assert_eq!(
        (found[1].rule, found[1].peer.as_str()),
        (StuckRule::ReplyOverdue, "rbac")
    );
}

#[test]
fn a_circle_of_waits_is_told_and_ends() {
    let one = ActorLook {
        waits: vec![wait("A", "two", secs(8), secs(40))],
        ..actor("one")
    };
    let two = ActorLook {
        waits: vec![wait("B", "one", secs(7), secs(40))],
        ..actor("two")
    };
    let found = findings(&look(vec![one, two]));
    assert_eq!(found.len(), 2);
    assert!(
        found[0].sentence.contains("waited for by itself"),
        "{}",
        found[0].sentence
    );
}

#[test]
fn a_write_of_the_store_for_more_than_a_second_is_the_disks() {
    let writer = |age| ActorLook {
        in_hand: in_hand("write", age),
        ..thread("store-writer")
    };
    nothing(&look(vec![writer(STORE_SLOW_AFTER)]));
    let found = only(&look(vec![writer(secs(2))]), StuckRule::StoreSlow);
    assert_eq!(found.peer, "the disk");
    let queued = |queued| ActorLook {
        queued,
        ..thread("store-reader")
    };
    nothing(&look(vec![queued(4)]));
    only(&look(vec![queued(5)]), StuckRule::StoreSlow);
}

#[test]
fn a_query_is_told_after_half_a_minute_and_alarms_nobody() {
    let running = |age| {
        let mut relay = relay(Side::Agent, "busy");
        relay.to_upstream = still(WaitsFor::Source, age);
        with(vec![relay])
    };
    nothing(&running(UPSTREAM_SILENT_AFTER));
    let found = only(&running(secs(42)), StuckRule::UpstreamSilent);
    assert_eq!(
        found.sentence,
        "PostgreSQL at 127.0.0.1:5432 has sent nothing for 42 s to the query of bob (aurora, process 4711): the query runs, waits \
         for a lock, or PostgreSQL hangs"
    );
    assert!(
        found.next.contains("pg_stat_activity where pid = 4711"),
        "{}",
        found.next
    );
    assert!(!found.is_alarm());
}

fn sick(mut look: Snapshot) -> Snapshot {
    look.facts.databases.push(DatabaseFact {
        database: "aurora".to_owned(),
        healthy: false,
        detail: "no answer from 127.0.0.1:5432 within 5s".to_owned(),
    });
    look
}

#[test]
fn where_postgresql_answers_nobody_its_silence_is_an_alarm_after_seconds_and_its_machine_is_asked() {
    let silent = |age| {
        let mut relay = relay(Side::Agent, "busy");
        relay.to_upstream = still(WaitsFor::Source, age);
        with(vec![relay])
    };
    nothing(&sick(silent(UPSTREAM_SICK_AFTER)));
    nothing(&silent(UPSTREAM_SICK_AFTER + JUST));
    let found = only(&sick(silent(UPSTREAM_SICK_AFTER + JUST)), StuckRule::UpstreamSilent);
    assert_eq!(
        found.sentence,
        "PostgreSQL at 127.0.0.1:5432 has sent nothing for 5.0 s to the query of bob (aurora, process 4711), and the agent's own looks \
         at it fail, too: no answer from 127.0.0.1:5432 within 5s"
    );
    assert!(
        found.next.contains("pg_isready -h 127.0.0.1 -p 5432") && found.next.contains("systemctl status postgresql"),
        "{}",
        found.next
    );
    assert!(
        !found.next.contains("pg_stat_activity"),
        "SQL would hang, too: {}",
        found.next
    );
    assert!(found.is_alarm());
    let mut well = sick(silent(secs(42)));
    well.facts.databases[0].healthy = true;
    assert!(!only(&well, StuckRule::UpstreamSilent).is_alarm());
}

#[test]
fn a_client_that_rests_is_no_finding_with_an_open_transaction_or_without() {
    nothing(&with(vec![relay(Side::Proxy, "idle"), relay(Side::Agent, "idle")]));
    nothing(&with(vec![
        relay(Side::Proxy, "idle in transaction"),
        relay(Side::Agent, "idle in transaction"),
    ]));
}

#[test]
fn of_two_relays_of_one_connection_the_agents_tells_who_is_silent() {
    let found = only(
        &with(vec![relay(Side::Proxy, "busy"), relay(Side::Agent, "busy")]),
        StuckRule::UpstreamSilent,
    );
    assert_eq!(found.side, Some(Side::Agent));
    let alone = only(&with(vec![relay(Side::Proxy, "busy")]), StuckRule::UpstreamSilent);
    assert_eq!(alone.peer, "agent db-1");
}

#[test]
fn a_result_that_still_comes_is_no_silence() {
    let mut relay = relay(Side::Agent, "busy");
    relay.to_client = still(WaitsFor::Source, secs(1));
    nothing(&with(vec![relay]));
}

#[test]
fn a_request_without_its_end_is_not_owed_an_answer_once_it_has_one() {
    let mut look = with(vec![relay(Side::Agent, "busy")]);
    look.relays[0].answered = true;
    nothing(&look);
    assert!(only(&sick(look), StuckRule::UpstreamSilent).is_alarm());
}

#[test]
fn a_client_that_takes_nothing_more_is_told_after_five_seconds_and_alarms_after_a_minute() {
    let full = |age| {
        let mut relay = relay(Side::Proxy, "busy");
        relay.to_client = still(WaitsFor::Sink, age);
        only(&with(vec![relay]), StuckRule::ClientNotReading)
    };
    let found = full(SINK_STILL_AFTER + JUST);
    assert_eq!(
        found.sentence,
        "client 10.0.0.7:51000 has taken nothing more of its result for 5.0 s: it reads slowly, or not at all; bob (aurora, process \
         4711)"
    );
    assert!(found.next.contains("bob's program at 10.0.0.7:51000"), "{}", found.next);
    assert!(!found.is_alarm());
    assert!(!full(SINK_STILL_ALARMS_AFTER).is_alarm());
    assert!(full(SINK_STILL_ALARMS_AFTER + JUST).is_alarm());
}

#[test]
fn a_client_that_takes_nothing_is_named_by_its_address_and_by_the_agent_as_the_proxy() {
    let full = |side, age| {
        let mut relay = relay(side, "busy");
        relay.to_client = still(WaitsFor::Sink, age);
        relay
    };
    nothing(&with(vec![full(Side::Proxy, SINK_STILL_AFTER)]));
    let found = findings(&with(vec![full(Side::Agent, secs(7)), full(Side::Proxy, secs(6))]));
    let peers: Vec<_> = found.iter().map(|found| (found.rule, found.peer.as_str())).collect();
    let rule = StuckRule::ClientNotReading;
    assert_eq!(peers, [(rule, "client 10.0.0.7:51000"), (rule, "the proxy")]);
}

#[test]
fn an_agent_that_takes_nothing_is_a_backlog() {
    let full = |age| {
        let mut relay = relay(Side::Proxy, "sending");
        relay.to_upstream = still(WaitsFor::Sink, age);
        with(vec![relay])
    };
    nothing(&full(SINK_STILL_AFTER));
    let found = only(&full(secs(6)), StuckRule::StreamBacklog);
    assert_eq!(found.peer, "agent db-1");
}

#[test]
fn an_agent_is_silent_when_it_has_missed_a_beat() {
    let silent = |length| {
        let mut look = look(Vec::new());
        look.facts.tunnels.push(TunnelFact {
            path: "tunnels/tunnel#db-1-1".to_owned(),
            peer: "agent db-1".to_owned(),
            heard: ago(length),
            given_up_after: secs(7),
            inbound: 0,
            inbound_bound: 256,
        });
        look
    };
    nothing(&silent(PEER_SILENT_AFTER));
    let found = only(&silent(Duration::from_millis(4100)), StuckRule::StreamBacklog);
    assert_eq!(
        found.sentence,
        "agent db-1 has sent nothing for 4.1 s; the connection to it is given up after 7.0 s"
    );
    let mut crowded = silent(secs(1));
    crowded.facts.tunnels[0].inbound = 128;
    only(&crowded, StuckRule::StreamBacklog);
}

#[test]
fn a_statement_that_waits_for_the_spool_is_the_stores() {
    let mut relay = relay(Side::Agent, "sending");
    relay.to_upstream = still(WaitsFor::Audit, secs(6));
    let found = only(&with(vec![relay]), StuckRule::StoreSlow);
    assert_eq!(found.peer, "the audit spool");
}

#[test]
fn a_session_of_which_one_side_has_closed_is_half_open_after_ten_seconds() {
    let half = |age| {
        let mut relay = relay(Side::Agent, "busy");
        relay.to_upstream = still(WaitsFor::Done, age);
        with(vec![relay])
    };
    nothing(&half(HALF_OPEN_AFTER));
    let found = only(&half(secs(12)), StuckRule::HalfOpen);
    assert!(
        found.sentence.starts_with("the proxy has closed its side"),
        "{}",
        found.sentence
    );
    let mut ended = relay(Side::Agent, "closing");
    ended.to_upstream = still(WaitsFor::Done, secs(12));
    ended.to_client = still(WaitsFor::Done, secs(12));
    nothing(&with(vec![ended]));
}

#[test]
fn a_request_that_does_not_end_is_no_progress_after_a_minute() {
    let sending = |age| {
        let mut relay = relay(Side::Proxy, "sending");
        relay.to_upstream = still(WaitsFor::Source, age);
        with(vec![relay])
    };
    nothing(&sending(NO_PROGRESS_AFTER));
    let found = only(&sending(secs(65)), StuckRule::NoProgress);
    assert_eq!(
        found.sentence,
        "client 10.0.0.7:51000 has sent nothing more of its COPY or request for 65 s: it pauses; bob (aurora, process 4711)"
    );
    assert!(found.next.starts_with("look at bob's program"), "{}", found.next);
    assert!(!found.is_alarm(), "a client may pause");
    let closing = only(&with(vec![relay(Side::Proxy, "closing")]), StuckRule::NoProgress);
    assert!(closing.is_alarm(), "a session that ends may not");
}

#[test]
fn of_two_relays_whose_client_pauses_the_proxys_names_the_client_first() {
    let found = findings(&with(vec![
        relay(Side::Agent, "sending"),
        relay(Side::Proxy, "sending"),
    ]));
    let peers: Vec<_> = found.iter().map(|found| found.peer.as_str()).collect();
    assert_eq!(peers, ["client 10.0.0.7:51000", "the proxy"]);
}

#[test]
fn a_relay_without_its_actor_is_left_over_and_one_that_just_ends_is_not() {
    let lacking = |what, age| {
        let mut relay = relay(Side::Proxy, "idle");
        relay.lacks = Some((what, ago(age)));
        with(vec![relay])
    };
    nothing(&lacking(Lacks::Actor, LEAKED_AFTER));
    only(&lacking(Lacks::Actor, secs(6)), StuckRule::LeakedRelay);
    let found = only(&lacking(Lacks::Session, secs(6)), StuckRule::LeakedRelay);
    assert!(found.sentence.contains("nobody can end it"), "{}", found.sentence);
}

#[test]
fn the_deepest_cause_comes_first() {
    let slow = ActorLook {
        in_hand: in_hand("write", secs(2)),
        ..thread("store-writer")
    };
    let asker = ActorLook {
        waits: vec![wait("Prepare", "ca", secs(8), secs(40))],
        ..actor("listener/connection#1")
    };
    let mut look = look(vec![asker, actor("ca"), slow]);
    look.relays.push(relay(Side::Agent, "busy"));
    let rules: Vec<_> = findings(&look).iter().map(|found| found.rule).collect();
    assert_eq!(
        rules,
        [StuckRule::StoreSlow, StuckRule::ReplyOverdue, StuckRule::UpstreamSilent]
    );
}
