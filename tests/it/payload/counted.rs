//! The record has nothing of a statement, and nothing of a byte: counted over runs of pgbench.

use super::places::{connections, debug, json};
use crate::harness::cluster::{Node, user};
use crate::harness::{Cluster, Form, Kind, PATIENCE, Stopwatch, figure, run, until};
use std::collections::BTreeMap;

const CONNECTIONS: usize = 4;
const FEW: usize = 10;
const MANY: usize = 1000;
/// One record for each statement would be 990 more of a connection, one for each KiB as many. A turn that an actor took twice is not.
const TOLERATED_OF_A_CONNECTION: usize = 10;
/// A node at rest makes some ten a second; the shipper asks for each batch of events.
const TOLERATED_OF_A_NODE: u64 = 400;

/// What a run has left in the record.
#[derive(Debug)]
struct Left {
    /// Of the connection with the most, on the proxy and on the agent.
    of_a_connection: BTreeMap<String, usize>,
    /// In all, on the proxy and on the agent.
    of_a_node: Vec<u64>,
}

fn written(node: &Node) -> u64 {
    json(&debug(node, "/v1/actors"))["records"].as_u64().expect("a number")
}

/// Records of each process that the connection passes.
fn records(node: &Node, connection: &str) -> BTreeMap<String, usize> {
    let trace = json(&debug(node, &format!("/v1/connections/{connection}/trace")));
    let parts = trace["parts"].as_array().expect("a list").iter();
    parts
        .map(|part| {
            let node = part["node"].as_str().expect("a name").to_owned();
            (node, part["records"].as_array().expect("a list").len())
        })
        .collect()
}

/// Each of the connections sends so many statements of a KiB and is answered a KiB.
fn pgbench(cluster: &Cluster, transactions: usize) -> Left {
    let client = cluster.client("counter", "app", "app");
    let (proxy, agent) = (cluster.node(Kind::Proxy), cluster.node(Kind::Agent));
    let script = format!("select repeat('x', 1000) /* {} */;\n", "y".repeat(1000));
    let script = client.home.write("script.sql", script);
    let before = connections(proxy);
    let records_before = [written(proxy), written(agent)];
    let mut pgbench = client.tool("pgbench");
    let (count, transactions) = (CONNECTIONS.to_string(), transactions.to_string());
    pgbench
        .args(["-n", "-c", &count, "-j", "1", "-t", &transactions, "-f"])
        .arg(&script);
    run(pgbench, PATIENCE).ok();
    let ended = until("the connections have ended", PATIENCE, || {
        let exits = json(&debug(agent, "/v1/actors"))["exits"].to_string();
        let mut new: Vec<String> = connections(proxy).difference(&before).cloned().collect();
        new.retain(|id| exits.contains(id.as_str()));
        (new.len() >= CONNECTIONS).then_some(new)
    });
    let mut of_a_connection = BTreeMap::new();
    for id in &ended {
        for (node, count) in records(proxy, id).into_iter().chain(records(agent, id)) {
            let most = of_a_connection.entry(node).or_insert(0);
            *most = count.max(*most);
        }
    }
    let [before_proxy, before_agent] = records_before;
    let of_a_node = vec![written(proxy) - before_proxy, written(agent) - before_agent];
    Left {
        of_a_connection,
        of_a_node,
    }
}

#[test]
fn a_run_of_a_hundred_times_as_many_statements_leaves_no_more_records() {
    let cluster = Cluster::start(Form::Apart);
    cluster.create(&user("counter", "tester", "app")).ok();
    pgbench(&cluster, 1);
    let started = Stopwatch::start();
    let few = pgbench(&cluster, FEW);
    let many = pgbench(&cluster, MANY);
    figure(&format!(
        "records of {CONNECTIONS} connections with {FEW} and {MANY} statements each, in {:.1} s: {few:?} and {many:?}",
        started.elapsed().as_secs_f32()
    ));
    for node in ["proxy-1", "agent-1"] {
        let (few, many) = (few.of_a_connection[node], many.of_a_connection[node]);
        assert!(few > 5, "{node}: a connection leaves records: {few}");
        assert!(many <= few + TOLERATED_OF_A_CONNECTION, "{node}: {few} and {many}");
    }
    for (few, many) in few.of_a_node.iter().zip(&many.of_a_node) {
        assert!(*many <= few + TOLERATED_OF_A_NODE, "{few} and {many}");
    }
}
