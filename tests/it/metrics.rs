//! What a node tells Prometheus, after somebody has worked through it.

use crate::harness::cluster::Options;
use crate::harness::wire::dial;
use crate::harness::{Cluster, Form, Kind, PATIENCE, until};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

/// Status, content type and body of `/metrics`.
fn scrape(cluster: &Cluster) -> (String, BTreeMap<String, f64>) {
    let mut socket = dial(cluster.node(Kind::Auth).diag_port());
    write!(
        socket,
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .expect("it listens");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let samples = samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number")));
    (body.to_owned(), samples.collect())
}

#[test]
fn what_people_do_moves_the_counters_and_leaves_no_name_in_a_label() {
    let options = Options {
        process: "  diag_addr: 127.0.0.1:0\n",
        ..Options::default()
    };
    let cluster = Cluster::start_with(Form::OneProcess, options);
    cluster.client("alice", "app", "app").psql("select 1").ok();
    let refused = cluster.client("alice", "nosuchuser", "app").psql("select 1");
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    let moved = [
        "postern_connections_accepted_total{kind=\"postgresql\"}",
        "postern_sessions_opened_total{side=\"proxy\"}",
        "postern_sessions_opened_total{side=\"agent\"}",
        "postern_sessions_ended_total{side=\"proxy\",reason=\"finished\"}",
        "postern_sessions_ended_total{side=\"agent\",reason=\"finished\"}",
        "postern_sessions_refused_total{side=\"proxy\",kind=\"access_denied\"}",
        "postern_session_open_duration_seconds_count",
        "postern_relayed_bytes_total{side=\"agent\",direction=\"to_client\"}",
        "postern_relayed_bytes_total{side=\"proxy\",direction=\"to_upstream\"}",
        "postern_certificates_issued_total{kind=\"user\"}",
        "postern_certificates_issued_total{kind=\"db-client\"}",
        "postern_audit_events_written_total{class=\"information\"}",
        "postern_audit_events_written_total{class=\"warning\"}",
        "postern_audit_fsync_duration_seconds_count",
        "postern_store_operation_duration_seconds_count{operation=\"get\"}",
        "postern_policy_version",
        "postern_host_certificate_expiry_timestamp_seconds",
        "postern_databases{health=\"healthy\"}",
        "process_resident_memory_bytes",
        "process_open_fds",
        "postern_actors{kind=\"policy\"}",
        "postern_actor_messages_handled_total{kind=\"proxy-sessions\"}",
    ];
    let (body, samples) = until("all of it is counted", PATIENCE, || {
        let (body, samples) = scrape(&cluster);
        let is_there = |name: &&str| samples.get(*name).is_some_and(|value| *value > 0.0);
        moved.iter().all(is_there).then_some((body, samples))
    });
    let now = |name: &str| {
        samples
            .get(name)
            .copied()
            .unwrap_or_else(|| panic!("no {name} in {body}"))
    };
    assert!(now("postern_runtime_last_turn_seconds{runtime=\"control\"}") < 10.0);
    assert!(now("postern_policy_confirmed_age_seconds") < 10.0);
    assert_eq!(now("postern_audit_blocked"), 0.0);
    for typed in ["alice", "nosuchuser", "orders", "127.0.0.1", "localhost"] {
        assert!(!body.contains(typed), "{typed} is in:\n{body}");
    }
    let session = cluster.client("alice", "app", "app");
    let session = crate::harness::Session::open(&session);
    until("the session is counted", PATIENCE, || {
        let (_, samples) = scrape(&cluster);
        (samples["postern_sessions_open{side=\"proxy\"}"] > 0.0).then_some(())
    });
    drop(session);
    until("it is not counted any more", PATIENCE, || {
        let (_, samples) = scrape(&cluster);
        let open = |side: &str| samples[&format!("postern_sessions_open{{side=\"{side}\"}}")];
        (open("proxy") == 0.0 && open("agent") == 0.0).then_some(())
    });
}
