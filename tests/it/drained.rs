//! A node that is told to stop, and finishes what is open first.

use crate::harness::cluster::Options;
use crate::harness::wait::until_ok;
use crate::harness::wire::dial;
use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, ServerError, Stopwatch, Wire, until};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A cluster whose nodes have these lines about the process.
fn cluster(form: Form, process: &'static str) -> Cluster {
    let options = Options {
        process,
        ..Options::default()
    };
    Cluster::start_with(form, options)
}

/// Status and body of an answer of the diagnostic port.
pub fn probe(cluster: &Cluster, kind: Kind, path: &str) -> (u16, String) {
    let mut socket = dial(cluster.node(kind).diag_port());
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .expect("it listens");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

fn is_draining(cluster: &Cluster, kind: Kind) {
    until("/readyz says that the node drains", PATIENCE, || {
        (probe(cluster, kind, "/readyz") == (503, r#"{"status":"draining"}"#.to_owned())).then_some(())
    });
}

fn is_told_why(error: &ServerError, name: &str) {
    assert_eq!(
        (error.severity.as_str(), error.code.as_str()),
        ("FATAL", "57P01"),
        "{error:?}"
    );
    assert!(
        error.message.contains(name) && error.hint.contains("connect again"),
        "{error:?}"
    );
}

/// A drain of one node: who is idle ends at once, an open transaction is finished, nobody new comes in, and the node ends by
/// itself when the last one is done.
fn finishes_what_is_open(form: Form, kind: Kind) {
    let mut cluster = cluster(form, "  diag_addr: 127.0.0.1:0\n");
    let client = cluster.client("alice", "app", "app");
    let mut idle = Wire::connect(&client).expect("allowed");
    idle.query("select 1").expect("allowed");
    let mut busy = Wire::connect(&client).expect("allowed");
    busy.query("begin").expect("allowed");
    busy.query("insert into orders values (4, 'map')").expect("allowed");
    assert_eq!(
        probe(&cluster, kind, "/readyz"),
        (200, r#"{"status":"ready"}"#.to_owned())
    );
    let name = cluster.node(kind).config.name;

    cluster.node(kind).process().send(Signal::SIGQUIT);
    is_told_why(&idle.ended_with(FIVE_SECONDS), name);
    is_draining(&cluster, kind);
    assert_eq!(probe(&cluster, kind, "/healthz").0, 200);
    if kind == Kind::Agent && form == Form::Apart {
        let refused = until("a new session is refused", PATIENCE, || Wire::connect(&client).err());
        assert_eq!(refused.code, "08001", "{refused:?}");
        assert!(refused.message.contains("going down"), "{refused:?}");
    } else {
        until("the port is closed", PATIENCE, || {
            TcpStream::connect(("127.0.0.1", cluster.proxy_port())).err()
        });
    }

    assert_eq!(busy.query("select count(*) from orders").expect("it goes on"), ["4"]);
    busy.query("commit").expect("it is finished");
    is_told_why(&busy.ended_with(FIVE_SECONDS), name);
    assert_eq!(cluster.node_mut(kind).wait(PATIENCE), 0, "it ended in order");
    let rows = cluster.postgres.admin("app", "select count(*) from orders");
    assert!(rows.contains('4'), "the transaction is there: {rows}");
}

#[test]
fn one_process_that_drains_finishes_open_transactions_and_takes_nobody_new() {
    finishes_what_is_open(Form::OneProcess, Kind::Proxy);
}

#[test]
fn a_proxy_that_drains_finishes_open_transactions_and_takes_nobody_new() {
    finishes_what_is_open(Form::Apart, Kind::Proxy);
}

#[test]
fn an_agent_that_drains_finishes_open_transactions_and_says_that_it_is_going_down() {
    finishes_what_is_open(Form::Apart, Kind::Agent);
}

/// As libpq does it: a Sync goes out with the Execute, and PostgreSQL ignores it, as it takes data by then.
#[test]
fn a_session_that_copied_by_the_extended_protocol_is_idle_afterwards_and_not_before() {
    let mut cluster = cluster(Form::Apart, "  diag_addr: 127.0.0.1:0\n");
    let client = cluster.client("alice", "app", "app");
    let begin = |wire: &mut Wire| {
        wire.send(&[
            (b'P', b"\0copy orders from stdin\0\0\0"),
            (b'B', b"\0\0\0\0\0\0\0\0"),
            (b'E', b"\0\0\0\0\0"),
            (b'S', b""),
        ]);
        wire.hears(b'G');
    };
    let (mut done, mut busy) = (
        Wire::connect(&client).expect("allowed"),
        Wire::connect(&client).expect("allowed"),
    );
    begin(&mut done);
    done.send(&[(b'd', b"5\tlamp\n"), (b'c', b""), (b'S', b"")]);
    done.hears(b'Z');
    begin(&mut busy);

    cluster.node(Kind::Proxy).process().send(Signal::SIGQUIT);
    is_told_why(&done.ended_with(FIVE_SECONDS), "proxy-1");
    is_draining(&cluster, Kind::Proxy);
    busy.send(&[(b'd', b"6\tchain\n"), (b'c', b""), (b'S', b"")]);
    busy.hears(b'Z');
    is_told_why(&busy.ended_with(FIVE_SECONDS), "proxy-1");
    assert_eq!(cluster.node_mut(Kind::Proxy).wait(PATIENCE), 0, "it ended in order");
    assert_eq!(cluster.postgres.admin("app", "select count(*) from orders").trim(), "5");
}

#[test]
fn a_long_query_is_cut_when_the_grace_is_over() {
    let mut cluster = cluster(Form::OneProcess, "  shutdown_grace: 1s\n");
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    wire.begin_query("select pg_sleep(60)");
    cluster.postgres.wait_until_runs("app", "pg_sleep");
    cluster.node(Kind::Proxy).process().send(Signal::SIGTERM);
    is_told_why(&wire.ended_with(FIVE_SECONDS), "one");
    assert_eq!(cluster.node_mut(Kind::Proxy).wait(PATIENCE), 0, "it ended in order");
}

#[test]
fn a_second_signal_leaves_a_drain_without_hurry_the_grace() {
    let mut cluster = cluster(Form::OneProcess, "  shutdown_grace: 1s\n  diag_addr: 127.0.0.1:0\n");
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    wire.query("begin").expect("allowed");
    cluster.node(Kind::Proxy).process().send(Signal::SIGQUIT);
    is_draining(&cluster, Kind::Proxy);
    let since = Stopwatch::start();
    cluster.node(Kind::Proxy).process().send(Signal::SIGQUIT);
    is_told_why(&wire.ended_with(FIVE_SECONDS), "one");
    assert!(since.elapsed() >= Duration::from_millis(900), "it had its second");
    assert_eq!(cluster.node_mut(Kind::Proxy).wait(PATIENCE), 0, "it ended in order");
}

#[test]
fn a_second_signal_ends_the_sessions_that_are_left_at_once() {
    let mut cluster = cluster(Form::OneProcess, "  shutdown_grace: 1h\n  diag_addr: 127.0.0.1:0\n");
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    wire.query("begin").expect("allowed");
    cluster.node(Kind::Proxy).process().send(Signal::SIGTERM);
    is_draining(&cluster, Kind::Proxy);
    cluster.node(Kind::Proxy).process().send(Signal::SIGTERM);
    is_told_why(&wire.ended_with(FIVE_SECONDS), "one");
    assert_eq!(cluster.node_mut(Kind::Proxy).wait(PATIENCE), 0, "it ended in order");
}

#[test]
fn a_node_without_auth_is_ready_for_as_long_as_it_lets_people_in_and_says_so_when_it_does_not() {
    let options = Options {
        process: "  diag_addr: 127.0.0.1:0\n",
        auth: "  policy_max_age: 12s\n",
        ..Options::default()
    };
    let mut cluster = Cluster::start_with(Form::Apart, options);
    let client = cluster.client("alice", "app", "app");
    drop(Wire::connect(&client).expect("allowed"));
    cluster.node_mut(Kind::Auth).kill9();
    let away = Stopwatch::start();
    for kind in [Kind::Proxy, Kind::Agent] {
        until("/readyz says that auth is away", PATIENCE, || {
            match probe(&cluster, kind, "/readyz") {
                (503, said) if said == r#"{"status":"no connection to auth"}"# => Some(()),
                (200, _) => None,
                other => panic!("{other:?}"),
            }
        });
        // Its last word was a second before its end at most, and what it said is good for twelve.
        assert!(
            away.elapsed() > Duration::from_secs(10),
            "{kind:?} was ready for too short"
        );
        assert_eq!(probe(&cluster, kind, "/healthz").0, 200);
    }
    let refused = until("nobody is let in any more", PATIENCE, || Wire::connect(&client).err());
    assert_eq!(refused.code, "57P03", "{refused:?}");
}

#[test]
fn a_configuration_that_is_read_again_is_checked_and_what_needs_a_restart_is_named() {
    let cluster = cluster(Form::OneProcess, "  shutdown_grace: 30s\n");
    let node = cluster.node(Kind::Proxy);
    let says = |text: &str| {
        until_ok(&format!("the log says {text:?}"), PATIENCE, || {
            let log = node.process().log_text();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    };
    let file = cluster.directory.join("one.yaml");
    let text = std::fs::read_to_string(&file).expect("ours");
    std::fs::write(&file, format!("{text}nonsense: yes\n")).expect("ours");
    node.process().send(Signal::SIGHUP);
    says("the node goes on as it is");
    says(&format!("one.yaml:{}:", text.lines().count() + 1));

    std::fs::write(&file, text.replace("shutdown_grace: 30s", "shutdown_grace: 20s")).expect("ours");
    node.process().send(Signal::SIGHUP);
    says("needs a restart");
    says("shutdown_grace");
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("the node goes on");
    assert_eq!(wire.query("select 1").expect("allowed"), ["1"]);
}
