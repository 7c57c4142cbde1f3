//! What a client sends to PostgreSQL, and what it is answered, each with a mark.

use super::marks::{Allowed, Mark};
use crate::harness::{Client, Cluster, Kind, PATIENCE, Wire, run, until};

const SIMPLE: &str = "Qz7aSimpleQueryKx3";
const PREPARED: &str = "Qz7aPreparedQueryKx3";
const STATEMENT_NAME: &str = "Qz7theNameOfItKx3";
const TEXT: &str = "Qz7aTextParameterKx3";
const BINARY: &str = "Qz7aBinaryParameterKx3";
const NUMBER: i64 = 7_310_293_847_561_029;
const QUOTED: &str = "Qz7quotedByAnErrorKx3";
const ABORTED: &str = "Qz7afterAnErrorKx3";
const CANCELLED: &str = "Qz7toBeCancelledKx3";
const MALFORMED: &str = "Qz7noMessageAtAllKx3";
/// These PostgreSQL puts together, so that no statement has them.
const ROW: &str = "Qz7aValueOfARowKx3";
const NOTICE: &str = "Qz7textOfANoticeKx3";
const RAISED: &str = "Qz7textOfAnErrorKx3";
const COPIED: &str = "Qz7aLineOfCopyKx3";
const NOT_COPIED: &str = "Qz7aLineThatIsNoNumberKx3";
const APPLICATION: &str = "Qz7anApplicationKx3";
const OPTION: &str = "Qz7anOptionKx3";
const PANIC: &str = "Qz7inAPanicKx3";
/// The panic's text quotes the statement.
pub const FAULT: &str = "relay.statement:panic:select 'Qz7inAPanicKx3'";

const OF_THE_TRAIL: [(&str, &str); 9] = [
    ("a statement", SIMPLE),
    ("a prepared statement", PREPARED),
    ("the name of a prepared statement", STATEMENT_NAME),
    ("a parameter in text", TEXT),
    ("a parameter in binary", BINARY),
    ("a statement that an error quotes", QUOTED),
    ("a statement of an aborted transaction", ABORTED),
    ("a cancelled statement", CANCELLED),
    ("what is no message", MALFORMED),
];

const OF_NOBODY: [(&str, &str); 8] = [
    ("a row", ROW),
    ("a notice", NOTICE),
    ("an error", RAISED),
    ("a line of COPY", COPIED),
    ("a line of COPY that an error quotes", NOT_COPIED),
    ("the value of application_name", APPLICATION),
    ("an option that is refused", OPTION),
    ("a statement that a panic quotes", PANIC),
];

/// Does all of it. The sessions that are given back are open.
pub fn everything(cluster: &Cluster, client: &Client, marks: &mut Vec<Mark>) -> Vec<Wire> {
    marks.extend(OF_THE_TRAIL.map(|(what, text)| Mark::text(what, Allowed::InTheTrail, text)));
    marks.push(Mark::number("a number in binary", Allowed::InTheTrail, NUMBER));
    marks.extend(OF_NOBODY.map(|(what, text)| Mark::text(what, Allowed::Nowhere, text)));

    let connect = || Wire::connect(client).expect("allowed");
    let mut wire = connect();
    statements(&mut wire);
    extended(&mut wire);
    copies(&mut wire);
    let mut cancelled = connect();
    cancels(cluster, client, &mut cancelled);
    for wire in [&wire, &cancelled] {
        marks.push(Mark::bytes("a cancel key", Allowed::Nowhere, &wire.cancel_key));
    }
    parameters(client);
    let mut malformed = connect();
    malformed.send(&[(b'?', MALFORMED.as_bytes())]);
    malformed.ended_with(PATIENCE);
    if cfg!(feature = "fault-points") {
        panics(cluster, connect());
    }
    vec![wire, cancelled]
}

/// An expression whose value is the mark.
fn put_together(mark: &str) -> String {
    let (before, after) = mark.split_at(mark.len() / 2);
    format!("'{before}' || '{after}'")
}

fn statements(wire: &mut Wire) {
    wire.query(&format!("select '{SIMPLE}'")).expect("a row");
    let rows = wire.query(&format!("select {}", put_together(ROW)));
    assert_eq!(rows, Ok(vec![ROW.to_owned()]));
    let error = wire.query(&format!("select '{QUOTED}'::int")).expect_err("no number");
    assert!(error.message.contains(QUOTED), "{error:?}");
    let raise = |level: &str, mark: &str| format!("do $$ begin raise {level} '%', {}; end $$", put_together(mark));
    wire.query(&raise("notice", NOTICE)).expect("a notice");
    let error = wire.query(&raise("exception", RAISED)).expect_err("an error");
    assert_eq!(error.message, RAISED);
    wire.query("begin").expect("a transaction");
    wire.query("select 1 / 0").expect_err("no number");
    let error = wire.query(&format!("select '{ABORTED}'")).expect_err("it has failed");
    assert_eq!(error.code, "25P02");
    wire.query("rollback").expect("it ends");
}

fn extended(wire: &mut Wire) {
    let parse = format!("{STATEMENT_NAME}\0select '{PREPARED}', $1::text, $2::text, $3::int8\0\0\0");
    let mut bind = format!("\0{STATEMENT_NAME}\0").into_bytes();
    // Three formats: text, binary, binary. Then three values.
    for number in [3_i16, 0, 1, 1, 3] {
        bind.extend(number.to_be_bytes());
    }
    for value in [TEXT.as_bytes(), BINARY.as_bytes(), &NUMBER.to_be_bytes()] {
        bind.extend(i32::try_from(value.len()).expect("short").to_be_bytes());
        bind.extend(value);
    }
    bind.extend(0_i16.to_be_bytes());
    wire.send(&[(b'P', parse.as_bytes()), (b'B', &bind), (b'E', &[0; 5]), (b'S', &[])]);
    wire.hears(b'D');
    wire.hears(b'Z');
}

fn copies(wire: &mut Wire) {
    wire.query("create temporary table texts (t text); create temporary table numbers (n int)")
        .expect("tables");
    for (table, line) in [("texts", COPIED), ("numbers", NOT_COPIED)] {
        wire.begin_query(&format!("copy {table} from stdin"));
        wire.hears(b'G');
        wire.send(&[(b'd', format!("{line}\n").as_bytes()), (b'c', &[])]);
        wire.hears(b'Z');
    }
    assert_eq!(wire.query("select t from texts"), Ok(vec![COPIED.to_owned()]));
    assert_eq!(wire.query("select n from numbers"), Ok(vec![]));
}

fn cancels(cluster: &Cluster, client: &Client, wire: &mut Wire) {
    wire.begin_query(&format!("select pg_sleep(60), '{CANCELLED}'"));
    cluster.postgres.wait_until_runs("app", CANCELLED);
    wire.cancel(client.port);
    wire.hears(b'E');
    wire.hears(b'Z');
}

/// What a client says at its start: one parameter that passes, and one that is refused.
fn parameters(client: &Client) {
    let ask = |variable: &str, value: &str| {
        let mut psql = client.psql_command();
        psql.args(["-c", "show application_name"]).env(variable, value);
        run(psql, PATIENCE)
    };
    assert_eq!(ask("PGAPPNAME", APPLICATION).ok().trim(), APPLICATION);
    ask("PGOPTIONS", &format!("-c log_line_prefix={OPTION}")).failed_with(2);
}

fn panics(cluster: &Cluster, mut wire: Wire) {
    wire.begin_query(&format!("select '{PANIC}'"));
    let log = cluster.node(Kind::Agent).config.data_dir.join("postern.log");
    until("the panic is logged", PATIENCE, || {
        let log = std::fs::read_to_string(&log).expect("the log");
        log.contains("message withheld").then_some(())
    });
}
