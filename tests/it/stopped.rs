//! A node that is told to stop, with somebody connected.

use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Wire};
use nix::sys::signal::Signal;

/// What a client reads of a node that goes down, and what the audit log has of the session.
fn is_told(kind: Kind) {
    let mut cluster = Cluster::start(Form::Apart);
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    wire.query("select 1").expect("allowed");
    cluster.node(kind).process().send(Signal::SIGTERM);
    let error = wire.ended_with(FIVE_SECONDS);
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
    let name = cluster.node(kind).config.name;
    assert!(error.message.contains(name), "the node is named: {error:?}");
    assert_eq!(cluster.node_mut(kind).wait(PATIENCE), 0, "it ended in order");
    // The agent reaches auth through the proxy; what it has not shipped by then waits for the proxy to come back.
    cluster.node_mut(kind).start();
    cluster.audited("alice", "TDB01I", |_| true);
}

#[test]
fn a_proxy_that_stops_tells_its_clients_and_the_end_of_the_session_is_audited() {
    is_told(Kind::Proxy);
}

#[test]
fn an_agent_that_stops_tells_its_clients_and_the_end_of_the_session_is_audited() {
    is_told(Kind::Agent);
}
