//! Long campaigns, left out of `make test`: each says so in its `ignore`, and has a target of its own in the Makefile.

use crate::harness::cluster::{Node, ca_pin, ctl};
use crate::harness::configuration::{Join, database};
use crate::harness::wire::Ending;
use crate::harness::{Cluster, Form, Kind, NodeConfig, PATIENCE, Process, Stopwatch, TestDir, Wire, figure, until};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::Duration;

/// `CAMPAIGN_AGENTS`, or the number that the figures in docs/operating.md are of.
fn agents() -> usize {
    std::env::var("CAMPAIGN_AGENTS").map_or(300, |text| text.parse().expect("a number"))
}

/// CPU time of a process, of proc_pid_stat(5).
fn cpu(process: &Process) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = [fields[11], fields[12]]
        .iter()
        .map(|text| text.parse::<u64>().expect("ticks"))
        .sum();
    // USER_HZ is 100 on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}

/// Memory in use, of proc_pid_status(5), in MiB.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kib / 1024
}

/// The databases that the proxy has said it can reach, since byte `from` of its log.
fn served(proxy: &Process, from: usize) -> BTreeSet<String> {
    let text = proxy.log_text();
    let lines = text.get(from..).unwrap_or_default().lines();
    lines
        .filter(|line| line.contains("database served"))
        .filter_map(|line| {
            line.split("database=")
                .nth(1)?
                .split_whitespace()
                .next()
                .map(str::to_owned)
        })
        .collect()
}

fn at_rest(node: &Node, name: &str, agents: usize) {
    const WATCHED: Duration = Duration::from_secs(20);
    let before = cpu(node.process());
    std::thread::sleep(WATCHED);
    let used = cpu(node.process()) - before;
    figure(&format!(
        "{name} with {agents} agents at rest: {} MiB, {:.1} % of a core",
        memory(node.process()),
        used.as_secs_f64() / WATCHED.as_secs_f64() * 100.0
    ));
}

#[test]
#[ignore = "a long campaign with hundreds of processes: make campaign-agents"]
fn hundreds_of_agents_come_back_after_the_proxy_was_restarted() {
    let agents = agents();
    let directory = TestDir::new();
    let mut auth = Node::new(
        directory.path(),
        NodeConfig::new("auth-1", directory.join("auth")).with_auth(),
        None,
    );
    auth.start();
    let pin = ca_pin(&auth);
    let auth_port = auth.config.auth_port.expect("it listens");
    let config = NodeConfig::new("proxy-1", directory.join("proxy")).with_proxy();
    let mut proxy = Node::new(directory.path(), config.joining(Join::at_auth(auth_port, &pin)), None);
    proxy.start();
    figure(&format!("proxy without agents: {} MiB", memory(proxy.process())));
    let port = proxy.config.proxy_port.expect("it listens");
    let started = Stopwatch::start();
    let nodes: Vec<Node> = (0..agents)
        .map(|number| {
            let name: &'static str = Box::leak(format!("agent-{number}").into_boxed_str());
            let config = NodeConfig::new(name, directory.join(name))
                .with_databases(&database(&format!("db-{number}"), "localhost:5432", ""))
                .joining(Join::through_proxy(port, &pin));
            let mut node = Node::new(directory.path(), config, None);
            node.start();
            node
        })
        .collect();
    figure(&format!(
        "{agents} agents joined and up, one process each: {} s; {} MiB each",
        started.elapsed().as_secs(),
        nodes.iter().map(|node| memory(node.process())).sum::<u64>() / agents as u64
    ));
    until("all are listed", PATIENCE, || {
        let listed = ctl(&auth, &["get", "nodes"]).ok();
        (listed.matches("name: agent-").count() >= agents).then_some(())
    });
    at_rest(&proxy, "proxy", agents);
    at_rest(&auth, "auth", agents);

    proxy.kill9();
    let log = directory.join("proxy-1.log");
    let before = std::fs::read(&log).expect("its log").len();
    proxy.start();
    let back = Stopwatch::start();
    until("every agent is back", PATIENCE * 2, || {
        (served(proxy.process(), before).len() >= agents).then_some(())
    });
    figure(&format!(
        "proxy killed and started: all {agents} agents back after {} ms",
        back.elapsed().as_millis()
    ));
}

const STREAM: &str = "select repeat('x', 1000), generate_series(1, 100000000)";

/// What a session does while its agent is stopped.
const DOINGS: [Option<&str>; 3] = [
    None,
    Some("select pg_sleep(600)"),
    // Not in FROM: that would be written to a file before the first row is sent.
    Some(STREAM),
];

/// Stops the agent under open sessions of three kinds: shortly, which all of them outlive, and then for long, which ends all of
/// them with the reason.
fn an_agent_stops_under(sessions: usize, stopped_for: Duration) {
    // Less than the silence after which a proxy gives a tunnel up (`PEER_SILENT_AFTER`).
    const SHORTLY: Duration = Duration::from_secs(3);
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut open: Vec<Wire> = (0..sessions)
        .map(|_| Wire::connect(&client).expect("allowed"))
        .collect();
    let (proxy, agent) = (cluster.node(Kind::Proxy).process(), cluster.node(Kind::Agent).process());

    agent.send(Signal::SIGSTOP);
    std::thread::sleep(SHORTLY);
    agent.send(Signal::SIGCONT);
    for wire in &mut open {
        assert_eq!(wire.query("select 41 + 1").expect("it goes on"), ["42"]);
    }

    let at_rest = memory(proxy);
    let readers: Vec<_> = open
        .into_iter()
        .zip(DOINGS.into_iter().cycle())
        .map(|(mut wire, doing)| {
            std::thread::spawn(move || {
                if let Some(sql) = doing {
                    wire.begin_query(sql);
                }
                (doing, wire.ending(Duration::from_secs(120)))
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    let busy = memory(proxy);
    agent.send(Signal::SIGSTOP);
    let stopped = Stopwatch::start();
    let mut most = busy;
    while stopped.elapsed() < stopped_for {
        most = most.max(memory(proxy));
        std::thread::sleep(Duration::from_millis(200));
    }
    agent.send(Signal::SIGCONT);
    let mut within_a_row = 0;
    for reader in readers {
        match reader.join().expect("every client has an answer") {
            (_, Ending::Said(error)) => assert_eq!(
                (error.severity.as_str(), error.code.as_str()),
                ("FATAL", "08006"),
                "{error:?}"
            ),
            (doing, Ending::WithinAMessage) => {
                assert_eq!(doing, Some(STREAM), "only who is in the middle of a row cannot be told");
                within_a_row += 1;
            }
        }
    }
    let back = Stopwatch::start();
    until("a new session", PATIENCE, || Wire::connect(&client).ok());
    figure(&format!(
        "agent stopped for {} s under {sessions} sessions: the proxy had {at_rest} MiB at rest, {busy} MiB while they ran, {most} MiB at \
         most while the agent stood; {within_a_row} were closed within a row, all others read 08006; a new session {} ms after it went on",
        stopped_for.as_secs(),
        back.elapsed().as_millis()
    ));
    assert!(most < busy + 128, "{busy} MiB, then {most} MiB");
    // PostgreSQL itself notices that its client has gone when it has something to say: not while it sleeps.
    until(
        "nothing that speaks is left of the old sessions in PostgreSQL",
        PATIENCE,
        || {
            let left = "select count(*) from pg_stat_activity where usename = 'app' and query not like '%pg_sleep%'";
            (cluster.postgres.admin("app", left).trim() == "0").then_some(())
        },
    );
}

#[test]
fn an_agent_that_is_stopped_shortly_costs_nobody_a_session_and_for_long_all_read_why() {
    an_agent_stops_under(9, Duration::from_secs(12));
}

#[test]
#[ignore = "a campaign of two minutes: make campaign-stopped-agent"]
fn a_hundred_sessions_outlive_or_are_told_of_an_agent_that_is_stopped_for_a_minute() {
    an_agent_stops_under(100, Duration::from_secs(60));
}
