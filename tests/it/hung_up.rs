//! An administrator's program that hangs up before it is answered.

use crate::harness::{Form, PATIENCE, shared, until};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn a_change_whose_asker_hangs_up_is_audited_all_the_same() {
    let cluster = shared(Form::OneProcess);
    let data_dir = &cluster.node(crate::harness::Kind::Auth).config.data_dir;
    for number in 0..20 {
        let role = crate::harness::cluster::role(&format!("hung-up-{number}"), "app");
        let body = serde_json::json!({ "yaml": role, "replace": true }).to_string();
        let request = format!(
            "PUT /v1/resources HTTP/1.1\r\nhost: admin\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = UnixStream::connect(data_dir.join("admin.sock")).expect("auth listens");
        socket.write_all(request.as_bytes()).expect("it is taken");
        // Later and later: before it is read, while it is carried out, while it is audited.
        std::thread::sleep(Duration::from_micros(200 * number));
    }
    until("every role that is there is on the audit log", PATIENCE, || {
        let roles = cluster.ctl(&["get", "roles", "--format", "json"]).ok();
        let stored = roles.matches("\"hung-up-").count();
        let created = cluster.audit(&["--event", "role.created"]);
        let audited = created
            .iter()
            .filter(|event| event["name"].as_str().is_some_and(|name| name.starts_with("hung-up-")));
        (stored > 0 && audited.count() == stored).then_some(())
    });
}
