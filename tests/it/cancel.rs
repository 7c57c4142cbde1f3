//! Ctrl-C in psql.

use crate::harness::wire::{cancel_encrypted, cancel_plain};
use crate::harness::{FIVE_SECONDS, Form, Session, Stopwatch, Wire, in_both_forms, shared};

in_both_forms! {
    ctrl_c_in_psql_cancels_the_statement_and_the_session_goes_on,
    a_cancel_request_with_a_wrong_key_cancels_nothing,
    each_version_of_the_protocol_is_answered_as_postgresql_18_does,
}

fn ctrl_c_in_psql_cancels_the_statement_and_the_session_goes_on(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::on_a_terminal(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    psql.say("select pg_sleep(60) /* to be cancelled */;");
    cluster.postgres.wait_until_runs("app", "to be cancelled");
    let pressed = Stopwatch::start();
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
    crate::harness::figure(&format!(
        "Ctrl-C to 57014, {form:?}: {} ms",
        pressed.elapsed().as_millis()
    ));
    psql.ask("select 'still ' || 'here';", "still here");
    cluster.audited("alice", "PDB01I", |_| true);
}

fn a_cancel_request_with_a_wrong_key_cancels_nothing(form: Form) {
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.say("select pg_sleep(1.5) /* not to be cancelled */, 'slept ' || 'well';");
    cluster.postgres.wait_until_runs("app", "not to be cancelled");
    for process_id in [1u32, 2, 3, 4, 1000] {
        let key = [process_id.to_be_bytes(), 0x0102_0304u32.to_be_bytes()].concat();
        cancel_plain(client.port, &key);
        cancel_encrypted(&client, &key);
    }
    psql.hears("slept well", FIVE_SECONDS * 2);
}

fn each_version_of_the_protocol_is_answered_as_postgresql_18_does(form: Form) {
    const UNKNOWN: &str = "_pq_.test_protocol_negotiation";
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let negotiation = |minor: u8, options: &[&str]| -> Option<Vec<u8>> {
        let mut body = vec![0, 3, 0, minor, 0, 0, 0, u8::try_from(options.len()).expect("few")];
        for option in options {
            body.extend(option.as_bytes());
            body.push(0);
        }
        Some(body)
    };
    for (minor, options, negotiated, secret_bytes) in [
        (0, &[][..], None, 4),
        (0, &[UNKNOWN], negotiation(0, &[UNKNOWN]), 4),
        (1, &[], None, 4),
        (2, &[], None, 32),
        (2, &[UNKNOWN], negotiation(2, &[UNKNOWN]), 32),
        (3, &[], negotiation(2, &[]), 32),
        (9_999, &[UNKNOWN], negotiation(2, &[UNKNOWN]), 32),
    ] {
        let mut wire = Wire::connect_speaking(&client, minor, options).expect("allowed");
        assert_eq!(wire.negotiated, negotiated, "3.{minor} {options:?}");
        assert_eq!(wire.cancel_key.len(), 4 + secret_bytes, "3.{minor} {options:?}");
        wire.begin_query(&format!("select pg_sleep(60) /* asked in 3.{minor} {form:?} */"));
        cluster
            .postgres
            .wait_until_runs("app", &format!("asked in 3.{minor} {form:?}"));
        cancel_encrypted(&client, &wire.cancel_key);
        assert_eq!(wire.ended_with(FIVE_SECONDS).code, "57014");
    }
}
