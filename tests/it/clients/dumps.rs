//! pg_dump, pg_dumpall and pg_restore, with several connections where they use them.

use super::{CLARA, in_new_database, rows};
use crate::harness::{Client, Cluster, PATIENCE, TestDir, run};
use std::path::Path;

rows! {
    plain: "`pg_dump` plain, read by psql" => "works",
    custom: "`pg_dump -Fc`, `pg_restore -j 4`" => "works",
    directory: "`pg_dump -Fd -j 3`, one snapshot over several connections; `pg_restore -j 4`" => "works",
    dumpall_as_superuser: "`pg_dumpall` as a superuser, with roles for every database name" => "works",
    dumpall_of_another: "`pg_dumpall` as another" => "PostgreSQL's refusal: permission denied for table pg_authid; `--no-role-passwords` works",
}

const CONTENT: &str = "create table customers (id int primary key, name text unique); \
     insert into customers select n, 'customer ' || n from generate_series(1, 5000) n; \
     create table sales (id int primary key, customer int references customers); \
     insert into sales select n, 1 + n % 5000 from generate_series(1, 20000) n; \
     create view totals as select customer, count(*) from sales group by customer; \
     select lo_from_bytea(0, 'a large object')";

fn filled(cluster: &Cluster, name: &str) -> Client {
    let client = in_new_database(cluster, name);
    client.psql(CONTENT).ok();
    client
}

/// A short account of a whole database.
#[track_caller]
fn content(client: &Client) -> String {
    client
        .psql(
            "select (select count(*) from sales), (select sum(id) from customers), (select max(count) from totals), \
             (select count(*) from pg_constraint where contype in ('p', 'u', 'f')), (select count(*) from pg_largeobject_metadata)",
        )
        .ok()
}

#[track_caller]
fn tool(client: &Client, name: &str, arguments: &[&str], file: &Path) {
    let mut tool = client.tool(name);
    tool.args(arguments).arg(file);
    run(tool, PATIENCE).ok();
}

/// Dumps a new database and restores it into another, which has to be the same.
#[track_caller]
fn dumped_and_restored(cluster: &Cluster, name: &str, dump: &[&str], restore: (&str, &[&str])) {
    let from = filled(cluster, name);
    let to = in_new_database(cluster, &format!("{name}_restored"));
    let directory = TestDir::new();
    let file = directory.join("dump");
    tool(&from, "pg_dump", dump, &file);
    let into = format!("--dbname={}", to.db_name);
    tool(&to, restore.0, &[&[into.as_str()], restore.1].concat(), &file);
    assert_eq!(content(&from), content(&to));
}

fn plain(cluster: &Cluster) {
    let restore = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"];
    dumped_and_restored(cluster, "dump_plain", &["-f"], ("psql", &restore));
}

fn custom(cluster: &Cluster) {
    let restore = ["-j", "4", "--exit-on-error"];
    dumped_and_restored(cluster, "dump_custom", &["-Fc", "-f"], ("pg_restore", &restore));
}

fn directory(cluster: &Cluster) {
    let restore = ["-j", "4", "--exit-on-error"];
    let dump = ["-Fd", "-j", "3", "-f"];
    dumped_and_restored(cluster, "dump_directory", &dump, ("pg_restore", &restore));
}

fn dumpall_as_superuser(_: &Cluster) {
    let mut all = CLARA.as_db_user("loader").tool("pg_dumpall");
    all.args(["--globals-only"]);
    let said = run(all, PATIENCE).ok();
    assert!(said.contains("CREATE ROLE loader;"), "{said}");
    let mut all = CLARA.as_db_user("loader").tool("pg_dumpall");
    all.args(["--schema-only", "--exclude-database=*_*", "--exclude-database=bench"]);
    let said = run(all, PATIENCE).ok();
    assert!(
        said.contains("\\connect app") && said.contains("CREATE TABLE public.orders"),
        "{said}"
    );
}

fn dumpall_of_another(_: &Cluster) {
    let mut all = CLARA.tool("pg_dumpall");
    all.arg("--globals-only");
    let said = run(all, PATIENCE).failed_with(1);
    assert!(said.contains("permission denied for table pg_authid"), "{said}");
    let mut all = CLARA.tool("pg_dumpall");
    all.args(["--globals-only", "--no-role-passwords"]);
    let said = run(all, PATIENCE).ok();
    assert!(said.contains("CREATE ROLE loader;"), "{said}");
}
