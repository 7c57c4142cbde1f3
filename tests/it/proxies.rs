//! Several proxies, and several agents of one database: who is found, and what is lost when one of them is.

use crate::harness::cluster::Node;
use crate::harness::configuration::{Join, SERVICE, database, usual_database};
use crate::harness::wait::until_ok;
use crate::harness::{
    Client, Cluster, FIVE_SECONDS, Form, Kind, NodeConfig, PATIENCE, Stopwatch, TestDir, Wire, figure, until,
};
use nix::sys::signal::Signal;

/// The cluster's other nodes; their files are removed with them.
pub struct More {
    directory: TestDir,
    nodes: Vec<Node>,
}

impl More {
    pub fn new() -> Self {
        Self {
            directory: TestDir::new(),
            nodes: Vec::new(),
        }
    }

    #[track_caller]
    fn start(&mut self, config: NodeConfig) -> usize {
        let mut node = Node::new(self.directory.path(), config, None);
        node.start();
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    #[track_caller]
    pub fn proxy(&mut self, cluster: &Cluster, name: &'static str) -> usize {
        self.proxy_with(cluster, name, "")
    }

    /// With more lines of `proxy_service`.
    #[track_caller]
    pub fn proxy_with(&mut self, cluster: &Cluster, name: &'static str, lines: &str) -> usize {
        let auth_port = cluster.node(Kind::Auth).config.auth_port.expect("it listens");
        let mut config = NodeConfig::new(name, self.directory.join(name)).with_proxy();
        config.proxy = lines.to_owned();
        self.start(config.joining(Join::at_auth(auth_port, &cluster.ca_pin())))
    }

    #[track_caller]
    fn agent(&mut self, cluster: &Cluster, name: &'static str, databases: &str) -> usize {
        let config = NodeConfig::new(name, self.directory.join(name)).with_databases(databases);
        self.start(config.joining(Join::through_proxy(cluster.proxy_port(), &cluster.ca_pin())))
    }

    pub fn port(&self, proxy: usize) -> u16 {
        self.nodes[proxy].config.proxy_port.expect("it listens")
    }
}

#[track_caller]
pub fn connects(what: &str, client: &Client) -> Wire {
    until_ok(what, PATIENCE, || {
        Wire::connect(client).map_err(|error| format!("{error:?}"))
    })
}

pub fn at(client: &Client, port: u16) -> Client {
    Client { port, ..client.clone() }
}

#[test]
fn an_agent_dials_every_proxy_that_the_cluster_lists_and_again_when_one_is_back() {
    let cluster = Cluster::start(Form::Apart);
    let mut more = More::new();
    let second = more.proxy(&cluster, "proxy-2");
    let client = cluster.client("alice", "app", "app");
    let there = at(&client, more.port(second));
    let mut through_first = Wire::connect(&client).expect("allowed");
    drop(connects("the agent has found the second proxy", &there));

    more.nodes[second].kill9();
    more.nodes[second].start();
    let back = Stopwatch::start();
    drop(connects("the agent is back at the second proxy", &there));
    let took = back.elapsed();
    figure(&format!(
        "proxy restarted to its agent's tunnel: {} ms",
        took.as_millis()
    ));
    assert!(took < FIVE_SECONDS, "{took:?}");
    through_first
        .query("select 1")
        .expect("the other proxy's sessions live");
}

#[test]
fn an_agent_whose_own_proxy_is_away_reaches_auth_through_another() {
    let mut cluster = Cluster::start(Form::Apart);
    let mut more = More::new();
    let second = more.proxy(&cluster, "proxy-2");
    let client = cluster.client("alice", "app", "app");
    let there = at(&client, more.port(second));
    drop(connects("the agent has found the second proxy", &there));

    cluster.node_mut(Kind::Proxy).kill9();
    // A database user for whom the agent has no certificate yet: auth has to sign one.
    let another = there.as_db_user("loader");
    drop(connects("auth signs for the agent", &another));
    let listed = until("the proxy that was killed leaves the list", PATIENCE, || {
        let listed = cluster.ctl(&["get", "nodes"]).ok();
        (!listed.contains("proxy-1")).then_some(listed)
    });
    assert!(listed.contains("agent-1") && listed.contains("proxy-2"), "{listed}");
}

#[test]
fn of_two_agents_either_may_be_killed_while_connections_are_made_and_none_fails() {
    const CONNECTIONS: usize = 2000;
    let mut cluster = Cluster::start(Form::Apart);
    let mut more = More::new();
    let second = more.agent(&cluster, "agent-2", &usual_database(&cluster.postgres));
    let client = cluster.client("alice", "app", "app");
    let mut failed = Vec::new();
    for number in 0..CONNECTIONS {
        match number {
            500 => cluster.node_mut(Kind::Agent).kill9(),
            1000 => {
                let killed = Stopwatch::start();
                cluster.node_mut(Kind::Agent).start();
                more.nodes[second].kill9();
                let gone = until("the agent that was killed leaves the list", PATIENCE, || {
                    let listed = cluster.ctl(&["get", "nodes"]).ok();
                    (!listed.contains("agent-2")).then(|| killed.elapsed())
                });
                figure(&format!("agent killed to a list without it: {} ms", gone.as_millis()));
            }
            _ => {}
        }
        let asked = Wire::connect(&client).map_err(|error| format!("{error:?}"));
        let answered = asked.and_then(|mut wire| wire.query("select 1").map_err(|error| format!("{error:?}")));
        if let Err(error) = answered {
            failed.push(format!("{number}: {error}"));
        }
    }
    figure(&format!(
        "two agents, each killed once: {} of {CONNECTIONS} connections failed",
        failed.len()
    ));
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_database_of_another_agent_is_served_by_that_agent_only() {
    let cluster = Cluster::start(Form::Apart);
    let mut more = More::new();
    let uri = format!("localhost:{}", cluster.postgres.port);
    let second = more.agent(&cluster, "agent-2", &database("reports", &uri, ""));
    let reports = cluster.client_for("reports", "alice", "app", "app");
    drop(connects("the second agent's database", &reports));
    more.nodes[second].kill9();
    let refused = until("its loss is told", FIVE_SECONDS, || Wire::connect(&reports).err());
    assert!(refused.words().contains("agent-2"), "{refused:?}");
    Wire::connect(&cluster.client_for(SERVICE, "alice", "app", "app")).expect("the first agent's database is there");
}

#[test]
fn a_proxy_restarted_under_fifty_sessions_lets_transactions_finish_and_has_its_agents_back_within_five_seconds() {
    const SESSIONS: usize = 50;
    let mut cluster = Cluster::start(Form::Apart);
    let mut more = More::new();
    let uri = format!("localhost:{}", cluster.postgres.port);
    for (name, service) in [("agent-2", "reports"), ("agent-3", "stock")] {
        more.agent(&cluster, name, &database(service, &uri, ""));
    }
    let clients: Vec<Client> = [SERVICE, "reports", "stock"]
        .iter()
        .map(|service| cluster.client_for(service, "alice", "app", "app"))
        .collect();
    for client in &clients {
        drop(connects("each agent serves", client));
    }
    let mut sessions: Vec<Wire> = (0..SESSIONS)
        .map(|number| connects("a session", &clients[number % clients.len()]))
        .collect();
    // Every fifth is in a transaction that has written something.
    let busy = |number: usize| number.is_multiple_of(5);
    for (number, wire) in sessions.iter_mut().enumerate().filter(|(number, _)| busy(*number)) {
        wire.query("begin").expect("allowed");
        let insert = format!(
            "insert into orders values ({}, 'while the proxy drains')",
            1000 + number
        );
        wire.query(&insert).expect("allowed");
    }

    cluster.node(Kind::Proxy).process().send(Signal::SIGQUIT);
    for (_, wire) in sessions.iter_mut().enumerate().filter(|(number, _)| !busy(*number)) {
        assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57P01");
    }
    for (_, wire) in sessions.iter_mut().enumerate().filter(|(number, _)| busy(*number)) {
        wire.query("commit").expect("the transaction finishes");
        assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57P01");
    }
    assert_eq!(cluster.node_mut(Kind::Proxy).wait(PATIENCE), 0, "it ended by itself");
    let kept = cluster.postgres.admin(
        "app",
        "select count(*) from orders where item = 'while the proxy drains'",
    );
    assert_eq!(kept.trim(), "10");

    cluster.node_mut(Kind::Proxy).start();
    let back = Stopwatch::start();
    for client in &clients {
        drop(connects("each agent is back", client));
    }
    let took = back.elapsed();
    figure(&format!(
        "proxy restarted under {SESSIONS} sessions: its three agents back after {} ms",
        took.as_millis()
    ));
    assert!(took < FIVE_SECONDS, "{took:?}");
}
