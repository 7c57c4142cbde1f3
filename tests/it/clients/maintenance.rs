//! vacuumdb, reindexdb, clusterdb, createdb, dropdb, pg_amcheck and pg_isready.

use super::{CLARA, in_new_database, rows};
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, PATIENCE, run};

rows! {
    vacuum_everywhere: "`vacuumdb --all -j 2`, with roles for every database name" => "works",
    reindex_and_cluster: "`reindexdb`, `clusterdb`" => "works",
    databases_are_made: "`createdb`, `dropdb`, with roles for `postgres` or `--maintenance-db`" => "works",
    isready: "`pg_isready`" => "works: it says that the proxy accepts connections, whatever PostgreSQL does",
    isready_without_tls: "`pg_isready` with `PGSSLMODE=disable`" => "the same: a refusal with a SQLSTATE is an answer",
}

#[track_caller]
fn passes(tool: &str, as_db_user: &str, database: &str, arguments: &[&str]) -> String {
    let mut command = CLARA.as_db_user(as_db_user).in_database(database).tool(tool);
    command.args(arguments);
    let output = run(command, PATIENCE * 2);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    said
}

fn vacuum_everywhere(_: &Cluster) {
    // Analysing only, as other tests hold locks; where they drop a database meanwhile, it stops, and is run again.
    until_ok("all databases are analysed", PATIENCE * 4, || {
        let mut command = CLARA.as_db_user("loader").tool("vacuumdb");
        command.args(["--all", "-j", "2", "--analyze-only"]);
        let output = run(command, PATIENCE * 2);
        let said = format!("{}{}", output.stdout, output.stderr);
        let all = ["app", "postgres"].map(|database| format!("vacuuming database \"{database}\""));
        match all.iter().all(|line| said.contains(line.as_str())) {
            true => Ok(()),
            false => Err(said),
        }
    });
}

fn reindex_and_cluster(cluster: &Cluster) {
    let client = in_new_database(cluster, "maintained");
    client
        .psql("create table places (id int primary key); cluster places using places_pkey")
        .ok();
    passes("reindexdb", "app", "maintained", &["-t", "places"]);
    passes("clusterdb", "app", "maintained", &[]);
    passes("vacuumdb", "app", "maintained", &["-t", "places", "--full"]);
}

fn databases_are_made(cluster: &Cluster) {
    let made = "select count(*) from pg_database where datname = 'made_here'";
    passes("createdb", "loader", "app", &["made_here"]);
    assert_eq!(cluster.postgres.admin("postgres", made).trim(), "1");
    passes("dropdb", "loader", "app", &["made_here"]);
    assert_eq!(cluster.postgres.admin("postgres", made).trim(), "0");
}

fn isready(_: &Cluster) {
    let said = passes("pg_isready", "app", "app", &[]);
    assert!(said.contains("accepting connections"), "{said}");
}

fn isready_without_tls(_: &Cluster) {
    let mut command = CLARA.tool("pg_isready");
    command.env("PGSSLMODE", "disable");
    let said = run(command, PATIENCE).ok();
    assert!(said.contains("accepting connections"), "{said}");
}
