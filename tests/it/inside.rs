//! Looking into a node that runs: `postern actors`, `actor`, `trace` and `debug`, at its debug socket.

use crate::harness::process::{Output, run};
use crate::harness::wait::until_ok;
use crate::harness::wire::dial;
use crate::harness::{Cluster, Form, Kind, PATIENCE, Process, Session, postern, shared};
use regex::Regex;
use serde_json::Value;
#[cfg(feature = "fault-points")]
use std::io::{Read as _, Write as _};
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
    let list = |flags: &[&str]| -> Vec<Value> {
        let json = ask(
            &cluster,
            Kind::Auth,
            &[&["actors", "--format=json"][..], flags].concat(),
        )
        .ok();
        let view: Value = serde_json::from_str(&json).expect("JSON");
        view["actors"].as_array().expect("a list").clone()
    };
    let of_kind = |flags: &[&str], kind: &str| {
        let actors = list(flags);
        assert!(actors.iter().all(|actor| actor["kind"] == kind), "{actors:?}");
        actors.len()
    };
    assert_eq!(of_kind(&["--kind", "ca"], "ca"), 1);
    assert_eq!(
        of_kind(&["--kind", "link", "--state", "up"], "link"),
        2,
        "proxy and agent"
    );
    assert_eq!(of_kind(&["--kind", "ca", "--state", "closing"], "ca"), 0);
    let ages = |flags: &[&str]| -> Vec<u64> {
        list(flags)
            .iter()
            .filter_map(|actor| actor["age_us"].as_u64())
            .collect()
    };
    let falls = |ages: &[u64]| ages.is_sorted_by(|one, next| one >= next);
    assert!(falls(&ages(&["--sort", "age"])) && !falls(&ages(&[])));
    let text = ask(&cluster, Kind::Auth, &["actor", "ca"]).ok();
    holds(&text, &["ca (permanent)", "mailbox", "Lately, oldest first:"]);
    let said = ask(&cluster, Kind::Auth, &["actor", "nobody"]).failed_with(1);
    holds(&said, &["no actor nobody lives in this node", "`postern actors`"]);
}

#[test]
fn the_log_level_of_a_node_is_changed_while_it_runs() {
    let cluster = shared(Form::Apart);
    let proxy = cluster.node(Kind::Proxy).process();
    // A connection that says nothing is worth a line of `debug`, with the address that it came from.
    let says_nothing = || {
        let socket = dial(cluster.proxy_port());
        socket.local_addr().expect("connected").to_string()
    };
    let before = ask(&cluster, Kind::Proxy, &["debug", "get-log-level"]).ok();
    let set = ask(&cluster, Kind::Proxy, &["debug", "set-log-level", "debug"]).ok();
    holds(&set, &["debug"]);
    let from = says_nothing();
    until_ok("the log has a line of this level", PATIENCE, || {
        let log = proxy.log_text();
        let is_it = |line: &str| line.contains("DEBUG") && line.contains("connection closed") && line.contains(&from);
        if log.lines().any(is_it) { Ok(()) } else { Err(log) }
    });
    ask(&cluster, Kind::Proxy, &["debug", "set-log-level", "nonsense=nonsense"]).failed_with(1);
    let again = ask(&cluster, Kind::Proxy, &["debug", "set-log-level", before.trim()]).ok();
    assert_eq!(again, before);
    let from = says_nothing();
    // It is handled when the port has answered somebody who came later.
    cluster.client("alice", "app", "app").psql("select 1").ok();
    assert!(!proxy.log_text().contains(&from), "and none any more");
}

#[test]
fn who_watches_the_actors_of_a_node_is_shown_them_again_each_second() {
    let cluster = shared(Form::Apart);
    let mut command = postern(cluster.directory.path());
    command
        .args(["actors", "--watch", "--kind", "tunnels", "--data-dir"])
        .arg(&cluster.node(Kind::Proxy).config.data_dir);
    let log = cluster.directory.join("watch.log");
    let mut watching = Process::start("watch", command, log);
    until_ok("a third look", PATIENCE, || {
        let text = watching.log_text();
        let looks = text.matches("Node proxy-1 (").count();
        if looks >= 3 { Ok(()) } else { Err(text) }
    });
    assert_eq!(watching.exit_code(), None, "until it is told to end");
    let text = watching.log_text();
    assert!(!text.contains("\u{1b}"), "a file is no terminal: {text:?}");
    assert!(text.matches("\ntunnels ").count() >= 2, "{text}");
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

/// Does something to an actor of the node, at its debug socket.
#[cfg(feature = "fault-points")]
fn inject(cluster: &Cluster, kind: Kind, fault: &Value) {
    let socket = cluster.node(kind).config.data_dir.join("debug.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a socket");
    let body = fault.to_string();
    write!(
        stream,
        "POST /v1/fault HTTP/1.1\r\nhost: postern\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("taken");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("an answer");
    assert!(first.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&first));
}

#[cfg(feature = "fault-points")]
#[test]
fn an_actor_whose_thread_is_blocked_is_shown_with_its_message_in_hand() {
    let cluster = Cluster::start(Form::Apart);
    inject(
        &cluster,
        Kind::Auth,
        &serde_json::json!({"actor": "tokens", "how": "block", "seconds": 20}),
    );
    // The control runtime does nothing else; the debug socket answers.
    let mut said = String::new();
    until_ok("the blocked actor is named", PATIENCE, || {
        said = ask(&cluster, Kind::Auth, &["actors"]).ok();
        let is_told = said.contains("STUCK  tokens has had Injected in hand for ");
        if is_told { Ok(()) } else { Err(said.clone()) }
    });
    holds(&said, &["is blocked", "[handler_slow]", "next: postern actor tokens"]);
    let one = ask(&cluster, Kind::Auth, &["actor", "tokens"]).ok();
    let in_hand = one.lines().find(|line| line.trim_start().starts_with("in hand"));
    assert!(in_hand.is_some_and(|line| line.contains(" since ")), "{one}");
}

/// The id of the one connection of a person, as the proxy lists it.
fn connection_of(cluster: &Cluster, person: &str) -> String {
    let mut id = String::new();
    until_ok("the connection is traced", PATIENCE, || {
        let json = ask(cluster, Kind::Proxy, &["trace", "--user", person, "--format=json"]).ok();
        let trace: Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        id = trace["connection"]
            .as_str()
            .ok_or_else(|| trace.to_string())?
            .to_owned();
        Ok(())
    });
    id
}

/// Where in the text each of these begins; each of them behind the one before it.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{part:?} is not behind the others in: {text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_connection_is_one_tree_through_proxy_and_agent_until_it_has_ended_and_after() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    let id = connection_of(&cluster, "alice");
    let mut text = String::new();
    until_ok("it is idle", PATIENCE, || {
        text = ask(&cluster, Kind::Proxy, &["trace", "--user", "alice"]).ok();
        let is_idle = text.matches("idle for ").count() == 2;
        if is_idle { Ok(()) } else { Err(text.clone()) }
    });
    in_order(
        &text,
        &[
            &format!("Connection {id}: alice as app to "),
            "from 127.0.0.1:",
            "of PostgreSQL at localhost:",
            "Where it is now",
            "proxy  proxy-1  idle for ",
            "agent  agent-1  idle for ",
            "What happened",
            "+0.0ms  proxy-1",
            "began: running",
            "greeting",
            "relaying at +",
            "OpenRelay -> agent agent-1: answered after ",
            "OpenRelay arrived at ",
            "GetUpstreamClient -> agent",
        ],
    );
    let idle = ask(&cluster, Kind::Proxy, &["trace", "--user", "alice", "--state", "idle"]).ok();
    holds(&idle, &[&format!("Connection {id}: ")]);
    let busy = ask(&cluster, Kind::Proxy, &["trace", "--user", "alice", "--state", "busy"]).ok();
    holds(&busy, &["No open connection of node proxy-1 fits."]);
    assert!(!text.contains("STUCK"), "{text}");
    assert!(text.lines().count() < 40, "more than a screen: {text}");
    let narrow = {
        let mut command = postern(cluster.directory.path());
        command
            .args(["actors", "--data-dir"])
            .arg(&cluster.node(Kind::Proxy).config.data_dir)
            .env("COLUMNS", "80");
        run(command, PATIENCE).ok()
    };
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");

    let file = cluster.directory.join("trace.json");
    let name = file.display().to_string();
    ask(&cluster, Kind::Proxy, &["trace", &id, "--save", &name]).ok();
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let again = ask(&cluster, Kind::Proxy, &["trace", &id, "--save", &name]).failed_with(1);
    holds(&again, &["name a file that is not there yet"]);
    let mut show = postern(cluster.directory.path());
    show.args(["trace", "show", &name]);
    let shown = run(show, PATIENCE).ok();
    let happened = |text: &str| text.split("What happened").nth(1).map(str::to_owned);
    assert_eq!(happened(&shown), happened(&text));

    let mut follow = postern(cluster.directory.path());
    follow
        .args(["trace", &id, "--follow", "--data-dir"])
        .arg(&cluster.node(Kind::Proxy).config.data_dir);
    let followed = std::thread::spawn(move || run(follow, PATIENCE));
    drop(psql);
    let followed = followed.join().expect("it ended").ok();
    holds(&followed, &["The connection has ended at "]);
    assert_eq!(followed.matches("What happened").count(), 1, "{followed}");

    let ended = ask(&cluster, Kind::Proxy, &["trace", &id]).ok();
    in_order(
        &ended,
        &[
            "alice as app to ",
            "How it ended",
            "proxy  proxy-1",
            "What happened",
            " began",
        ],
    );
    let listed = ask(&cluster, Kind::Proxy, &["trace", "--user", "alice", "--db", "app"]).ok();
    holds(
        &listed,
        &[
            "No open connection",
            "Ended lately",
            "alice",
            &format!("postern trace {id}"),
        ],
    );
    let nobodys = ask(&cluster, Kind::Proxy, &["trace", "--user", "nobody"]).ok();
    holds(&nobodys, &["None that ended lately does, either."]);
}

#[test]
fn an_agent_whose_clock_is_an_hour_off_changes_nothing_in_the_order_of_a_trace() {
    let mut cluster = Cluster::start(Form::Apart);
    let agent = cluster.node_mut(Kind::Agent);
    if !agent.put_clock_off("+1h") {
        return;
    }
    agent.kill9();
    agent.start();
    let ttl = ["--db-service=orders", "--ttl=8h"];
    let client = cluster.signed_client(&ttl, "alice", "app", "app");
    let mut psql = until_ok("the agent serves again", PATIENCE, || {
        let tried = client.psql("select 1");
        match tried.code {
            0 => Ok(Session::open(&client)),
            _ => Err(tried.stderr),
        }
    });
    psql.ask("select 'con' || 'nected';", "connected");
    let text = ask(&cluster, Kind::Proxy, &["trace", "--user", "alice"]).ok();
    in_order(
        &text,
        &[
            "+0.0ms  proxy-1",
            "OpenRelay -> agent agent-1: answered after ",
            "agent-1      OpenRelay arrived at ",
            "agent-1        GetUpstreamClient -> agent",
            "proxy-1    ClientKey -> cancels",
        ],
    );
    let hour = Regex::new(r"\+\d{3,}s|\d+h|59m|60m|-\d+\.\dms").expect("a pattern");
    let tree = text.split("What happened").nth(1).expect("the tree");
    assert!(!hour.is_match(tree), "no step is an hour away: {text}");
    let json = ask(&cluster, Kind::Proxy, &["trace", "--user", "alice", "--format=json"]).ok();
    let trace: Value = serde_json::from_str(&json).expect("JSON");
    let at = |part: usize| trace["parts"][part]["at"].as_str().expect("a time").to_owned();
    assert_ne!(at(0)[..13], at(1)[..13], "the agent's clock shows another hour: {json}");
}
