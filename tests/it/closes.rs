//! Every close that Postern causes says why: the table of `docs/operating.md`, and that a driver reads it.

use crate::clients::{beside, python};
use crate::harness::cluster::user;
use crate::harness::configuration::SERVICE;
use crate::harness::{Client, Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Wire, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern::model::RefusalKind;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

#[test]
fn the_page_has_every_reason_with_its_sqlstate_and_no_other() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let text = std::fs::read_to_string(page).expect("docs/operating.md");
    let from = text.find("| label | SQLSTATE | meaning |").expect("the table");
    let rows = text[from..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut written: Vec<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            assert!(!cells[3].is_empty(), "{row}");
            (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
        })
        .collect();
    let known = RefusalKind::ALL.iter();
    let mut known: Vec<_> = known
        .map(|kind| (kind.label().to_owned(), kind.sqlstate().to_owned()))
        .collect();
    written.sort();
    known.sort();
    assert_eq!(written, known);
}

/// psycopg in a session that rests.
struct Driver {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _client: Client,
}

impl Driver {
    /// It is to read this SQLSTATE when the session is over.
    fn rests(client: &Client, sqlstate: &str) -> Self {
        let mut command = Command::new(python());
        client.connects(&mut command);
        command
            .arg(beside("functions_of_psycopg.py"))
            .args(["reads_why", sqlstate])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("python");
        let (input, output) = (
            process.stdin.take().expect("piped"),
            process.stdout.take().expect("piped"),
        );
        let mut driver = Self {
            process,
            input,
            output: BufReader::new(output),
            _client: client.clone(),
        };
        assert_eq!(driver.says(), "rests");
        driver
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Goes on, and gives the words of the error that it reads with the right SQLSTATE.
    #[track_caller]
    fn reads(mut self) -> String {
        writeln!(self.input, "go on").expect("it waits");
        let words = self.says();
        assert_eq!(self.says(), "passed", "{words}");
        words
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A role with these options and a person who has it.
fn person_with(cluster: &Cluster, name: &str, options: &str) {
    let role = format!(
        "kind: role\nversion: v7\nmetadata: {{name: role-of-{name}}}\nspec:\n  options: {{{options}}}\n  allow: {{db_labels: \
         {{'*': '*'}}, db_users: [app], db_names: ['*']}}\n---\n{}",
        user(name, &format!("role-of-{name}"), "")
    );
    cluster.create(&role).ok();
}

/// Once the session of this person has ended.
#[track_caller]
fn is_over(cluster: &Cluster, person: &str) {
    cluster.audited(person, "TDB01I", |_| true);
}

#[test]
fn a_driver_reads_the_sqlstate_of_every_end_of_an_open_session() {
    let mut cluster = Cluster::start(Form::Apart);
    for (name, options) in [
        ("idler", "client_idle_timeout: 1s"),
        ("expired", "disconnect_expired_cert: true"),
        ("locked", ""),
        ("changed", ""),
        ("unlucky", ""),
    ] {
        person_with(&cluster, name, options);
    }
    let client = |cluster: &Cluster, person| cluster.client(person, "app", "app");
    let idler = Driver::rests(&client(&cluster, "idler"), "57P05");
    let short = cluster.signed_client(&["--db-service", SERVICE, "--ttl=8s"], "expired", "app", "app");
    let expired = Driver::rests(&short, "28000");
    let locked = Driver::rests(&client(&cluster, "locked"), "57P01");
    let changed = Driver::rests(&client(&cluster, "changed"), "57P01");
    cluster
        .ctl(&["lock", "--user=locked", "--message=closed for today"])
        .ok();
    cluster.ctl(&["rm", "role/role-of-changed"]).ok();
    for person in ["idler", "expired", "locked", "changed"] {
        is_over(&cluster, person);
    }
    assert!(idler.reads().contains("idle timeout"));
    assert!(expired.reads().contains("certificate expired"));
    assert!(locked.reads().contains("closed for today"));
    assert!(changed.reads().contains("rules changed"));

    // PostgreSQL's process is gone without a word.
    let mut unlucky = Wire::connect(&client(&cluster, "unlucky")).expect("allowed");
    let pid = unlucky.query("select pg_backend_pid()").expect("allowed")[0]
        .parse()
        .expect("a number");
    let driver = Driver::rests(&client(&cluster, "unlucky"), "08006");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
    let error = unlucky.ended_with(FIVE_SECONDS);
    assert_eq!(
        (error.code.as_str(), error.severity.as_str()),
        ("08006", "FATAL"),
        "{error:?}"
    );
    assert!(error.message.contains("without a reason"), "{error:?}");
    until("PostgreSQL is back", PATIENCE, || {
        Wire::connect(&client(&cluster, "unlucky")).ok().map(drop)
    });
    // PostgreSQL ends its other sessions with it, with a warning and without an error.
    assert!(driver.reads().contains("without a reason"));

    // What is no message.
    let mut broken = Wire::connect(&client(&cluster, "unlucky")).expect("allowed");
    broken.send(&[(b'?', b"")]);
    assert_eq!(broken.ended_with(FIVE_SECONDS).code, "08P01");

    let drained = Driver::rests(&client(&cluster, "unlucky"), "57P01");
    cluster.node(Kind::Agent).process().send(Signal::SIGQUIT);
    assert_eq!(cluster.node_mut(Kind::Agent).wait(PATIENCE), 0, "it ended in order");
    assert!(drained.reads().contains("agent-1"));
    cluster.node_mut(Kind::Agent).start();
    until("the agent serves again", PATIENCE, || {
        Wire::connect(&client(&cluster, "unlucky")).ok().map(drop)
    });
    let lost = Driver::rests(&client(&cluster, "unlucky"), "08006");
    cluster.node_mut(Kind::Agent).kill9();
    until("the agent is known to be gone", PATIENCE, || {
        Wire::connect(&client(&cluster, "unlucky")).err()
    });
    assert!(lost.reads().contains("agent-1"));
}
