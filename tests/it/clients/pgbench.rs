//! pgbench: its tables, its three protocols, and a connection for each transaction.

use super::{in_new_database, rows};
use crate::harness::{Client, Cluster, PATIENCE, run};

rows! {
    tables_are_made: "`pgbench -i`, also with `-I dtGvpf`" => "works",
    three_protocols: "`-M simple`, `-M extended`, `-M prepared`, four clients" => "works",
    a_connection_for_each_transaction: "`-C`: a connection for each transaction" => "works; each is decided and audited",
    a_pipeline: "`\\startpipeline` … `\\endpipeline`" => "works",
}

fn filled(cluster: &Cluster, database: &str) -> Client {
    let client = in_new_database(cluster, database);
    let mut fill = client.tool("pgbench");
    fill.args(["-i", "-q", "-s", "1"]);
    run(fill, PATIENCE).ok();
    client
}

/// Runs it, and holds that no transaction failed.
#[track_caller]
fn bench(client: &Client, arguments: &[&str]) {
    let mut bench = client.tool("pgbench");
    bench.args(["-n"]).args(arguments);
    let report = run(bench, PATIENCE).ok();
    assert!(report.contains("number of failed transactions: 0 "), "{report}");
}

fn tables_are_made(cluster: &Cluster) {
    let client = filled(cluster, "bench_made");
    assert_eq!(client.psql("select count(*) from pgbench_accounts").ok(), "100000\n");
    let mut on_the_server = client.tool("pgbench");
    on_the_server.args(["-i", "-q", "-s", "1", "-I", "dtGvpf"]);
    run(on_the_server, PATIENCE).ok();
    assert_eq!(client.psql("select count(*) from pgbench_accounts").ok(), "100000\n");
}

fn three_protocols(cluster: &Cluster) {
    let client = filled(cluster, "bench_protocols");
    for protocol in ["simple", "extended", "prepared"] {
        bench(&client, &["-M", protocol, "-c", "4", "-j", "2", "-t", "25"]);
    }
}

fn a_connection_for_each_transaction(cluster: &Cluster) {
    let client = filled(cluster, "bench_connections");
    bench(&client, &["-S", "-C", "-c", "2", "-t", "10"]);
}

fn a_pipeline(cluster: &Cluster) {
    let client = filled(cluster, "bench_pipeline");
    let script = client.home.write(
        "pipeline.sql",
        "\\startpipeline\nselect 1;\nselect abalance from pgbench_accounts where aid = 7;\nselect 2;\n\\endpipeline\n",
    );
    bench(
        &client,
        &["-M", "prepared", "-t", "50", "-f", &script.display().to_string()],
    );
}
