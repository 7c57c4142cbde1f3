//! `kill -9` of a node, and of all of them.

use crate::harness::cluster::{role, user};
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Session, Stopwatch, Wire, in_both_forms};

in_both_forms! {
    after_kill_9_of_everything_what_was_acknowledged_is_there,
}

#[test]
fn kill_9_of_the_agent_is_told_to_its_clients_and_a_new_agent_serves_again() {
    let mut cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut idle = Wire::connect(&client).expect("allowed");
    let mut psql = Session::open(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    psql.say("select pg_sleep(60) /* while the agent dies */;");
    cluster.postgres.wait_until_runs("app", "while the agent dies");

    let killed = Stopwatch::start();
    cluster.node_mut(Kind::Agent).kill9();
    let said = psql.hears("08006", FIVE_SECONDS);
    crate::harness::figure(&format!(
        "kill -9 of the agent to 08006: {} ms",
        killed.elapsed().as_millis()
    ));
    assert!(said.contains("agent-1"), "the agent is named: {said}");
    let error = idle.ended_with(FIVE_SECONDS);
    assert_eq!(
        (error.severity.as_str(), error.code.as_str()),
        ("FATAL", "08006"),
        "{error:?}"
    );
    assert!(error.words().contains("agent-1"), "{error:?}");

    let error = Wire::connect(&client).map(drop).expect_err("no agent is there");
    assert_eq!(error.code, "08001", "{error:?}");

    let started = Stopwatch::start();
    cluster.node_mut(Kind::Agent).start();
    until_ok("the new agent serves", FIVE_SECONDS, || {
        let mut wire = Wire::connect(&client).map_err(|error| format!("{error:?}"))?;
        wire.query("select 1").map(drop).map_err(|error| format!("{error:?}"))
    });
    let took = started.elapsed();
    crate::harness::figure(&format!("start of a new agent to a query: {} ms", took.as_millis()));
    assert!(took < FIVE_SECONDS, "{took:?}");
}

#[test]
fn kill_9_of_auth_leaves_live_sessions_alone_and_auth_comes_back() {
    let mut cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    cluster.node_mut(Kind::Auth).kill9();
    for number in 0..20 {
        let rows = wire
            .query(&format!("select {number}, count(*) from orders /* without auth */"))
            .expect("the session lives");
        assert_eq!(rows, [format!("{number}|3")]);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // Same person, same database user: the agent still has its certificate for PostgreSQL.
    let mut another = Wire::connect(&client).expect("new connections are decided from the last policy");
    another.query("select 1").expect("it works");

    cluster.node_mut(Kind::Auth).start();
    let last = |event: &serde_json::Value| {
        event["db_query"]
            .as_str()
            .is_some_and(|query| query.starts_with("select 19,") && query.contains("without auth"))
    };
    cluster.audited("alice", "TDB02I", last);
    assert_eq!(wire.query("select 'still here'"), Ok(vec!["still here".to_owned()]));
    // What changes on the new auth reaches the nodes that survived.
    cluster.create(&user("alice", "tester", "other")).ok();
    assert_eq!(wire.ended_with(FIVE_SECONDS * 2).severity, "FATAL");
}

fn after_kill_9_of_everything_what_was_acknowledged_is_there(form: Form) {
    let mut cluster = Cluster::start(form);
    let pin = cluster.ca_pin();
    let client = cluster.client("alice", "app", "app");
    client.psql("select 'before the end'").ok();
    cluster.audited("alice", "TDB02I", |event| {
        event["db_query"] == "select 'before the end'"
    });
    let events = cluster.audit(&[]);
    let mut wire = Wire::connect(&client).expect("allowed");
    wire.query("select 1").expect("allowed");
    // The last thing that auth acknowledged before it is gone.
    cluster
        .create(&(role("late", "app") + "---\n" + &user("latecomer", "late", "")))
        .ok();
    for node in cluster.nodes.iter_mut().rev() {
        node.kill9();
    }
    for node in &mut cluster.nodes {
        node.start();
    }

    assert_eq!(cluster.ca_pin(), pin);
    let after = cluster.audit(&[]);
    for event in &events {
        assert!(after.iter().any(|other| other["uid"] == event["uid"]), "lost: {event}");
    }
    assert!(
        cluster
            .ctl(&["get", "role/late", "--format", "yaml"])
            .ok()
            .contains("late")
    );
    let again = until_ok("the old certificate still works", FIVE_SECONDS * 2, || {
        let output = client.psql("select item from orders where id = 2");
        if output.code == 0 {
            Ok(output.stdout)
        } else {
            Err(output.stderr)
        }
    });
    assert_eq!(again, "rope\n");
    cluster.client("latecomer", "app", "app").psql("select 1").ok();
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_result_leaves_no_session_behind() {
    let cluster = crate::harness::shared(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut psql = client.psql_command();
    let marked = "a client that dies";
    // Nothing comes while the client dies, and then more than all windows on the way hold.
    let statement = format!(
        "with wait as materialized (select pg_sleep(2)) select '{marked}', repeat('x', 1000) from wait, \
         generate_series(1, 40000)"
    );
    psql.args(["-c", &statement]).stdout(std::process::Stdio::null());
    let mut child = psql.spawn().expect("psql");
    cluster.postgres.wait_until_runs("app", marked);
    child.kill().expect("it lives");
    child.wait().expect("it ended");
    crate::harness::until("PostgreSQL's session ends", PATIENCE, || {
        let left = cluster.postgres.admin(
            "postgres",
            &format!("select count(*) from pg_stat_activity where query like '%{marked}%' and query not like '%pg_stat_activity%'"),
        );
        (left.trim() == "0").then_some(())
    });
}
