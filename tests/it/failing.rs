//! What fails in PostgreSQL, message by message, and a client that is gone in the middle of its transaction.

use crate::harness::wire::ServerError;
use crate::harness::{Client, FIVE_SECONDS, Form, Stopwatch, Wire, in_both_forms, shared};

in_both_forms! {
    an_error_skips_what_follows_up_to_the_sync_and_nothing_behind_it,
    a_portal_that_fails_in_its_second_portion_leaves_its_transaction_failed,
    a_function_call_is_answered_recorded_and_may_fail,
    what_does_not_belong_into_a_copy_fails_as_postgresql_says,
    a_client_that_vanishes_in_its_transaction_gives_its_locks_back_at_once,
}

fn connect(form: Form) -> Wire {
    Wire::connect(&client(form)).expect("allowed")
}

fn client(form: Form) -> Client {
    shared(form).client("alice", "app", "app")
}

/// Parse of the unnamed statement.
fn parse(sql: &str) -> Vec<u8> {
    [b"\0", sql.as_bytes(), b"\0\0\0"].concat()
}

/// Bind of the unnamed statement to a portal, without parameters.
fn bind(portal: &str) -> Vec<u8> {
    [portal.as_bytes(), b"\0\0\0\0\0\0\0\0"].concat()
}

fn execute(portal: &str, rows: i32) -> Vec<u8> {
    [portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat()
}

/// FunctionCall with arguments and result as text.
fn call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let count = u16::try_from(arguments.len()).expect("a few").to_be_bytes();
    let mut body = [&oid.to_be_bytes()[..], &[0, 0], &count].concat();
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).expect("short").to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    body
}

#[track_caller]
fn fails(wire: &mut Wire, code: &str) -> ServerError {
    let error = wire.ended_with(FIVE_SECONDS * 2);
    assert_eq!(
        (error.severity.as_str(), error.code.as_str()),
        ("ERROR", code),
        "{error:?}"
    );
    error
}

#[track_caller]
fn goes_on(wire: &mut Wire) {
    assert_eq!(wire.query("select 'goes on'"), Ok(vec!["goes on".to_owned()]));
}

fn an_error_skips_what_follows_up_to_the_sync_and_nothing_behind_it(form: Form) {
    let mut wire = connect(form);
    let (wrong, right, unnamed, all) = (parse("select 1 / 0"), parse("select 1"), bind(""), execute("", 0));
    // A Flush in place of a Sync: the error comes before it.
    wire.send(&[(b'P', &wrong), (b'B', &unnamed), (b'E', &all), (b'H', b"")]);
    fails(&mut wire, "22012");
    wire.send(&[(b'P', &right), (b'B', &unnamed), (b'E', &all), (b'S', b"")]);
    assert_eq!(wire.types_to(b'Z'), "Z", "all of it was skipped");
    wire.send(&[
        (b'P', &wrong),
        (b'B', &unnamed),
        (b'E', &all),
        (b'S', b""),
        (b'P', &right),
        (b'B', &unnamed),
        (b'E', &all),
        (b'S', b""),
    ]);
    fails(&mut wire, "22012");
    assert_eq!(wire.types_to(b'Z'), "Z");
    assert_eq!(wire.types_to(b'Z'), "12DCZ", "what is behind the Sync is answered");
    wire.send(&[(b'P', &parse("selct")), (b'S', b"")]);
    fails(&mut wire, "42601");
    wire.hears(b'Z');
    goes_on(&mut wire);
}

fn a_portal_that_fails_in_its_second_portion_leaves_its_transaction_failed(form: Form) {
    let mut wire = connect(form);
    wire.query("begin").expect("allowed");
    let statement = parse("select 1 / (3 - n) from generate_series(1, 9) n");
    wire.send(&[
        (b'P', &statement),
        (b'B', &bind("p")),
        (b'E', &execute("p", 2)),
        (b'S', b""),
    ]);
    assert_eq!(wire.types_to(b'Z'), "12DDsZ");
    wire.send(&[(b'E', &execute("p", 2)), (b'S', b"")]);
    fails(&mut wire, "22012");
    wire.hears(b'Z');
    assert_eq!(wire.query("select 1").expect_err("a failed transaction").code, "25P02");
    wire.query("rollback").expect("allowed");
    goes_on(&mut wire);
}

fn a_function_call_is_answered_recorded_and_may_fail(form: Form) {
    /// `int4div`, by its oid in pg_proc.dat.
    const DIVISION: u32 = 154;
    let mut wire = connect(form);
    wire.send(&[(b'F', &call(DIVISION, &["42", "6"]))]);
    assert_eq!(wire.types_to(b'Z'), "VZ");
    wire.send(&[(b'F', &call(DIVISION, &["4711", "0"]))]);
    fails(&mut wire, "22012");
    wire.hears(b'Z');
    wire.send(&[(b'F', &call(DIVISION, &["no number", "1"]))]);
    fails(&mut wire, "22P02");
    wire.hears(b'Z');
    goes_on(&mut wire);
    let recorded = shared(form).audited("alice", "TPG04I", |event| event["function_args"][0] == "4711");
    assert_eq!(recorded["function_oid"], DIVISION, "{recorded}");
}

fn what_does_not_belong_into_a_copy_fails_as_postgresql_says(form: Form) {
    let mut wire = connect(form);
    wire.query("create temporary table parts (n int)").expect("allowed");
    let begin = |wire: &mut Wire| {
        wire.begin_query("copy parts from stdin");
        wire.hears(b'G');
    };
    begin(&mut wire);
    wire.send(&[(b'd', b"no number\n"), (b'd', b"1\n"), (b'c', b"")]);
    fails(&mut wire, "22P02");
    wire.hears(b'Z');
    begin(&mut wire);
    wire.send(&[(b'd', b"1\n"), (b'f', b"the client gives up\0")]);
    assert!(fails(&mut wire, "57014").message.contains("the client gives up"));
    wire.hears(b'Z');
    wire.begin_query("copy (select 1 / (3 - n) from generate_series(1, 9) n) to stdout");
    fails(&mut wire, "22012");
    wire.hears(b'Z');
    assert_eq!(wire.query("select count(*) from parts"), Ok(vec!["0".to_owned()]));
    // What is no part of a COPY: PostgreSQL does not find its way back to the beginning of a message.
    begin(&mut wire);
    wire.begin_query("select 1");
    fails(&mut wire, "08P01");
    let error = wire.ended_with(FIVE_SECONDS);
    assert_eq!(
        (error.severity.as_str(), error.code.as_str()),
        ("FATAL", "08P01"),
        "{error:?}"
    );
}

fn a_client_that_vanishes_in_its_transaction_gives_its_locks_back_at_once(form: Form) {
    let cluster = shared(form);
    cluster.postgres.admin(
        "app",
        "create table if not exists vanished (n int); alter table vanished owner to app",
    );
    let mut stays = connect(form);
    let mut vanishes = connect(form);
    for sql in ["begin", "lock table vanished", "insert into vanished values (1)"] {
        vanishes.query(sql).expect("allowed");
    }
    // Neither Terminate nor TLS's farewell.
    let vanished = Stopwatch::start();
    drop(vanishes);
    stays.query("set lock_timeout = '5s'").expect("allowed");
    assert_eq!(stays.query("select count(*) from vanished"), Ok(vec!["0".to_owned()]));
    crate::harness::figure(&format!(
        "client gone to its locks given back, {form:?}: {} ms",
        vanished.elapsed().as_millis()
    ));
}
