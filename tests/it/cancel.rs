//! Ctrl-C in psql.

use crate::harness::{FIVE_SECONDS, Form, Session, Stopwatch, in_both_forms, shared};

in_both_forms! {
    ctrl_c_in_psql_cancels_the_statement_and_the_session_goes_on,
    a_cancel_request_with_a_wrong_key_cancels_nothing,
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
    use std::io::{Read, Write};
    let cluster = shared(form);
    let client = cluster.client("alice", "app", "app");
    let mut psql = Session::open(&client);
    psql.say("select pg_sleep(1.5) /* not to be cancelled */, 'slept ' || 'well';");
    cluster.postgres.wait_until_runs("app", "not to be cancelled");
    for process_id in [1u32, 2, 3, 4, 1000] {
        let mut request = vec![0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];
        request.extend(process_id.to_be_bytes());
        request.extend(0x0102_0304u32.to_be_bytes());
        let mut socket = crate::harness::wire::dial(client.port);
        socket.write_all(&request).expect("the proxy listens");
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer));
        assert!(answer.is_empty(), "a cancel request is never answered");
    }
    psql.hears("slept well", FIVE_SECONDS * 2);
}
