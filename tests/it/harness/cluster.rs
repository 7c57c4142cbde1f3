//! A Postern cluster of real processes in front of a PostgreSQL of its own.

use super::configuration::{Join, NodeConfig, usual_database};
use super::process::{Output, Process, TestDir, run};
use super::wait::{figure, until_ok};
use super::{Client, PATIENCE, Postgres, postern};
use serde_json::Value;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// How the three services are spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One process; the agent is reached without a tunnel.
    OneProcess,
    /// Auth, proxy and agent apart; the agent is reached through its tunnel.
    Apart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Auth,
    Proxy,
    Agent,
}

#[derive(Debug, Default)]
pub struct Options {
    /// `POSTERN_FAULT` of every node.
    pub fault: Option<&'static str>,
    /// More lines of every node's section about the process.
    pub process: &'static str,
    /// More lines of auth's section.
    pub auth: &'static str,
    /// More entries of the agent's `databases`.
    pub databases: String,
}

/// A node: its file, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    pub config: NodeConfig,
    process: Option<Process>,
    diag_port: Option<u16>,
    fault: Option<&'static str>,
    /// What makes its clock wrong, and how far it is off, as `+1h`.
    clock_off: Option<(PathBuf, &'static str)>,
    directory: PathBuf,
}

/// What makes a process see another time, from Debian's package faketime, whatever the machine.
fn faketime() -> Option<PathBuf> {
    let triplets = std::fs::read_dir("/usr/lib").ok()?;
    let mut files = triplets
        .map_while(Result::ok)
        .map(|triplet| triplet.path().join("faketime/libfaketime.so.1"));
    files.find(|file| file.exists())
}

impl Node {
    pub fn new(directory: &Path, config: NodeConfig, fault: Option<&'static str>) -> Self {
        Self {
            config,
            process: None,
            diag_port: None,
            fault,
            clock_off: None,
            directory: directory.to_owned(),
        }
    }

    /// From its next start on its clock is off, as `+1h`. False where that cannot be done, which is said.
    #[must_use]
    pub fn put_clock_off(&mut self, by: &'static str) -> bool {
        let Some(library) = faketime() else {
            figure("NOT RUN: a node whose clock is off: faketime is not installed (apt-get install faketime)");
            return false;
        };
        self.clock_off = Some((library, by));
        true
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the node runs")
    }

    /// Where it answers probes, if its configuration has a diag_addr.
    pub fn diag_port(&self) -> u16 {
        self.diag_port.expect("it has a diagnostic port")
    }

    /// Starts it, waits until its services are up, and pins the ports that it got, so that it has them again next time.
    #[track_caller]
    pub fn start(&mut self) {
        let file = self.directory.join(format!("{}.yaml", self.config.name));
        std::fs::write(&file, self.config.yaml()).expect("ours");
        let mut command = postern(&self.directory);
        command.arg("start").arg("--config").arg(&file);
        if let Some(fault) = self.fault {
            command.env("POSTERN_FAULT", fault);
        }
        if let Some((library, by)) = &self.clock_off {
            // Timers go on as they are: what is off is what the clock shows.
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME", by)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let log = self.directory.join(format!("{}.log", self.config.name));
        let mut process = Process::start(self.config.name, command, log);
        let what = format!("{} is up", self.config.name);
        let up = until_ok(&what, PATIENCE, || {
            if let Some(code) = process.exit_code() {
                panic!(
                    "{} ended with {code} while it started:\n{}",
                    process.name,
                    process.log_tail()
                );
            }
            let text =
                std::fs::read_to_string(self.config.data_dir.join("listening.json")).map_err(|_| process.log_tail())?;
            let up: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if up["pid"].as_u64() == Some(process.id().into()) {
                Ok(up)
            } else {
                Err("listening.json is another's".to_owned())
            }
        });
        self.config.auth_port = self.config.auth_port.map(|_| port_of(&up, "auth"));
        self.config.proxy_port = self.config.proxy_port.map(|_| port_of(&up, "proxy"));
        self.diag_port = up["diag"].as_str().map(|_| port_of(&up, "diag"));
        self.process = Some(process);
    }

    /// Waits until it has ended by itself and gives its exit code.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> i32 {
        self.process.take().expect("the node runs").wait(limit)
    }

    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }
}

#[track_caller]
fn port_of(up: &Value, service: &str) -> u16 {
    let address = up[service]
        .as_str()
        .unwrap_or_else(|| panic!("listening.json has no {service}: {up}"));
    address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{address}"))
}

/// A running cluster with the person `alice`, who may be the database users `app` and `loader` in every database.
#[derive(Debug)]
pub struct Cluster {
    pub form: Form,
    pub nodes: Vec<Node>,
    pub postgres: Postgres,
    pub directory: TestDir,
}

/// `app` is an ordinary user, `loader` a superuser, who may restore dumps, and `copier` one who may replicate.
const DATABASE: &str = "create role app login; create role other login; create role unwelcome login; \
                        create role faulty login; create role loader login superuser; \
                        create role copier login replication in role pg_read_all_data";
const TABLES: &str = "create table orders (id int primary key, item text not null); \
                      insert into orders values (1, 'lantern'), (2, 'rope'), (3, 'key'); \
                      alter table orders owner to app; grant all on schema public to app";

impl Cluster {
    pub fn start(form: Form) -> Self {
        Self::start_with(form, Options::default())
    }

    pub fn start_with(form: Form, options: Options) -> Self {
        let directory = TestDir::new();
        let postgres = Postgres::start();
        let databases = usual_database(&postgres) + &options.databases;
        let node = |config: NodeConfig| {
            Node::new(
                directory.path(),
                config.with_process(options.process).with_auth_lines(options.auth),
                options.fault,
            )
        };
        let mut nodes = Vec::new();
        match form {
            Form::OneProcess => {
                let one = NodeConfig::new("one", directory.join("one"))
                    .with_auth()
                    .with_proxy()
                    .with_databases(&databases);
                nodes.push(node(one));
                nodes[0].start();
            }
            Form::Apart => {
                nodes.push(node(NodeConfig::new("auth-1", directory.join("auth-1")).with_auth()));
                nodes[0].start();
                let pin = ca_pin(&nodes[0]);
                let auth_port = nodes[0].config.auth_port.expect("it listens");
                let proxy = NodeConfig::new("proxy-1", directory.join("proxy-1")).with_proxy();
                nodes.push(node(proxy.joining(Join::at_auth(auth_port, &pin))));
                nodes[1].start();
                let proxy_port = nodes[1].config.proxy_port.expect("it listens");
                let agent = NodeConfig::new("agent-1", directory.join("agent-1")).with_databases(&databases);
                nodes.push(node(agent.joining(Join::through_proxy(proxy_port, &pin))));
                nodes[2].start();
            }
        }
        let cluster = Self {
            form,
            nodes,
            postgres,
            directory,
        };
        cluster.set_up();
        cluster
    }

    fn set_up(&self) {
        let server = self.directory.join("postgres-server");
        self.ctl(&[
            "auth",
            "sign",
            "--format=db",
            "--host=localhost,127.0.0.1",
            "--ttl=24h",
            &out(&server),
        ])
        .ok();
        self.postgres.use_tls(&server);
        self.postgres.admin("postgres", DATABASE);
        self.postgres.admin("postgres", "create database app");
        self.postgres.admin("app", TABLES);
        self.create(
            &(role("tester", "'{{internal.db_users}}'")
                + "---\n"
                + &user("alice", "tester", "app, loader, unwelcome, faulty")),
        )
        .ok();
        let client = self.client("alice", "app", "app");
        until_ok("a first query passes", PATIENCE, || {
            let output = client.psql("select 1");
            if output.code == 0 { Ok(()) } else { Err(output.stderr) }
        });
    }

    pub fn node(&self, kind: Kind) -> &Node {
        &self.nodes[self.place(kind)]
    }

    pub fn node_mut(&mut self, kind: Kind) -> &mut Node {
        let place = self.place(kind);
        &mut self.nodes[place]
    }

    fn place(&self, kind: Kind) -> usize {
        match (self.form, kind) {
            (Form::OneProcess, _) | (Form::Apart, Kind::Auth) => 0,
            (Form::Apart, Kind::Proxy) => 1,
            (Form::Apart, Kind::Agent) => 2,
        }
    }

    pub fn proxy_port(&self) -> u16 {
        self.node(Kind::Proxy).config.proxy_port.expect("it listens")
    }

    /// Runs `postern ctl` on the auth node.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        ctl(self.node(Kind::Auth), arguments)
    }

    pub fn ca_pin(&self) -> String {
        ca_pin(self.node(Kind::Auth))
    }

    /// Creates or overwrites the roles and users of a YAML text.
    #[track_caller]
    pub fn create(&self, yaml: &str) -> Output {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
        std::fs::write(file.path(), yaml).expect("ours");
        self.ctl(&["create", "-f", &file.path().display().to_string()])
    }

    /// A client with a certificate of `person` for the usual database service, valid for an hour.
    #[track_caller]
    pub fn client(&self, person: &str, db_user: &str, db_name: &str) -> Client {
        self.client_for(super::configuration::SERVICE, person, db_user, db_name)
    }

    #[track_caller]
    pub fn client_for(&self, service: &str, person: &str, db_user: &str, db_name: &str) -> Client {
        self.signed_client(&["--db-service", service, "--ttl=1h"], person, db_user, db_name)
    }

    /// A client whose certificate is made with `options` of `ctl auth sign`.
    #[track_caller]
    pub fn signed_client(&self, options: &[&str], person: &str, db_user: &str, db_name: &str) -> Client {
        let home = TestDir::new();
        let prefix = home.join("identity");
        let (person, out) = (format!("--user={person}"), out(&prefix));
        let mut arguments = vec!["auth", "sign", "--format=file", &person, &out];
        arguments.extend(options);
        self.ctl(&arguments).ok();
        Client::new(home, prefix, self.proxy_port(), db_user, db_name)
    }

    /// Events of the audit log, oldest first, as `ctl audit ls` has them with `filters`.
    #[track_caller]
    pub fn audit(&self, filters: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["audit", "ls", "--format", "json", "--limit", "10000"];
        arguments.extend(filters);
        let text = self.ctl(&arguments).ok();
        let mut events: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        events.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
        events
    }

    /// Waits for an event with `code` of `person` that `accept` takes; an agent ships what it wrote a moment later.
    #[track_caller]
    pub fn audited(&self, person: &str, code: &str, accept: impl Fn(&Value) -> bool) -> Value {
        until_ok(&format!("an event {code} of {person}"), PATIENCE, || {
            let events = self.audit(&["--user", person]);
            let found = events.iter().find(|event| event["code"] == code && accept(event));
            found.cloned().ok_or_else(|| {
                events
                    .iter()
                    .rev()
                    .take(20)
                    .map(Value::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            })
        })
    }

    /// Each process of Postern with the most memory that it ever held.
    pub fn peak_memory(&self) -> Vec<(&'static str, u64)> {
        self.nodes
            .iter()
            .map(|node| (node.config.name, node.process().peak_memory_mib()))
            .collect()
    }
}

/// `--out=PREFIX`.
pub fn out(prefix: &Path) -> String {
    format!("--out={}", prefix.display())
}

#[track_caller]
pub fn ctl(node: &Node, arguments: &[&str]) -> Output {
    let mut command = postern(&node.directory);
    command
        .args(["ctl", "--data-dir"])
        .arg(&node.config.data_dir)
        .args(arguments);
    run(command, Duration::from_secs(60))
}

pub fn ca_pin(node: &Node) -> String {
    let status: Value = serde_json::from_str(&ctl(node, &["status", "--format", "json"]).ok()).expect("JSON");
    status["ca_pins"][0]
        .as_str()
        .unwrap_or_else(|| panic!("no ca_pins in {status}"))
        .to_owned()
}

/// A role for every database service and name, and for the database users of a YAML list.
pub fn role(name: &str, db_users: &str) -> String {
    format!(
        "kind: role\nversion: v5\nmetadata:\n  name: {name}\nspec:\n  allow:\n    db_labels: {{'*': '*'}}\n    \
         db_users: [{db_users}]\n    db_names: ['*']\n"
    )
}

pub fn user(name: &str, roles: &str, db_users: &str) -> String {
    format!(
        "kind: user\nversion: v2\nmetadata:\n  name: {name}\nspec:\n  roles: [{roles}]\n  traits:\n    db_users: [{db_users}]\n    \
         db_names: ['*']\n"
    )
}

/// The cluster that tests share which neither stop a node nor change what others use.
pub struct Shared(&'static Cluster);

/// Starts the shared cluster of a form at its first use.
pub fn shared(form: Form) -> Shared {
    static ONE_PROCESS: OnceLock<Cluster> = OnceLock::new();
    static APART: OnceLock<Cluster> = OnceLock::new();
    let cell = match form {
        Form::OneProcess => &ONE_PROCESS,
        Form::Apart => &APART,
    };
    Shared(cell.get_or_init(|| Cluster::start(form)))
}

impl Deref for Shared {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.0.nodes {
                eprintln!("--- log of {} ---\n{}", node.config.name, node.process().log_tail());
            }
        }
    }
}
