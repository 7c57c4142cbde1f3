//! Panics inside the program, provoked by the feature `fault-points`.

use crate::fault_table::inject;
use crate::harness::cluster::{Options, role, user};
use crate::harness::{Cluster, Form, Kind, PATIENCE, Wire, until};
use nix::sys::signal::Signal;
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
