//! Replication connections: who may have one, what the audit log has of it, and what ends one that streams.

use crate::harness::cluster::{Options, user};
use crate::harness::configuration::SERVICE;
use crate::harness::{Client, Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Wire, in_both_forms, shared, until};
use nix::sys::signal::Signal;
use serde_json::Value;

in_both_forms! {
    a_replication_connection_takes_a_role_that_says_so_and_is_audited_with_its_commands,
    a_role_that_loses_replication_ends_the_stream_and_leaves_other_sessions_alone,
    a_replication_that_streams_is_not_idle,
    an_explanation_says_what_a_replication_connection_lacks,
}

/// A role for the database user `copier`, and the person who has it.
fn person_with(name: &str, allow: &str, options: &str) -> String {
    format!(
        "kind: role\nversion: v7\nmetadata: {{name: role-of-{name}}}\nspec:\n  options: {{{options}}}\n  allow: {{db_labels: \
         {{'*': '*'}}, db_users: [copier], db_names: ['*'], {allow}}}\n---\n{}",
        user(name, &format!("role-of-{name}"), "")
    )
}

const REPLICATES: &str = "db_replication: true";

fn copier(cluster: &Cluster, person: &str) -> Client {
    cluster.client(person, "copier", "app")
}

/// A connection in which a replication streams, quietly: nothing is written meanwhile, and PostgreSQL's keepalives come every
/// half minute.
fn streaming(cluster: &Cluster, person: &str) -> Wire {
    streaming_in(cluster, person, "true")
}

fn streaming_in(cluster: &Cluster, person: &str, mode: &str) -> Wire {
    let mut wire = Wire::connect_with(&copier(cluster, person), &["replication", mode]).expect("allowed");
    let system = wire.query("IDENTIFY_SYSTEM").expect("a replication connection");
    let position = system[0].split('|').nth(2).expect("a position in the WAL");
    wire.begin_query(&format!("START_REPLICATION PHYSICAL {position}"));
    wire.hears(b'W');
    wire
}

fn a_replication_connection_takes_a_role_that_says_so_and_is_audited_with_its_commands(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("copyist", REPLICATES, "")).ok();
    cluster.create(&person_with("reader", "", "")).ok();
    for (mode, value, name) in [("physical", "on", "replication"), ("logical", "database", "app")] {
        let parameter = ["replication", value];
        let error = Wire::connect_with(&copier(&cluster, "reader"), &parameter)
            .err()
            .expect("no role says so");
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "42501"));
        assert!(error.hint.contains("db_replication"), "{error:?}");
        let denied = cluster.audited("reader", "TDB00W", |event| event["replication"] == mode);
        assert!(
            denied["message"]
                .as_str()
                .is_some_and(|why| why.contains("db_replication")),
            "{denied}"
        );

        let mut wire = Wire::connect_with(&copier(&cluster, "copyist"), &parameter).expect("allowed");
        assert_eq!(
            wire.query("IDENTIFY_SYSTEM").expect("a command of replication").len(),
            1
        );
        for code in ["PDB00I", "TDB00I"] {
            let begun = cluster.audited("copyist", code, |event| event["replication"] == mode);
            assert_eq!(begun["db_name"], name, "{begun}");
            assert_eq!(begun["decision_role"], "role-of-copyist", "{begun}");
        }
        let recorded = cluster.audited("copyist", "TDB02I", |event| event["replication"] == mode);
        assert_eq!(recorded["db_query"], "IDENTIFY_SYSTEM", "{recorded}");
    }
    let mut ordinary = Wire::connect(&copier(&cluster, "copyist")).expect("allowed");
    assert_eq!(ordinary.query("select 1"), Ok(vec!["1".to_owned()]));
    let begun = cluster.audited("copyist", "TDB00I", |event| event["replication"].is_null());
    assert_eq!(begun["db_name"], "app", "{begun}");
}

fn a_role_that_loses_replication_ends_the_stream_and_leaves_other_sessions_alone(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("once", REPLICATES, "")).ok();
    let mut stream = streaming(&cluster, "once");
    let mut ordinary = Wire::connect(&copier(&cluster, "once")).expect("allowed");
    cluster.create(&person_with("once", "", "")).ok();
    let error = stream.ended_with(FIVE_SECONDS);
    assert_eq!(
        (error.severity.as_str(), error.code.as_str()),
        ("FATAL", "57P01"),
        "{error:?}"
    );
    assert!(
        error.message.contains("rules changed") && error.message.ends_with("for replication"),
        "{error:?}"
    );
    assert_eq!(ordinary.query("select 'goes on'"), Ok(vec!["goes on".to_owned()]));
}

fn a_replication_that_streams_is_not_idle(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&person_with("quiet", REPLICATES, "client_idle_timeout: 1s"))
        .ok();
    let mut stream = streaming(&cluster, "quiet");
    let mut resting = Wire::connect_with(&copier(&cluster, "quiet"), &["replication", "true"]).expect("allowed");
    let error = resting.ended_with(FIVE_SECONDS);
    assert_eq!(error.code, "57P05", "one that waits for a command is: {error:?}");
    // CopyDone: the client ends the stream, PostgreSQL answers, and the session goes on until it rests.
    stream.send(&[(b'c', b"")]);
    stream.hears(b'Z');
    assert_eq!(stream.ended_with(FIVE_SECONDS).code, "57P05");
}

fn an_explanation_says_what_a_replication_connection_lacks(form: Form) {
    let cluster = shared(form);
    cluster.create(&person_with("asked", "", "")).ok();
    let service = format!("--db={SERVICE}");
    let explain = [
        "access",
        "explain",
        "asked",
        service.as_str(),
        "--db-user=copier",
        "--db-name=app",
    ];
    assert!(cluster.ctl(&explain).ok().starts_with("through agent"));
    let physical = [&explain[..], &["--replication=physical"]].concat();
    let said = cluster.ctl(&physical).ok();
    for words in [
        "DENIED: asked as database user \"copier\" and database name \"replication\" for physical replication",
        "no  allow  allow has no db_replication",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    cluster.create(&person_with("asked", REPLICATES, "")).ok();
    let said = cluster.ctl(&[&physical[..], &["--format=json"]].concat()).ok();
    let agents: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&agents[0]["allowed"], &agents[0]["explanation"]["replication"]),
        (&true.into(), &"physical".into())
    );
    let said = cluster
        .ctl(&[&explain[..], &["--replication=yes"]].concat())
        .failed_with(2);
    assert!(said.contains("physical or logical"), "{said}");
}

/// A stream has no end of its own to wait for, and a backup may stand behind it: it has the node's grace, as a query that runs.
#[test]
fn a_node_that_drains_leaves_a_stream_its_grace_and_ends_a_replication_connection_at_rest_at_once() {
    let options = Options {
        process: "  shutdown_grace: 2s\n  diag_addr: 127.0.0.1:0\n",
        ..Options::default()
    };
    let mut cluster = Cluster::start_with(Form::Apart, options);
    cluster.create(&person_with("copyist", REPLICATES, "")).ok();
    let mut stream = until("the rule is known", PATIENCE, || {
        Wire::connect(&copier(&cluster, "copyist")).ok()?;
        Some(streaming(&cluster, "copyist"))
    });
    let mut resting = Wire::connect_with(&copier(&cluster, "copyist"), &["replication", "database"]).expect("allowed");
    let since = crate::harness::Stopwatch::start();
    cluster.node(Kind::Agent).process().send(Signal::SIGTERM);
    let error = resting.ended_with(FIVE_SECONDS);
    assert_eq!(error.code, "57P01", "{error:?}");
    assert!(
        since.elapsed() < std::time::Duration::from_millis(1500),
        "{:?}",
        since.elapsed()
    );
    let error = stream.ended_with(FIVE_SECONDS);
    assert_eq!(error.code, "57P01", "{error:?}");
    assert!(error.message.contains("agent-1"), "{error:?}");
    assert!(
        since.elapsed() >= std::time::Duration::from_millis(1900),
        "it had its grace"
    );
    assert_eq!(cluster.node_mut(Kind::Agent).wait(PATIENCE), 0, "it ended in order");
}

/// Why a role allows both modes or none (docs/decisions/0019).
#[test]
fn a_connection_to_one_database_streams_the_whole_server_too() {
    let cluster = shared(Form::Apart);
    cluster.create(&person_with("curious", REPLICATES, "")).ok();
    let mut stream = streaming_in(&cluster, "curious", "database");
    stream.send(&[(b'c', b"")]);
    stream.hears(b'Z');
}

/// The signal of a cancel request ends a stream as it ends a query, and the connection goes on.
#[test]
fn a_replication_that_streams_can_be_cancelled() {
    let cluster = shared(Form::Apart);
    cluster.create(&person_with("stopper", REPLICATES, "")).ok();
    let mut stream = streaming(&cluster, "stopper");
    stream.cancel(cluster.proxy_port());
    let error = stream.ended_with(FIVE_SECONDS);
    assert_eq!(error.code, "57014", "{error:?}");
    stream.hears(b'Z');
    assert_eq!(stream.query("IDENTIFY_SYSTEM").expect("it goes on").len(), 1);
}
