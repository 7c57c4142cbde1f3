//! What became of statements, as the audit log has it; strict mode; and an agent that is killed in the middle of a stream of them.

use crate::harness::cluster::user;
use crate::harness::wait::until_ok;
use crate::harness::{
    Client, Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Stopwatch, Wire, figure, in_both_forms, run, shared, until,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

in_both_forms! {
    each_request_has_its_result_on_the_log_with_rows_errors_and_the_bytes_of_a_copy,
    of_the_extended_protocol_the_result_says_which_text_ran,
}

/// A person with `options` for everything.
fn person_with(name: &str, options: &str) -> String {
    format!(
        "kind: role\nversion: v7\nmetadata: {{name: role-of-{name}}}\nspec:\n  options: {{{options}}}\n  allow: {{db_labels: \
         {{'*': '*'}}, db_users: [app], db_names: ['*']}}\n---\n{}",
        user(name, &format!("role-of-{name}"), "app")
    )
}

/// The events of the session that ran `query`, up to its end.
fn session_of(cluster: &Cluster, person: &str, query: &str) -> Vec<Value> {
    let statement = cluster.audited(person, "TDB02I", |event| event["db_query"] == query);
    let sid = statement["sid"].clone();
    cluster.audited(person, "TDB01I", |event| event["sid"] == sid);
    let mut events = cluster.audit(&["--user", person]);
    events.retain(|event| event["sid"] == sid && event["server_id"] == statement["server_id"]);
    events
}

/// The one result of the request that `is_it` finds.
#[track_caller]
fn result_of(events: &[Value], is_it: impl Fn(&Value) -> bool) -> Value {
    let request = events.iter().find(|event| is_it(event)).expect("the request")["request"].clone();
    let results = events
        .iter()
        .flat_map(|event| event["results"].as_array().into_iter().flatten());
    let found: Vec<_> = results.filter(|result| result["request"] == request).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let mut found = found[0].clone();
    found.as_object_mut().expect("an object").remove("request");
    found
}

fn each_request_has_its_result_on_the_log_with_rows_errors_and_the_bytes_of_a_copy(form: Form) {
    let cluster = shared(form);
    cluster.create(&user("counted", "tester", "app")).ok();
    let client = cluster.client("counted", "app", "app");
    let mut psql = client.tool("psql");
    let script = client.home.join("script.sql");
    std::fs::write(
        &script,
        "create temp table t (n int);\n\\copy t from stdin\n1\n22\n\\.\n\\copy t to stdout\n\
         select * from no_such_table_of_counted;\nselect n from t;\ninsert into t values (3) \\; update t set n = n + 1;\n",
    )
    .expect("ours");
    psql.args(["-X", "-q", "-f"]).arg(&script);
    run(psql, PATIENCE);

    let events = session_of(&cluster, "counted", "select n from t;");
    let of = |start: &'static str| {
        result_of(&events, |event| {
            event["db_query"].as_str().is_some_and(|query| query.starts_with(start))
        })
    };
    assert_eq!(of("select n"), json!({"command": "SELECT", "rows": 2}));
    assert_eq!(of("create"), json!({"command": "CREATE TABLE"}));
    assert_eq!(
        of("COPY  t TO"),
        json!({"command": "COPY", "rows": 2, "copy": "out", "bytes_out": 5})
    );
    let copied_in = of("COPY  t FROM");
    // psql before 18 sends the line that ends its data, too.
    let bytes = copied_in["bytes_in"].as_u64().filter(|bytes| [5, 8].contains(bytes));
    assert_eq!(
        copied_in,
        json!({"command": "COPY", "rows": 2, "copy": "in", "bytes_in": bytes})
    );
    assert_eq!(
        of("select * from no_such"),
        json!({"failed_at": "query", "severity": "ERROR", "sqlstate": "42P01"})
    );
    let both = events
        .iter()
        .find(|event| event["results"].as_array().is_some_and(|all| all.len() == 2));
    let both = both.expect("two statements of one text");
    assert_eq!((&both["success"], &both["affected_records"]), (&json!(true), &json!(4)));

    let shown = cluster
        .ctl(&["audit", "ls", "--user", "counted", "--event", "db.session.result"])
        .ok();
    assert!(
        shown.contains("SELECT, 2 rows") && shown.contains("failed at query: 42P01"),
        "{shown}"
    );
}

fn of_the_extended_protocol_the_result_says_which_text_ran(form: Form) {
    let cluster = shared(form);
    cluster.create(&user("preparer", "tester", "app")).ok();
    let client = cluster.client("preparer", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    let bind_and_execute: &[(u8, &[u8])] = &[(b'B', b"\0named\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), (b'S', b"")];
    wire.send(&[
        (b'P', b"named\0select 'it ran' from generate_series(1, 3)\0\0\0"),
        (b'S', b""),
    ]);
    wire.hears(b'Z');
    wire.send(&[(b'P', b"named\0select 'it did not run'\0\0\0"), (b'S', b"")]);
    wire.hears(b'Z');
    wire.send(bind_and_execute);
    wire.hears(b'Z');
    wire.query("select 'the end of a preparer'").expect("allowed");
    drop(wire);

    let events = session_of(&cluster, "preparer", "select 'the end of a preparer'");
    let parse = |text: &str| {
        let is_it = |event: &&Value| event["query"].as_str().is_some_and(|query| query.contains(text));
        events.iter().find(is_it).expect("a Parse")["request"].clone()
    };
    assert_eq!(
        result_of(&events, |event| event["code"] == "TPG02I"),
        json!({"command": "SELECT", "rows": 3, "parsed": parse("it ran")})
    );
    assert_eq!(
        result_of(&events, |event| event["request"] == parse("did not")),
        json!({"failed_at": "parse", "severity": "ERROR", "sqlstate": "42P05"})
    );
}

/// Runs numbered statements until it is cut off.
struct Stream {
    answered: Arc<AtomicU64>,
    /// The number of each that was answered, and when.
    thread: JoinHandle<Vec<Duration>>,
}

impl Stream {
    fn of(client: &Client, name: &'static str, since: Stopwatch) -> Self {
        let mut wire = Wire::connect(client).expect("allowed");
        let answered = Arc::new(AtomicU64::new(0));
        let count = answered.clone();
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while wire.query(&format!("select {} /* of {name} */", times.len())).is_ok() {
                times.push(since.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            times
        });
        Self { answered, thread }
    }

    fn has(&self, count: u64) -> Option<()> {
        (self.answered.load(Ordering::Relaxed) >= count).then_some(())
    }
}

/// How often each numbered statement of `name` is on the log.
fn logged(cluster: &Cluster, name: &str) -> BTreeMap<usize, u32> {
    let events = cluster.audit(&["--user", name, "--event", "db.session.query"]);
    let mut times = BTreeMap::new();
    for event in events {
        let query = event["db_query"].as_str().unwrap_or_default();
        let number = query
            .strip_prefix("select ")
            .and_then(|rest| rest.split_once(" /* of "));
        if let Some((number, _)) = number {
            *times.entry(number.parse().expect("a number")).or_default() += 1;
        }
    }
    times
}

/// As a process leaves it that dies in the middle of a write.
fn tear(spool: &std::path::Path) {
    let segments = std::fs::read_dir(spool).expect("the spool");
    let segments = segments.map(|entry| entry.expect("an entry").path());
    let last = segments
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .max();
    let mut file = std::fs::File::options()
        .append(true)
        .open(last.expect("a segment"))
        .expect("ours");
    file.write_all(b"00000000000000099999\t0badc0de\t{\"event\":\"db.session.query\",\"code\":")
        .expect("ours");
}

#[test]
fn after_kill_9_in_a_stream_of_statements_strict_mode_has_lost_none_and_default_mode_those_of_its_window() {
    /// Written within 100 ms, which is promised; a busy machine's scheduler may double that many times.
    const WINDOW: Duration = Duration::from_secs(1);
    let mut cluster = Cluster::start(Form::Apart);
    cluster.create(&person_with("strict", "audit: strict")).ok();
    cluster.create(&person_with("lenient", "")).ok();
    let started = Stopwatch::start();
    let people = ["strict", "lenient"];
    let streams = people.map(|name| Stream::of(&cluster.client(name, "app", "app"), name, started));
    for stream in &streams {
        until("the streams run", PATIENCE, || stream.has(200));
    }
    let enough = WINDOW + Duration::from_millis(500);
    until("they have run for a while", PATIENCE, || {
        (started.elapsed() > enough).then_some(())
    });
    let killed = started.elapsed();
    cluster.node_mut(Kind::Agent).kill9();
    let answered = streams.map(|stream| stream.thread.join().expect("it reads why it ended"));
    tear(&cluster.node(Kind::Agent).config.data_dir.join("spool"));
    cluster.node_mut(Kind::Agent).start();

    // The last of the spool is shipped in its order: when something new is there, so is everything before.
    let client = cluster.client("alice", "app", "app");
    until_ok("the new agent serves", FIVE_SECONDS, || {
        let output = client.psql("select 'after the crash'");
        if output.code == 0 { Ok(()) } else { Err(output.stderr) }
    });
    cluster.audited("alice", "TDB02I", |event| {
        event["db_query"] == "select 'after the crash'"
    });
    let log = cluster.node(Kind::Agent).process().log_text();
    assert!(log.contains("the end of the audit spool was torn by a crash"), "{log}");

    for (name, answered) in people.into_iter().zip(answered) {
        let logged = logged(&cluster, name);
        assert!(logged.values().all(|times| *times == 1), "{name}: nothing twice");
        let missing: Vec<usize> = (0..answered.len())
            .filter(|number| !logged.contains_key(number))
            .collect();
        figure(&format!(
            "kill -9 of an agent, {name}: {} statements answered, {} of them not on the log",
            answered.len(),
            missing.len()
        ));
        if name == "strict" {
            assert_eq!(missing, [0; 0], "{name}");
        }
        let too_old: Vec<_> = missing
            .iter()
            .filter(|number| answered[**number] + WINDOW < killed)
            .collect();
        assert!(too_old.is_empty(), "{name}: {too_old:?}");
    }
}

#[test]
fn strict_mode_is_told_by_explain_and_begins_in_open_sessions() {
    let cluster = shared(Form::Apart);
    cluster.create(&person_with("turned-strict", "")).ok();
    let mut wire = Wire::connect(&cluster.client("turned-strict", "app", "app")).expect("allowed");
    cluster.create(&person_with("turned-strict", "audit: strict")).ok();
    let explained = cluster.ctl(&[
        "access",
        "explain",
        "turned-strict",
        "--db=orders",
        "--db-user=app",
        "--db-name=app",
    ]);
    let said = explained.ok();
    assert!(
        said.contains("option audit: strict, from role \"role-of-turned-strict\""),
        "{said}"
    );
    let rows = wire.query("select 'strictly audited'").expect("allowed");
    assert_eq!(rows, ["strictly audited"]);
}

/// Transactions a second of `pgbench -S`.
fn speed(client: &Client, clients: &str) -> f64 {
    let mut pgbench = client.tool("pgbench");
    pgbench.args(["-n", "-S", "-c", clients, "-j", "2", "-T", "3"]);
    let report = run(pgbench, PATIENCE).ok();
    let tps = report
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .expect("a figure");
    tps.split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number")
}

#[test]
#[ignore = "a minute of pgbench: make campaign-audit"]
fn strict_mode_against_default_mode() {
    const ROUNDS: usize = 5;
    let cluster = Cluster::start(Form::Apart);
    cluster.postgres.admin("postgres", "create database bench owner app");
    let mut fill = cluster.postgres.admin_tool("pgbench");
    fill.args(["-i", "-q", "-s", "1", "bench"]).env("PGUSER", "app");
    run(fill, PATIENCE).ok();
    cluster.create(&person_with("strict", "audit: strict")).ok();
    cluster.create(&person_with("lenient", "")).ok();
    let people = ["lenient", "strict"].map(|name| cluster.client(name, "app", "bench"));
    for clients in ["1", "8"] {
        let mut ratios: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let [lenient, strict] = people.each_ref().map(|client| speed(client, clients));
                eprintln!("{clients} clients: {lenient:.0} and {strict:.0} statements a second");
                strict / lenient
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        figure(&format!(
            "audit: strict against default, pgbench -S -c {clients}: {:.2} of its speed",
            ratios[ROUNDS / 2]
        ));
    }
}
