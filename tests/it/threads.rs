//! Panics in the threads of a node that are no actors, and threads that are blocked, provoked by the feature `fault-points`.

use crate::fault_table::{debug, inject};
use crate::harness::cluster::{Node, Options, role};
use crate::harness::wire::dial;
use crate::harness::{Cluster, Form, Kind, PATIENCE, Wire, until};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A runtime counts as stuck after 10 s.
const BLOCKED_IS_SEEN: Duration = Duration::from_secs(60);
/// The end of a node that does not come to it by itself: 45 s after its grace, and the machine does other things, too.
const ENDED_BY_FORCE: Duration = Duration::from_secs(90);
const DIAG: &str = "  diag_addr: 127.0.0.1:0\n";
const NO_GRACE: &str = "  shutdown_grace: 0s\n";

fn cluster(process: &'static str) -> Cluster {
    let options = Options {
        process,
        ..Options::default()
    };
    Cluster::start_with(Form::Apart, options)
}

/// The answer of the diagnostic port; nothing where it closes without one.
fn probe(node: &Node, path: &str) -> String {
    let mut socket = dial(node.diag_port());
    let mut answer = String::new();
    let asked = write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    );
    drop(asked.and_then(|()| socket.read_to_string(&mut answer)));
    answer
}

/// Has the store read, whatever is answered.
fn list_tokens(auth: &Node) {
    if let Ok(mut socket) = UnixStream::connect(auth.config.data_dir.join("admin.sock")) {
        let asked = socket.write_all(b"GET /v1/tokens HTTP/1.1\r\nhost: auth\r\nconnection: close\r\n\r\n");
        drop(asked.and_then(|()| socket.read_to_end(&mut Vec::new())));
    }
}

#[test]
fn a_panic_in_a_thread_of_the_store_costs_what_it_had_in_hand_and_the_sixth_ends_auth_with_70() {
    let mut cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    inject(cluster.node(Kind::Auth), "store-writer", "handler", 1);
    // Whoever writes next, a heartbeat or this.
    until("one change fails or the log says that another did", PATIENCE, || {
        let refused = cluster.create(&role("shaken", "app")).code != 0;
        let log = cluster.node(Kind::Auth).process().log_text();
        (refused || log.contains("goes on with the next")).then_some(())
    });
    cluster.create(&role("calm", "app")).ok();
    assert_eq!(wire.query("select 'unharmed'"), Ok(vec!["unharmed".to_owned()]));

    inject(cluster.node(Kind::Auth), "store-reader", "start", 6);
    until("the reason is in the log", PATIENCE, || {
        list_tokens(cluster.node(Kind::Auth));
        let log = cluster.node(Kind::Auth).process().log_text();
        log.contains("the thread store-reader is exhausted: 6 failures within 10s")
            .then_some(())
    });
    assert_eq!(cluster.node_mut(Kind::Auth).wait(PATIENCE), 70);
    cluster.node_mut(Kind::Auth).start();
    let roles = cluster.ctl(&["get", "roles", "--format", "yaml"]).ok();
    assert!(roles.contains("calm"), "{roles}");
}

#[test]
fn a_panic_in_the_audit_spools_writer_ends_the_node_with_70_and_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    wire.query("select 'before the fault'").expect("allowed");
    // A new session was answered, so its beginning is on the agent's disk; auth may not have it yet.
    drop(Wire::connect(&client).expect("allowed"));
    inject(cluster.node(Kind::Agent), "audit-spool", "handler", 1);
    let said = wire
        .query("select 'into the fault'")
        .and_then(|_| wire.query("select 1"));
    let error = said.err().unwrap_or_else(|| wire.ended_with(PATIENCE));
    assert!(["57P01", "57P03"].contains(&error.code.as_str()), "{error:?}");
    assert_eq!(cluster.node_mut(Kind::Agent).wait(PATIENCE), 70);

    cluster.node_mut(Kind::Agent).start();
    let log = cluster.node(Kind::Agent).process().log_text();
    assert!(
        log.contains("the thread that writes the audit spool failed: panic at src/telemetry/fault.rs"),
        "{log}"
    );
    cluster.audited("alice", "TDB02I", |event| {
        event["db_query"] == "select 'before the fault'"
    });
    let begun = |event: &serde_json::Value| event["code"] == "TDB00I";
    until("both sessions were audited as begun", PATIENCE, || {
        let events = cluster.audit(&["--user", "alice"]);
        (events.iter().filter(|event| begun(event)).count() >= 2).then_some(())
    });
    until("the node serves again", PATIENCE, || Wire::connect(&client).ok());
}

#[test]
fn a_panic_in_the_thread_of_the_debug_socket_or_of_the_diagnostic_port_is_survived_and_said() {
    let cluster = cluster(DIAG);
    let node = cluster.node(Kind::Proxy);
    inject(node, "debug", "handler", 1);
    until("the log says that it begins again", PATIENCE, || {
        let log = node.process().log_text();
        log.contains("the debug thread failed; it begins again").then_some(())
    });
    until("the debug socket says that it began again", PATIENCE, || {
        let view = debug(node, "GET", "/v1/actors", "");
        let seats = view["actors"].as_array().expect("a list");
        let thread = seats.iter().find(|seat| seat["path"] == "debug").expect("itself");
        (thread["restarts"] == 1).then_some(())
    });
    inject(node, "diag", "handler", 1);
    until("the diagnostic port answers again", PATIENCE, || {
        let said = node.process().log_text().contains("the diagnostic port failed");
        (probe(node, "/healthz").starts_with("HTTP/1.1 200") && said).then_some(())
    });
}

#[test]
fn a_runtime_that_is_blocked_is_named_at_healthz_until_it_turns_again() {
    let cluster = cluster(DIAG);
    let node = cluster.node(Kind::Proxy);
    assert!(probe(node, "/healthz").starts_with("HTTP/1.1 200"));
    inject(node, "policy", "block", 30);
    until("the runtime is named", BLOCKED_IS_SEEN, || {
        let answer = probe(node, "/healthz");
        let named = answer.contains("the runtime control has not turned for");
        (answer.starts_with("HTTP/1.1 503") && named).then_some(())
    });
    until("it turns again", BLOCKED_IS_SEEN, || {
        probe(node, "/healthz").starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn a_node_whose_control_thread_is_blocked_ends_within_its_bound_and_says_why() {
    let mut cluster = cluster(NO_GRACE);
    inject(cluster.node(Kind::Agent), "policy", "block", 600);
    cluster.node(Kind::Agent).process().send(Signal::SIGTERM);
    let said = |text: &str| cluster.node(Kind::Agent).process().log_text().contains(text);
    until("it says why it ends", ENDED_BY_FORCE, || {
        said("the node did not end in time: the process ends now").then_some(())
    });
    let log = cluster.node(Kind::Agent).process().log_text();
    let named =
        |line: &str| line.contains("actor has not ended") && line.contains("policy") && line.contains("control");
    assert!(log.lines().any(named), "{log}");
    assert_eq!(cluster.node_mut(Kind::Agent).wait(PATIENCE), 1);
}
