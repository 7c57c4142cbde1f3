//! Replication: a whole server copied, and the changes of a database followed, by PostgreSQL's own programs and by other servers.

use super::{CLARA, rows};
use crate::harness::postgres::{as_postgres, give_to_postgres};
use crate::harness::wait::until_ok;
use crate::harness::{Client, Cluster, Form, PATIENCE, Postgres, Process, TestDir, cluster, run, shared, until};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

rows! {
    without_a_role: "replication connections, without a role that has `db_replication`" => "refused in words: 42501, and what a role needs",
    identify: "psql with `replication=database` or `replication=true`: `IDENTIFY_SYSTEM`, SQL in a database" => "works",
    base_backup: "`pg_basebackup -X stream`, two connections; `pg_verifybackup`" => "works",
    standby: "a standby from `pg_basebackup -R`, which streams" => "works",
    receive_wal: "`pg_receivewal` with a slot, ended with Ctrl-C" => "works",
    receive_changes: "`pg_recvlogical` with `test_decoding`, ended with Ctrl-C" => "works",
    subscription: "`CREATE SUBSCRIPTION`, with the rows that were there and those that follow" => "works",
}

/// Somebody who may replicate as the database user `copier`.
static ROSA: LazyLock<Client> = LazyLock::new(|| {
    let cluster = shared(Form::Apart);
    let role = "kind: role\nversion: v7\nmetadata: {name: replicator}\nspec:\n  allow:\n    db_labels: {'*': '*'}\n    \
                db_users: [copier]\n    db_names: ['*']\n    db_replication: true\n---\n";
    cluster
        .create(&(role.to_owned() + &cluster::user("rosa", "replicator", "")))
        .ok();
    of_the_account_of_postgresql(&cluster.client("rosa", "copier", "postgres"))
});

/// The same person with files that the account of PostgreSQL owns: libpq takes no key of another's.
fn of_the_account_of_postgresql(client: &Client) -> Client {
    let home = TestDir::new();
    give_to_postgres(home.path());
    let prefix = home.join("identity");
    for suffix in ["cas", "crt", "key"] {
        let to = prefix.with_extension(suffix);
        std::fs::copy(client.prefix.with_extension(suffix), &to).expect("ours");
        give_to_postgres(&to);
    }
    Client::new(home, prefix, client.port, &client.db_user, &client.db_name)
}

/// One of PostgreSQL's programs as rosa, under the account that has her files.
fn tool(name: &str) -> Command {
    let mut tool = ROSA.tool(name);
    as_postgres(&mut tool);
    tool
}

/// A directory into which those programs write.
fn written_to() -> TestDir {
    let directory = TestDir::new();
    give_to_postgres(directory.path());
    directory
}

/// A backup of the server of these tests, with what a standby needs to stream from it.
static BACKUP: LazyLock<TestDir> = LazyLock::new(|| {
    let directory = written_to();
    let mut backup = tool("pg_basebackup");
    backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]);
    backup.arg(directory.join("backup"));
    run(backup, PATIENCE * 4).ok();
    directory
});

fn new_database(cluster: &Cluster, name: &str) {
    cluster.postgres.admin("postgres", &format!("create database {name}"));
    let content = "create table news (id int primary key, text text); insert into news select n, 'old' from generate_series(1, 500) n";
    cluster.postgres.admin(name, content);
}

/// Runs `program` beside the test, and gives what it says to whoever waits for it.
fn beside(name: &str, program: Command, directory: &Path) -> Process {
    Process::start(name, program, directory.join("said"))
}

#[track_caller]
fn says(process: &Process, words: &str) {
    until_ok(&format!("{} says {words:?}", process.name), PATIENCE, || {
        let said = process.log_text();
        if said.contains(words) { Ok(()) } else { Err(said) }
    });
}

#[track_caller]
fn ends_with_ctrl_c(mut process: Process) {
    process.send(Signal::SIGINT);
    assert_eq!(process.wait(PATIENCE), 0, "{}", process.log_text());
}

fn without_a_role(_: &Cluster) {
    let directory = TestDir::new();
    std::fs::create_dir(directory.join("wal")).expect("ours");
    for (name, arguments) in [("pg_basebackup", &[][..]), ("pg_receivewal", &["--no-loop"][..])] {
        let mut backup = CLARA.as_db_user("loader").tool(name);
        backup.args(arguments).arg("-D").arg(directory.join("wal"));
        let said = run(backup, PATIENCE).failed_with(1);
        assert!(
            said.contains("access to db denied") && said.contains("db_replication"),
            "{said}"
        );
    }
}

fn identify(_: &Cluster) {
    for (mode, sql) in [
        ("database", "select 'in ' || current_database()"),
        ("true", "SHOW wal_level"),
    ] {
        let mut psql = tool("psql");
        psql.args(["-X", "-A", "-t", "-d", &format!("dbname=postgres replication={mode}")]);
        psql.args(["-c", "IDENTIFY_SYSTEM", "-c", sql]);
        let said = run(psql, PATIENCE).ok();
        let system = said.lines().next().unwrap_or_default();
        let database = if mode == "database" { "postgres" } else { "" };
        assert!(
            system.ends_with(&format!("|{database}")) && system.contains("|1|"),
            "{said}"
        );
        assert!(said.contains("in postgres") || said.contains("logical"), "{said}");
    }
}

fn base_backup(_: &Cluster) {
    let backup = BACKUP.join("backup");
    assert!(backup.join("backup_manifest").exists() && backup.join("pg_wal").exists());
    let mut verify = crate::harness::postgres::program("pg_verifybackup", BACKUP.path());
    verify.args(["--no-parse-wal"]).arg(&backup);
    as_postgres(&mut verify);
    let said = run(verify, PATIENCE * 2).ok();
    assert!(said.contains("successfully verified"), "{said}");
}

fn standby(cluster: &Cluster) {
    let standby = Postgres::start_on(&BACKUP.join("backup"));
    assert_eq!(standby.admin("postgres", "select pg_is_in_recovery()").trim(), "t");
    new_database(cluster, "followed_by_a_standby");
    let streams = "select status from pg_stat_wal_receiver";
    until("the standby streams", PATIENCE, || {
        (standby.admin("postgres", streams).trim() == "streaming").then_some(())
    });
    until_ok("the standby has what is new", PATIENCE, || {
        let sql = "select count(*) from pg_database where datname = 'followed_by_a_standby'";
        let said = standby.admin("postgres", sql);
        if said.trim() == "1" { Ok(()) } else { Err(standby.log()) }
    });
}

fn receive_wal(cluster: &Cluster) {
    let (directory, logs) = (written_to(), TestDir::new());
    let mut slot = tool("pg_receivewal");
    slot.args(["--create-slot", "--slot", "received"]);
    run(slot, PATIENCE).ok();
    let mut receive = tool("pg_receivewal");
    receive
        .args(["--slot", "received", "--no-loop", "--verbose", "-D"])
        .arg(directory.path());
    let receives = beside("pg_receivewal", receive, logs.path());
    says(&receives, "starting log streaming");
    for sql in [
        "select pg_logical_emit_message(false, 'received', 'something')",
        "select pg_switch_wal()",
    ] {
        cluster.postgres.admin("postgres", sql);
    }
    until("a whole segment is there", PATIENCE, || {
        let mut files = std::fs::read_dir(directory.path()).expect("ours").flatten();
        files.find(|file| file.file_name().len() == 24)
    });
    ends_with_ctrl_c(receives);
    let mut slot = tool("pg_receivewal");
    slot.args(["--drop-slot", "--slot", "received"]);
    run(slot, PATIENCE).ok();
}

fn receive_changes(cluster: &Cluster) {
    let directory = TestDir::new();
    new_database(cluster, "decoded");
    let recvlogical = |arguments: &[&str]| {
        let mut recvlogical = tool("pg_recvlogical");
        recvlogical.args(["-d", "decoded", "--slot", "decoded"]).args(arguments);
        recvlogical
    };
    run(recvlogical(&["--create-slot", "-P", "test_decoding"]), PATIENCE).ok();
    let follows = beside(
        "pg_recvlogical",
        recvlogical(&["--start", "--no-loop", "-F", "0", "-f", "-"]),
        directory.path(),
    );
    cluster
        .postgres
        .admin("decoded", "insert into news values (501, 'a lantern is lit')");
    says(
        &follows,
        "table public.news: INSERT: id[integer]:501 text[text]:'a lantern is lit'",
    );
    ends_with_ctrl_c(follows);
    run(recvlogical(&["--drop-slot"]), PATIENCE).ok();
}

fn subscription(cluster: &Cluster) {
    new_database(cluster, "published");
    cluster
        .postgres
        .admin("published", "create publication news for table news");
    let subscriber = Postgres::start();
    let file = |suffix| ROSA.prefix.with_extension(suffix).display().to_string();
    let connection = format!(
        "host=localhost port={} user=copier dbname=published sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
        ROSA.port,
        file("cas"),
        file("crt"),
        file("key")
    );
    subscriber.admin("postgres", "create table news (id integer primary key, text text)");
    // As psql does it: the slot that it makes cannot be made in a transaction.
    let mut psql = subscriber.admin_tool("psql");
    psql.args(["-X", "-d", "postgres", "-c"]);
    psql.arg(format!(
        "create subscription news connection '{connection}' publication news"
    ));
    run(psql, PATIENCE).ok();
    cluster
        .postgres
        .admin("published", "insert into news values (501, 'a lantern is lit')");
    let count = cluster.postgres.admin("published", "select count(*) from news");
    until("all rows are there", PATIENCE, || {
        let all = "select count(*) from news";
        let last = "select text from news where id = 501";
        let there = subscriber.admin("postgres", all) == count
            && subscriber.admin("postgres", last).trim() == "a lantern is lit";
        there.then_some(())
    });
    // With its slot.
    let mut psql = subscriber.admin_tool("psql");
    psql.args(["-X", "-d", "postgres", "-c", "drop subscription news"]);
    run(psql, PATIENCE).ok();
}
