//! Queries of psql, pgbench and psycopg, and what the audit log has of them.

use crate::harness::{FIVE_SECONDS, Form, PATIENCE, Wire, in_both_forms, run, shared};
use serde_json::Value;
use std::path::Path;

in_both_forms! {
    a_client_that_says_goodbye_and_waits_is_closed_without_a_word,
    psql_reads_rows_and_the_audit_log_has_both_decisions_the_statement_and_the_end,
    statements_of_the_extended_protocol_are_audited_with_their_parameters,
    an_error_of_postgresql_reaches_the_client_as_it_is_and_the_session_goes_on,
    pgbench_with_eight_clients_passes,
    psycopg_passes_with_server_side_parameters,
}

fn psql_reads_rows_and_the_audit_log_has_both_decisions_the_statement_and_the_end(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&crate::harness::cluster::user("reader", "tester", "app"))
        .ok();
    let rows = cluster
        .client("reader", "app", "app")
        .psql("select id, item from orders order by id")
        .ok();
    assert_eq!(rows, "1|lantern\n2|rope\n3|key\n");

    let ended = cluster.audited("reader", "TDB01I", |_| true);
    let session = ended["sid"].clone();
    let of_session = |event: &Value| event["sid"] == session;
    let routed = cluster.audited("reader", "PDB00I", of_session);
    let started = cluster.audited("reader", "TDB00I", of_session);
    for (event, decided_by) in [(&routed, "proxy"), (&started, "agent")] {
        assert_eq!(event["decided_by"], decided_by, "{event}");
        assert_eq!(event["decision_role"], "tester", "{event}");
        assert!(
            event["policy_version"].as_u64().is_some_and(|version| version > 0),
            "{event}"
        );
        assert_eq!(
            (&event["db_user"], &event["db_name"]),
            (&"app".into(), &"app".into()),
            "{event}"
        );
        assert_eq!(event["db_service"], "orders", "{event}");
    }
    let statement = cluster.audited("reader", "TDB02I", of_session);
    assert_eq!(statement["db_query"], "select id, item from orders order by id");
}

fn statements_of_the_extended_protocol_are_audited_with_their_parameters(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let directory = crate::harness::TestDir::new();
    let script = directory.write(
        "script.sql",
        "select id, 'extended' from orders where item = :wanted;\n",
    );
    let mut pgbench = client.tool("pgbench");
    pgbench
        .args(["-n", "-M", "prepared", "-c", "1", "-t", "3", "-D", "wanted=rope", "-f"])
        .arg(&script);
    run(pgbench, PATIENCE).ok();

    let mentions = |text: &'static str| move |event: &Value| event.to_string().contains(text);
    let parsed = cluster.audited("alice", "TPG00I", mentions("'extended' from orders where item = $1"));
    let of_session = |event: &Value| event["sid"] == parsed["sid"];
    cluster.audited("alice", "TPG01I", |event| {
        of_session(event) && event.to_string().contains("rope")
    });
    cluster.audited("alice", "TPG02I", of_session);
}

fn an_error_of_postgresql_reaches_the_client_as_it_is_and_the_session_goes_on(form: Form) {
    let client = shared(form).client("alice", "app", "app");
    let mut wire = crate::harness::Wire::connect(&client).expect("allowed");
    let error = wire.query("select * from no_such_table").expect_err("there is none");
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("ERROR", "42P01"));
    assert_eq!(wire.query("select current_user, 6 * 7"), Ok(vec!["app|42".to_owned()]));
}

fn pgbench_with_eight_clients_passes(form: Form) {
    let cluster = shared(form);
    cluster.postgres.admin("postgres", "create database bench owner app");
    let mut fill = cluster.postgres.admin_tool("pgbench");
    fill.args(["-i", "-q", "-s", "1", "bench"]).env("PGUSER", "app");
    run(fill, PATIENCE).ok();
    // Somebody of its own: its thousands of events would push others' out of what the log answers at once.
    cluster
        .create(&crate::harness::cluster::user("bencher", "tester", "app"))
        .ok();
    let client = cluster.client("bencher", "app", "bench");
    let mut pgbench = client.tool("pgbench");
    pgbench.args(["-n", "-S", "-c", "8", "-j", "2", "-T", "3"]);
    let report = run(pgbench, PATIENCE).ok();
    assert!(report.contains("number of failed transactions: 0 "), "{report}");
    let speed = report
        .lines()
        .find(|line| line.starts_with("tps = "))
        .expect("a figure");
    crate::harness::figure(&format!("pgbench -S -c 8, {form:?}: {speed}"));
}

fn psycopg_passes_with_server_side_parameters(form: Form) {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("test-venv")
        .join("bin/python");
    assert!(
        python.exists(),
        "psycopg is not there; run `make test-tools`, which makes {}",
        python.display()
    );
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let mut command = std::process::Command::new(python);
    client.connects(&mut command);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/psycopg_client.py"));
    let said = run(command, PATIENCE * 2).ok();
    assert!(said.ends_with("all passed\n"), "{said}");
    cluster.audited("alice", "TPG01I", |event| {
        event.to_string().contains("server-side parameter")
    });
}

fn a_client_that_says_goodbye_and_waits_is_closed_without_a_word(form: Form) {
    let cluster = shared(form);
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("allowed");
    assert_eq!(wire.query("select 1").expect("it answers"), ["1"]);
    let said = wire.goodbye(FIVE_SECONDS);
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
