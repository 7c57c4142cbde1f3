//! Who is turned away, with which SQLSTATE and in which words.

use crate::harness::wait::until_ok;
use crate::harness::{Form, PATIENCE, ServerError, Wire, in_both_forms, shared, until};

in_both_forms! {
    a_database_user_outside_the_roles_is_denied_in_words_and_the_denial_is_audited,
    without_a_database_name_the_roles_are_asked_about_the_users_name,
    without_a_certificate_one_is_told_what_to_do_next,
    an_expired_certificate_is_refused_in_words,
    a_database_service_that_does_not_exist_is_named,
    a_person_who_was_removed_is_denied_whatever_the_certificate_says,
}

#[track_caller]
fn refused(client: &crate::harness::Client) -> ServerError {
    match Wire::connect(client) {
        Ok(_) => panic!("it was let in"),
        Err(error) => {
            assert_eq!(error.severity, "FATAL", "{error:?}");
            error
        }
    }
}

fn a_database_user_outside_the_roles_is_denied_in_words_and_the_denial_is_audited(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app").as_db_user("other");
    let error = refused(&client);
    assert_eq!(error.code, "42501");
    assert!(
        error.words().to_lowercase().contains("access to db denied"),
        "{error:?}"
    );

    let psql = client.psql("select 1").failed_with(2);
    assert!(psql.to_lowercase().contains("access to db denied"), "{psql}");

    let event = cluster.audited("alice", "TDB00W", |event| event["db_user"] == "other");
    assert_eq!(event["event"], "db.session.start");
    assert!(
        ["proxy", "agent"].contains(&event["decided_by"].as_str().unwrap_or_default()),
        "{event}"
    );
    assert!(event["error"].as_str().is_some_and(|text| !text.is_empty()), "{event}");
}

fn without_a_database_name_the_roles_are_asked_about_the_users_name(form: Form) {
    let cluster = shared(form);
    let role =
        crate::harness::cluster::role("one-database", "app, other").replace("db_names: ['*']", "db_names: [app]");
    let user = crate::harness::cluster::user("confined", "one-database", "");
    cluster.create(&(role + "---\n" + &user)).ok();
    let mut wire = Wire::connect(&cluster.client("confined", "app", "")).expect("the user's name is allowed");
    assert_eq!(wire.query("select current_database()"), Ok(vec!["app".to_owned()]));
    let error = refused(&cluster.client("confined", "other", ""));
    assert_eq!(error.code, "42501");
    cluster.audited("confined", "TDB00W", |event| event["db_name"] == "other");
}

fn without_a_certificate_one_is_told_what_to_do_next(form: Form) {
    let client = shared(form).client("alice", "app", "app").without_certificate();
    let error = refused(&client);
    assert_eq!(error.code, "28000");
    let words = error.words();
    assert!(
        words.contains("certificate") && words.contains("postern "),
        "the next command is named: {words}"
    );
    let psql = client.psql("select 1").failed_with(2);
    assert!(psql.contains("certificate"), "{psql}");
}

fn an_expired_certificate_is_refused_in_words(form: Form) {
    let client = shared(form).signed_client(&["--db-service", "orders", "--ttl=1s"], "alice", "app", "app");
    until("the certificate expires", PATIENCE, || Wire::connect(&client).err());
    // The first refusal may be of the agent or of auth, when it expires under way; from now on it is the proxy's.
    let error = refused(&client);
    assert_eq!(error.code, "28000");
    let words = error.words();
    assert!(
        words.contains("expired") && words.contains("postern "),
        "what happened and the next command: {words}"
    );
}

fn a_database_service_that_does_not_exist_is_named(form: Form) {
    let client = shared(form).client_for("no-such-service", "alice", "app", "app");
    let error = refused(&client);
    assert_eq!(error.code, "3D000");
    assert!(error.words().contains("no-such-service"), "{error:?}");
}

fn a_person_who_was_removed_is_denied_whatever_the_certificate_says(form: Form) {
    let cluster = shared(form);
    cluster
        .create(&crate::harness::cluster::user("leaver", "tester", "app"))
        .ok();
    let client = cluster.client("leaver", "app", "app");
    client.psql("select 1").ok();
    cluster.ctl(&["rm", "user/leaver"]).ok();
    let error = until_ok("the removal is known", PATIENCE, || match Wire::connect(&client) {
        Ok(_) => Err("it is still let in".to_owned()),
        Err(error) => Ok(error),
    });
    assert!(["42501", "28000"].contains(&error.code.as_str()), "{error:?}");
}
