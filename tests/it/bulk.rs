//! Whole databases and hundreds of megabytes through the gateway.

use crate::harness::{Cluster, Form, PATIENCE, Postgres, Stopwatch, in_both_forms, run, shared};
use std::io::{Read, Write};
use std::process::Stdio;

in_both_forms! {
    a_dump_restored_through_the_gateway_is_the_same_database,
    copy_of_200_mb_each_way_needs_less_than_100_mb_of_memory_in_each_node,
}

const MEMORY_LIMIT_MIB: u64 = 100;

const SOURCE: &str = "\
create schema shop;
create table shop.customers (id int primary key, name text not null unique, since date default '2020-01-01', notes bytea);
create table shop.sales (id bigserial primary key, customer int not null references shop.customers, amount numeric(10, 2), tags text[]);
create index on shop.sales (customer, amount);
create function shop.doubled(value numeric) returns numeric language sql immutable as 'select value * 2';
create view shop.totals as select c.name, sum(s.amount) as total, shop.doubled(max(s.amount)) as twice
  from shop.customers c join shop.sales s on s.customer = c.id group by c.name;
insert into shop.customers select n, 'customer ' || n, date '2020-01-01' + n % 1000, decode(md5(n::text), 'hex')
  from generate_series(1, 1000) n;
insert into shop.sales (customer, amount, tags) select 1 + n % 1000, n / 7.0, array['tag ' || n % 10, null]
  from generate_series(1, 100000) n;
comment on view shop.totals is 'per customer';
grant select on shop.totals to app;
select lo_from_bytea(424242, decode(repeat(md5('large object'), 65536), 'hex'));
";

/// A plain dump made past the gateway, without the lines that differ from run to run.
fn plain_dump(postgres: &Postgres, database: &str) -> String {
    let mut dump = postgres.admin_tool("pg_dump");
    dump.args(["--format=plain", database]);
    let text = run(dump, PATIENCE * 2).ok();
    let random = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    text.lines().filter(random).collect::<Vec<_>>().join("\n")
}

fn a_dump_restored_through_the_gateway_is_the_same_database(form: Form) {
    let cluster = shared(form);
    for database in ["source", "restored"] {
        cluster
            .postgres
            .admin("postgres", &format!("create database {database} owner loader"));
    }
    let mut fill = cluster.postgres.admin_tool("psql");
    fill.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "source", "-c", SOURCE])
        .env("PGUSER", "loader");
    run(fill, PATIENCE * 2).ok();
    let before = plain_dump(&cluster.postgres, "source");
    assert!(before.lines().count() > 101_000, "the dump holds the rows");

    let client = cluster.client("alice", "loader", "source");
    let mut dump = client.tool("pg_dump");
    dump.args(["--format=custom"]).stdout(Stdio::piped());
    let mut dump = dump.spawn().expect("pg_dump starts");
    let mut restore = client.in_database("restored").tool("pg_restore");
    restore
        .args(["--exit-on-error", "--dbname=restored"])
        .stdin(dump.stdout.take().expect("piped"));
    let restore = restore.stderr(Stdio::piped()).output().expect("pg_restore runs");
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
    assert!(dump.wait().expect("our own child").success());

    let after = plain_dump(&cluster.postgres, "restored");
    if let Some((line, (one, other))) = before
        .lines()
        .zip(after.lines())
        .enumerate()
        .find(|(_, (one, other))| one != other)
    {
        panic!("line {line} differs: {one:?} became {other:?}");
    }
    assert_eq!(before.len(), after.len());
}

fn copy_of_200_mb_each_way_needs_less_than_100_mb_of_memory_in_each_node(form: Form) {
    const ROWS: u64 = 204_800;
    // With its line feed, 1024 bytes a row: 200 MiB.
    const ROW: usize = 1023;
    let cluster = Cluster::start(form);
    cluster.postgres.admin(
        "app",
        "create unlogged table sink (line text); alter table sink owner to app",
    );
    let client = cluster.client("alice", "app", "app");

    let started = Stopwatch::start();
    let mut out = client.psql_command();
    out.args([
        "-c",
        &format!("copy (select repeat('x', {ROW}) from generate_series(1, {ROWS})) to stdout"),
    ]);
    let mut out = out.stdout(Stdio::piped()).spawn().expect("psql starts");
    let mut from = out.stdout.take().expect("piped");
    let (mut buffer, mut received) = (vec![0; 1 << 16], 0u64);
    while let count @ 1.. = from.read(&mut buffer).expect("a pipe") {
        received += count as u64;
    }
    assert!(out.wait().expect("our own child").success());
    assert_eq!(received, ROWS * (ROW as u64 + 1));
    let out_took = started.elapsed();

    let started = Stopwatch::start();
    let mut copy_in = client.psql_command();
    copy_in.args(["-c", "\\copy sink from pstdin"]);
    let mut copy_in = copy_in.stdin(Stdio::piped()).spawn().expect("psql starts");
    let mut to = copy_in.stdin.take().expect("piped");
    let mut line = vec![b'y'; ROW];
    line.push(b'\n');
    let block = line.repeat(64);
    for _ in 0..ROWS / 64 {
        to.write_all(&block).expect("psql reads");
    }
    drop(to);
    assert!(copy_in.wait().expect("our own child").success());
    let in_took = started.elapsed();
    let sink = cluster
        .postgres
        .admin("app", "select count(*), sum(length(line)) from sink");
    assert_eq!(sink.trim(), format!("{ROWS}|{}", ROWS * ROW as u64));

    let peaks = cluster.peak_memory();
    crate::harness::figure(&format!(
        "COPY of 200 MB, {form:?}: out {:.1} s, in {:.1} s, peak memory in MB {peaks:?}",
        out_took.as_secs_f32(),
        in_took.as_secs_f32()
    ));
    for (node, peak) in peaks {
        assert!(peak < MEMORY_LIMIT_MIB, "{node} held {peak} MB");
    }
}
