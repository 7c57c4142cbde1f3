//! Join tokens: how they are made, listed and removed, whom they admit, and what a node that is turned away says.

use crate::harness::cluster::{Node, ca_pin, ctl};
use crate::harness::configuration::{DB_TOKEN, Join, database, presenting, web_certificate};
use crate::harness::{
    Cluster, Form, Kind, NodeConfig, Output, PATIENCE, Process, TestDir, postern, run, shared, until,
};
use postern::actors::host::run_system;
use postern::config::Config;
use postern::model::clock::HeldClock;
use postern::model::{Clock as _, SystemClock, Timestamp};
use postern::node::{self, InProcess};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn cluster() -> crate::harness::cluster::Shared {
    shared(Form::Apart)
}

/// A second cluster, of auth and a proxy, with no tokens in its configuration.
fn other_cluster() -> &'static Node {
    static OTHER: OnceLock<(TestDir, Node)> = OnceLock::new();
    let (_, node) = OTHER.get_or_init(|| {
        let directory = TestDir::new();
        let config = NodeConfig::new("other-cluster", directory.join("data"))
            .with_auth()
            .without_tokens()
            .with_proxy();
        let mut node = Node::new(directory.path(), config, None);
        node.start();
        (directory, node)
    });
    node
}

/// A token of the shared cluster, as `tokens add` with these options prints it.
#[track_caller]
fn token(cluster: &Cluster, options: &[&str]) -> String {
    let mut arguments = vec!["tokens", "add", "--format=text"];
    arguments.extend(options);
    let token = cluster.ctl(&arguments).ok().trim().to_owned();
    assert!(
        token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit()),
        "{token}"
    );
    token
}

fn through_proxy(cluster: &Cluster, token: &str) -> Join {
    Join::through_proxy(cluster.proxy_port(), &cluster.ca_pin()).presenting(token)
}

fn agent(cluster: &Cluster, directory: &TestDir, name: &'static str, service: &str, join: Join) -> NodeConfig {
    let uri = format!("localhost:{}", cluster.postgres.port);
    NodeConfig::new(name, directory.join(name))
        .with_databases(&database(service, &uri, ""))
        .joining(join)
}

/// The file of a node, and the command that starts it.
fn start_command(directory: &TestDir, config: &NodeConfig) -> Command {
    let file = directory.write(&format!("{}.yaml", config.name), config.yaml());
    let mut command = postern(directory.path());
    command.arg("start").arg("--config").arg(file);
    command
}

/// What a node that cannot join says, with exit code 1.
#[track_caller]
fn turned_away(directory: &TestDir, config: &NodeConfig) -> String {
    let said = run(start_command(directory, config), PATIENCE).failed_with(1);
    let sentence = said.lines().find(|line| line.starts_with("postern: "));
    let sentence = sentence.unwrap_or_else(|| panic!("errors begin with `postern: `: {said}"));
    assert!(!config.data_dir.join("identity/identity.json").exists());
    sentence.to_owned()
}

#[track_caller]
fn holds(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[track_caller]
fn refused(output: Output, code: i32, words: &[&str]) {
    holds(&output.failed_with(code), words);
}

#[test]
fn a_token_is_made_listed_masked_and_removed() {
    let other = other_cluster();
    let (pin, port) = (ca_pin(other), other.config.proxy_port.expect("it listens"));
    assert_eq!(ctl(other, &["tokens", "ls"]).ok(), "No active tokens found.\n");

    let text = ctl(other, &["tokens", "add", "--type=db"]).ok();
    let first = text.strip_prefix("The invite token: ").and_then(|rest| rest.get(..32));
    let first = first.unwrap_or_else(|| panic!("{text}"));
    holds(
        &text,
        &[
            "\nThis token will expire in 30 minutes.\n",
            "\n> postern db configure create \\\n",
            &format!("\n   --token={first} \\\n   --ca-pin={pin} \\\n   --proxy=localhost:{port} \\\n"),
            "\n> postern start -c /etc/postern.yaml\n",
        ],
    );

    let options = [
        "tokens",
        "add",
        "--type=db,node,proxy",
        "--uses=2",
        "--ttl=2h",
        "--labels=team=orders",
    ];
    let added = ctl(other, &[options.as_slice(), &["--format=json"]].concat());
    holds(&added.stderr, &["type node is left out"]);
    let added: Value = serde_json::from_str(&added.ok()).expect("JSON");
    assert_eq!(added["roles"], serde_json::json!(["db", "proxy"]));
    let second = added["token"].as_str().expect("a text");
    let expires = Timestamp::parse_rfc3339(added["expires"].as_str().expect("a text")).expect("a time");
    let left = expires.since(SystemClock.now());
    assert!(left > HOUR && left <= 2 * HOUR, "{left:?}");

    let listed = ctl(other, &["tokens", "ls"]).ok();
    let lines: Vec<&str> = listed.lines().map(str::trim).collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), ["Token", "Type", "Labels", "Expiry", "Time", "(UTC)"]);
    holds(lines[1], &[&format!("{}**** ", &first[..4]), " db ", "(29m"]);
    holds(
        lines[2],
        &[
            &format!("{}**** ", &second[..4]),
            " db,proxy ",
            " team=orders ",
            ", 2 uses left",
        ],
    );
    assert!(!listed.contains(first) && !listed.contains(second), "{listed}");
    let json = ctl(other, &["tokens", "ls", "--format=json"]).ok();
    assert!(!json.contains(second) && json.contains("\"uses_left\": 2"), "{json}");
    refused(
        ctl(other, &["tokens", "ls", "--with-secrets"]),
        2,
        &["tokens are kept hashed"],
    );

    let removed = ctl(other, &["tokens", "rm", &second[..4]]).ok();
    assert_eq!(removed, format!("Token {} has been deleted\n", &second[..4]));
    let removed = ctl(other, &["tokens", "rm", first]).ok();
    assert_eq!(removed, format!("Token {first} has been deleted\n"));
    refused(ctl(other, &["tokens", "rm", first]), 1, &["not found", "ctl tokens ls"]);
    assert_eq!(ctl(other, &["tokens", "ls"]).ok(), "No active tokens found.\n");

    let log = until("the changes are on the audit log", PATIENCE, || {
        let log = ctl(other, &["audit", "ls", "--format=json", "--limit=100"]).ok();
        (log.matches("TJT00I").count() == 2 && log.matches("PJT00I").count() == 2).then_some(log)
    });
    assert!(!log.contains(first) && !log.contains(second), "{log}");
    holds(&log, &[&format!("\"name\":\"{}****\"", &first[..4])]);
}

#[test]
fn a_token_of_the_administrators_own_choice_is_taken_once() {
    let cluster = cluster();
    let add = |value: &str| cluster.ctl(&["tokens", "add", "--type=db", "--format=text", "--value", value]);
    assert_eq!(add("chosen-0123456789").ok(), "chosen-0123456789\n");
    refused(
        add("chosen-0123456789"),
        1,
        &["failed to create token (\"chos****\" already exists), please use another name"],
    );
    refused(add("short"), 1, &["16"]);
    refused(
        cluster.ctl(&["tokens", "add", "--type=kube"]),
        2,
        &["\"kube\"", "types are db and proxy"],
    );
    refused(cluster.ctl(&["tokens", "add", "--type=auth"]), 1, &["admits nothing"]);
    let yaml = cluster.ctl(&["tokens", "add", "--type=proxy", "--format=yaml"]).ok();
    holds(&yaml, &["token: ", "roles:", "- proxy", "expires: "]);
    let listed = cluster.ctl(&["tokens", "ls"]).ok();
    let of_the_configuration = listed.lines().filter(|line| line.trim().ends_with("never"));
    assert_eq!(of_the_configuration.count(), 2, "{listed}");
    refused(cluster.ctl(&["tokens", "rm", "prox"]), 1, &["auth's configuration"]);
}

#[test]
fn an_agent_joins_with_an_added_token_and_serves_and_the_used_up_token_admits_no_other() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let token = token(&cluster, &["--type=db", "--uses=1"]);
    let config = agent(
        &cluster,
        &directory,
        "late-agent",
        "late",
        through_proxy(&cluster, &token),
    );
    let mut late = Node::new(directory.path(), config, None);
    late.start();
    let client = cluster.client_for("late", "alice", "app", "app");
    let answer = until("the new agent serves", PATIENCE, || {
        let output = client.psql("select 'served'");
        (output.code == 0).then_some(output.stdout)
    });
    holds(&answer, &["served"]);
    let join_of = |node: &str| {
        until("the join is on the audit log", PATIENCE, || {
            let events = cluster.audit(&["--event", "instance.join"]);
            events.into_iter().find(|event| event["node_name"] == node)
        })
    };
    let joined = join_of("late-agent");
    assert_eq!(joined["code"], "TJ002I");
    assert_eq!(joined["token_name"], format!("{}****", &token[..4]));

    let config = agent(
        &cluster,
        &directory,
        "too-late",
        "late",
        through_proxy(&cluster, &token),
    );
    holds(
        &turned_away(&directory, &config),
        &[
            "the cluster refused this node",
            "is used up",
            "ctl tokens add --type=db",
        ],
    );
    assert_eq!(join_of("too-late")["code"], "TJ002E");

    // It goes on with its certificate, without a token, until that ends.
    late.kill9();
    late.start();
    late.kill9();
    let file = directory.join("late-agent.yaml");
    let said = cannot_start(&file, SystemClock.now() + 8 * DAY);
    holds(
        &said,
        &[
            "host certificate",
            "expired at",
            "this machine's clock says",
            "ctl tokens add --type=db",
        ],
    );
    let said = cannot_start(&file, SystemClock.now() - 2 * HOUR);
    holds(&said, &["is not valid before", "the clock is behind"]);
}

#[test]
fn expired_removed_and_unknown_tokens_and_those_of_another_type_admit_nobody() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let said = |name: &'static str, token: &str| {
        let config = agent(&cluster, &directory, name, "never", through_proxy(&cluster, token));
        turned_away(&directory, &config)
    };
    let short = token(&cluster, &["--type=db", "--ttl=2s"]);
    let removed = token(&cluster, &["--type=db"]);
    cluster.ctl(&["tokens", "rm", &removed]).ok();
    holds(
        &said("removed", &removed),
        &["not valid", "removed", "ctl tokens add --type=db"],
    );
    holds(&said("unknown", &"0".repeat(32)), &["not valid", "no such token"]);
    let proxys = token(&cluster, &["--type=proxy"]);
    holds(
        &said("wrong-type", &proxys),
        &["is of type proxy, and this node runs db", "ctl tokens add --type=db"],
    );
    let agents = token(&cluster, &["--type=db"]);
    let auth_port = cluster.node(Kind::Auth).config.auth_port.expect("it listens");
    let proxy = NodeConfig::new("no-proxy", directory.join("no-proxy"))
        .with_proxy()
        .joining(Join::at_auth(auth_port, &cluster.ca_pin()).presenting(&agents));
    holds(
        &turned_away(&directory, &proxy),
        &["is of type db, and this node runs proxy", "ctl tokens add --type=proxy"],
    );
    until("the short token has left the list", PATIENCE, || {
        let listed = cluster.ctl(&["tokens", "ls"]).ok();
        (!listed.contains(&format!("{}****", &short[..4]))).then_some(())
    });
    holds(&said("expired", &short), &["expired at", "ctl tokens add --type=db"]);
}

#[test]
fn of_two_agents_that_race_for_the_last_use_one_joins() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let token = token(&cluster, &["--type=db", "--uses=1"]);
    let mut racers: Vec<(NodeConfig, Process)> = ["racer-1", "racer-2"]
        .map(|name| {
            let config = agent(&cluster, &directory, name, "raced", through_proxy(&cluster, &token));
            let command = start_command(&directory, &config);
            let log = directory.join(format!("{name}.log"));
            (config, Process::start(name, command, log))
        })
        .into();
    let up = |config: &NodeConfig| config.data_dir.join("listening.json").exists();
    until("one is up and the other is not", PATIENCE, || {
        let ended = racers.iter_mut().any(|(_, process)| process.exit_code() == Some(1));
        (ended && racers.iter().any(|(config, _)| up(config))).then_some(())
    });
    let joined = racers
        .iter()
        .filter(|(config, _)| config.data_dir.join("identity/identity.json").exists());
    assert_eq!(joined.count(), 1);
    let (_, lost) = racers.iter().find(|(config, _)| !up(config)).expect("one lost");
    holds(&lost.log_text(), &["is used up"]);
}

#[test]
fn a_node_with_a_wrong_pin_or_at_another_clusters_proxy_does_not_send_its_token() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let token = token(&cluster, &["--type=db"]);
    let joining = |name: &'static str, join: Join| agent(&cluster, &directory, name, "never", join);
    let other = other_cluster();
    let other_port = other.config.proxy_port.expect("it listens");

    let wrong = format!("sha256:{}", "0".repeat(64));
    let pin = cluster.ca_pin();
    let join = Join::through_proxy(cluster.proxy_port(), &wrong).presenting(&token);
    let said = turned_away(&directory, &joining("wrong-pin", join));
    holds(
        &said,
        &[&wrong, "`postern ctl status`", "ca_pin", "the token was not sent"],
    );

    let join = Join::through_proxy(other_port, &pin).presenting(&token);
    let said = turned_away(&directory, &joining("astray", join));
    holds(
        &said,
        &["another cluster", &pin, "cluster's proxy", "the token was not sent"],
    );
}

#[test]
fn a_node_is_told_when_it_has_no_token_or_one_of_another_cluster() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let token = token(&cluster, &["--type=db"]);
    let joining = |name: &'static str, join: Join| agent(&cluster, &directory, name, "never", join);
    let other = other_cluster();
    let other_port = other.config.proxy_port.expect("it listens");
    let join = Join::through_proxy(other_port, &ca_pin(other)).presenting(&token);
    let said = turned_away(&directory, &joining("stranger", join));
    holds(&said, &["the token is not valid", "no such token"]);

    let yaml = joining("no-token", through_proxy(&cluster, &token)).yaml();
    let file = directory.write("no-token.yaml", yaml.replace(&format!("  auth_token: {token}\n"), ""));
    let said = cannot_start(&file, SystemClock.now());
    holds(
        &said,
        &["has no token", "auth_token", "postern ctl tokens add --type=db"],
    );
}

#[test]
fn a_node_whose_clock_is_two_hours_behind_is_told_that_clocks_differ() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let token = token(&cluster, &["--type=db", "--uses=1"]);
    let config = agent(
        &cluster,
        &directory,
        "slow-clock",
        "never",
        through_proxy(&cluster, &token),
    );
    let file = directory.write("slow-clock.yaml", config.yaml());
    let said = cannot_start(&file, SystemClock.now() - 2 * HOUR);
    holds(
        &said,
        &["not valid yet", "the clocks of this machine and of the cluster differ"],
    );
    let said = cannot_start(&file, SystemClock.now() + 8 * DAY);
    holds(
        &said,
        &["has expired", "the clocks of this machine and of the cluster differ"],
    );
    // It was turned away before it said its token.
    let listed = cluster.ctl(&["tokens", "ls"]).ok();
    let line = listed
        .lines()
        .find(|line| line.contains(&format!("{}****", &token[..4])));
    holds(line.expect("the token is listed"), &["1 use left"]);
}

/// Why the node of a file does not start where the clock says `now`. It runs in this process, as only here a clock is held.
#[track_caller]
fn cannot_start(file: &Path, now: Timestamp) -> String {
    let config = Config::load(file).expect("ours");
    let clock = HeldClock::at(now);
    run_system(1, |runtimes| async move {
        let clock: Arc<HeldClock> = clock;
        match node::start(config, InProcess::Direct, runtimes, clock).await {
            Ok(_) => panic!("the node started"),
            Err(error) => error.to_string(),
        }
    })
}

#[test]
fn a_copied_data_directory_does_not_make_a_second_node() {
    let cluster = cluster();
    let directory = TestDir::new();
    let token = token(&cluster, &["--type=db"]);
    let config = agent(
        &cluster,
        &directory,
        "copied-1",
        "copied",
        through_proxy(&cluster, &token),
    );
    let mut original = Node::new(directory.path(), config.clone(), None);
    original.start();
    let copy = directory.join("copy");
    let mut cp = std::process::Command::new("cp");
    cp.arg("-a").arg(&config.data_dir).arg(&copy);
    run(cp, PATIENCE).ok();

    // On another machine it would have a lock of its own; here it has, too, as the directory is another.
    let second = NodeConfig {
        data_dir: copy,
        ..config
    };
    let said = run(start_command(&directory, &second), PATIENCE * 2).failed_with(1);
    holds(
        &said,
        &[
            "postern: node copied-1 runs already",
            "stop the other one",
            "remove the directory \"identity\"",
            "new token",
        ],
    );
    let listed = cluster.ctl(&["get", "nodes"]).ok();
    assert!(listed.contains("copied-1"), "the first one goes on: {listed}");
    // Its own restart is no second node.
    original.kill9();
    original.start();
    let restarted = until("it is listed again", PATIENCE, || {
        let listed = cluster.ctl(&["get", "nodes"]).ok();
        listed.contains("copied-1").then_some(listed)
    });
    assert!(restarted.contains("copied-1"));
}

/// A cluster's auth and proxy, which presents a certificate of its own: its file, and the node.
fn with_web_certificate(directory: &TestDir) -> (PathBuf, Node) {
    let (certificate, key) = web_certificate(directory);
    let mut config = NodeConfig::new("public", directory.join("public"))
        .with_auth()
        .with_proxy();
    config.proxy = presenting(&certificate, &key);
    let mut node = Node::new(directory.path(), config, None);
    node.start();
    (certificate, node)
}

/// An agent that knows no pin, with more flags of `db start`.
fn without_a_pin(directory: &TestDir, name: &str, port: u16, trusts: Option<&Path>, more: &[&str]) -> Command {
    let mut command = postern(directory.path());
    let token = directory.write("db-token", DB_TOKEN);
    command.args(["db", "start", "--name=never", "--uri=localhost:1"]);
    command.arg(format!("--nodename={name}"));
    command.arg(format!("--data-dir={}", directory.join(name).display()));
    command.arg(format!("--token={}", token.display()));
    command.arg(format!("--auth-server=localhost:{port}"));
    command.args(more);
    if let Some(file) = trusts {
        command.env("SSL_CERT_FILE", file);
    }
    command
}

/// Runs it until it has joined and is up; its log.
#[track_caller]
fn joins(directory: &TestDir, name: &'static str, command: Command) -> String {
    let listening = directory.join(name).join("listening.json");
    // A log is appended to: that of this start alone is read.
    let log = directory.join(format!("{name}.log"));
    for before in [&listening, &log] {
        drop(std::fs::remove_file(before));
    }
    let mut process = Process::start(name, command, log);
    until("it has joined", PATIENCE, || {
        assert!(process.exit_code().is_none(), "it ended:\n{}", process.log_tail());
        listening.exists().then_some(())
    });
    process.log_text()
}

#[test]
fn an_agent_without_a_pin_joins_where_the_machine_vouches_for_the_proxy_and_nowhere_else() {
    let directory = TestDir::new();
    let (certificate, cluster) = with_web_certificate(&directory);
    let port = cluster.config.proxy_port.expect("it listens");
    let pin = ca_pin(&cluster);

    let said = run(without_a_pin(&directory, "alone", port, None, &[]), PATIENCE).failed_with(1);
    holds(&said, &["no CA pin", "--ca-pin", "https_keypairs", "--insecure"]);
    let elsewhere = other_cluster().config.proxy_port.expect("it listens");
    let said = run(
        without_a_pin(&directory, "misled", elsewhere, Some(&certificate), &[]),
        PATIENCE,
    );
    holds(&said.failed_with(1), &["no CA pin", "--ca-pin"]);
    assert!(!directory.join("misled/identity/identity.json").exists());

    let command = without_a_pin(&directory, "vouched", port, Some(&certificate), &[]);
    holds(&joins(&directory, "vouched", command), &["vouches for the proxy", &pin]);
    let again = without_a_pin(&directory, "vouched", port, None, &[]);
    let log = joins(&directory, "vouched", again);
    assert!(!log.contains(&pin), "what it keeps counts: {log}");
}

#[test]
fn insecure_believes_what_answers_at_the_first_contact_through_a_proxy_and_says_whom() {
    let (cluster, directory) = (cluster(), TestDir::new());
    let port = cluster.proxy_port();
    let insecure = || without_a_pin(&directory, "believer", port, None, &["--insecure"]);
    let log = joins(&directory, "believer", insecure());
    holds(&log, &["WARN", "--insecure: nothing vouches", &cluster.ca_pin()]);
    let log = joins(&directory, "believer", insecure());
    holds(&log, &["--insecure has no effect"]);

    let mut command = postern(directory.path());
    let auth_port = cluster.node(Kind::Auth).config.auth_port.expect("it listens");
    command.args([
        "start",
        "--insecure",
        "--roles=proxy",
        "--nodename=p",
        "--token=some-token-of-a-proxy",
    ]);
    command.arg(format!("--auth-server=localhost:{auth_port}"));
    command.arg(format!("--data-dir={}", directory.join("p").display()));
    refused(run(command, PATIENCE), 2, &["through a proxy", "--ca-pin"]);
}
