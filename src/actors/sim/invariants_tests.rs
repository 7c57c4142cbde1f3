//! Records made by hand: one of a world in order, and of each invariant one that breaks it and nothing else.

use super::invariants::broken;
use super::record::{Happened, What};
use std::time::Duration;

const CLIENT: u64 = 1;
const DIAL: u64 = 7;
const PROXY: usize = 0;
const AGENT: usize = 1;
/// Rules that deny bob nothing, and some that deny him `app` (see `rules.rs`).
const ALLOW: usize = 0;
const DENY_BOB: usize = 2;

/// A second passes before each.
fn recorded(world: Vec<What>) -> Vec<Happened> {
    let at = (1..).map(Duration::from_secs);
    at.zip(world).map(|(at, what)| Happened { at, what }).collect()
}

fn on_disk(node: usize, event: &str, statement: Option<&str>) -> What {
    What::OnDisk {
        node,
        event: event.to_owned(),
        sid: Some("S".to_owned()),
        client: Some(CLIENT),
        statement: statement.map(str::to_owned),
        requests: if ["TDB02I", "TDB10I"].contains(&event) {
            vec![1]
        } else {
            Vec::new()
        },
    }
}

fn rules(node: usize, rules: usize) -> [What; 2] {
    let version = rules as u64 + 1;
    [What::Told { node, rules }, What::Rules { node, version, rules }]
}

/// A session from its beginning to its end, as it should be: bob runs a statement and leaves.
fn in_order() -> Vec<What> {
    let mut world = Vec::new();
    world.extend(rules(PROXY, ALLOW));
    world.extend(rules(AGENT, ALLOW));
    world.extend([
        What::Connected {
            client: CLIENT,
            person: "bob",
            db_user: "app",
        },
        on_disk(PROXY, "PDB00I", None),
        What::StartupSeen {
            client: CLIENT,
            dial: DIAL,
            agent: AGENT,
        },
        on_disk(AGENT, "TDB00I", None),
        What::LetIn { client: CLIENT },
        on_disk(AGENT, "TDB02I", Some("select 1")),
        What::StatementSeen {
            client: CLIENT,
            statement: "select 1".to_owned(),
        },
        on_disk(AGENT, "TDB10I", None),
        What::Answered {
            client: CLIENT,
            request: 1,
        },
        What::Left { client: CLIENT },
        What::LetGo { dial: DIAL },
        on_disk(AGENT, "TDB01I", None),
    ]);
    world
}

fn place(world: &[What], is_it: impl Fn(&What) -> bool) -> usize {
    world.iter().position(is_it).expect("it happens")
}

/// `moved` happens right after `after`.
fn moved(world: &mut Vec<What>, moved: impl Fn(&What) -> bool, after: impl Fn(&What) -> bool) {
    let what = world.remove(place(world, moved));
    let after = place(world, after);
    world.insert(after + 1, what);
}

fn is_event(what: &What, code: &str) -> bool {
    matches!(what, What::OnDisk { event, .. } if event == code)
}

fn only(broken: &[String], says: &str) {
    assert!(broken.len() == 1 && broken[0].contains(says), "{says}: {broken:?}");
}

#[test]
fn a_world_in_order_breaks_nothing() {
    assert_eq!(broken(&recorded(in_order())), Vec::<String>::new());
}

#[test]
fn a_startup_before_the_decision_is_on_disk_is_seen() {
    let mut world = in_order();
    moved(
        &mut world,
        |what| is_event(what, "PDB00I"),
        |what| matches!(what, What::StartupSeen { .. }),
    );
    only(&broken(&recorded(world)), "before the proxy's decision was on disk");
}

#[test]
fn a_startup_that_a_node_denies_is_seen() {
    for node in [PROXY, AGENT] {
        let mut world = in_order();
        for what in &mut world {
            match what {
                What::Told { node: of, rules } | What::Rules { node: of, rules, .. } if *of == node => {
                    *rules = DENY_BOB
                }
                _ => {}
            }
        }
        let broken = broken(&recorded(world));
        let denied = format!("although node {node} denied it from the beginning");
        assert!(broken[0].contains(&denied), "{broken:?}");
    }
}

#[test]
fn a_client_and_a_statement_before_the_session_is_on_disk_are_seen() {
    let mut world = in_order();
    moved(
        &mut world,
        |what| is_event(what, "TDB00I"),
        |what| matches!(what, What::StatementSeen { .. }),
    );
    let broken = broken(&recorded(world));
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(
        broken[0].contains("was let in before its session was on disk"),
        "{broken:?}"
    );
    assert!(
        broken[1].contains("a statement reached PostgreSQL before the session was on disk"),
        "{broken:?}"
    );
}

#[test]
fn a_statement_that_is_not_audited_is_seen() {
    let mut world = in_order();
    world.retain(|what| {
        !is_event(what, "TDB02I") && !is_event(what, "TDB10I") && !matches!(what, What::Answered { .. })
    });
    only(&broken(&recorded(world)), "is not on the audit log");
}

#[test]
fn an_answer_without_a_result_and_a_result_of_nothing_are_seen() {
    let mut without = in_order();
    without.retain(|what| !is_event(what, "TDB10I"));
    only(&broken(&recorded(without)), "which has no result");
    let mut twice = in_order();
    twice.push(on_disk(AGENT, "TDB10I", None));
    only(&broken(&recorded(twice)), "has 2 results");
}

#[test]
fn a_statement_that_strict_mode_lets_through_before_it_is_on_disk_is_seen() {
    let mut world = in_order();
    for what in &mut world {
        if let What::Connected { person, .. } = what {
            *person = super::rules::STRICTLY_AUDITED;
        }
    }
    assert_eq!(broken(&recorded(world.clone())), Vec::<String>::new());
    moved(
        &mut world,
        |what| is_event(what, "TDB02I"),
        |what| matches!(what, What::StatementSeen { .. }),
    );
    only(&broken(&recorded(world)), "before it was on disk, in strict mode");
}

#[test]
fn a_session_that_is_never_closed_or_closed_twice_is_seen() {
    let mut never = in_order();
    never.retain(|what| !is_event(what, "TDB01I"));
    only(&broken(&recorded(never)), "opened 1 times and as closed 0 times");
    let mut twice = in_order();
    twice.push(on_disk(AGENT, "TDB01I", None));
    only(&broken(&recorded(twice)), "opened 1 times and as closed 2 times");
    let mut early = in_order();
    early.retain(|what| !is_event(what, "TDB00I"));
    early.insert(0, on_disk(AGENT, "TDB01I", None));
    let broken = broken(&recorded(early));
    assert!(
        broken.iter().any(|what| what.contains("before it is open")),
        "{broken:?}"
    );
}

#[test]
fn a_relay_that_outlives_its_client_is_seen() {
    let mut late = recorded(in_order());
    let of_the_dial = |happened: &Happened| matches!(happened.what, What::LetGo { .. });
    let let_go = late.iter().position(of_the_dial).expect("it happens");
    for happened in &mut late[let_go..] {
        happened.at += Duration::from_secs(46);
    }
    only(&broken(&late), "left at");
    let mut never = in_order();
    never.retain(|what| !matches!(what, What::LetGo { .. }));
    only(&broken(&recorded(never)), "holds its connection to PostgreSQL still");
    let mut stays = in_order();
    stays.retain(|what| !matches!(what, What::Left { .. }));
    only(&broken(&recorded(stays)), "never left");
}

#[test]
fn a_session_that_goes_on_while_newer_rules_deny_it_is_seen() {
    for node in [PROXY, AGENT] {
        let mut world = in_order();
        let statement = place(&world, |what| matches!(what, What::StatementSeen { .. }));
        for what in rules(node, DENY_BOB).into_iter().rev() {
            world.insert(statement, what);
        }
        let mut world = recorded(world);
        assert_eq!(broken(&world), Vec::<String>::new(), "it has a moment to end");
        let of_the_dial = |happened: &Happened| matches!(happened.what, What::LetGo { .. });
        let let_go = world.iter().position(of_the_dial).expect("it happens");
        for happened in &mut world[let_go..] {
            happened.at += Duration::from_secs(5);
        }
        only(&broken(&world), &format!("while node {node} had rules that deny it"));
    }
}
