//! Host certificates over months, with the clock moved.

use crate::harness::cluster::{out, role, user};
use crate::harness::configuration::{Join, NodeConfig, SERVICE, usual_database};
use crate::harness::{Client, Output, PATIENCE, Postgres, TestDir, Wire, postern, run, until};
use postern::actors::host::run_system;
use postern::config::Config;
use postern::model::clock::HeldClock;
use postern::model::{Clock as _, SharedClock, SystemClock};
use postern::node::{self, InProcess, Node};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

const RENEWALS: u32 = 20;
/// More than half of a host certificate's seven days.
const STEP: Duration = Duration::from_secs(4 * 24 * 3600);

/// Starts a node in the test's own process, so that its clock can be held; the answer is its ports.
type StartNode = (String, Sender<(Option<u16>, Option<u16>)>);

/// A thread with an actor system, on which nodes are started one after the other. They end when the sender is dropped.
fn nodes_with(clock: SharedClock) -> (tokio::sync::mpsc::Sender<StartNode>, std::thread::JoinHandle<()>) {
    let (starts, mut wanted) = tokio::sync::mpsc::channel::<StartNode>(1);
    let thread = std::thread::spawn(move || {
        run_system(2, |runtimes| async move {
            let mut nodes: Vec<Node> = Vec::new();
            while let Some((yaml, ports)) = wanted.recv().await {
                let config = Config::parse(&yaml, "test").expect("a configuration");
                let node = node::start(config, InProcess::Direct, runtimes.clone(), clock.clone());
                let node = node.await.expect("the node starts");
                node.phase.view().ready().await;
                let port = |address: Option<std::net::SocketAddr>| address.map(|address| address.port());
                ports
                    .send((port(node.auth_address), port(node.proxy_address)))
                    .expect("somebody waits");
                nodes.push(node);
            }
            while let Some(node) = nodes.pop() {
                node.stop().await;
            }
        });
    });
    (starts, thread)
}

fn start(starts: &tokio::sync::mpsc::Sender<StartNode>, config: &NodeConfig) -> (Option<u16>, Option<u16>) {
    let (ports, started) = channel();
    starts.blocking_send((config.yaml(), ports)).expect("the thread lives");
    started.recv_timeout(PATIENCE).expect("the node starts")
}

#[track_caller]
fn ctl(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = postern(directory);
    command
        .arg("ctl")
        .arg("--data-dir")
        .arg(directory.join("auth-1"))
        .args(arguments);
    run(command, PATIENCE)
}

fn ca_pin(directory: &Path) -> String {
    let status = ctl(directory, &["status", "--format", "json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["ca_pins"][0].as_str().expect("a pin").to_owned()
}

#[test]
fn host_certificates_are_renewed_twenty_times_and_the_session_that_is_open_never_notices() {
    let clock = HeldClock::at(SystemClock.now());
    let directory = TestDir::new();
    let postgres = Postgres::start();
    let (starts, thread) = nodes_with(clock.clone() as SharedClock);
    let names = ["auth-1", "proxy-1", "agent-1"];
    let auth = NodeConfig::new(names[0], directory.join(names[0])).with_auth();
    let (auth_port, _) = start(&starts, &auth);
    let pin = ca_pin(directory.path());
    let join = Join::at_auth(auth_port.expect("it listens"), &pin);
    let proxy = NodeConfig::new(names[1], directory.join(names[1]))
        .with_proxy()
        .joining(join);
    let proxy_port = start(&starts, &proxy).1.expect("it listens");
    let agent = NodeConfig::new(names[2], directory.join(names[2]))
        .with_databases(&usual_database(&postgres))
        .joining(Join::through_proxy(proxy_port, &pin));
    start(&starts, &agent);
    let mut wire = connect(&directory, &postgres, proxy_port);

    let certificates: Vec<PathBuf> = names
        .iter()
        .map(|name| directory.join(name).join("identity/identity.json"))
        .collect();
    for renewal in 1..=RENEWALS {
        let before: Vec<Vec<u8>> = certificates
            .iter()
            .map(|path| std::fs::read(path).expect("kept"))
            .collect();
        clock.move_to(clock.now() + STEP);
        for (path, before) in certificates.iter().zip(&before) {
            until(&format!("renewal {renewal} of {}", path.display()), PATIENCE, || {
                (std::fs::read(path).expect("kept") != *before).then_some(())
            });
        }
        let answer = wire.query(&format!("select {renewal}"));
        assert_eq!(answer, Ok(vec![renewal.to_string()]), "the session lives");
    }
    drop(wire);
    drop(starts);
    thread.join().expect("the nodes end");
}

/// A session of a person of this cluster; their certificate is looked at when it opens.
fn connect(directory: &TestDir, postgres: &Postgres, port: u16) -> Wire {
    let server = directory.join("postgres-server");
    let sign = ["auth", "sign", "--format=db", "--host=localhost", "--ttl=24h"];
    ctl(directory.path(), &[&sign[..], &[&out(&server)]].concat()).ok();
    postgres.use_tls(&server);
    postgres.admin("postgres", "create role app login");
    postgres.admin("postgres", "create database app owner app");
    let file = directory.write(
        "people.yaml",
        role("tester", "app") + "---\n" + &user("alice", "tester", ""),
    );
    ctl(directory.path(), &["create", "-f", &file.display().to_string()]).ok();
    let home = TestDir::new();
    let prefix = home.join("identity");
    let service = format!("--db-service={SERVICE}");
    let sign = ["auth", "sign", "--format=file", "--user=alice", &service, "--ttl=12h"];
    ctl(directory.path(), &[&sign[..], &[&out(&prefix)]].concat()).ok();
    let client = Client::new(home, prefix, port, "app", "app");
    until("the database is served and the rules are known", PATIENCE, || {
        Wire::connect(&client).ok()
    })
}
