//! A configuration, a resource, a port or a data directory that cannot be used: what is said, and the exit code.

use crate::harness::postgres::{as_postgres, postgres_account};
use crate::harness::{Form, Kind, NodeConfig, Output, PATIENCE, TestDir, postern, run, shared};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What a command refused with `code`, in one sentence that begins as all our errors do.
#[track_caller]
fn refusal(output: Output, code: i32) -> String {
    let said = output.failed_with(code);
    assert!(
        said.lines().any(|line| line.starts_with("postern: ")),
        "errors begin with `postern: `: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[track_caller]
fn holds(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

fn start(directory: &TestDir, yaml: &str) -> Output {
    let file = directory.write("postern.yaml", yaml);
    let mut command = postern(directory.path());
    command.arg("start").arg("--config").arg(file);
    run(command, PATIENCE)
}

fn auth_only(directory: &TestDir) -> NodeConfig {
    NodeConfig::new("alone", directory.join("data")).with_auth()
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_key() {
    let directory = TestDir::new();
    let said = refusal(
        start(
            &directory,
            "version: v3\nauth_service:\n  enabled: yes\n  listen_adr: 127.0.0.1:0\n",
        ),
        2,
    );
    holds(&said, &["postern.yaml:4", "listen_adr", "\"listen_addr\""]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_line_and_what_was_expected() {
    let directory = TestDir::new();
    let said = refusal(
        start(
            &directory,
            "version: v3\npostern:\n  data_dir: [a, b]\nauth_service: {enabled: yes}\n",
        ),
        2,
    );
    holds(&said, &["postern.yaml:3", "data_dir", "path", "list"]);
}

#[test]
fn text_that_is_not_yaml_is_refused_with_its_line() {
    let directory = TestDir::new();
    let said = refusal(start(&directory, "version: v3\nauth_service: {enabled: yes\n"), 2);
    holds(&said, &["postern.yaml:", "YAML"]);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let directory = TestDir::new();
    let mut command = postern(directory.path());
    command.arg("start").arg("--config").arg(directory.join("absent.yaml"));
    holds(&refusal(run(command, PATIENCE), 2), &["absent.yaml"]);
}

#[test]
fn an_unknown_flag_or_verb_is_a_bad_command_line() {
    let directory = TestDir::new();
    for arguments in [
        &["start", "--no-such-flag"][..],
        &["no-such-verb"],
        &["ctl", "no-such-verb"],
    ] {
        let mut command = postern(directory.path());
        command.args(arguments);
        let said = run(command, PATIENCE).failed_with(2);
        assert!(said.contains("no-such"), "{said}");
    }
}

#[test]
fn a_role_with_a_syntax_error_is_refused_with_its_line_and_nothing_is_created() {
    let cluster = shared(Form::OneProcess);
    let broken = "kind: role\nversion: v5\nmetadata:\n  name: broken\nspec:\n  allow:\n    db_users: [app\n    db_names: ['*']\n";
    let unknown = "kind: role\nversion: v5\nmetadata:\n  name: broken\nspec:\n  alow:\n    db_users: [app]\n";
    holds(&refusal(cluster.create(broken), 2), &["line "]);
    holds(
        &refusal(cluster.create(unknown), 2),
        &["line 6", "alow", "\"allow\"", "broken"],
    );
    holds(&refusal(cluster.ctl(&["get", "role/broken"]), 1), &["broken"]);
}

#[test]
fn a_file_with_one_bad_document_creates_none_of_them() {
    let cluster = shared(Form::OneProcess);
    let output =
        cluster.create(&(crate::harness::cluster::role("good-half", "app") + "---\nkind: rule\nversion: v5\n"));
    refusal(output, 2);
    cluster.ctl(&["get", "role/good-half"]).failed_with(1);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let directory = TestDir::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let mut config = auth_only(&directory);
    config.auth_port = Some(port);
    let said = refusal(start(&directory, &config.yaml()), 1);
    holds(&said, &[&port.to_string(), "taken"]);

    let mut config = auth_only(&directory).with_proxy();
    config.proxy_port = Some(port);
    let said = refusal(start(&directory, &config.yaml()), 1);
    holds(&said, &[&port.to_string(), "taken"]);
}

#[test]
fn a_data_directory_in_use_is_refused_to_a_second_process() {
    let cluster = shared(Form::OneProcess);
    let first = cluster.node(Kind::Auth);
    let directory = TestDir::new();
    let config = NodeConfig::new("second", &first.config.data_dir).with_auth();
    let said = refusal(start(&directory, &config.yaml()), 1);
    holds(
        &said,
        &[
            &first.config.data_dir.display().to_string(),
            &first.process().id().to_string(),
        ],
    );
    cluster.ctl(&["status"]).ok();
}

#[test]
fn a_data_directory_that_is_not_writable_is_refused() {
    let directory = TestDir::new();
    let sealed = directory.join("sealed");
    std::fs::create_dir(&sealed).expect("ours");
    std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o555)).expect("ours");
    let file = directory.write(
        "postern.yaml",
        NodeConfig::new("alone", sealed.join("data")).with_auth().yaml(),
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    // Root may write anywhere, so the program runs under another account, which may not be able to enter our target directory.
    let program = directory.join("postern");
    std::fs::copy(env!("CARGO_BIN_EXE_postern"), &program).expect("a copy");
    let mut command = Command::new(program);
    crate::harness::clean_environment(&mut command, directory.path());
    command.arg("start").arg("--config").arg(&file);
    as_postgres(&mut command);
    let said = refusal(run(command, PATIENCE), 1);
    holds(&said, &[&sealed.display().to_string(), "ermission denied"]);
    assert!(postgres_account().is_none() || !sealed.join("data").exists());
}

#[test]
fn ctl_without_a_running_auth_says_where_to_run_it() {
    let directory = TestDir::new();
    let mut command = postern(directory.path());
    command.args(["ctl", "--data-dir"]).arg(directory.path()).arg("status");
    holds(
        &refusal(run(command, PATIENCE), 1),
        &[&directory.path().display().to_string(), "auth node"],
    );
}
