//! Looking into a node that runs: `postern actors`, `actor`, `trace` and `debug`, at its debug socket.

use crate::harness::process::{Output, run};
use crate::harness::{Cluster, Form, Kind, PATIENCE, postern, shared};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

/// Runs `postern WORDS` at the debug socket of a node.
#[track_caller]
fn ask(cluster: &Cluster, kind: Kind, words: &[&str]) -> Output {
    let mut command = postern(cluster.directory.path());
    command
        .args(words)
        .arg("--data-dir")
        .arg(&cluster.node(kind).config.data_dir);
    run(command, PATIENCE)
}

#[track_caller]
fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn every_node_shows_its_actors_at_a_socket_of_its_owner() {
    let cluster = shared(Form::Apart);
    for (kind, parts) in [
        (
            Kind::Auth,
            &["Node auth-1 (", "ca ", "rbac ", "inventory ", "admin ", "debug "][..],
        ),
        (
            Kind::Proxy,
            &["Node proxy-1 (", "auth-link ", "proxy-sessions ", "policy "][..],
        ),
        (
            Kind::Agent,
            &["Node agent-1 (", "agent ", "agent-sessions ", "dialer"][..],
        ),
    ] {
        let text = ask(&cluster, kind, &["actors"]).ok();
        holds(&text, parts);
        let socket = cluster.node(kind).config.data_dir.join("debug.sock");
        let mode = socket.symlink_metadata().expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let json = ask(&cluster, Kind::Auth, &["actors", "--format=json"]).ok();
    let view: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(view["node"], "auth-1");
    let text = ask(&cluster, Kind::Auth, &["actor", "ca"]).ok();
    holds(&text, &["ca (permanent)", "mailbox", "Lately, oldest first:"]);
    let said = ask(&cluster, Kind::Auth, &["actor", "nobody"]).failed_with(1);
    holds(&said, &["no actor nobody lives in this node", "`postern actors`"]);
}

#[test]
fn the_log_level_of_a_node_is_changed_while_it_runs() {
    let cluster = shared(Form::Apart);
    let before = ask(&cluster, Kind::Agent, &["debug", "get-log-level"]).ok();
    let set = ask(&cluster, Kind::Agent, &["debug", "set-log-level", "debug"]).ok();
    holds(&set, &["debug"]);
    ask(&cluster, Kind::Agent, &["debug", "set-log-level", "nonsense=nonsense"]).failed_with(1);
    let again = ask(&cluster, Kind::Agent, &["debug", "set-log-level", before.trim()]).ok();
    assert_eq!(again, before);
}

#[test]
fn a_connection_that_is_not_known_and_a_node_that_is_not_there_are_said_in_words() {
    let cluster = shared(Form::Apart);
    let said = ask(&cluster, Kind::Proxy, &["trace", "00000000deadbeef"]).failed_with(1);
    holds(&said, &["00000000deadbeef"]);
    ask(&cluster, Kind::Proxy, &["trace", "nonsense"]).failed_with(2);
    let text = ask(&cluster, Kind::Proxy, &["trace", "--user", "nobody"]).ok();
    holds(&text, &["No open connection of node proxy-1 fits."]);
    let mut command = postern(cluster.directory.path());
    command.args(["actors", "--data-dir"]).arg(cluster.directory.path());
    let said = run(command, PATIENCE).failed_with(1);
    holds(&said, &["no node answers at", "debug.sock", "--node"]);
}
