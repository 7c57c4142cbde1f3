//! A panic in every actor of a cluster, one after the other, with somebody connected who must not notice; and the table of it in
//! docs/operating.md. `POSTERN_BLESS=1` writes that table anew, figures included; without it, all but the figures is compared.

use crate::harness::cluster::Node;
use crate::harness::wait::until_ok;
use crate::harness::{Client, Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Session, Stopwatch, Wire};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What of one kind of actor is true whatever the machine.
struct Row {
    kind: &'static str,
    rule: &'static str,
    /// Where the state of a rebuilt one comes from.
    rebuilt_from: &'static str,
    /// What those who asked it read meanwhile.
    askers: &'static str,
    lost: &'static str,
}

const fn row(
    kind: &'static str,
    rule: &'static str,
    rebuilt_from: &'static str,
    askers: &'static str,
    lost: &'static str,
) -> Row {
    Row {
        kind,
        rule,
        rebuilt_from,
        askers,
        lost,
    }
}

const P: &str = "permanent";
const SAME_CONNECTION: &str = "new clients: 57P03, try again";
const CTL: &str = "`ctl`: the actor failed; look and repeat";
const NOBODY: &str = "nobody asks it";
const NOTHING: &str = "nothing";

/// Every kind of actor that there is.
const ROWS: &[Row] = &[
    row(
        "accounts",
        P,
        "the store",
        "logins and links: try again",
        "how often each address has tried",
    ),
    row("admin", P, "its socket", NOBODY, NOTHING),
    row(
        "agent",
        P,
        "nothing to rebuild",
        SAME_CONNECTION,
        "kept certificates for PostgreSQL; auth is asked again",
    ),
    row(
        "agent-sessions",
        P,
        "`SessionsStock`; decides again",
        SAME_CONNECTION,
        NOTHING,
    ),
    row(
        "audit",
        P,
        "the spool on disk",
        NOBODY,
        "nothing; a batch may be sent twice and is stored once",
    ),
    row(
        "audit-log",
        P,
        "the log on disk",
        "shippers repeat; `audit ls`: repeat",
        NOTHING,
    ),
    row(
        "auth-link",
        P,
        "dials auth again",
        "new clients: 57P03, try again, where auth is needed",
        "questions to auth in hand",
    ),
    row("auth-listener", P, "its socket", NOBODY, NOTHING),
    row(
        "ca",
        P,
        "the authorities in memory",
        "nodes and people: try again",
        NOTHING,
    ),
    row(
        "cancels",
        P,
        "`Keys`",
        SAME_CONNECTION,
        "a cancel in hand, and how often addresses have failed",
    ),
    row(
        "connection",
        "temporary",
        "not rebuilt",
        NOBODY,
        "the connection that it serves",
    ),
    row(
        "databases",
        P,
        "`ServedStock`; looks and asks for labels again",
        NOBODY,
        NOTHING,
    ),
    row(
        "dialer",
        "transient",
        "`TunnelSlot`; the tunnel stays up",
        NOBODY,
        NOTHING,
    ),
    row("dialers", P, "`DialersStock`; its dialers live on", NOBODY, NOTHING),
    row("identity", P, "`IdentityStock`", NOBODY, NOTHING),
    row("inventory", P, "`InventoryStock`", "heartbeats: the next one", NOTHING),
    row(
        "joins",
        P,
        "nothing to rebuild",
        "a node that joins: refused with the reason, joins again",
        "a use of a token, where it was taken already",
    ),
    row(
        "link",
        "temporary",
        "the node dials again",
        NOBODY,
        "the questions of that node in hand",
    ),
    row(
        "links",
        P,
        "nothing to rebuild; links live on",
        NOBODY,
        "a connection of a node in hand; it comes again",
    ),
    row("listener", P, "its socket; connections live on", NOBODY, NOTHING),
    row("own-databases", P, "`DatabasesStock`", NOBODY, NOTHING),
    row("own-heartbeat", P, "the node's report", NOBODY, NOTHING),
    row("own-policy", P, "`Published`", NOBODY, NOTHING),
    row(
        "policy",
        P,
        "`PolicyStock`",
        "whoever brings rules brings them again",
        NOTHING,
    ),
    row(
        "proxy-sessions",
        P,
        "`SessionsStock`; decides again",
        SAME_CONNECTION,
        NOTHING,
    ),
    row("rbac", P, "the store; published rules stay in force", CTL, NOTHING),
    row("server-certificates", P, "the files", NOBODY, NOTHING),
    row("tokens", P, "the store and the configuration", CTL, NOTHING),
    row(
        "tunnel",
        "transient",
        "`Carrier`; the connection stays up",
        NOBODY,
        NOTHING,
    ),
    row(
        "tunnels",
        P,
        "`RoutesStock`; tunnels live on",
        NOBODY,
        "a tunnel that is just dialled; the agent dials again",
    ),
    row(
        "upstream",
        "temporary",
        "not rebuilt",
        NOBODY,
        "the connection that it serves",
    ),
    row("upstream-cancels", P, "`Keys`", SAME_CONNECTION, "a cancel in hand"),
];

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

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Actor {
    kind: String,
    path: String,
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

struct Campaign<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    /// The worst of each kind and fault, in milliseconds.
    figures: BTreeMap<(String, &'static str), u128>,
}

impl Campaign<'_> {
    /// What serves one connection: there has to be one for each fault, and it is the one that came last.
    fn fault_of_a_connection(&mut self, node: Kind, kind: &str, fault: &'static str) {
        let node = self.cluster.node(node);
        let before: BTreeSet<_> = actors(node).into_iter().map(|actor| actor.path).collect();
        let victim = answers(self.client).expect("allowed");
        let new = actors(node).into_iter();
        let new: Vec<_> = new
            .filter(|actor| actor.kind == kind && !before.contains(&actor.path))
            .collect();
        let [one] = new.as_slice() else {
            panic!("not one new {kind}: {new:?}")
        };
        self.do_fault(node, one, fault, |now| now.iter().all(|other| other.path != one.path));
        drop(victim);
    }

    fn fault_of(&mut self, node: Kind, kind: &str, fault: &'static str) {
        let node = self.cluster.node(node);
        let one = actors(node)
            .into_iter()
            .find(|actor| actor.kind == kind)
            .expect("it lives");
        let comes_again = kind == "link";
        let others: BTreeSet<_> = actors(node).into_iter().map(|actor| actor.path).collect();
        let name = one.path.rsplit_once('-').map_or("", |(name, _)| name).to_owned();
        self.do_fault(node, &one, fault, |now| {
            now.iter().any(|other| {
                if comes_again {
                    other.path.starts_with(&name) && !others.contains(&other.path)
                } else {
                    other.path == one.path && other.restarts > one.restarts && other.state != "rebuilding"
                }
            })
        });
    }

    fn do_fault(&mut self, node: &Node, one: &Actor, fault: &'static str, is_there: impl Fn(&[Actor]) -> bool) {
        let since = Stopwatch::start();
        inject(node, &one.path, fault, 1);
        until_ok(&format!("whole after {fault} in {}", one.path), PATIENCE, || {
            if is_there(&actors(node)) {
                answers(self.client).map(drop)
            } else {
                Err("the actor is not there again".to_owned())
            }
        });
        if node.config.name == "auth-1" {
            self.cluster.ctl(&["status"]).ok();
        }
        let worst = self.figures.entry((one.kind.clone(), fault)).or_default();
        *worst = (*worst).max(since.elapsed().as_millis());
    }
}

/// Asks all the time; gives how often it was answered.
fn ask_until(done: &AtomicBool, wire: &mut Wire) -> usize {
    let mut asked = 0;
    while !done.load(Ordering::Relaxed) {
        assert_eq!(wire.query("select 'unharmed'"), Ok(vec!["unharmed".to_owned()]));
        asked += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    asked
}

#[test]
fn a_panic_in_any_actor_costs_at_most_the_connection_that_it_served() {
    let cluster = Cluster::start(Form::Apart);
    let client = cluster.client("alice", "app", "app");
    let mut bystander = answers(&client).expect("allowed");
    // Opened before anything fails: its keys have to be there at the end.
    let mut psql = Session::on_a_terminal(&client);
    psql.ask("select 'con' || 'nected';", "connected");
    let done = AtomicBool::new(false);
    let mut campaign = Campaign {
        cluster: &cluster,
        client: &client,
        figures: BTreeMap::new(),
    };
    let figures = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(&done, &mut bystander));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for node in [Kind::Auth, Kind::Proxy, Kind::Agent] {
                let kinds: BTreeSet<_> = actors(cluster.node(node)).into_iter().map(|actor| actor.kind).collect();
                for kind in kinds {
                    for fault in FAULTS {
                        let serves_one = kind == "connection" || kind == "upstream";
                        match (serves_one, node) {
                            // Those of auth's port are of nodes that come again; `link` is what becomes of them.
                            (true, Kind::Auth) => {}
                            (true, _) => campaign.fault_of_a_connection(node, &kind, fault),
                            (false, _) => campaign.fault_of(node, &kind, fault),
                        }
                    }
                }
            }
            campaign.figures
        }));
        done.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("the bystander noticed nothing");
        assert!(asked > 10, "it asked all the time");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    psql.say("select pg_sleep(60) /* cancelled after all that */;");
    cluster.postgres.wait_until_runs("app", "cancelled after all that");
    psql.press_ctrl_c();
    psql.hears("57014", FIVE_SECONDS);
    psql.ask("select 'still ' || 'here';", "still here");
    check_table(&figures);
}

/// Without figures, a table that is compared; with them, one that is kept.
fn table(figures: Option<&BTreeMap<(String, &'static str), u128>>) -> Vec<String> {
    let mut lines = vec![
        "| actor | rule | state rebuilt from | askers meanwhile | what is lost | whole again after a panic in a handler, a future, \
         at a start (ms) |"
            .to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for row in ROWS {
        let figure = |fault| match figures.and_then(|figures| figures.get(&(row.kind.to_owned(), fault))) {
            Some(ms) => ms.to_string(),
            None => "–".to_owned(),
        };
        lines.push(format!(
            "| `{}` | {} | {} | {} | {} | {} |",
            row.kind,
            row.rule,
            row.rebuilt_from,
            row.askers,
            row.lost,
            FAULTS.map(figure).join(", ")
        ));
    }
    lines
}

fn check_table(figures: &BTreeMap<(String, &'static str), u128>) {
    let rows: BTreeSet<_> = ROWS.iter().map(|row| row.kind).collect();
    for (kind, _) in figures.keys() {
        assert!(rows.contains(kind.as_str()), "no row says what becomes of {kind}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the table's beginning");
    let (kept, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("POSTERN_BLESS").is_some() {
        let lines = table(Some(figures)).join("\n");
        std::fs::write(&path, format!("{before}{BEGIN}\n{lines}\n{END}{after}")).expect("written");
        return;
    }
    let without_figures = |line: &str| {
        line.trim_end_matches('|')
            .rsplit_once('|')
            .map(|(words, _)| words.to_owned())
    };
    let kept: Vec<_> = kept.trim().lines().map(without_figures).collect();
    let now: Vec<_> = table(None).iter().map(|line| without_figures(line)).collect();
    assert_eq!(kept, now, "POSTERN_BLESS=1 writes the table of docs/operating.md anew");
}
