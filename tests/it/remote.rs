//! What runs on the nodes, as people see it through auth.

use crate::harness::cluster::{out, user};
use crate::harness::process::{Output, run};
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, PATIENCE, Session, TestDir, postern, shared};
use hyper::Method;
use nix::sys::signal::Signal;
use postern::cli::people_client::PeopleClient;
use postern::model::Endpoint;
use postern::net::tls::Credentials;
use postern::pki::PrivateKey;
use postern::pki::pem::certificates_from_pem;
use serde_json::Value;
use std::path::Path;

/// Somebody with a certificate of a login, at auth's API through the proxy.
struct Caller(PeopleClient);

impl Caller {
    fn new(cluster: &Cluster, name: &str) -> Self {
        let home = TestDir::new();
        let prefix = home.join("login");
        let user = format!("--user={name}");
        cluster
            .ctl(&["auth", "sign", "--format=file", &user, &out(&prefix)])
            .ok();
        let read = |ending: &str| std::fs::read_to_string(Path::new(&prefix).with_extension(ending)).expect("a file");
        let certificates = |ending: &str| certificates_from_pem(read(ending).as_bytes(), ending).expect("PEM");
        let credentials = Credentials {
            chain: certificates("crt"),
            key: PrivateKey::from_pem(&read("key")).expect("a key"),
        };
        let proxy = Endpoint {
            host: "localhost".to_owned(),
            port: cluster.proxy_port(),
        };
        Self(PeopleClient::new(proxy, &certificates("cas"), Some(&credentials)).expect("a client"))
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = self.0.request(Method::GET, path, None::<&()>);
        let asked = async { tokio::time::timeout(PATIENCE, asked).await.expect("in time") };
        runtime
            .expect("a runtime")
            .block_on(asked)
            .map_err(|failure| failure.to_string())
    }
}

/// An auditor, and the id of a connection of alice's that is open.
fn watched(cluster: &Cluster) -> (Caller, Session, String) {
    cluster.create(&user("otto", "auditor", "nobody")).ok();
    let (otto, alice) = (Caller::new(cluster, "otto"), Caller::new(cluster, "alice"));
    let mut session = Session::open(&cluster.client("alice", "app", "app"));
    session.ask("select 40 + 2;", "42");
    let mut id = String::new();
    until_ok("the connection is listed", PATIENCE, || {
        let found = alice.get("/v1/connections?user=alice&state=idle")?;
        let newest = found["connections"].as_array().and_then(|all| all.last().cloned());
        let newest = newest.ok_or_else(|| found.to_string())?;
        id = newest["connection"].as_str().ok_or("no id")?.to_owned();
        Ok(())
    });
    (otto, session, id)
}

fn nodes(parts: &Value) -> Vec<&str> {
    let parts = parts.as_array().expect("a list");
    parts
        .iter()
        .map(|part| part["node"].as_str().expect("a name"))
        .collect()
}

#[test]
fn the_actors_of_every_node_are_shown_to_whoever_may_list_traces_and_to_nobody_else() {
    let cluster = shared(Form::Apart);
    cluster.create(&user("olga", "auditor", "nobody")).ok();
    let (olga, alice) = (Caller::new(&cluster, "olga"), Caller::new(&cluster, "alice"));
    for (node, actor) in [("agent-1", "agent"), ("proxy-1", "tunnels"), ("auth-1", "rbac")] {
        // A node is ready before auth has taken its link in hand.
        let view = until_ok("auth can ask it", FIVE_SECONDS, || {
            olga.get(&format!("/v1/nodes/{node}/actors"))
        });
        assert_eq!(view["node"], node);
        let mut actors = view["actors"].as_array().expect("a list").iter();
        assert!(actors.any(|shown| shown["path"] == actor), "{actor}: {view}");
        let one = olga.get(&format!("/v1/nodes/{node}/actors/{actor}")).expect("allowed");
        assert_eq!(one["one"]["actor"]["path"], actor, "{one}");
        let denied = alice.get(&format!("/v1/nodes/{node}/actors")).expect_err("no rule");
        assert!(denied.contains("\"list\" on \"trace\""), "{denied}");
    }
    let nobody = olga.get("/v1/nodes/nowhere/actors").expect_err("no such node");
    assert!(nobody.contains("no node called \"nowhere\" is alive"), "{nobody}");
    cluster.audited("olga", "PTR00I", |event| {
        event["name"] == "agent-1" && event["looked_at"] == "actors"
    });
}

#[test]
fn a_trace_has_the_parts_of_proxy_and_agent_and_its_own_person_sees_how_far_it_has_come() {
    let cluster = Cluster::start(Form::Apart);
    let (otto, _session, id) = watched(&cluster);
    let trace = otto.get(&format!("/v1/connections/{id}/trace")).expect("allowed");
    assert_eq!(nodes(&trace["parts"])[..2], ["proxy-1", "agent-1"], "{trace}");
    assert_eq!(trace["missing"], serde_json::json!([]));
    assert!(!trace["parts"][1]["records"].as_array().expect("a list").is_empty());
    let own = Caller::new(&cluster, "alice").get(&format!("/v1/connections/{id}/trace"));
    let own = own.expect("her own");
    assert_eq!(own["parts"][0]["relays"][0]["user"], "alice");
    assert_eq!(own["parts"][0]["records"], serde_json::json!([]));
    cluster.create(&user("dora", "tester", "app")).ok();
    let denied = Caller::new(&cluster, "dora").get(&format!("/v1/connections/{id}/trace"));
    assert!(denied.expect_err("not hers").contains("\"read\" on \"trace\""));
    let list = Caller::new(&cluster, "dora").get("/v1/connections?user=alice");
    assert!(list.expect_err("not hers").contains("\"list\" on \"trace\""));
}

#[test]
fn the_trace_of_a_connection_whose_agent_has_stopped_has_the_proxys_part_and_says_who_does_not_answer() {
    let cluster = Cluster::start(Form::Apart);
    let (otto, _session, id) = watched(&cluster);
    cluster.node(Kind::Agent).process().send(Signal::SIGSTOP);
    let trace = otto.get(&format!("/v1/connections/{id}/trace"));
    cluster.node(Kind::Agent).process().send(Signal::SIGCONT);
    let trace = trace.expect("allowed");
    assert_eq!(nodes(&trace["parts"])[0], "proxy-1", "{trace}");
    assert_eq!(nodes(&trace["missing"]), ["agent-1"], "{trace}");
    let why = trace["missing"][0]["why"].as_str().expect("a sentence");
    assert!(why.contains("agent agent-1 did not answer within 2s"), "{why}");
    assert!(why.contains("heard from it"), "{why}");
}

/// `postern WORDS --node proxy-1` as somebody who is not at the node's machine.
fn typed(cluster: &Cluster, person: &str, words: &[&str]) -> Output {
    let home = TestDir::new();
    let prefix = home.join("login");
    let user = format!("--user={person}");
    cluster
        .ctl(&["auth", "sign", "--format=file", &user, &out(&prefix)])
        .ok();
    let mut command = postern(home.path());
    command
        .args(words)
        .args([
            "--node",
            "proxy-1",
            "--proxy",
            &format!("localhost:{}", cluster.proxy_port()),
        ])
        .arg("--identity")
        .arg(&prefix);
    run(command, PATIENCE)
}

#[test]
fn the_commands_look_into_a_node_elsewhere_as_far_as_the_roles_allow() {
    let cluster = shared(Form::Apart);
    let (_otto, session, id) = watched(&cluster);
    let actors = typed(&cluster, "otto", &["actors"]).ok();
    assert!(
        actors.contains("Node proxy-1 (") && actors.contains("tunnels"),
        "{actors}"
    );
    let actor = typed(&cluster, "otto", &["actor", "tunnels"]).ok();
    assert!(actor.contains("tunnels (permanent)"), "{actor}");
    let trace = typed(&cluster, "otto", &["trace", &id]).ok();
    for part in [
        &format!("Connection {id}: alice as app"),
        "proxy-1",
        "agent-1",
        "OpenRelay",
    ] {
        assert!(trace.contains(part), "{part}: {trace}");
    }
    let file = TestDir::new();
    let saved = file.join("trace.json").display().to_string();
    typed(&cluster, "otto", &["trace", &id, "--save", &saved]).ok();
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&saved).expect("a file")).expect("JSON");
    assert_eq!(
        (&saved["connection"], nodes(&saved["parts"])[0]),
        (&id.clone().into(), "proxy-1")
    );
    let listed = typed(&cluster, "otto", &["trace", "--user", "alice", "--format=json"]).ok();
    assert!(listed.contains(&id), "{listed}");
    let none = typed(&cluster, "otto", &["trace", "--user", "nobody"]).ok();
    assert!(none.contains("No open connection of node proxy-1 fits."), "{none}");
    let level = typed(&cluster, "otto", &["debug", "get-log-level"]).failed_with(2);
    assert!(level.contains("on its own machine"), "{level}");
    cluster.create(&user("dora", "tester", "app")).ok();
    let denied = typed(&cluster, "dora", &["actors"]).failed_with(1);
    assert!(denied.contains("\"list\" on \"trace\""), "{denied}");
    let mut at_auth = postern(cluster.directory.path());
    at_auth
        .args(["trace", &id, "--node", "proxy-1", "--data-dir"])
        .arg(&cluster.node(Kind::Auth).config.data_dir);
    assert!(run(at_auth, PATIENCE).ok().contains("OpenRelay"));
    let followed = std::thread::scope(|scope| {
        let following = scope.spawn(|| typed(&cluster, "otto", &["trace", &id, "--follow"]));
        drop(session);
        following.join().expect("it ends with the connection").ok()
    });
    assert!(followed.contains("The connection has ended at "), "{followed}");
}
