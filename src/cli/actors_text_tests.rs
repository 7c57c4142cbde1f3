use super::*;
use crate::telemetry::view::{ExitView, FailureView, InHandView, WaitView};

/// One that has something of everything.
pub fn actor(path: &str) -> ActorView {
    ActorView {
        path: path.to_owned(),
        kind: last(path).split('#').next().unwrap_or_default().to_owned(),
        rule: "permanent".to_owned(),
        runtime: Some("control".to_owned()),
        state: "serving".to_owned(),
        state_age_us: 65_000_000,
        age_us: 65_000_000,
        queued: 3,
        bound: 64,
        in_hand: Some(InHandView {
            message: "IssueDbClient".to_owned(),
            age_us: 2_100_000,
            connection: Some("00000000deadbeef".to_owned()),
        }),
        waits: vec![WaitView {
            message: "WriteKey".to_owned(),
            to: "store".to_owned(),
            age_us: 1_900_000,
            within_us: 15_000_000,
            connection: None,
        }],
        waiting: 3,
        handled: 1_234,
        busy_us: 12_000,
        restarts: 0,
        last_failure: None,
        connection: None,
        whose: None,
    }
}

fn idle(path: &str, state: &str) -> ActorView {
    ActorView {
        state: state.to_owned(),
        queued: 0,
        in_hand: None,
        waits: Vec::new(),
        waiting: 0,
        ..actor(path)
    }
}

pub fn node() -> NodeView {
    let mut listener = idle("proxy-listener", "serving");
    listener.restarts = 1;
    listener.last_failure = Some(FailureView {
        at: "2026-01-31T11:59:00.000Z".to_owned(),
        why: "panicked\u{1b}]0;x\u{7}".to_owned(),
    });
    let mut actors = vec![actor("ca"), listener];
    for number in 0..1_203 {
        let state = if number < 13 { "opening" } else { "relaying" };
        let path = format!("proxy-listener/connection#{number:04}");
        actors.push(idle(&path, state));
        actors.push(idle(&format!("{path}/child"), "serving"));
    }
    NodeView {
        node: "proxy-1".to_owned(),
        node_id: "3f".to_owned(),
        version: "0.1.0".to_owned(),
        services: vec!["auth".to_owned(), "proxy".to_owned()],
        at: "2026-01-31T12:00:00.000Z".to_owned(),
        uptime_us: 11_100_000_000,
        actors,
        exits: vec![ExitView {
            path: "tunnel#4".to_owned(),
            at: "2026-01-31T11:58:00.000Z".to_owned(),
            why: "its peer is silent".to_owned(),
            failed: true,
            connection: None,
            relay: None,
            whose: None,
        }],
        relays: Vec::new(),
        findings: vec![Finding {
            rule: "handler-slow".to_owned(),
            room: "ca".to_owned(),
            peer: "store".to_owned(),
            sentence: "ca has had IssueDbClient in hand for 2.1s".to_owned(),
            next: "postern actor ca".to_owned(),
            age_us: 2_100_000,
            connection: None,
        }],
        records: 5,
        left_out: LeftOut::default(),
    }
}

#[test]
fn what_is_stuck_comes_first_and_many_of_a_kind_are_one_line() {
    let expected = "\
Node proxy-1 (3f): auth, proxy, version 0.1.0, up 3h05m, at 2026-01-31T12:00:00.000Z
STUCK  ca has had IssueDbClient in hand for 2.1s [handler-slow]
       where: ca, because of store
       next: postern actor ca

ACTOR           STATE    MAILBOX  IN HAND             WAITS FOR                     RESTARTS  LAST FAILURE
ca              serving  3/64     IssueDbClient 2.1s  WriteKey -> store 1.9s, of 3
proxy-listener  serving  0/64                                                       1         2026-01-31T11:59:00.000Z panicked\\u{1b}]0;x\\u{7}
  connection# 1,203 (1,190 relaying, 13 opening)

Failed lately:
  2026-01-31T11:58:00.000Z  tunnel#4: its peer is silent
";
    assert_eq!(page(&node(), &Shown::default(), None), expected);
}

#[test]
fn a_node_at_rest_says_that_nothing_is_stuck() {
    let mut node = node();
    node.findings.clear();
    node.exits.clear();
    node.actors.truncate(1);
    node.actors[0] = idle("ca", "serving");
    node.node_id = String::new();
    let expected = "\
Node proxy-1 (not joined yet): auth, proxy, version 0.1.0, up 3h05m, at 2026-01-31T12:00:00.000Z
Nothing is stuck.

ACTOR  STATE    MAILBOX
ca     serving  0/64
";
    assert_eq!(page(&node, &Shown::default(), None), expected);
}

#[test]
fn nothing_is_wider_than_the_terminal_and_the_longest_cells_are_cut_first() {
    let expected = "\
Node proxy-1 (3f): auth, proxy, version 0.1.0, up 3h05m, at
2026-01-31T12:00:00.000Z
STUCK  ca has had IssueDbClient in hand for 2.1s [handler-slow]
       where: ca, because of store
       next: postern actor ca

ACTOR        STATE    MAILBOX  IN HAND      WAITS FOR    RESTARTS  LAST FAILU…
ca           serving  3/64     IssueDbCli…  WriteKey -…
proxy-list…  serving  0/64                               1         2026-01-31…
  connection# 1,203 (1,190 relaying, 13 opening)

Failed lately:
  2026-01-31T11:58:00.000Z  tunnel#4: its peer is silent
";
    let shown = page(&node(), &Shown::default(), Some(78));
    assert_eq!(shown, expected);
    assert!(shown.lines().all(|line| line.chars().count() <= 78));
}

#[test]
fn lists_are_sorted_and_filtered_and_name_whole_paths() {
    let node = node();
    let names = |shown: &Shown| {
        rows(&node, shown)
            .into_iter()
            .map(|row| row[0].clone())
            .collect::<Vec<_>>()
    };
    let by = |sort| Shown {
        sort,
        ..Shown::default()
    };
    assert_eq!(names(&by(SortBy::Mailbox))[0], "ca");
    assert_eq!(names(&by(SortBy::Restarts))[0], "proxy-listener");
    let opening = Shown {
        kind: Some("connection".to_owned()),
        state: Some("opening".to_owned()),
        ..Shown::default()
    };
    assert_eq!(names(&opening).len(), 13);
    assert_eq!(names(&opening)[0], "proxy-listener/connection#0000");
    let stuck = Shown {
        stuck: true,
        ..Shown::default()
    };
    assert_eq!(names(&stuck), ["ca"]);
    let of_json: Vec<String> = stuck
        .of_json(node.clone())
        .actors
        .into_iter()
        .map(|actor| actor.path)
        .collect();
    assert_eq!(of_json, ["ca"], "for programs, too");
    let all = Shown {
        all: true,
        ..Shown::default()
    };
    assert_eq!(names(&all).len(), node.actors.len());
    assert_eq!(names(&all)[3], "    child");
}

#[test]
fn a_queue_of_bytes_is_told_in_their_unit() {
    let spool = |queued| ActorView {
        queued,
        bound: 8 * 1024 * 1024,
        ..actor("audit-spool")
    };
    let told: Vec<String> = [0, 1, 300_000, 8 * 1024 * 1024]
        .map(|queued| mailbox(&spool(queued)))
        .into();
    assert_eq!(told, ["0/8 MiB", "1 KiB/8 MiB", "293 KiB/8 MiB", "8 MiB/8 MiB"]);
}

#[test]
fn what_did_not_fit_into_the_answer_of_a_node_elsewhere_is_told_before_what_is_stuck() {
    let mut view = node();
    view.left_out = LeftOut {
        actors: 1_190,
        relays: 3,
        ..LeftOut::default()
    };
    let page = page(&view, &Shown::default(), None);
    let second = page.lines().nth(1).expect("a line");
    assert_eq!(
        second,
        "CUT    1190 actors, 3 relays did not fit into the answer, those at rest first; on the machine of the node all are shown: \
         postern actors"
    );
}
