use super::*;
use crate::telemetry::record::RecordKind;
use crate::telemetry::stuck::StuckRule;
use crate::telemetry::view::{ActorView, Finding, MissingPart, RecordView, RelayView, WaitView, WayView};
use proptest::prelude::*;

const CONNECTION: &str = "00000000000000c1";

/// A record of a process whose clock began `base` before: id, cause, when, what, from whom, to whom.
struct Process {
    base: u64,
    hour: u32,
    records: Vec<RecordView>,
}

impl Process {
    fn new(base: u64, hour: u32) -> Self {
        Self {
            base,
            hour,
            records: Vec::new(),
        }
    }

    fn add(&mut self, kind: RecordKind, id: u64, cause: Option<u64>, at: u64, what: &str, to: &str) -> &mut RecordView {
        self.records.push(RecordView {
            at: format!("2026-11-22T{:02}:00:00.{:03}Z", self.hour, at / 1000),
            at_us: self.base + at,
            kind,
            what: what.to_owned(),
            id,
            cause,
            connection: Some(CONNECTION.to_owned()),
            from: None,
            to: to.to_owned(),
            queued_us: 0,
            busy_us: 0,
        });
        self.records.last_mut().expect("just pushed")
    }

    fn part(self, node: &str, side: Side) -> TracePart {
        TracePart {
            node: node.to_owned(),
            side,
            at: format!("2026-11-22T{:02}:00:10.000Z", self.hour),
            records: self.records,
            whole_since: None,
            actors: Vec::new(),
            relays: Vec::new(),
            ended: Vec::new(),
            whose: None,
            findings: Vec::new(),
        }
    }
}

/// A session that is opened: by the proxy, its agent, and auth, whose clocks have nothing in common.
fn parts() -> Vec<TracePart> {
    use RecordKind::{Answered, Arrived, Handled, Sent, Started, State};
    let mut proxy = Process::new(1_000_000_000, 10);
    let client = "listener/connection#c1";
    proxy.add(Started, 10, None, 0, "started", client);
    proxy.add(State, 11, Some(10), 100, "greeting", client);
    proxy.add(Sent, 12, Some(10), 2000, "RegisterSession", "proxy-sessions");
    let handled = proxy.add(Handled, 12, Some(10), 2250, "RegisterSession", "proxy-sessions");
    (handled.queued_us, handled.busy_us) = (200, 50);
    proxy
        .add(Answered, 12, Some(10), 2400, "RegisterSession", "proxy-sessions")
        .queued_us = 400;
    proxy.add(Sent, 13, Some(10), 3000, "OpenRelay", "agent db-1");
    proxy
        .add(Answered, 13, Some(10), 9000, "OpenRelay", "agent db-1")
        .queued_us = 6000;
    let mut agent = Process::new(77_000_000, 11);
    agent.add(Arrived, 5, Some(13), 0, "OpenRelay", "agent/upstream#1");
    agent.add(Sent, 6, Some(5), 100, "GetCertificate", "auth");
    agent
        .add(Answered, 6, Some(5), 2100, "GetCertificate", "auth")
        .queued_us = 2000;
    agent.add(State, 7, Some(5), 2200, "connecting", "agent/upstream#1");
    let mut auth = Process::new(5_000_000, 3);
    // The ids of processes are the same numbers.
    auth.add(Arrived, 13, Some(6), 0, "GetCertificate", "links/link#2");
    auth.add(Sent, 14, Some(13), 30, "SignDbClient", "ca");
    vec![
        proxy.part("proxy-1", Side::Proxy),
        agent.part("db-1", Side::Agent),
        auth.part("auth-1", Side::Agent),
    ]
}

fn tree(parts: Vec<TracePart>) -> TraceTree {
    TraceTree::of(&Trace {
        connection: CONNECTION.to_owned(),
        parts,
        missing: Vec::new(),
    })
}

fn told(tree: &TraceTree) -> Vec<String> {
    let line = |line: Line| {
        let at = line.at_us.map_or_else(String::new, |at| at.to_string());
        let indent = ".".repeat(line.depth as usize);
        format!("{at} {} {indent}{}", line.node, line.texts.join("; "))
    };
    tree.lines().map(line).collect()
}

#[test]
fn the_parts_are_one_tree_in_the_order_of_causes() {
    assert_eq!(
        told(&tree(parts())),
        [
            "0 proxy-1 listener/connection#c1 began; greeting at +0.1ms",
            "2000 proxy-1 .RegisterSession -> proxy-sessions; queued 0.2 ms, busy 0.1 ms, answered after 0.4 ms",
            "3000 proxy-1 .OpenRelay -> agent db-1; answered after 6.0 ms",
            "3000 db-1 ..OpenRelay arrived at agent/upstream#1; connecting at +5.2ms",
            "3100 db-1 ...GetCertificate -> auth; answered after 2.0 ms",
            "3100 auth-1 ....GetCertificate arrived at links/link#2",
            "3130 auth-1 .....SignDbClient -> ca; under way",
        ]
    );
}

#[test]
fn where_an_agent_was_asked_it_is_said_at_which_proxy_the_other_half_is() {
    let mut agent = parts().swap_remove(1);
    agent.records[0].from = Some("proxy edge".to_owned());
    let says = |trace: &Trace| TraceTree::of(trace).gaps;
    let mut trace = Trace {
        connection: CONNECTION.to_owned(),
        parts: vec![agent],
        missing: Vec::new(),
    };
    let words = "the part of proxy edge, as this was asked at the agent: on the machine of proxy edge, postern trace \
                 00000000000000c1 shows both";
    assert_eq!(says(&trace), [words]);
    trace.parts[0].records.clear();
    assert!(
        says(&trace)[0].starts_with("the part of its proxy, "),
        "{:?}",
        says(&trace)
    );
    trace.missing.push(MissingPart {
        node: "edge".to_owned(),
        why: "did not answer".to_owned(),
    });
    assert_eq!(says(&trace), ["no part of edge: did not answer"]);
    assert!(tree(parts()).gaps.is_empty());
}

proptest! {
    #[test]
    fn neither_the_order_of_records_nor_a_clock_changes_the_tree(
        order in Just((0..3usize).collect::<Vec<_>>()).prop_shuffle(),
        records in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
        ahead in proptest::array::uniform3(0u64..10_000_000_000),
    ) {
        let whole = tree(parts());
        let mut mixed = Vec::new();
        for place in order {
            let mut part = parts().swap_remove(place);
            let in_order = part.records.clone();
            part.records = records.iter().filter_map(|at| in_order.get(*at).cloned()).collect();
            for record in &mut part.records {
                record.at_us += ahead[place];
            }
            if place > 0 {
                for record in &mut part.records {
                    record.at = "1999-01-01T00:00:00.000Z".to_owned();
                }
            }
            mixed.push(part);
        }
        prop_assert_eq!(tree(mixed), whole);
    }
}

#[test]
fn nothing_is_shown_before_its_cause() {
    let mut parts = parts();
    // Two arrivals whose clocks disagree by more than a message takes.
    let mut late = Process::new(77_000_000, 11);
    late.add(
        RecordKind::Arrived,
        4,
        Some(12),
        0,
        "RegisterSession",
        "agent/upstream#1",
    );
    parts[1].records.extend(late.records);
    let tree = tree(parts);
    for step in &tree.steps {
        let above = step.parent.map(|parent| &tree.steps[parent]);
        assert!(above.is_none_or(|above| above.at_us <= step.at_us), "{step:?}");
    }
}

#[test]
fn a_part_that_nothing_joins_stands_apart_and_is_told() {
    let mut parts = parts();
    parts[1].records.retain(|record| record.kind != RecordKind::Arrived);
    let tree = tree(parts);
    let gap = "nothing joins the part of db-1 to another: its times are from its own beginning";
    assert_eq!(tree.gaps, [gap]);
    let agents: Vec<_> = tree.steps.iter().filter(|step| step.node == "db-1").collect();
    assert_eq!((agents[0].depth, agents[0].at_us), (0, 0));
    assert_eq!(tree.steps.iter().filter(|step| step.node == "auth-1").count(), 2);
}

#[test]
fn proxy_and_agent_in_one_process_are_one_tree_too() {
    use RecordKind::{Arrived, Sent, Started};
    let mut both = Process::new(1_000_000, 10);
    both.add(Started, 10, None, 0, "started", "listener/connection#c1");
    both.add(Sent, 11, Some(10), 500, "OpenRelay", "agent here");
    both.add(Arrived, 12, Some(11), 700, "OpenRelay", "agent/upstream#1");
    let tree = tree(vec![both.part("one", Side::Agent)]);
    let depths: Vec<_> = tree.steps.iter().map(|step| (step.depth, step.at_us)).collect();
    assert_eq!(depths, [(0, 0), (1, 500), (2, 700)]);
}

#[test]
fn what_was_overwritten_and_who_gave_no_part_is_told() {
    let mut parts = parts();
    let actor = serving();
    parts[0].actors.push(actor);
    // It began ten seconds before 10:00:10.
    parts[0].whole_since = Some("2026-11-22T10:00:04.000Z".to_owned());
    let tree = TraceTree::of(&Trace {
        connection: CONNECTION.to_owned(),
        parts,
        missing: vec![MissingPart {
            node: "db-2".to_owned(),
            why: "it did not answer".to_owned(),
        }],
    });
    assert_eq!(
        tree.gaps,
        [
            "the record of proxy-1 of the first 4.0 s is overwritten",
            "no part of db-2: it did not answer"
        ]
    );
}

#[test]
fn where_it_is_now_has_the_cause_first_and_the_open_waits() {
    let mut parts = parts();
    parts[0].actors.push(serving());
    let finding = |rule: StuckRule, sentence: &str| Finding {
        rule: rule.label().to_owned(),
        room: format!("connection {CONNECTION}"),
        peer: "x".to_owned(),
        sentence: sentence.to_owned(),
        next: "look there".to_owned(),
        age_us: 40_000_000,
        connection: Some(CONNECTION.to_owned()),
    };
    parts[0]
        .findings
        .push(finding(StuckRule::UpstreamSilent, "the agent is silent"));
    parts[0].findings.push(finding(StuckRule::ReplyOverdue, "no answer"));
    parts[1]
        .findings
        .push(finding(StuckRule::UpstreamSilent, "PostgreSQL is silent"));
    let now: Vec<_> = tree(parts).now.into_iter().map(|standing| standing.sentence).collect();
    assert_eq!(
        now,
        [
            "no answer",
            "PostgreSQL is silent",
            "listener/connection#c1 has waited 6.0 s for agent db-1 (OpenRelay)"
        ]
    );
}

#[test]
fn a_tree_is_read_back_as_it_was_saved() {
    let saved = serde_json::to_string(&tree(parts())).expect("written");
    assert_eq!(serde_json::from_str::<TraceTree>(&saved).expect("read"), tree(parts()));
}

fn serving() -> ActorView {
    ActorView {
        path: "listener/connection#c1".to_owned(),
        kind: "connection".to_owned(),
        rule: "temporary".to_owned(),
        runtime: None,
        state: "opening".to_owned(),
        state_age_us: 0,
        age_us: 10_000_000,
        queued: 0,
        bound: 4,
        in_hand: None,
        waits: vec![WaitView {
            message: "OpenRelay".to_owned(),
            to: "agent db-1".to_owned(),
            age_us: 6_000_000,
            within_us: 40_000_000,
            connection: Some(CONNECTION.to_owned()),
        }],
        waiting: 1,
        handled: 0,
        busy_us: 0,
        restarts: 0,
        last_failure: None,
        connection: Some(CONNECTION.to_owned()),
        whose: None,
    }
}

#[test]
fn where_the_bytes_of_a_relay_stand_is_told_in_words() {
    let told_after = |still_us: u64, side: Side, state: &str, up: &str, down: &str| {
        let way = |waits_for: &str| WayView {
            bytes: 7,
            waits_for: waits_for.to_owned(),
            still_us,
        };
        let mut parts = parts();
        parts.truncate(1);
        parts[0].relays.push(RelayView {
            connection: CONNECTION.to_owned(),
            session: "s".to_owned(),
            side,
            user: "alice".to_owned(),
            database: "aurora".to_owned(),
            db_user: "app".to_owned(),
            db_name: "orders".to_owned(),
            client: "10.0.0.7:5000".to_owned(),
            upstream: "PostgreSQL at db:5432".to_owned(),
            process_id: 4711,
            age_us: 180_000_000,
            state: state.to_owned(),
            state_age_us: 180_000_000,
            to_upstream: way(up),
            to_client: way(down),
        });
        let standing = tree(parts).now.pop().expect("a relay");
        assert_eq!((standing.side, standing.next), (side, None));
        standing.sentence
    };
    let told = |side, state, up, down| told_after(42_000_000, side, state, up, down);
    let (proxy, agent) = (Side::Proxy, Side::Agent);
    for (said, expected) in [
        (
            told(agent, "busy", "source", "source"),
            "the client has waited for PostgreSQL for 3 min; PostgreSQL at db:5432 has sent nothing for 42 s",
        ),
        (
            told(proxy, "idle", "source", "source"),
            "idle for 3 min: all is answered, and nothing is asked",
        ),
        (
            told(proxy, "idle in transaction", "source", "source"),
            "idle in a transaction for 3 min: all is answered, and it is the client's turn",
        ),
        (
            told(proxy, "busy", "source", "sink"),
            "the client has taken nothing more for 42 s: its result waits until it takes more",
        ),
        (
            told(agent, "busy", "source", "sink"),
            "the proxy has taken nothing more for 42 s: its result waits until it takes more",
        ),
        (
            told_after(0, proxy, "busy", "source", "source"),
            "the client has waited for PostgreSQL for 3 min; its result is coming: 7 bytes to the client so far",
        ),
        (
            told_after(0, agent, "busy", "source", "sink"),
            "its result is coming: 7 bytes to the proxy so far",
        ),
        (
            told(agent, "busy", "audit", "source"),
            "what was read has been held back for 42 s: the audit trail takes no more",
        ),
        (
            told(agent, "streaming", "source", "source"),
            "a replication has streamed for 3 min: 7 bytes to the proxy, the last 42 s ago",
        ),
        (
            told(proxy, "closing", "done", "source"),
            "the client has closed its side; PostgreSQL at db:5432 has not, for 42 s",
        ),
    ] {
        assert_eq!(said, expected);
    }
}
