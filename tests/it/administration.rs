//! What administrators read and change with `ctl`: status, lists, authorities, documents.

use crate::harness::cluster::{role, user};
use crate::harness::configuration::SERVICE;
use crate::harness::process::{Output, TestDir, run};
use crate::harness::{Cluster, Form, Kind, PATIENCE, postern, shared};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[track_caller]
fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = cluster.ctl(&[arguments, &["--format=json"]].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// What openssl reads of a certificate on its standard input, or in a file.
#[track_caller]
fn openssl(arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-in"]).arg(file).args(arguments);
    run(command, PATIENCE).ok().trim().to_owned()
}

#[test]
fn status_says_what_the_cluster_is_made_of() {
    let cluster = shared(Form::Apart);
    let status = json(&cluster, &["status"]);
    let authorities: Vec<&str> = status["authorities"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|authority| authority["authority"].as_str().expect("a name"))
        .collect();
    assert_eq!(authorities, ["user", "host", "db", "db-client"]);
    for authority in status["authorities"].as_array().expect("a list") {
        assert_eq!(authority["rotation"], "never updated");
        assert_eq!(authority["algorithm"], "ECDSA P-256");
    }
    assert_eq!(status["nodes"]["auth"], 1);
    assert!(status["nodes"]["agent"].as_u64() >= Some(1), "{status}");
    assert!(status["databases"]["total"].as_u64() >= Some(1), "{status}");
    let text = cluster.ctl(&["status"]).ok();
    let pin = format!(
        "Cluster  test.example\nVersion  {}\nCA pin   sha256:",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.starts_with(&pin), "{text}");
    holds(
        &text,
        &["Authority", "db-client", "never updated", "1 auth", " healthy, "],
    );
    holds(
        &cluster.ctl(&["status", "--format=yaml"]).ok(),
        &["cluster: test.example"],
    );
}

#[test]
fn an_authority_is_exported_as_openssl_reads_it_and_its_key_is_not() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    for (kind, name) in [
        ("user", "user"),
        ("tls-host", "host"),
        ("db", "db"),
        ("db-client", "db-client"),
    ] {
        let document = &json(&cluster, &["get", &format!("cert_authority/{name}")])[0];
        let serial = format!("serial={}", document["spec"]["serial"].as_str().expect("a number"));
        let export = format!("--type={kind}");
        let pem = directory.write("ca.pem", cluster.ctl(&["auth", "export", &export]).ok());
        assert_eq!(openssl(&["-serial"], &pem), serial, "{kind}");
        let der = directory.join(format!("{kind}.der"));
        let out = format!("--out={}", der.display());
        cluster.ctl(&["auth", "export", &format!("{export}-der"), &out]).ok();
        assert_eq!(openssl(&["-serial", "-inform", "DER"], &der), serial, "{kind}");
    }
    let fingerprint = cluster.ctl(&["auth", "export", "--type=host", "--fingerprint"]).ok();
    assert_eq!(fingerprint.trim(), cluster.ca_pin());
    let keys = cluster.ctl(&["auth", "export", "--type=host", "--keys"]).failed_with(2);
    holds(&keys, &["never leave auth"]);
    let other = cluster.ctl(&["auth", "export", "--type=openssh"]).failed_with(2);
    holds(&other, &["openssh", "does not have"]);
}

#[test]
fn nodes_and_databases_are_listed_and_chosen() {
    let cluster = shared(Form::Apart);
    let nodes = json(&cluster, &["nodes", "ls"]);
    let node = |name: &str| {
        let mut nodes = nodes.as_array().expect("a list").iter();
        nodes
            .find(|node| node["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {nodes:?}"))
    };
    assert_eq!(node("agent-1")["services"], serde_json::json!(["db"]));
    assert_eq!(node("proxy-1")["version"], env!("CARGO_PKG_VERSION"));
    let port = cluster.proxy_port().to_string();
    assert!(node("proxy-1")["addresses"].to_string().contains(&port), "{nodes}");
    holds(
        &cluster.ctl(&["nodes", "ls"]).ok(),
        &["Name", "Services", "Version", "agent-1", "proxy-1"],
    );

    let names = |arguments: &[&str]| -> Vec<String> {
        let rows = json(&cluster, &[&["db", "ls"], arguments].concat());
        let rows = rows
            .as_array()
            .expect("a list")
            .iter()
            .filter(|row| row["agent"] == "agent-1");
        rows.map(|row| row["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert!(names(&[]).contains(&SERVICE.to_owned()));
    let labels = &json(&cluster, &["get", &format!("db_server/{SERVICE}")])[0]["metadata"]["labels"];
    let labels: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().expect("a text")))
        .collect();
    assert!(names(&[&labels.join(",")]).contains(&SERVICE.to_owned()));
    assert!(names(&["no=such"]).is_empty());
    assert!(names(&["--search", &SERVICE.to_uppercase()]).contains(&SERVICE.to_owned()));
    assert!(names(&["--search=no-such-word"]).is_empty());
    holds(
        &cluster.ctl(&["db", "ls", "-v"]).ok(),
        &["Health", "Certificate until", SERVICE],
    );
    holds(&cluster.ctl(&["db", "ls", "no=such"]).ok(), &["No databases found."]);
    cluster.ctl(&["db", "ls", "nonsense"]).failed_with(2);
}

#[test]
fn what_get_all_prints_create_reads_back_and_rm_removes() {
    let cluster = shared(Form::Apart);
    cluster
        .create(&(role("kept", "app") + "---\n" + &user("keeper", "kept", "app")))
        .ok();
    let backup = cluster.ctl(&["get", "all"]).ok();
    holds(&backup, &["name: kept", "name: keeper", "\n---\n"]);
    let both = cluster.ctl(&["get", "role/kept,user/keeper"]).ok();
    assert_eq!(both.matches("kind:").count(), 2, "{both}");
    for what in ["user/keeper", "role/kept"] {
        holds(&cluster.ctl(&["rm", what]).ok(), &["has been deleted"]);
        cluster.ctl(&["get", what]).failed_with(1);
    }
    cluster.create(&both).ok();
    assert_eq!(cluster.ctl(&["get", "role/kept,user/keeper"]).ok(), both);
    holds(
        &cluster.ctl(&["get", "users", "--format=text"]).ok(),
        &["Kind", "keeper"],
    );
    for what in ["user/keeper", "role/kept"] {
        cluster.ctl(&["rm", what]).ok();
    }
}

#[test]
fn tokens_are_shown_masked_and_what_cannot_be_written_or_removed_says_what_to_do() {
    let cluster = shared(Form::Apart);
    let token = cluster.ctl(&["tokens", "add", "--type=db", "--format=text"]).ok();
    let token = token.trim();
    let listed = cluster.ctl(&["get", "tokens"]).ok();
    let masked = format!("{}****", &token[..4]);
    assert!(listed.contains(&masked) && !listed.contains(token), "{listed}");
    holds(
        &cluster.ctl(&["rm", &format!("token/{token}")]).ok(),
        &["has been deleted"],
    );
    assert!(!cluster.ctl(&["get", "tokens"]).ok().contains(&masked));

    let made = cluster
        .create("kind: token\nversion: v2\nmetadata:\n  name: x\n")
        .failed_with(2);
    holds(&made, &["tokens add"]);
    holds(
        &cluster.ctl(&["rm", "cert_authority/host"]).failed_with(2),
        &["cannot be without"],
    );
    holds(&cluster.ctl(&["rm", "db_server/x"]).failed_with(2), &["rm node/NAME"]);
    holds(
        &cluster.ctl(&["edit", "node/agent-1"]).failed_with(2),
        &["joins with a token"],
    );
    holds(
        &cluster.ctl(&["get", "github"]).failed_with(2),
        &["github", "cert_authority"],
    );
}

/// An editor that runs a line of shell with the file's name in `$1`.
fn edit(cluster: &Cluster, directory: &TestDir, what: &str, script: &str) -> Output {
    let editor = directory.write("editor.sh", format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let mut command = postern(directory.path());
    command
        .args(["ctl", "--data-dir"])
        .arg(&cluster.node(Kind::Auth).config.data_dir)
        .args(["edit", what])
        .env("EDITOR", "/no/such/editor")
        .env("POSTERN_EDITOR", format!("'{}' ", editor.display()))
        .env("TMPDIR", directory.path());
    run(command, PATIENCE)
}

#[test]
fn an_edit_is_written_back_unless_nothing_changed_something_is_wrong_or_somebody_else_was_first() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    let drafts = || {
        let entries = std::fs::read_dir(directory.path()).expect("ours");
        let names = entries.map(|entry| entry.expect("ours").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("postern-edit-")).count()
    };
    cluster.create(&role("edited", "first")).ok();
    let edited = || cluster.ctl(&["get", "role/edited"]).ok();

    let said = edit(&cluster, &directory, "role/edited", "true").ok();
    holds(&said, &["unchanged"]);
    let modes = "stat -c %a \"$1\" \"$(dirname \"$1\")\" >&2; sed -i s/first/second/ \"$1\"";
    let done = edit(&cluster, &directory, "role/edited", modes);
    assert_eq!(done.stderr, "600\n700\n");
    holds(&done.ok(), &["role \"edited\" has been updated"]);
    holds(&edited(), &["second"]);
    assert_eq!(drafts(), 0);

    let wrong = edit(&cluster, &directory, "role/edited", "sed -i s/db_users/db_usrs/ \"$1\"");
    let wrong = wrong.failed_with(2);
    holds(&wrong, &["db_usrs", "line ", "is kept in", "role.yaml"]);
    assert_eq!(drafts(), 1);
    let renamed = edit(
        &cluster,
        &directory,
        "role/edited",
        "sed -i 's/name: edited/name: other/' \"$1\"",
    );
    holds(&renamed.failed_with(2), &["does not rename"]);
    holds(
        &edit(&cluster, &directory, "role/edited", "exit 3").failed_with(1),
        &["exit status: 3"],
    );

    // While the editor is open, somebody else writes.
    let other = directory.write("other.yaml", role("edited", "third"));
    let meanwhile = format!(
        "'{}' ctl --data-dir '{}' create -f '{}' >/dev/null && sed -i s/second/fourth/ \"$1\"",
        env!("CARGO_BIN_EXE_postern"),
        cluster.node(Kind::Auth).config.data_dir.display(),
        other.display()
    );
    let said = edit(&cluster, &directory, "role/edited", &meanwhile).failed_with(1);
    holds(&said, &["somebody else", "is kept in"]);
    holds(&edited(), &["third"]);
    cluster.ctl(&["rm", "role/edited"]).ok();
}

#[test]
fn a_certificate_for_a_database_says_when_to_renew_it_and_does_not_overwrite_another() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    let out = format!("--out={}", directory.join("server").display());
    let sign = |more: &[&str]| {
        let arguments = ["auth", "sign", "--format=db", "--host=db.example.com", &out];
        cluster.ctl(&[&arguments, more].concat())
    };
    let said = sign(&[]);
    holds(&said.stderr, &["warning", "--ttl=2190h"]);
    let said = said.ok();
    assert!(
        said.starts_with("Database credentials have been written to server.key, server.crt, server.cas.\n"),
        "{said}"
    );
    let key = format!("ssl_key_file = '{}'", directory.join("server.key").display());
    holds(&said, &["Renew them by ", &key, "hostssl all"]);
    holds(
        &sign(&["--ttl=2190h"]).failed_with(1),
        &["exists already", "--overwrite"],
    );
    let again = sign(&["--ttl=2190h", "--overwrite"]);
    assert_eq!(again.stderr, "");
    again.ok();
    holds(&sign(&["--tar"]).failed_with(2), &["--tar", "scp"]);
}

#[test]
fn debug_says_on_standard_error_which_socket_is_asked() {
    let cluster = shared(Form::Apart);
    let said = cluster.ctl(&["-d", "tokens", "ls"]);
    holds(&said.stderr, &["admin.sock"]);
    said.ok();
}
