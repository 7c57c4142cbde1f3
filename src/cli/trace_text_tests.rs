use super::super::actors_text::tests::actor;
use super::*;
use crate::telemetry::record::RecordKind;
use crate::telemetry::view::{Finding, MissingPart, RecordView, Side, TracePart, WayView, Whose};

fn record(kind: RecordKind, what: &str, id: u64, cause: Option<u64>) -> RecordView {
    RecordView {
        at: format!("2026-01-31T12:00:00.00{id}Z"),
        at_us: id,
        kind,
        what: what.to_owned(),
        id,
        cause,
        connection: Some("00000000deadbeef".to_owned()),
        from: Some("proxy-listener".to_owned()),
        to: "connection#1".to_owned(),
        queued_us: 250,
        busy_us: 1_500,
    }
}

fn relay() -> RelayView {
    let way = |bytes, waits_for: &str| WayView {
        bytes,
        waits_for: waits_for.to_owned(),
        still_us: 65_000_000,
    };
    RelayView {
        connection: "00000000deadbeef".to_owned(),
        session: "s".to_owned(),
        side: Side::Proxy,
        user: "alice\u{1b}".to_owned(),
        database: "aurora".to_owned(),
        db_user: "app".to_owned(),
        db_name: "orders".to_owned(),
        client: "10.0.0.7:5000".to_owned(),
        upstream: "agent db-1".to_owned(),
        process_id: 4711,
        age_us: 65_000_000,
        state: "busy".to_owned(),
        state_age_us: 65_000_000,
        to_upstream: way(1_203, "source"),
        to_client: way(0, "sink"),
    }
}

pub fn trace() -> Trace {
    Trace {
        connection: "00000000deadbeef".to_owned(),
        parts: vec![TracePart {
            node: "proxy-1".to_owned(),
            side: Side::Proxy,
            at: "2026-01-31T12:01:05.000Z".to_owned(),
            records: vec![
                record(RecordKind::Sent, "Hello", 1, None),
                record(RecordKind::Sent, "RegisterSession", 2, Some(1)),
                record(RecordKind::Answered, "RegisterSession", 2, Some(1)),
                record(RecordKind::State, "relaying", 3, Some(1)),
            ],
            whole_since: None,
            actors: Vec::new(),
            relays: vec![relay()],
            findings: Vec::new(),
            ended: Vec::new(),
            whose: None,
        }],
        missing: vec![MissingPart {
            node: "db-1".to_owned(),
            why: "no answer in time".to_owned(),
        }],
    }
}

#[test]
fn a_trace_says_whose_it_is_what_is_wrong_where_it_stands_and_what_caused_what() {
    let mut trace = trace();
    trace.parts[0].findings.push(Finding {
        rule: "upstream_silent".to_owned(),
        room: "connection 00000000deadbeef".to_owned(),
        peer: "agent db-1".to_owned(),
        sentence: "agent db-1 has sent nothing for 65 s".to_owned(),
        next: "ask it".to_owned(),
        age_us: 65_000_000,
        connection: Some("00000000deadbeef".to_owned()),
    });
    let expected = "\
Connection 00000000deadbeef: alice\\u{1b} as app to aurora (database orders)
  from 10.0.0.7:5000, since 2026-01-31T12:00:00.001Z, for 1m05s
  process 4711 of PostgreSQL behind agent db-1; 1,203 bytes to it, 0 to the client so far
STUCK  agent db-1 has sent nothing for 65 s
       next: ask it

Where it is now
  proxy  proxy-1  the client has taken nothing more for 65 s: its result waits until it takes more
  not shown: no part of db-1: no answer in time

What happened, from cause to effect
  +0.0ms  proxy-1  Hello: proxy-listener -> connection#1: under way; relaying
  +0.0ms  proxy-1    RegisterSession: proxy-listener -> connection#1: answered after 0.3 ms
";
    assert_eq!(page(&trace, None), expected);
}

#[test]
fn several_connections_are_listed_with_what_to_type() {
    let view = ConnectionView {
        connection: "00000000deadbeef".to_owned(),
        node: "proxy-1".to_owned(),
        side: Side::Proxy,
        relay: Some(relay()),
        whose: None,
        waits_for: Vec::new(),
        state: "busy".to_owned(),
        age_us: 65_000_000,
    };
    let of_agent = ConnectionView {
        side: Side::Agent,
        ..view.clone()
    };
    let other = ConnectionView {
        connection: "00000000cafecafe".to_owned(),
        ..view.clone()
    };
    let found = [of_agent, view, other];
    let listed = several(&found, " --node proxy-1", None);
    assert!(listed.contains("alice\\u{1b}"), "{listed}");
    assert_eq!(
        listed.matches("postern trace 00000000deadbeef --node proxy-1").count(),
        1,
        "both of its sides are one connection: {listed}"
    );
    assert!(
        listed.contains("proxy, agent") && listed.contains("00000000cafecafe"),
        "{listed}"
    );
    let narrow = several(&found, "", Some(90));
    assert!(narrow.lines().all(|line| line.chars().count() <= 90), "{narrow}");
    assert!(narrow.contains("postern trace 00000000deadbeef"), "{narrow}");
}

fn whose() -> Whose {
    relay().whose()
}

#[test]
fn a_connection_is_of_whom_its_certificate_names_also_before_there_is_a_session() {
    let mut trace = trace();
    let part = &mut trace.parts[0];
    part.relays.clear();
    part.whose = Some(whose());
    part.actors = vec![actor("listener/connection#1")];
    let said = page(&trace, None);
    let head =
        "Connection 00000000deadbeef: alice\\u{1b} as app to aurora (database orders)\n  from 10.0.0.7:5000, since ";
    assert!(said.starts_with(head), "{said}");
    assert!(said.contains(": there is no session yet\n"), "{said}");
    trace.parts[0].actors.clear();
    assert!(page(&trace, None).contains(": there was no session\n"));
    trace.parts[0].whose = None;
    let nobody = page(&trace, None);
    assert!(nobody.contains("it is not known whose it is"), "{nobody}");
    let no_database = Whose {
        database: String::new(),
        ..whose()
    };
    trace.parts[0].whose = Some(no_database);
    assert!(page(&trace, None).contains("to no database that the certificate names"));
}

#[test]
fn where_none_is_open_a_refused_one_is_listed_under_its_person_and_database() {
    let exit = |connection: &str, whose: Option<Whose>| ExitView {
        path: format!("listener/connection#{connection}"),
        at: "2026-01-31T11:58:00.000Z".to_owned(),
        why: "agent unreachable: 08001".to_owned(),
        failed: false,
        connection: Some(connection.to_owned()),
        relay: None,
        whose,
    };
    let mut node = super::super::actors_text::tests::node();
    node.exits = vec![exit("00000000deadbeef", Some(whose())), exit("00000000cafecafe", None)];
    let listed = |user: Option<&str>, database: Option<&str>, state: Option<&str>| {
        let meant = Meant { user, database, state };
        none_fits(&node, &meant, "", None)
    };
    for said in [
        listed(Some("alice\u{1b}"), None, None),
        listed(None, Some("aurora"), None),
        listed(None, Some("orders"), None),
    ] {
        assert!(said.contains("alice\\u{1b}") && said.contains("aurora"), "{said}");
        assert!(said.contains("postern trace 00000000deadbeef"), "{said}");
        assert!(!said.contains("cafecafe"), "{said}");
    }
    assert!(listed(Some("bob"), None, None).contains("None that ended lately does, either"));
    assert!(listed(None, None, Some("busy")).contains("None that ended lately does, either"));
}
