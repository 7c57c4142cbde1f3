//! A role taken away from somebody who is connected.

use crate::harness::cluster::{role, user};
use crate::harness::{FIVE_SECONDS, Form, Session, Stopwatch, Wire, in_both_forms, shared};

in_both_forms! {
    a_role_removed_ends_the_running_statement_and_the_client_reads_why,
    a_role_removed_ends_an_idle_session_and_the_client_reads_why,
    a_lock_ends_the_open_session_and_refuses_the_next_one_with_its_message,
    a_change_that_takes_nothing_away_leaves_sessions_alone,
}

/// What a session that is no longer allowed may be told: ended by an administrator, or not privileged.
const ENDED: [&str; 2] = ["57P01", "42501"];

fn a_role_removed_ends_the_running_statement_and_the_client_reads_why(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&(role("for-a-while", "app") + "---\n" + &user("guest", "for-a-while", "")))
        .ok();
    let mut psql = Session::open(&cluster.client("guest", "app", "app"));
    psql.ask("select 'con' || 'nected';", "connected");
    psql.say("select pg_sleep(60) /* of a guest */;");
    cluster.postgres.wait_until_runs("app", "of a guest");
    let removed = Stopwatch::start();
    cluster.ctl(&["rm", "role/for-a-while"]).ok();
    let said = psql.hears("FATAL", FIVE_SECONDS);
    crate::harness::figure(&format!(
        "role removed to FATAL, {form:?}: {} ms",
        removed.elapsed().as_millis()
    ));
    assert!(ENDED.iter().any(|code| said.contains(code)), "{said}");
    let words = said.to_lowercase();
    assert!(
        ["role", "access", "allow", "permi"]
            .iter()
            .any(|word| words.contains(word)),
        "the client reads why: {said}"
    );
    cluster.audited("guest", "TDB01I", |_| true);
}

fn a_role_removed_ends_an_idle_session_and_the_client_reads_why(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&(role("for-an-idle-while", "app") + "---\n" + &user("idler", "for-an-idle-while", "")))
        .ok();
    let mut wire = Wire::connect(&cluster.client("idler", "app", "app")).expect("allowed");
    wire.query("select 1").expect("allowed");
    cluster.create(&user("idler", "tester", "")).ok();
    let error = wire.ended_with(FIVE_SECONDS);
    assert_eq!(error.severity, "FATAL");
    assert!(ENDED.contains(&error.code.as_str()), "{error:?}");
}

fn a_lock_ends_the_open_session_and_refuses_the_next_one_with_its_message(form: Form) {
    let cluster = shared(form);
    let documents = role("for-the-locked", "app") + "---\n" + &user("suspect", "for-the-locked", "");
    cluster.create(&documents).ok();
    let client = cluster.client("suspect", "app", "app");
    let mut wire = Wire::connect(&client).expect("allowed");
    wire.query("select 1").expect("allowed");
    let lock = "kind: lock\nversion: v2\nmetadata: {name: suspicion}\n\
                spec: {target: {user: suspect}, message: under investigation}\n";
    cluster.create(lock).ok();
    let sentence = "lock targeting User:\"suspect\" is in force: under investigation";
    let error = wire.ended_with(FIVE_SECONDS);
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
    assert!(error.message.contains(sentence), "{error:?}");
    let error = Wire::connect(&client).err().expect("locked");
    let said = format!("{error:?}");
    assert!(said.contains("42501") && said.contains("under investigation"), "{said}");
    let sign = ["auth", "sign", "--format=file", "--user=suspect", "--out=nowhere"];
    assert!(
        cluster.ctl(&sign).failed_with(1).contains(sentence),
        "nothing is signed"
    );
    cluster.ctl(&["rm", "lock/suspicion"]).ok();
    assert!(Wire::connect(&client).is_ok(), "the lock is lifted");
}

fn a_change_that_takes_nothing_away_leaves_sessions_alone(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&(role("for-long", "app") + "---\n" + &user("stayer", "for-long", "")))
        .ok();
    let mut wire = Wire::connect(&cluster.client("stayer", "app", "app")).expect("allowed");
    cluster.create(&role("for-long", "app, other")).ok();
    // Once the change is decided by, a new connection as `other` passes; the old one lives on.
    crate::harness::until("the change is known", FIVE_SECONDS, || {
        Wire::connect(&cluster.client("stayer", "other", "app")).ok().map(drop)
    });
    assert_eq!(wire.query("select 'unharmed'"), Ok(vec!["unharmed".to_owned()]));
}
