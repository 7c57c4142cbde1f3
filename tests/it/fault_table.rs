//! A panic in every actor of two clusters, one with its nodes apart and one in one process, one actor after the other, with somebody
//! connected who must not notice; and the table of it in docs/operating.md. `POSTERN_BLESS=1` writes that table anew, figures
//! included; without it, all but the figures is compared.

mod rows;

use crate::harness::cluster::Node;
use crate::harness::cluster::Options;
use crate::harness::configuration::database;
use crate::harness::wait::until_ok;
use crate::harness::wire::dial;
use crate::harness::{Client, Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Session, Stopwatch, TestDir, Wire, until};
use rows::{Asked, ROWS, Row};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long an answer to the bystander may take; others use the machine, too.
const NOTICED_AFTER: Duration = Duration::from_secs(2);
const FAULTS: [&str; 3] = ["handler", "future", "start"];
const BEGIN: &str = "<!-- the fault table: tests/it/fault_table.rs -->";
const END: &str = "<!-- the end of the fault table -->";

/// One request at the debug socket of a node.
#[track_caller]
pub fn debug(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let mut socket = UnixStream::connect(node.config.data_dir.join("debug.sock")).expect("the node listens");
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: \
         {length}\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Does a fault to an actor, which comes to pass when its turn comes. `number`: of a start, how many; else for how many seconds.
#[track_caller]
pub fn inject(node: &Node, actor: &str, how: &str, number: u64) {
    let wanted = json!({ "actor": actor, "how": how, "times": number, "seconds": number }).to_string();
    debug(node, "POST", "/v1/fault", &wanted);
}

/// The handler of the next message of this kind fails.
#[track_caller]
fn inject_message(node: &Node, actor: &str, message: &str) {
    let wanted = json!({ "actor": actor, "how": "message", "message": message }).to_string();
    debug(node, "POST", "/v1/fault", &wanted);
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Actor {
    kind: String,
    path: String,
    rule: String,
    mailbox: u64,
    restarts: u64,
    state: String,
}

fn actors(node: &Node) -> Vec<Actor> {
    let view = debug(node, "GET", "/v1/actors", "");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = view["actors"].as_array().expect("a list").iter();
    let actors = all.filter(|actor| actor["rule"] != "thread" && actor["rule"] != "outside");
    actors
        .map(|actor| Actor {
            kind: text(&actor["kind"]),
            path: text(&actor["path"]),
            rule: text(&actor["rule"]),
            mailbox: actor["bound"].as_u64().unwrap_or(0),
            restarts: actor["restarts"].as_u64().unwrap_or(0),
            state: text(&actor["state"]),
        })
        .collect()
}

/// A new connection is let in and answered.
fn answers(client: &Client) -> Result<Wire, String> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut wire = Wire::connect(client).map_err(|error| format!("{error:?}"))?;
        wire.query("select 1").map_err(|error| format!("{error:?}"))?;
        Ok(wire)
    }));
    opened.unwrap_or_else(|_| Err("the connection was closed".to_owned()))
}

#[track_caller]
fn row_of(kind: &str) -> &'static Row {
    let row = ROWS.iter().find(|row| row.kind == kind);
    row.unwrap_or_else(|| panic!("no row says what becomes of {kind}"))
}

/// The worst of each kind and fault, in milliseconds.
type Figures = BTreeMap<(String, &'static str), u128>;

struct Campaign<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    figures: Figures,
}

impl Campaign<'_> {
    /// Does every fault to an actor of each kind of each node.
    fn run(mut self) -> Figures {
        let nodes: &[Kind] = match self.cluster.form {
            Form::OneProcess => &[Kind::Proxy],
            Form::Apart => &[Kind::Auth, Kind::Proxy, Kind::Agent],
        };
        for kind in nodes {
            let node = self.cluster.node(*kind);
            for one in actors(node) {
                let row = row_of(&one.kind);
                assert_eq!((one.rule.as_str(), one.mailbox), (row.rule, row.mailbox), "{one:?}");
            }
            let kinds: BTreeSet<_> = actors(node).into_iter().map(|actor| actor.kind).collect();
            for kind in kinds {
                for fault in FAULTS {
                    match kind.as_str() {
                        "upstream" => self.fault_of_a_connection(node, &kind, fault),
                        "connection" => {
                            if node.config.auth_port.is_some() {
                                self.fault_of_a_connection_to_auth(node, fault);
                            }
                            if node.config.proxy_port.is_some() {
                                self.fault_of_a_connection(node, &kind, fault);
                            }
                        }
                        _ => self.fault_of(node, &kind, fault),
                    }
                }
                // Of a proxy nobody asks auth anything for a client.
                if kind != "auth-link" || node.config.databases.is_some() {
                    self.fault_with_a_message_in_hand(node, row_of(&kind));
                }
            }
        }
        self.figures
    }

    /// What serves one connection: there has to be one for each fault, and it is the one that came last.
    fn fault_of_a_connection(&mut self, node: &Node, kind: &str, fault: &'static str) {
        let before = paths(node);
        let mut victim = answers(self.client).expect("allowed");
        let new = actors(node).into_iter();
        let new: Vec<_> = new
            .filter(|actor| actor.kind == kind && !before.contains(&actor.path))
            .collect();
        let [one] = new.as_slice() else {
            panic!("not one new {kind}: {new:?}")
        };
        self.do_fault(node, one, fault, |now| now.iter().all(|other| other.path != one.path));
        let outcome = catch_unwind(AssertUnwindSafe(|| victim.query("select 1")));
        assert!(!matches!(outcome, Ok(Ok(_))), "its client is told, or hung up on");
    }

    /// The same at auth's port, of somebody who has not said anything yet: those of nodes are `link`s soon.
    fn fault_of_a_connection_to_auth(&mut self, node: &Node, fault: &'static str) {
        let before = paths(node);
        let mut victim = dial(node.config.auth_port.expect("it listens"));
        let one = until("the connection has an actor", PATIENCE, || {
            let mut new = actors(node).into_iter();
            new.find(|actor| actor.path.starts_with("auth-listener/") && !before.contains(&actor.path))
        });
        self.do_fault(node, &one, fault, |now| now.iter().all(|other| other.path != one.path));
        let read = victim.read(&mut [0; 1]);
        let is_over = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(matches!(&read, Ok(0)) || read.as_ref().is_err_and(is_over), "{read:?}");
    }

    fn fault_of(&mut self, node: &Node, kind: &str, fault: &'static str) {
        let one = one_of(node, kind);
        let comes_again = kind == "link";
        let others = paths(node);
        let name = one.path.rsplit_once('-').map_or("", |(name, _)| name).to_owned();
        self.do_fault(node, &one, fault, |now| {
            now.iter().any(|other| {
                if comes_again {
                    other.path.starts_with(&name) && !others.contains(&other.path)
                } else {
                    is_rebuilt(&one, other)
                }
            })
        });
    }

    fn do_fault(&mut self, node: &Node, one: &Actor, fault: &'static str, is_there: impl Fn(&[Actor]) -> bool) {
        let since = Stopwatch::start();
        inject(node, &one.path, fault, 1);
        self.is_whole(node, &format!("{fault} in {}", one.path), is_there);
        let worst = self.figures.entry((one.kind.clone(), fault)).or_default();
        *worst = (*worst).max(since.elapsed().as_millis());
    }

    fn is_whole(&self, node: &Node, what: &str, is_there: impl Fn(&[Actor]) -> bool) {
        until_ok(&format!("whole after {what}"), PATIENCE, || {
            if is_there(&actors(node)) {
                answers(self.client).map(drop)
            } else {
                Err("the actor is not there again".to_owned())
            }
        });
        if node.config.auth_port.is_some() {
            self.cluster.ctl(&["status"]).ok();
        }
    }

    /// Whoever asked what is in hand reads what the table says, and others nothing of it.
    fn fault_with_a_message_in_hand(&self, node: &Node, row: &Row) {
        let Some(asked) = row.asked else { return };
        let one = one_of(node, row.kind);
        match asked {
            Asked::ByClient(message, db_user) => {
                inject_message(node, &one.path, message);
                let refused = Wire::connect(&self.client.as_db_user(db_user)).err();
                let refused = refused.unwrap_or_else(|| panic!("{} failed with {message} in hand", row.kind));
                assert_eq!(
                    (refused.severity.as_str(), refused.code.as_str()),
                    ("FATAL", "57P03"),
                    "{}: {refused:?}",
                    row.kind
                );
                assert!(refused.hint.contains("try again"), "{}: {refused:?}", row.kind);
            }
            Asked::ByCtl(message, arguments) => {
                // Somebody has to have sent one before, so that its kind is known.
                self.cluster.ctl(arguments);
                inject_message(node, &one.path, message);
                let refused = self.cluster.ctl(arguments).failed_with(1);
                assert!(refused.contains("look and repeat"), "{}: {refused}", row.kind);
                self.cluster.ctl(&["status"]).ok();
            }
        }
        self.is_whole(node, row.kind, |now| now.iter().any(|other| is_rebuilt(&one, other)));
    }
}

fn paths(node: &Node) -> BTreeSet<String> {
    actors(node).into_iter().map(|actor| actor.path).collect()
}

#[track_caller]
fn one_of(node: &Node, kind: &str) -> Actor {
    let mut all = actors(node).into_iter();
    all.find(|actor| actor.kind == kind).expect("it lives")
}

fn is_rebuilt(one: &Actor, now: &Actor) -> bool {
    now.path == one.path && now.restarts > one.restarts && now.state != "rebuilding"
}

/// Asks all the time; gives how often it was answered, and how long the longest answer took.
fn ask_until(done: &AtomicBool, wire: &mut Wire) -> (usize, Duration) {
    let (mut asked, mut longest) = (0, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let since = Stopwatch::start();
        assert_eq!(wire.query("select 'unharmed'"), Ok(vec!["unharmed".to_owned()]));
        longest = longest.max(since.elapsed());
        asked += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    (asked, longest)
}

/// The figures of one cluster, and the longest answer of the bystander.
fn campaign(form: Form) -> (Figures, Duration) {
    // Nobody uses this one; its certificate is kept nevertheless.
    let kept = TestDir::new();
    let out = kept.join("server");
    let options = Options {
        databases: database("kept", "localhost:1", "")
            + &format!("    server_certificate: {{out: {}}}\n", out.display()),
        ..Options::default()
    };
    let cluster = Cluster::start_with(form, options);
    let client = cluster.client("alice", "app", "app");
    let mut bystander = answers(&client).expect("allowed");
    // Opened before anything fails: its keys have to be there at the end.
    let mut psql = Session::on_a_terminal(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    let done = AtomicBool::new(false);
    let campaign = Campaign {
        cluster: &cluster,
        client: &client,
        figures: Figures::new(),
    };
    let (figures, longest) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(&done, &mut bystander));
        let outcome = catch_unwind(AssertUnwindSafe(|| campaign.run()));
        done.store(true, Ordering::Relaxed);
        let (asked, longest) = asking.join().expect("the bystander noticed nothing");
        assert!(asked > 10, "it asked all the time");
        let figures = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (figures, longest)
    });
    psql.say("select pg_sleep(60) /* cancelled after all that */;");
    cluster.postgres.wait_until_runs("app", "cancelled after all that");
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
    psql.ask("select 'still ' || 'here';", "still here");
    (figures, longest)
}

#[test]
fn a_panic_in_any_actor_costs_at_most_the_connection_that_it_served() {
    let (apart, one_process) = std::thread::scope(|scope| {
        let one_process = scope.spawn(|| campaign(Form::OneProcess));
        let apart = campaign(Form::Apart);
        (apart, one_process.join().expect("in one process, too"))
    });
    let (mut figures, longest) = apart;
    for (of, ms) in one_process.0 {
        let worst = figures.entry(of).or_default();
        *worst = (*worst).max(ms);
    }
    let longest = longest.max(one_process.1);
    assert!(longest < NOTICED_AFTER, "the bystander waited for {longest:?}");
    check_table(&figures, longest);
}

/// The lines of the table; each one's figures are its last column, or after its last colon.
fn table(figures: &Figures, longest: Duration) -> Vec<String> {
    let mut lines = vec![
        "| actor | rule | mailbox | state rebuilt from | askers meanwhile | what is lost | whole again after a panic in a \
         handler, a future, at a start (ms) |"
            .to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in ROWS {
        let figure = |fault| {
            let figure = figures.get(&(row.kind.to_owned(), fault));
            figure
                .unwrap_or_else(|| panic!("{fault} was done to no {}", row.kind))
                .to_string()
        };
        lines.push(format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |",
            row.kind,
            row.rule,
            row.mailbox,
            row.rebuilt_from,
            row.askers,
            row.lost,
            FAULTS.map(figure).join(", ")
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "The longest answer to a query of somebody else meanwhile, in ms: {}",
        longest.as_millis()
    ));
    lines
}

fn check_table(figures: &Figures, longest: Duration) {
    let now = table(figures, longest);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the table's beginning");
    let (kept, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("POSTERN_BLESS").is_some() {
        let lines = now.join("\n");
        std::fs::write(&path, format!("{before}{BEGIN}\n{lines}\n{END}{after}")).expect("written");
        return;
    }
    let without_figures = |line: &str| {
        let words = line.trim_end_matches('|').rsplit_once(['|', ':']);
        words.map(|(words, _)| words.to_owned())
    };
    let kept: Vec<_> = kept.trim().lines().map(without_figures).collect();
    let now: Vec<_> = now.iter().map(|line| without_figures(line)).collect();
    assert_eq!(kept, now, "POSTERN_BLESS=1 writes the table of docs/operating.md anew");
}
