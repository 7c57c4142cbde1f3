//! Panics inside the program, provoked by the feature `fault-points`.

use crate::fault_table::{debug, inject};
use crate::harness::cluster::{Options, role, user};
use crate::harness::{Cluster, Form, Kind, PATIENCE, Wire, until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The end of a node has at most 45 s.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_panic_in_one_connection_leaves_the_others_and_the_node_unharmed() {
    let options = Options {
        fault: Some("connection.authorise:panic:faulty"),
        ..Options::default()
    };
    let cluster = Cluster::start_with(Form::OneProcess, options);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    wire.query("create temporary table mine as select 42 as answer")
        .expect("it works");

    let psql = client.as_db_user("faulty").psql("select 1").failed_with(2);
    assert!(!psql.is_empty());
    let node = cluster.node(Kind::Proxy).process();
    assert!(
        node.log_text().contains("panic at src/telemetry/fault.rs")
            && !node.log_text().contains("connection.authorise"),
        "the panic is in the log, with its place and without what it quotes:\n{}",
        node.log_tail()
    );

    assert_eq!(
        wire.query("select answer from mine"),
        Ok(vec!["42".to_owned()]),
        "the other session did not notice"
    );
    client.psql("select 1").ok();
}

#[test]
fn a_panic_in_rbac_is_an_error_for_its_asker_and_the_next_ask_succeeds() {
    let options = Options {
        fault: Some("rbac.put:panic:boom"),
        ..Options::default()
    };
    let cluster = Cluster::start_with(Form::OneProcess, options);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");

    let refused = cluster.create(&role("boom", "app")).failed_with(1);
    assert!(refused.starts_with("postern: "), "{refused}");
    cluster
        .create(&(role("calm", "app") + "---\n" + &user("survivor", "calm", "")))
        .ok();
    cluster.client("survivor", "app", "app").psql("select 1").ok();
    assert_eq!(wire.query("select 'unharmed'"), Ok(vec!["unharmed".to_owned()]));
    assert!(cluster.ctl(&["get", "roles", "--format", "yaml"]).ok().contains("calm"));
}

#[test]
fn a_node_whose_actor_is_exhausted_ends_with_70_and_says_which_and_why() {
    let mut cluster = Cluster::start(Form::Apart);
    inject(cluster.node(Kind::Proxy), "policy", "start", 6);
    let log = || cluster.node(Kind::Proxy).process().log_text();
    until("the reason is in the log", PATIENCE, || {
        log()
            .contains("actor policy is exhausted: 6 failures within 10s")
            .then_some(())
    });
    assert_eq!(cluster.node_mut(Kind::Proxy).wait(PATIENCE), 70);
}

/// The actors of a node of one kind.
fn of_kind(cluster: &Cluster, node: Kind, kind: &str) -> Vec<Value> {
    let mut view = debug(cluster.node(node), "GET", "/v1/actors", "");
    let all = view["actors"].as_array_mut().expect("a list").drain(..);
    all.filter(|actor| actor["kind"] == kind).collect()
}

/// One session on each tunnel of the agent: an upstream lives on the runtime of its tunnel.
fn a_session_on_each_tunnel(cluster: &Cluster) -> Vec<Wire> {
    const TRIES: usize = 64;
    let tunnels = of_kind(cluster, Kind::Agent, "dialer").len();
    let client = cluster.client("alice", "app", "app");
    let mut sessions = BTreeMap::new();
    let mut known = Vec::new();
    for _ in 0..TRIES {
        let wire = Wire::connect(&client).expect("allowed");
        let upstreams = of_kind(cluster, Kind::Agent, "upstream");
        let new = upstreams.iter().find(|upstream| !known.contains(&upstream["path"]));
        let new = new.expect("it has one");
        known.push(new["path"].clone());
        sessions.entry(new["runtime"].to_string()).or_insert(wire);
        if sessions.len() == tunnels {
            return sessions.into_values().collect();
        }
    }
    panic!("not all of {tunnels} tunnels are used");
}

/// An actor that fails too often is its parent's failure: the parent is rebuilt and has one in its place, what the child carried is
/// lost, and what the other children carry is not.
fn exhausted(node: Kind, parent: &str, kind: &str) {
    let cluster = Cluster::start(Form::Apart);
    let up = |kind: &str| {
        let mut all = of_kind(&cluster, node, kind);
        all.retain(|actor| actor["state"] == "up");
        all
    };
    let tunnels = of_kind(&cluster, Kind::Agent, "dialer").len();
    until("every tunnel is up", PATIENCE, || {
        (up(kind).len() == tunnels).then_some(())
    });
    let mut sessions = a_session_on_each_tunnel(&cluster);
    let all = sessions.len();
    let child = up(kind)[0]["path"].as_str().expect("a path").to_owned();

    inject(cluster.node(node), &child, "start", 6);
    until("the parent is rebuilt and has another in its place", PATIENCE, || {
        let restarts = of_kind(&cluster, node, parent)[0]["restarts"].as_u64();
        (restarts == Some(1) && up(kind).len() == tunnels).then_some(())
    });
    let log = cluster.node(node).process().log_text();
    let name = child.rsplit('/').next().expect("a name");
    assert!(log.contains(&format!("child {name} is exhausted")), "{log}");

    let mut lost = Vec::new();
    sessions.retain_mut(|session| {
        let answer = catch_unwind(AssertUnwindSafe(|| session.query("select 'unharmed'")));
        match answer.expect("whoever is lost is told so") {
            Ok(_) => true,
            Err(error) => {
                lost.push(error.code);
                false
            }
        }
    });
    assert_eq!((sessions.len(), lost), (all - 1, vec!["08006".to_owned()]));
    let others = up(kind).iter().filter(|other| other["restarts"] != 0).count();
    assert_eq!(others, 0, "no other child was rebuilt");
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("new clients come in");
    assert_eq!(wire.query("select 1"), Ok(vec!["1".to_owned()]));
}

#[test]
fn a_dialer_that_is_exhausted_has_its_parent_rebuilt_which_dials_again() {
    exhausted(Kind::Agent, "dialers", "dialer");
}

#[test]
fn a_tunnel_that_is_exhausted_has_its_parent_rebuilt_and_the_agent_dials_again() {
    exhausted(Kind::Proxy, "tunnels", "tunnel");
}

#[test]
fn a_node_with_a_blocked_thread_ends_in_time_and_names_the_actor() {
    // Without a grace: somebody's connection may be on the blocked thread still, and would be waited for.
    let options = Options {
        process: "  shutdown_grace: 0s\n",
        ..Options::default()
    };
    let mut cluster = Cluster::start_with(Form::Apart, options);
    inject(cluster.node(Kind::Agent), "dialers/dialer#1", "block", 600);
    cluster.node(Kind::Agent).process().send(Signal::SIGTERM);
    until("the actor is named", ENDS_WITHIN, || {
        let log = cluster.node(Kind::Agent).process().log_text();
        let named = |line: &str| line.contains("did not end in time") && line.contains("dialer#1");
        log.lines().any(named).then_some(())
    });
    assert_eq!(cluster.node_mut(Kind::Agent).wait(ENDS_WITHIN), 0);
}
