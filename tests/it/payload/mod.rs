//! What people type and send: passwords, codes, links, tokens, statements, parameters, rows and errors, each with a mark. Then
//! every byte that three nodes have written at their most talkative level, and all that they answer about themselves, is
//! searched for the marks in every form.

mod counted;
mod marks;
mod places;
mod sent;

use crate::harness::cluster::{Node, Options, ctl};
use crate::harness::configuration::{DB_TOKEN, Join, PROXY_TOKEN, SERVICE, database};
use crate::harness::https::Https;
use crate::harness::person::Person;
use crate::harness::process::run;
use crate::harness::sign_up::{code_at, wrong_code};
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, Form, Kind, NodeConfig, PATIENCE, TestDir, postern, until};
use hyper::Version;
use marks::{Allowed, Mark, Search};
use nix::sys::signal::Signal;
use places::Place;
use std::collections::BTreeSet;

/// A person's name: it has to be found where names are shown, or the search finds nothing anywhere.
const NAME: &str = "minaofthenames";
const PASSWORD: &str = "Qz7passwordOfMinaKx3";
const WRONG_PASSWORD: &str = "Qz7anotherPasswordKx3";
const WRONG_CODE: &str = "Qz7noCodeAtAllKx3";
const WRONG_LINK: &str = "Qz7noLinkAtAllKx3";
/// The first four letters of a token are its name.
const WRONG_TOKEN: &str = "8c1dd05ed3b70ba7f1ac9ee4de1a7b6c";
const TOKEN_NAME_LETTERS: usize = 4;

/// A cluster that logs as much as it can, the agent as JSON into a file of its data directory.
fn talkative() -> Cluster {
    let options = Options {
        process: "  diag_addr: 127.0.0.1:0\n  log: {severity: trace}\n",
        fault: Some(sent::FAULT),
        ..Options::default()
    };
    let mut cluster = Cluster::start_with(Form::Apart, options);
    let agent = cluster.node_mut(Kind::Agent);
    let file = agent.config.data_dir.join("postern.log");
    let log = format!(
        "  diag_addr: 127.0.0.1:0\n  log: {{severity: trace, output: {}, format: {{output: json}}}}\n",
        file.display()
    );
    agent.config = agent.config.clone().with_process(&log);
    agent.process().send(Signal::SIGTERM);
    agent.wait(PATIENCE);
    agent.start();
    cluster
}

/// Somebody signs up and logs in, with what is right and with what is not.
fn logs_in(cluster: &Cluster, marks: &mut Vec<Mark>) -> Person {
    let mina = Person::sign_up_with(cluster, NAME, PASSWORD);
    let line = format!("tsh login --proxy={} --user={NAME} --ca-pin={}", mina.proxy, mina.pin);
    let wrong = wrong_code(&mina.secret);
    for (password, code) in [
        (WRONG_PASSWORD, wrong.as_str()),
        (PASSWORD, wrong.as_str()),
        (PASSWORD, WRONG_CODE),
    ] {
        mina.typed_with(&line, &format!("{password}\n{code}\n")).failed_with(1);
    }
    mina.log_in("tsh", 0).ok();
    for step in [-1, 0] {
        marks.push(Mark::code("a code", &code_at(&mina.secret, step)));
    }
    marks.push(Mark::code("a wrong code", &wrong));
    marks.push(Mark::text("the secret of the codes", Allowed::Nowhere, &mina.secret));
    let secret = data_encoding::BASE32_NOPAD
        .decode(mina.secret.as_bytes())
        .expect("base32");
    marks.push(Mark::bytes("the secret of the codes", Allowed::Nowhere, &secret));
    marks.push(of_link(&mina.link));

    // A form that is refused, over both versions of HTTP, and a link that is none.
    let said = cluster.ctl(&["users", "reset", NAME]).ok();
    let link = said.lines().find(|line| line.contains("/web/")).expect("a link");
    let path = &link[link.find("/web/").expect("a page")..];
    marks.push(of_link(path));
    let web = Https::new(&mina.home.join("trust.cas"), cluster.proxy_port());
    let no_link = format!("/web/invite/{WRONG_LINK}");
    for web in [web.clone(), web.over(Version::HTTP_2)] {
        for path in [path, no_link.as_str()] {
            web.get(path);
            let fields = [
                ("password", WRONG_PASSWORD),
                ("confirm", WRONG_PASSWORD),
                ("otp", WRONG_CODE),
            ];
            assert_ne!(web.post(path, &fields).status, 200);
        }
    }
    mina
}

fn of_link(path: &str) -> Mark {
    let token = path.rsplit('/').next().expect("a token");
    Mark::bytes("a link", Allowed::Nowhere, token.as_bytes())
}

/// A node joins with a token that was made for it; another one has a token that nobody made.
fn joins(cluster: &Cluster, directory: &TestDir, marks: &mut Vec<Mark>) -> Node {
    let token = cluster
        .ctl(&["tokens", "add", "--type=db", "--format=text"])
        .ok()
        .trim()
        .to_owned();
    for (what, token) in [("a token", token.as_str()), ("a wrong token", WRONG_TOKEN)] {
        marks.push(Mark::text(what, Allowed::Nowhere, &token[TOKEN_NAME_LETTERS..]));
        let bytes = data_encoding::HEXLOWER.decode(token.as_bytes()).expect("hex");
        marks.push(Mark::bytes(what, Allowed::Nowhere, &bytes));
    }
    for configured in [PROXY_TOKEN, DB_TOKEN] {
        let (_, secret) = configured.split_once('-').expect("its two parts");
        marks.push(Mark::text("a token of the configuration", Allowed::Nowhere, secret));
    }
    let config = |name: &'static str, token: &str| {
        let uri = format!("localhost:{}", cluster.postgres.port);
        NodeConfig::new(name, directory.join(name))
            .with_databases(&database("another", &uri, ""))
            .with_process("  diag_addr: 127.0.0.1:0\n  log: {severity: trace}\n")
            .joining(Join::through_proxy(cluster.proxy_port(), &cluster.ca_pin()).presenting(token))
    };
    let refused = directory.write("agent-3.yaml", config("agent-3", WRONG_TOKEN).yaml());
    let mut command = postern(directory.path());
    command.arg("start").arg("--config").arg(refused);
    let said = run(command, PATIENCE).failed_with(1);
    assert!(Search::of(marks).find(said.as_bytes()).is_empty(), "{said}");
    cluster.ctl(&["tokens", "rm", WRONG_TOKEN]).failed_with(1);
    let mut node = Node::new(directory.path(), config("agent-2", &token), None);
    node.start();
    node
}

/// Somebody on auth looks at what the others do, and that is on the log.
fn looks(cluster: &Cluster) -> Vec<Place> {
    let auth = cluster.node(Kind::Auth);
    let open = places::json(&places::admin(auth, &format!("/v1/connections?user={NAME}")));
    let id = open["connections"][0]["connection"].as_str();
    let id = id.unwrap_or_else(|| panic!("none is open: {open}"));
    for path in [
        "/v1/nodes/proxy-1/actors",
        "/v1/nodes/agent-1/actors/agent-sessions",
        &format!("/v1/connections/{id}/trace"),
    ] {
        let answer = places::admin(auth, path);
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let filters = ["audit", "ls", "--format=json", "--limit=1000", "--event=trace.read"];
    // What was written is listed a moment later.
    let events = until_ok("who looked is on the log", PATIENCE, || {
        let events = ctl(auth, &filters).ok();
        let looked_at = ["actors", "connections", "trace"].map(|what| format!("\"looked_at\":\"{what}\""));
        let are_there = looked_at.iter().all(|what| events.contains(what));
        if are_there { Ok(events) } else { Err(events) }
    });
    vec![Place {
        what: "who looked".to_owned(),
        bytes: events.into_bytes(),
        is_trail: false,
    }]
}

/// Each of these has to have the name, or what is meant to be searched was not.
const NAMED: [&str; 9] = [
    "proxy-1: stderr",
    "proxy-1: /v1/connections",
    "agent-1: /v1/connections",
    "proxy-1: the trace of",
    "agent-1: the trace of",
    "auth-1/backend/state.sqlite",
    "auth-1/log/00000001.jsonl",
    "auth-1/log/index.sqlite",
    "who looked",
];

fn assert_searched(places: &[Place], names: &[Mark]) {
    let search = Search::of(names);
    let has = |part: &str, what: &str| {
        let mut those = places.iter().filter(|place| place.what.contains(part));
        those.any(|place| search.find(&place.bytes).iter().any(|found| found.0.what == what))
    };
    for part in NAMED {
        assert!(has(part, "a name"), "nobody is named in: {part}");
    }
    for node in ["auth-1", "proxy-1", "agent-1", "agent-2"] {
        assert!(has(&format!("{node}: /metrics"), "an actor"), "{node}");
        assert!(has(&format!("{node}: /v1/actors"), "an actor"), "{node}");
    }
    assert!(has("auth-1: stderr", "a node") && has("agent-1/postern.log", "a component"));
}

#[test]
fn what_people_type_and_send_is_in_no_log_no_record_and_no_answer() {
    let cluster = talkative();
    let directory = TestDir::new();
    let mut marks = vec![
        Mark::text("a password", Allowed::Nowhere, PASSWORD),
        Mark::text("a wrong password", Allowed::Nowhere, WRONG_PASSWORD),
        Mark::text("a wrong code", Allowed::Nowhere, WRONG_CODE),
        Mark::text("a wrong link", Allowed::Nowhere, WRONG_LINK),
    ];
    let another = joins(&cluster, &directory, &mut marks);
    let _mina = logs_in(&cluster, &mut marks);
    until_ok("the agent serves again", PATIENCE, || {
        let output = cluster.client(NAME, "app", "app").psql("select 1");
        if output.code == 0 { Ok(()) } else { Err(output.stderr) }
    });
    let open = sent::everything(&cluster, &cluster.client(NAME, "app", "app"), &mut marks);
    let of_trail = marks.iter().filter(|mark| mark.allowed == Allowed::InTheTrail);
    let of_trail: BTreeSet<&str> = of_trail.map(|mark| mark.what.as_str()).collect();
    let search = Search::of(&marks);

    // What an agent wrote reaches the log a moment later.
    let log = cluster.node(Kind::Auth).config.data_dir.join("log/00000001.jsonl");
    let mut missing = of_trail.clone();
    until(
        &format!("what was asked of PostgreSQL is on the log: {of_trail:?}"),
        PATIENCE,
        || {
            let bytes = std::fs::read(&log).expect("the log");
            for (mark, ..) in search.find(&bytes) {
                missing.remove(mark.what.as_str());
            }
            missing.is_empty().then_some(())
        },
    );
    let mut places = looks(&cluster);
    for node in cluster.nodes.iter().chain([&another]) {
        places.extend(places::of(node));
    }
    let traces = |place: &&Place| place.what.contains("/trace") && place.what.contains("agent-1");
    assert!(
        places.iter().filter(traces).count() >= open.len(),
        "those that have ended, too"
    );
    drop(open);

    let mut leaks = Vec::new();
    for place in &places {
        for (mark, how, around) in search.find(&place.bytes) {
            if mark.allowed == Allowed::Nowhere || !place.is_trail {
                leaks.push(format!("{} ({how}) is in {}: …{around}", mark.what, place.what));
            }
        }
    }
    leaks.dedup();
    assert!(leaks.is_empty(), "{}", leaks.join("\n\n"));
    let names = [
        Mark::text("a name", Allowed::Nowhere, NAME),
        Mark::bytes("an actor", Allowed::Nowhere, b"policy"),
        Mark::bytes("a node", Allowed::Nowhere, b"agent-2"),
        Mark::bytes("a component", Allowed::Nowhere, b"postern::actors::"),
    ];
    assert_searched(&places, &names);
    let stderr = |place: &&Place| place.what == "proxy-1: stderr";
    let text = String::from_utf8_lossy(&places.iter().find(stderr).expect("searched").bytes);
    assert!(text.contains("DEBUG") && text.contains(SERVICE), "it was talkative");
}
