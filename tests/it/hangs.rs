//! A connection hangs, for five different reasons: one command says in which room, because of whom, and what to do next. These
//! are the cases of docs/operating.md, "A connection hangs: what to type".

use crate::drained::probe;
use crate::harness::cluster::Options;
use crate::harness::process::{Output, run};
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, Form, Kind, PATIENCE, Session, Wire, postern, until};
use nix::sys::signal::Signal;
use std::time::Duration;

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

/// Asks until the answer holds all of these.
#[track_caller]
fn says(cluster: &Cluster, kind: Kind, words: &[&str], within: Duration, parts: &[&str]) -> String {
    let mut said = String::new();
    until_ok("the command says what is wrong", within, || {
        said = ask(cluster, kind, words).ok();
        match parts.iter().find(|part| !said.contains(**part)) {
            None => Ok(()),
            Some(part) => Err(format!("{part:?} is not in: {said}")),
        }
    });
    said
}

/// With metrics.
fn cluster() -> Cluster {
    let options = Options {
        process: "  diag_addr: 127.0.0.1:0\n",
        ..Options::default()
    };
    Cluster::start_with(Form::Apart, options)
}

/// What is stuck is a line in the log, once, and counted by its rule.
#[track_caller]
fn is_in_the_log_and_the_metrics(cluster: &Cluster, kind: Kind, rule: &str, sentence: &str) {
    let (line, rule) = (format!("stuck: {sentence}"), format!("rule=\"{rule}\""));
    until_ok("it is counted and logged", SOON, || {
        let (counted, log) = (
            found(cluster, kind, "total", &rule),
            cluster.node(kind).process().log_text(),
        );
        let lines: Vec<&str> = log.lines().filter(|other| other.contains(&line)).collect();
        match lines.as_slice() {
            [one] if counted >= 1.0 => {
                assert!(one.contains(&rule) && one.contains("next="), "{one}");
                Ok(())
            }
            [] | [_] => Err(format!("{counted} {log}")),
            _ => panic!("it is said once: {log}"),
        }
    });
}

/// A metric of what is stuck: `open`, or `total`; `rule` as a label.
fn found(cluster: &Cluster, kind: Kind, which: &str, rule: &str) -> f64 {
    let (_, metrics) = probe(cluster, kind, "/metrics");
    let name = format!("postern_stuck_findings_{which}{{{rule}}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.and_then(|value| value.parse().ok()).expect("it is counted")
}

/// Long enough for what is stuck to count as stuck, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(30);
/// The agent looks at PostgreSQL each 30 s, and waits 5 s for it.
const AFTER_A_LOOK: Duration = Duration::from_secs(60);

#[test]
fn a_query_whose_postgresql_has_stopped_is_said_to_wait_for_it() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    cluster.postgres.freeze();
    psql.say("select count(*) from orders;");
    let port = cluster.postgres.port;
    // Until the agent has looked, its finding says that it may be a query; from then on that it is not.
    let [silent, looks, next] = [
        format!("\nSTUCK  PostgreSQL at localhost:{port} has sent nothing for "),
        format!("), and the agent's own looks at it fail, too: no answer from localhost:{port} within 5s\n"),
        format!(
            "\n       next: on the agent's machine: pg_isready -h localhost -p {port}. If that has no answer, on the machine of \
             localhost:{port}: systemctl status postgresql, ps -C postgres -o pid,stat,wchan,args"
        ),
    ];
    let whose = " s to the query of alice (orders, process ";
    let parts = [&*silent, whose, &looks, &next, "\n  agent  agent-1  "];
    let trace = ["trace", "--user", "alice"];
    says(&cluster, Kind::Proxy, &trace, AFTER_A_LOOK, &parts);
    cluster.postgres.thaw();
    psql.hears("3", SOON);
}

#[test]
fn a_connection_that_hangs_while_it_connects_is_found_by_its_person_and_its_database() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    cluster.postgres.freeze();
    let mut psql = Session::open(&client);
    psql.say("select 'con' || 'nected';");
    let server = format!("PostgreSQL at localhost:{}", cluster.postgres.port);
    let stuck = format!("for the answer of {server} to SSLRequest; it gives up in");
    let parts = [
        ": alice as app to orders (database app)\n",
        ": there is no session yet\n",
        "\nSTUCK  agent/upstream#",
        &*stuck,
        "\nSTUCK  listener/connection#",
        "for the answer of agent agent-1 to OpenRelay; it gives up in",
    ];
    says(&cluster, Kind::Proxy, &["trace", "--user", "alice"], SOON, &parts);
    says(&cluster, Kind::Proxy, &["trace", "--db", "orders"], SOON, &parts);
    let of_agent = [
        &parts[..4],
        &["not shown: the part of proxy proxy-1, as this was asked at the agent"][..],
    ]
    .concat();
    says(&cluster, Kind::Agent, &["trace", "--user", "alice"], SOON, &of_agent);
    cluster.postgres.thaw();
    psql.hears("connected", SOON);
}

#[test]
fn a_query_whose_agent_has_stopped_is_said_to_wait_for_it() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    cluster.node(Kind::Agent).process().send(Signal::SIGSTOP);
    psql.say("select count(*) from orders;");
    let parts = [
        "STUCK",
        "agent agent-1 has sent nothing for",
        "the connection to it is given up after 7",
        "postern actors",
        "on the machine of agent agent-1",
        "did not answer within 2s",
    ];
    says(&cluster, Kind::Proxy, &["trace", "--user", "alice"], SOON, &parts);
    cluster.node(Kind::Agent).process().send(Signal::SIGCONT);
}

#[test]
fn what_waits_for_a_locked_store_is_said_to_wait_for_it() {
    let cluster = cluster();
    let file = cluster.node(Kind::Auth).config.data_dir.join("backend/state.sqlite");
    let other = rusqlite::Connection::open(&file).expect("the store");
    other.execute_batch("begin immediate").expect("nobody writes");
    let home = cluster.directory.path().to_owned();
    let mut command = postern(&home);
    command
        .args(["ctl", "tokens", "add", "--type=db", "--data-dir"])
        .arg(&cluster.node(Kind::Auth).config.data_dir);
    let waiting = std::thread::spawn(move || run(command, PATIENCE));
    let parts = [
        "\nSTUCK  store-writer has had ",
        " in hand for ",
        " [store_slow]\n       where: store-writer, because of the disk\n       next: does another program hold the store (fuser -v ",
    ];
    says(&cluster, Kind::Auth, &["actors"], SOON, &parts);
    is_in_the_log_and_the_metrics(&cluster, Kind::Auth, "store_slow", "store-writer has had ");
    until("auth says that it is not ready", SOON, || {
        let (status, said) = probe(&cluster, Kind::Auth, "/readyz");
        (status == 503 && said.contains("the store ")).then_some(())
    });
    other.execute_batch("rollback").expect("given back");
    until("auth is ready again", SOON, || {
        (probe(&cluster, Kind::Auth, "/readyz").0 == 200).then_some(())
    });
    drop(waiting.join().expect("it ended"));
}

#[test]
fn a_client_that_stops_reading_is_said_to_be_the_one_who_is_waited_for() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    wire.begin_query("select repeat('x', 1000) from generate_series(1, 1000000)");
    let address = wire.local_address();
    let parts = [
        &*format!("\nSTUCK  client {address} has taken nothing more of its result for "),
        " s: it reads slowly, or not at all; alice (orders, process ",
        &*format!(
            "\n       next: look at alice's program at {address}: it reads slowly, or not at all (a pager, a breakpoint)"
        ),
    ];
    says(&cluster, Kind::Proxy, &["trace", "--user", "alice"], SOON, &parts);
}

#[cfg(feature = "fault-points")]
#[test]
fn an_actor_whose_mailbox_is_full_is_named_with_its_bound() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let cluster = cluster();
    let data_dir = &cluster.node(Kind::Auth).config.data_dir;
    let hold = r#"{"actor":"tokens","how":"hold","seconds":60}"#;
    let request = |verb: &str, path: &str, body: &str| {
        format!(
            "{verb} {path} HTTP/1.1\r\nhost: postern\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let ask_at = |socket: &str, request: String| {
        let mut stream = UnixStream::connect(data_dir.join(socket)).expect("a socket");
        stream.write_all(request.as_bytes()).expect("taken");
        stream
    };
    let mut held = ask_at("debug.sock", request("POST", "/v1/fault", hold));
    let mut first = [0; 12];
    held.read_exact(&mut first).expect("an answer");
    assert!(first.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&first));
    let _askers: Vec<_> = (0..64)
        .map(|_| ask_at("admin.sock", request("GET", "/v1/tokens", "")))
        .collect();
    let parts = [
        "\nSTUCK  the mailbox of tokens has been full",
        " (64 of 64): ",
        " [mailbox_full]\n       where: tokens\n       next: postern actor tokens\n",
    ];
    says(&cluster, Kind::Auth, &["actors"], SOON, &parts);
    is_in_the_log_and_the_metrics(
        &cluster,
        Kind::Auth,
        "mailbox_full",
        "the mailbox of tokens has been full",
    );
    let open = found(&cluster, Kind::Auth, "open", "rule=\"mailbox_full\"");
    assert!(open >= 1.0, "it lasts");
}
