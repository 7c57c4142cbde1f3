//! The commands that set nodes up, under the names that the guide calls the program by.

use crate::harness::configuration::DB_TOKEN;
use crate::harness::wait::until_ok;
use crate::harness::{
    Form, Kind, NodeConfig, Output, PATIENCE, Process, TestDir, clean_environment, figure, run, shared,
};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The program by one of its names: a link to it in `directory`.
fn named(directory: &TestDir, name: &str) -> Command {
    let link = directory.join(name);
    if !link.is_symlink() {
        symlink(env!("CARGO_BIN_EXE_postern"), &link).expect("a link");
    }
    let mut command = Command::new(link);
    clean_environment(&mut command, directory.path());
    command
}

/// Runs a line such as `teleport version`.
#[track_caller]
fn typed(directory: &TestDir, line: &str) -> Output {
    let mut words = line.split(' ');
    let mut command = named(directory, words.next().expect("a name"));
    command.args(words);
    run(command, PATIENCE)
}

#[track_caller]
fn holds(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// What a line is refused with: exit code 2, and one line that begins with the name that was typed.
#[track_caller]
fn refusal(directory: &TestDir, line: &str) -> String {
    let said = typed(directory, line).failed_with(2);
    let name = line.split(' ').next().expect("a name");
    assert!(said.starts_with(&format!("{name}: ")), "{line}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{line}: {said}");
    said
}

#[track_caller]
fn valid(directory: &TestDir, file: &Path) -> String {
    typed(directory, &format!("teleport configure --test {}", file.display())).ok()
}

#[test]
fn every_name_prints_the_version() {
    let directory = TestDir::new();
    for name in ["postern", "teleport", "tctl", "tsh"] {
        let version = typed(&directory, &format!("{name} version")).ok();
        assert_eq!(
            version.lines().next(),
            Some(concat!("Postern v", env!("CARGO_PKG_VERSION"))),
            "{name}"
        );
    }
}

#[test]
fn every_command_answers_help_with_an_example_under_its_own_name() {
    let directory = TestDir::new();
    let mut commands = Vec::new();
    for name in ["postern", "teleport", "tctl", "tsh"] {
        verbs_below(&directory, name, &mut commands);
    }
    for known in [
        "postern db connect",
        "postern ctl access explain",
        "postern dev env",
        "teleport db configure create",
        "tctl lock",
        "tctl users reset",
        "tsh login",
        "tsh db config",
    ] {
        assert!(commands.iter().any(|command| command == known), "{known}: {commands:?}");
    }
}

/// Asks a command for help, and all its verbs; `seen` gets their names.
fn verbs_below(directory: &TestDir, line: &str, seen: &mut Vec<String>) {
    let help = typed(directory, &format!("{line} --help")).ok();
    let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("{line}: {help}"));
    holds(examples, &[line]);
    let name = line.split(' ').next().expect("a name");
    let others = ["postern", "teleport", "tctl", "tsh"]
        .into_iter()
        .filter(|other| *other != name);
    for other in others {
        assert!(
            !examples.contains(&format!("  {other} ")),
            "{line} is typed as {other}: {help}"
        );
    }
    seen.push(line.to_owned());
    let listed = help
        .split_once("\nCommands:\n")
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    for row in listed.lines().take_while(|row| !row.is_empty()) {
        let verb = row
            .strip_prefix("  ")
            .and_then(|row| row.split(' ').next())
            .unwrap_or_default();
        // A row that goes on is indented further.
        if !verb.is_empty() && verb != "help" {
            verbs_below(directory, &format!("{line} {verb}"), seen);
        }
    }
}

#[test]
fn tctl_is_postern_ctl_with_global_flags_before_or_after_the_verb() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    let data_dir = cluster.node(Kind::Auth).config.data_dir.display().to_string();
    let before = typed(&directory, &format!("tctl --data-dir {data_dir} status")).ok();
    let after = typed(&directory, &format!("tctl status --data-dir {data_dir}")).ok();
    for status in [before, after] {
        holds(
            &status,
            &[
                "Cluster  test.example",
                &cluster.ca_pin(),
                "1 auth, 1 proxy",
                "never updated",
            ],
        );
    }
    let role = directory.write("role.yaml", crate::harness::cluster::role("by-tctl", "nobody"));
    let create = format!("tctl create -f {} --data-dir {data_dir}", role.display());
    holds(&typed(&directory, &create).ok(), &["role \"by-tctl\" has been created"]);
    typed(&directory, &format!("tctl rm role/by-tctl --data-dir {data_dir}")).ok();
}

#[test]
fn a_verb_of_tsh_that_is_not_there_is_refused_with_what_to_do_instead() {
    let directory = TestDir::new();
    holds(&refusal(&directory, "tsh --proxy=p:443 proxy db x"), &["db config"]);
    holds(&refusal(&directory, "tsh ssh host"), &["PostgreSQL"]);
}

#[test]
fn flags_of_teleport_that_postern_does_not_have_are_refused_in_one_sentence() {
    let directory = TestDir::new();
    for (line, reason) in [
        ("teleport start --fips", "FIPS"),
        ("teleport start --permit-user-env", "SSH"),
        ("teleport start --insecure-no-tls", "TLS"),
        ("teleport start --advertise-ip=10.0.0.1", "tunnel"),
        ("teleport configure --insecure", "--ca-pin"),
        ("postern configure --app-name=x --app-uri=y", "application service"),
        ("postern db start --aws-region=eu-west-1", "cloud"),
        ("teleport db start --gcp-project-id x", "cloud"),
        ("teleport db configure create --ad-domain=x", "Active Directory"),
    ] {
        holds(&refusal(&directory, line), &[reason]);
    }
    holds(
        &typed(&directory, "teleport start --roles=proxy,node").failed_with(2),
        &["SSH service"],
    );
}

#[test]
fn configure_prints_the_guide_s_configuration_and_warns_that_there_is_no_acme() {
    let directory = TestDir::new();
    let line = "teleport configure --acme --acme-email=admin@example.com --cluster-name=gate.example.com";
    let output = typed(&directory, line);
    holds(&output.stderr, &["no ACME yet"]);
    let yaml = output.ok();
    holds(
        &yaml,
        &[
            "\nteleport:",
            "cluster_name: gate.example.com",
            "email: admin@example.com",
            ":443",
        ],
    );
    let file = directory.write("teleport.yaml", yaml);
    holds(&valid(&directory, &file), &["OK ", "teleport.yaml", "auth, proxy"]);
}

#[test]
fn configure_writes_a_file_for_its_owner_and_never_over_another() {
    let directory = TestDir::new();
    let file = directory.join("new.yaml");
    let line = format!(
        "teleport configure --roles=proxy --auth-server=auth:3025 --token=0123456789abcdef --ca-pin={PIN} -o file://{}",
        file.display()
    );
    let said = typed(&directory, &line).ok();
    holds(&said, &[&file.display().to_string(), "> teleport start --config"]);
    assert!(!said.contains("0123456789abcdef\n"), "the token is in the file only");
    let mode = std::fs::metadata(&file).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    holds(&valid(&directory, &file), &["a node with proxy"]);

    std::fs::write(&file, "mine").expect("ours");
    holds(
        &typed(&directory, &line).failed_with(1),
        &["exists already", "new.yaml"],
    );
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "mine");
}

#[test]
fn configure_tests_a_file_and_says_what_is_wrong_with_it() {
    let directory = TestDir::new();
    let good = directory.write("good.yaml", NodeConfig::new("one", "/data").with_auth().yaml());
    holds(&valid(&directory, &good), &["OK ", "a node with auth"]);
    let bad = directory.write("bad.yaml", "version: v3\nauth_service:\n  listen_adr: x\n");
    let said = refusal(&directory, &format!("postern configure --test {}", bad.display()));
    holds(&said, &["bad.yaml:3:3", "\"listen_addr\""]);
    let said = refusal(&directory, "postern configure --test /no/such/file.yaml");
    holds(&said, &["/no/such/file.yaml"]);
}

#[test]
fn the_flags_of_start_come_before_the_file_and_a_file_that_asks_for_acme_is_warned_of() {
    let directory = TestDir::new();
    let mut file = NodeConfig::new("filed", directory.join("filed"))
        .with_auth()
        .with_proxy()
        .yaml();
    file += "  acme: {enabled: yes, email: a@example.com}\n";
    let file = directory.write("acme.yaml", file);
    let data_dir = directory.join("data");
    let mut command = named(&directory, "teleport");
    command.args([
        "start",
        "--nodename=flagged",
        "--listen-ip=127.0.0.1",
        "--pid-file=run.pid",
    ]);
    command.arg("--data-dir").arg(&data_dir).arg("--config").arg(&file);
    command.current_dir(directory.path());
    let mut node = Process::start("flagged", command, directory.join("flagged.log"));
    await_ready(&mut node, &data_dir);
    let pid = std::fs::read_to_string(directory.join("run.pid")).expect("the pid file");
    assert_eq!(pid.trim(), node.id().to_string());
    holds(&node.log_text(), &["no ACME yet", "flagged"]);
    assert!(!directory.join("filed").exists(), "the flag comes before the file");
}

#[test]
fn a_start_that_cannot_know_what_to_run_asks_for_it() {
    let directory = TestDir::new();
    holds(
        &refusal(&directory, "teleport start --roles=auth,proxy --token=x"),
        &["joins none"],
    );
    let file = directory.write(
        "auth.yaml",
        NodeConfig::new("one", directory.join("data")).with_auth().yaml(),
    );
    let said = refusal(&directory, &format!("teleport start -c {} --token=x", file.display()));
    holds(&said, &["joins none"]);
    let said = refusal(&directory, "teleport start --roles=proxy --auth-server=a:port");
    holds(&said, &["--auth-server: ", "is not a port"]);
    if ["/etc/postern.yaml", "/etc/teleport.yaml"]
        .iter()
        .any(|file| Path::new(file).exists())
    {
        figure("NOT RUN: starting without a configuration: this machine has one of its own");
        return;
    }
    holds(&refusal(&directory, "teleport start"), &["--config", "configure"]);
    let said = refusal(&directory, "teleport start --token=x --auth-server=a:3025");
    holds(&said, &["--roles=proxy", "db start"]);
}

/// Waits until the node says that it is ready.
#[track_caller]
fn await_ready(node: &mut Process, data_dir: &Path) {
    until_ok("the node is ready", PATIENCE, || {
        assert!(node.exit_code().is_none(), "it ended:\n{}", node.log_tail());
        if data_dir.join("listening.json").exists() {
            Ok(())
        } else {
            Err(node.log_tail())
        }
    });
}

#[test]
fn an_agent_that_is_started_with_flags_joins_and_serves() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    let token = directory.write("token", format!("{DB_TOKEN}\n"));
    let data_dir = directory.join("data");
    let mut command = named(&directory, "teleport");
    command.args([
        "db",
        "start",
        "--name=by-flags",
        "--protocol=postgres",
        "--labels=env=dev",
    ]);
    command.arg(format!("--token={}", token.display()));
    command.arg(format!("--ca-pin={}", cluster.ca_pin()));
    command.arg(format!("--auth-server=localhost:{}", cluster.proxy_port()));
    command.arg(format!("--uri=postgres://localhost:{}", cluster.postgres.port));
    command.arg(format!("--data-dir={}", data_dir.display()));
    command.arg("--nodename=agent-by-flags");
    let mut agent = Process::start("agent-by-flags", command, directory.join("agent.log"));
    await_ready(&mut agent, &data_dir);
    let client = cluster.client_for("by-flags", "alice", "app", "app");
    let rows = client.psql("select item from orders where id = 2").ok();
    assert_eq!(rows.trim(), "rope");
    holds(
        &cluster.ctl(&["db", "ls"]).ok(),
        &["by-flags", "env=dev", "agent-by-flags"],
    );
}

#[test]
fn an_agent_whose_configuration_was_made_by_db_configure_joins_with_the_token_of_the_flag_and_serves() {
    let cluster = shared(Form::Apart);
    let directory = TestDir::new();
    let token = directory.write("token", DB_TOKEN);
    let (file, data_dir) = (directory.join("teleport.yaml"), directory.join("data"));
    let line = format!(
        "teleport db configure create -o file://{} --token=/no/such/token --proxy=localhost:{} --ca-pin={} --name=by-file \
         --protocol=postgres --uri=localhost:{} --labels=env=dev --data-dir={} --nodename=agent-by-file",
        file.display(),
        cluster.proxy_port(),
        cluster.ca_pin(),
        cluster.postgres.port,
        data_dir.display(),
    );
    holds(&typed(&directory, &line).ok(), &["> teleport start --config"]);
    holds(&valid(&directory, &file), &["a node with db"]);
    let mut command = named(&directory, "teleport");
    command
        .arg("start")
        .arg(format!("--config={}", file.display()))
        .arg(format!("--token={}", token.display()));
    let mut agent = Process::start("agent-by-file", command, directory.join("agent.log"));
    await_ready(&mut agent, &data_dir);
    let client = cluster.client_for("by-file", "alice", "app", "app");
    assert_eq!(client.psql("select 1 + 1").ok().trim(), "2");
}

#[test]
fn an_agent_s_configuration_without_a_pin_is_written_with_a_note_and_its_start_asks_for_the_pin() {
    let directory = TestDir::new();
    let (token, file) = (directory.write("token", DB_TOKEN), directory.join("postern.yaml"));
    let line = format!(
        "postern db configure create -o file://{} --token={} --proxy=localhost:1 --name=a --uri=localhost:2 --data-dir={}",
        file.display(),
        token.display(),
        directory.join("data").display()
    );
    let output = typed(&directory, &line);
    holds(
        &output.stderr,
        &["note: --ca-pin was not given", "`postern ctl status`"],
    );
    output.ok();
    let said = typed(&directory, &format!("postern start --config={}", file.display())).failed_with(1);
    holds(&said, &["has no CA pin", "give --ca-pin", "`postern ctl status`"]);
    let with_pin = typed(
        &directory,
        &format!("{line} --ca-pin={PIN}").replace("postern.yaml", "other.yaml"),
    );
    assert_eq!((with_pin.code, with_pin.stderr.as_str()), (0, ""));
}

#[test]
fn a_database_that_postern_does_not_speak_to_is_refused_by_its_protocol() {
    let directory = TestDir::new();
    for line in [
        "teleport db start --auth-server=p:443 --name=a --uri=b:1 --protocol=mysql",
        "teleport db configure create --proxy=p:443 --name=a --uri=b:1 --protocol=mysql",
    ] {
        holds(
            &refusal(&directory, line),
            &["--protocol: ", "\"mysql\"", "Postern speaks postgres"],
        );
    }
}

#[test]
fn files_of_the_working_directory_are_not_read() {
    // Somebody else's directory, with every name that this program or its like would look for.
    let (home, others) = (TestDir::new(), TestDir::new());
    let file = NodeConfig::new("planted", others.join("data")).with_auth().yaml();
    for name in [
        "postern.yaml",
        "teleport.yaml",
        "config.yaml",
        "tsh.yaml",
        ".tsh.yaml",
        ".env",
    ] {
        others.write(name, file.clone());
    }
    let planted = r#"{"proxy":"planted.example:443","user":"mallory","cluster":"planted","roles":[]}"#;
    for name in [".postern", ".tsh", ".postern/keys"] {
        std::fs::create_dir(others.join(name)).expect("a directory");
        others.write(&format!("{name}/current-profile"), "planted.example:443\n");
        others.write(&format!("{name}/planted.example:443.json"), planted);
    }
    let typed = |line: &str| {
        let mut words = line.split(' ');
        let mut command = named(&home, words.next().expect("a name"));
        command.args(words).current_dir(others.path());
        let said = run(command, PATIENCE);
        assert!(!format!("{said:?}").contains("planted"), "{line}: {said:?}");
        said
    };
    holds(&typed("tsh status").failed_with(1), &["not logged in"]);
    holds(&typed("tsh db ls").failed_with(1), &["not logged in"]);
    if !["/etc/postern.yaml", "/etc/teleport.yaml"]
        .iter()
        .any(|file| Path::new(file).exists())
    {
        holds(&typed("teleport start").failed_with(2), &["--config"]);
    }
    assert!(!others.join("data").exists(), "no node was started from it");
}
