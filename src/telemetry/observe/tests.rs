use super::super::label::Label;
use super::super::record::{Record, RecordKind};
use super::super::registry::{Seat, SeatSpec};
use super::super::relays::{Gauge, RelaySpec, WaitsFor};
use super::*;
use crate::model::{MessageId, SessionId};

fn seat(path: &str) -> Arc<Seat> {
    Seat::take(SeatSpec {
        path: path.into(),
        rule: "temporary",
        bound: 4,
    })
}

fn gauge(connection: ConnectionId, side: Side, user: &str) -> Arc<Gauge> {
    Gauge::begin(RelaySpec {
        connection,
        session: SessionId::from_random([7; 16]),
        side,
        whose: whose(user),
        upstream: "agent db-1".to_owned(),
        process_id: 4711,
    })
}

fn observer() -> Observer {
    Observer::new(About {
        node: "proxy-1".to_owned(),
        ..About::default()
    })
}

fn connection(text: &[u8; 8]) -> ConnectionId {
    ConnectionId::from_random(*text)
}

fn secs(now: Moment, secs: u64) -> Moment {
    Moment::from_nanos(now.as_nanos() + secs * 1_000_000_000)
}

fn record(id: u64, cause: Option<u64>, connection: Option<ConnectionId>, to: &str) -> Record {
    Record {
        at: Moment::from_nanos(id),
        kind: RecordKind::Sent,
        what: Label::of("Tested"),
        id: MessageId(id),
        cause: cause.map(MessageId),
        connection,
        from: None,
        to: to.into(),
        queued_ns: 0,
        busy_ns: 0,
    }
}

#[test]
fn a_parent_comes_before_its_children_and_they_before_the_next_of_the_root() {
    let _seats = [
        seat("observe-a-sessions"),
        seat("observe-a/tunnel#2/child"),
        seat("observe-a"),
        seat("observe-a/tunnel#2"),
    ];
    let view = observer().look();
    let paths: Vec<&str> = view.actors.iter().map(|actor| actor.path.as_str()).collect();
    let mine: Vec<&str> = paths.into_iter().filter(|path| path.starts_with("observe-a")).collect();
    assert_eq!(
        mine,
        [
            "observe-a",
            "observe-a/tunnel#2",
            "observe-a/tunnel#2/child",
            "observe-a-sessions"
        ]
    );
}

#[test]
fn a_relay_is_still_since_the_first_look_that_saw_it_so() {
    let id = connection(b"obsstill");
    let gauge = gauge(id, Side::Proxy, "alice");
    let mut observer = observer();
    let begin = Moment::now();
    let still = |observer: &mut Observer, at| {
        let view = observer.look_at(secs(begin, at));
        let relay = view.relays.into_iter().find(|relay| relay.connection == id.to_string());
        relay.expect("listed").to_client.still_us / 1_000_000
    };
    gauge.to_client.stands(10, WaitsFor::Source);
    assert_eq!(still(&mut observer, 1), 0);
    assert_eq!(still(&mut observer, 4), 3);
    gauge.to_client.stands(11, WaitsFor::Source);
    assert_eq!(still(&mut observer, 5), 0, "a byte has passed");
    gauge.to_client.stands(11, WaitsFor::Sink);
    assert_eq!(still(&mut observer, 7), 0, "it waits for another");
    assert_eq!(still(&mut observer, 9), 2);
}

#[test]
fn a_relay_that_never_moved_is_still_since_its_beginning() {
    let id = connection(b"obsnever");
    let gauge = gauge(id, Side::Proxy, "alice");
    let mut observer = observer();
    let view = observer.look_at(secs(gauge.since, 40));
    let relay = view.relays.into_iter().find(|relay| relay.connection == id.to_string());
    assert_eq!(relay.expect("listed").to_client.still_us, 40_000_000);
}

fn whose(user: &str) -> Whose {
    Whose {
        user: user.to_owned(),
        database: "aurora".to_owned(),
        db_user: "reader".to_owned(),
        db_name: "shop".to_owned(),
        client: "127.0.0.1:50000".to_owned(),
    }
}

#[test]
fn connections_are_found_by_user_database_state_and_side_also_before_their_relay() {
    let [relayed, early, unknown] = [b"obsconn1", b"obsconn2", b"obsconn3"].map(connection);
    let _gauge = gauge(relayed, Side::Agent, "carol-of-observe");
    let greeting = |id: ConnectionId| {
        let seat = seat(&format!("observe-listener/connection#{id}"));
        seat.serves(id);
        seat.enter(Label::of("observe-greeting"), None, None);
        seat
    };
    let _nobody_knows_whose = greeting(unknown);
    let opening = greeting(early);
    opening.is_for(Whose {
        database: "billing-of-observe".to_owned(),
        ..whose("dora-of-observe")
    });
    opening.enter(Label::of("observe-opening"), None, None);
    let agent = "agent db-1".into();
    let _asks = opening.waits(Label::of("OpenRelay"), agent, LOOK_EVERY, Some(early), Moment::now());
    let mut observer = observer();
    let opens = observer.connections(&ConnectionFilter::default());
    let opens = opens.into_iter().find(|view| view.connection == early.to_string());
    assert_eq!(opens.map(|view| view.waits_for), Some(vec!["agent db-1".to_owned()]));
    let mut found = |user: Option<&str>, database: Option<&str>, state: Option<&str>, side: Option<Side>| {
        let ids = [relayed, early, unknown].map(|id| id.to_string());
        let filter = ConnectionFilter {
            user: user.map(str::to_owned),
            database: database.map(str::to_owned),
            state: state.map(str::to_owned),
            side,
        };
        let all = observer.connections(&filter).into_iter().map(|view| view.connection);
        all.filter(|id| ids.contains(id)).collect::<Vec<String>>()
    };
    let [relayed, early, unknown] = [relayed, early, unknown].map(|id| id.to_string());
    assert_eq!(found(None, None, None, None).len(), 3);
    assert_eq!(found(Some("carol-of-observe"), None, None, None), [&*relayed]);
    assert_eq!(found(Some("dora-of-observe"), None, None, None), [&*early]);
    assert_eq!(found(None, Some("aurora"), None, None), [&*relayed]);
    assert_eq!(found(None, Some("billing-of-observe"), None, None), [&*early]);
    assert_eq!(
        found(None, Some("shop"), None, None),
        [&*relayed, &*early],
        "the database's own name"
    );
    assert!(found(None, Some("other"), None, None).is_empty());
    assert!(found(Some("carol-of-observe"), Some("billing-of-observe"), None, None).is_empty());
    assert_eq!(found(None, None, Some("observe-opening"), None), [&*early]);
    assert_eq!(found(None, None, Some("observe-greeting"), None), [&*unknown]);
    assert_eq!(found(None, Some("shop"), None, Some(Side::Proxy)), [&*early]);
}

#[test]
fn of_a_connection_that_never_had_a_session_it_is_remembered_whose_it_was() {
    let id = connection(b"obsgone1");
    let refused = seat("observe-listener/connection#obsgone1");
    refused.serves(id);
    refused.is_for(whose("erin-of-observe"));
    let open = observer().part(id).expect("known").whose;
    assert_eq!(open.as_ref().map(|whose| &*whose.user), Some("erin-of-observe"));
    refused.ends("access denied: 28000", false);
    drop(refused);
    let part = observer().part(id).expect("it has ended");
    assert_eq!(part.whose, open);
    assert_eq!(part.ended[0].whose, open);
}

#[test]
fn an_actor_is_found_by_its_path_its_end_or_the_beginning_of_its_name() {
    let _seats = [
        seat("observe-b/one#17"),
        seat("observe-b/one#18"),
        seat("observe-c/one#17"),
    ];
    let mut observer = observer();
    let mut path = |name: &str| match observer.actor(name) {
        ActorAnswer::One { actor, .. } => vec![actor.path],
        ActorAnswer::Several(paths) => paths,
        ActorAnswer::Nobody => Vec::new(),
    };
    assert_eq!(path("observe-b/one#17"), ["observe-b/one#17"]);
    assert_eq!(path("one#18"), ["observe-b/one#18"]);
    assert_eq!(path("one#17"), ["observe-b/one#17", "observe-c/one#17"]);
    assert!(path("observe-nobody").is_empty());
}

#[test]
fn a_part_has_what_the_connection_caused_and_what_caused_it_and_nothing_of_others() {
    let (mine, other) = (connection(b"obspart1"), connection(b"obspart2"));
    const FIRST: u64 = 900_000_000;
    super::record::write(record(FIRST, None, None, "observe-p/accepts"));
    super::record::write(record(FIRST + 1, Some(FIRST), Some(mine), "observe-p/connection"));
    super::record::write(record(FIRST + 2, Some(FIRST + 1), None, "observe-p/caused"));
    super::record::write(record(FIRST + 3, Some(FIRST + 2), None, "observe-p/caused-by-that"));
    super::record::write(record(FIRST + 4, Some(FIRST + 1), Some(other), "observe-p/of-another"));
    super::record::write(record(FIRST + 5, Some(FIRST), None, "observe-p/beside"));
    let part = observer().part(mine).expect("known");
    let to: Vec<&str> = part.records.iter().map(|record| record.to.as_str()).collect();
    assert_eq!(
        to,
        [
            "observe-p/accepts",
            "observe-p/connection",
            "observe-p/caused",
            "observe-p/caused-by-that"
        ]
    );
    assert!(observer().part(connection(b"obsnone!")).is_none());
}

#[test]
fn a_part_has_the_actors_that_serve_the_connection_its_relay_and_its_side() {
    let id = connection(b"obspart3");
    let serving = seat("observe-q/upstream#1");
    serving.serves(id);
    let asked = seat("observe-q/sessions");
    asked.takes(Label::of("RegisterSession"), Some(id), Moment::now());
    let _other = seat("observe-q/other");
    let _gauge = gauge(id, Side::Agent, "alice");
    let part = observer().part(id).expect("known");
    let paths: Vec<&str> = part.actors.iter().map(|actor| actor.path.as_str()).collect();
    assert_eq!(paths, ["observe-q/sessions", "observe-q/upstream#1"]);
    assert_eq!(part.side, Side::Agent);
    assert_eq!(part.relays[0].process_id, 4711);
}

#[test]
fn a_look_at_as_many_relays_as_a_node_can_have_is_done_long_before_the_next() {
    const RELAYS: u64 = 15_000;
    let held: Vec<_> = (0..RELAYS)
        .map(|number| {
            let id = ConnectionId::from_random((0x0b5e_0000_0000 + number).to_be_bytes());
            let seat = seat(&format!("observe-many/connection#{id}"));
            seat.serves(id);
            (gauge(id, Side::Proxy, "alice"), seat)
        })
        .collect();
    let mut observer = observer();
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let begin = Moment::now();
        observer.watch_at(begin);
        least = least.min(Moment::now().since(begin));
    }
    assert!(observer.look().relays.len() >= held.len());
    // Some ten milliseconds where the program is optimised; this is not, and shares its machine.
    assert!(least < 5 * LOOK_EVERY, "{least:?}");
}

#[test]
fn the_thread_that_looks_ends_with_its_watch() {
    let shared = observer().shared();
    let watch = shared.watch().expect("a thread");
    drop(watch);
    assert!(shared.observer().counts().iter().all(|(_, count)| count.began == 0));
}
