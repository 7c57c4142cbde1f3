//! A node that an administrator removes from the cluster.

use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Stopwatch, Wire, figure, until};

#[test]
fn a_removed_agent_loses_its_tunnel_at_once_and_does_not_come_back_with_its_certificate() {
    let mut cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    wire.query("select 1").expect("allowed");
    let listed = cluster.ctl(&["get", "nodes"]).ok();
    assert!(listed.contains("agent-1") && listed.contains("proxy-1"), "{listed}");

    let removed = Stopwatch::start();
    let said = cluster.ctl(&["rm", "node/agent-1"]).ok();
    assert!(said.contains("agent-1"), "{said}");
    let error = wire.ended_with(FIVE_SECONDS);
    figure(&format!("node removed to FATAL: {} ms", removed.elapsed().as_millis()));
    assert_eq!(error.code, "08006", "{error:?}");

    // It dials again and again, with a certificate that is still valid; it is turned away, and the audit log has it.
    let turned_away = |event: &serde_json::Value| event["peer_name"] == "agent-1";
    until("the agent is turned away", PATIENCE, || {
        let events = cluster.audit(&["--event", "peer.refused"]);
        events.iter().any(turned_away).then_some(())
    });
    let refused = Wire::connect(&client)
        .map(drop)
        .expect_err("nobody serves the database");
    assert_eq!(refused.code, "08001", "{refused:?}");
    let gone = cluster.ctl(&["get", "node/agent-1"]).failed_with(1);
    assert!(gone.contains("agent-1"), "{gone}");

    // With a token it may join again, as a new node.
    cluster.node_mut(Kind::Agent).kill9();
    let identity = cluster.node(Kind::Agent).config.data_dir.join("identity");
    std::fs::remove_dir_all(identity).expect("ours");
    cluster.node_mut(Kind::Agent).start();
    until("the agent serves again", PATIENCE, || Wire::connect(&client).ok());
}

#[test]
fn a_node_that_is_not_there_cannot_be_removed_and_neither_can_auth() {
    let cluster = crate::harness::shared(Form::Apart);
    let said = cluster.ctl(&["rm", "node/nobody"]).failed_with(1);
    assert!(said.contains("nobody") && said.contains("id"), "{said}");
    let said = cluster.ctl(&["rm", "node/auth-1"]).failed_with(1);
    assert!(said.contains("auth"), "{said}");
}
