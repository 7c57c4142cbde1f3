//! psycopg 3 from its binary wheel, which brings a newer libpq than the system's; the functions are in `functions_of_psycopg.py`.

use super::{CLARA, beside, rows};
use crate::harness::{Client, Cluster, PATIENCE, run};
use std::path::{Path, PathBuf};
use std::process::Command;

rows! {
    parameters_and_binary: "parameters bound on the server, text and binary results" => "works",
    prepared: "prepared statements, more than psycopg keeps" => "works",
    pipeline: "pipeline mode, with an error in it" => "works",
    ten_thousand_in_a_pipeline: "10,000 statements in one pipeline while 20 MB of results stream back" => "works",
    copy: "COPY in and out, text and binary, with a row that fails" => "works",
    notifications: "LISTEN and NOTIFY" => "works",
    notices: "notices" => "works",
    cancel_encrypted: "`cancel_safe()`: a cancel request under TLS" => "works",
    cancel_plain: "`cancel()`: a cancel request without TLS" => "works",
    cursors: "cursors on the server, scrolled, and `stream()`" => "works",
    most_parameters: "65,535 parameters of a statement; one more" => "works; libpq refuses one more by itself",
    transactions: "transactions, savepoints, a failed transaction" => "works",
    two_phases: "two-phase commit; a violation at PREPARE, a transaction that is not there" => "works",
    large_objects: "large objects, by SQL" => "works",
    in_asyncio: "eight connections of asyncio" => "works",
    wrong_in_every_state: "SQL that fails: simple, bound, prepared, midway, in COPY, at COMMIT, in a cursor's second portion" => "works: PostgreSQL's own SQLSTATE, and the session goes on",
    wrong_in_a_pipeline: "SQL that fails in a pipeline, read before and after its Sync" => "works: what follows is skipped up to the Sync",
    left_open: "a client that goes away within a transaction" => "works: rolled back at once, its locks are given back",
    ended_by_postgresql: "`pg_terminate_backend`" => "works: PostgreSQL's 57P01 is read",
}

pub fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("test-venv")
        .join("bin/python");
    assert!(
        python.exists(),
        "psycopg is not there; run `make test-tools`, which makes {}",
        python.display()
    );
    python
}

pub fn version() -> String {
    let mut command = Command::new(python());
    command.args([
        "-c",
        "import psycopg; v = psycopg.pq.version(); print(f'psycopg {psycopg.__version__}, libpq {v // 10000}.{v % 10000}')",
    ]);
    run(command, PATIENCE).ok().trim().to_owned()
}

/// Runs one function of `functions_of_psycopg.py`.
#[track_caller]
pub fn function(name: &str) {
    function_as(&CLARA, name);
}

#[track_caller]
pub fn function_as(client: &Client, name: &str) {
    let mut command = Command::new(python());
    client.connects(&mut command);
    command.arg(beside("functions_of_psycopg.py")).arg(name);
    assert_eq!(run(command, PATIENCE * 4).ok(), "passed\n");
}

macro_rules! functions {
    ($($name:ident)*) => { $(fn $name(_: &Cluster) { function(stringify!($name)); })* };
}

functions! {
    parameters_and_binary prepared pipeline ten_thousand_in_a_pipeline copy notifications notices cancel_encrypted cancel_plain cursors
    most_parameters transactions two_phases large_objects in_asyncio wrong_in_every_state wrong_in_a_pipeline left_open ended_by_postgresql
}
