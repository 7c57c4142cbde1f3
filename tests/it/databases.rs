//! What an agent serves: how it verifies PostgreSQL, how it sees that PostgreSQL is there, and labels that commands give.

use crate::harness::cluster::Node;
use crate::harness::configuration::{Join, NodeConfig, SERVICE, database, usual_database};
use crate::harness::wait::until_ok;
use crate::harness::{Cluster, Form, PATIENCE, Wire, until};
use serde_json::Value;

/// Starts one more agent beside those of the cluster, with its files in the cluster's directory.
#[track_caller]
fn agent(cluster: &Cluster, name: &'static str, databases: &str) -> Node {
    let config = NodeConfig::new(name, cluster.directory.join(name)).with_databases(databases);
    let join = Join::through_proxy(cluster.proxy_port(), &cluster.ca_pin());
    let mut node = Node::new(cluster.directory.path(), config.joining(join), None);
    node.start();
    node
}

/// A database as auth lists it for a node.
fn listed(cluster: &Cluster, node: &str, name: &str) -> Option<Value> {
    let rows = json(cluster, &["db", "ls", "--format", "json"]);
    let rows = rows.as_array().expect("a list");
    let is_it = |row: &&Value| row["agent"] == node && row["name"] == name;
    rows.iter().find(is_it).cloned()
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    serde_json::from_str(&cluster.ctl(arguments).ok()).expect("JSON")
}

/// Waits until auth lists the database with this health.
#[track_caller]
fn health(cluster: &Cluster, node: &str, name: &str, status: &str) -> Value {
    until_ok(&format!("{name} is {status}"), PATIENCE, || {
        let found = listed(cluster, node, name);
        match &found {
            Some(database) if database["health"]["state"] == status => Ok(database["health"].clone()),
            _ => Err(format!("{found:?}")),
        }
    })
}

#[test]
fn each_mode_of_verification_connects_where_it_may_and_the_health_says_why_not() {
    let cluster = Cluster::start(Form::Apart);
    // The certificate is for localhost and 127.0.0.1.
    let uri = format!("localhost:{}", cluster.postgres.port);
    let wrong = |mode: &str| format!("server_name: other.internal, mode: {mode}");
    let databases = database("full", &uri, &wrong("verify-full"))
        + &database("authority", &uri, &wrong("verify-ca"))
        + &database("anybody", &uri, &wrong("insecure"))
        + &database("nobody", "localhost:1", "");
    let agent = agent(&cluster, "agent-2", &databases);
    let full = health(&cluster, "agent-2", "full", "unhealthy");
    assert!(
        full["detail"]
            .as_str()
            .expect("text")
            .contains("is not for the name other.internal"),
        "{full}"
    );
    let nobody = health(&cluster, "agent-2", "nobody", "unhealthy");
    assert_eq!(nobody["detail"], "connection refused at localhost:1");
    for name in ["authority", "anybody"] {
        let found = health(&cluster, "agent-2", name, "healthy");
        assert!(found["certificate_until"].is_string(), "{found}");
        let client = cluster.client_for(name, "alice", "app", "app");
        let mut wire = until_ok(&format!("{name} lets in"), PATIENCE, || {
            Wire::connect(&client).map_err(|error| format!("{error:?}"))
        });
        assert_eq!(wire.query("select 1"), Ok(vec!["1".to_owned()]));
    }
    let refused = Wire::connect(&cluster.client_for("full", "alice", "app", "app")).err();
    let refused = refused.expect("the name is wrong");
    assert!(
        refused.words().contains("does not trust the certificate"),
        "{refused:?}"
    );
    let log = agent.process().log_text();
    let warned: Vec<&str> = log.lines().filter(|line| line.contains("tls.mode: insecure")).collect();
    assert!(warned.len() == 1 && warned[0].contains("anybody"), "{warned:?}");
    let complaints = cluster.postgres.log();
    assert!(
        !complaints.contains("incomplete startup packet") && !complaints.contains("invalid length of startup packet"),
        "looking at PostgreSQL leaves its log alone"
    );
}

#[test]
fn a_database_that_is_away_is_unhealthy_until_it_is_back_and_its_agent_is_asked_last() {
    let cluster = Cluster::start(Form::Apart);
    let away = crate::harness::postgres::free_port();
    // Both agents serve the same service; the second one's PostgreSQL is not there.
    let _agent = agent(
        &cluster,
        "agent-2",
        &database(SERVICE, &format!("localhost:{away}"), ""),
    );
    health(&cluster, "agent-1", SERVICE, "healthy");
    health(&cluster, "agent-2", SERVICE, "unhealthy");
    let client = cluster.client("alice", "app", "app");
    for _ in 0..8 {
        Wire::connect(&client).expect("the healthy agent is tried first");
    }
}

#[test]
fn a_label_that_a_command_prints_decides_who_may_connect() {
    let cluster = Cluster::start(Form::Apart);
    let value = cluster.directory.join("tier");
    std::fs::write(&value, "gold\nand more\n").expect("ours");
    let dynamic = format!(
        "    dynamic_labels:\n    - {{name: tier, command: [cat, {}], period: 1s}}\n",
        value.display()
    );
    let usual = usual_database(&cluster.postgres);
    let broken =
        usual.replace(SERVICE, "broken") + "    dynamic_labels: [{name: tier, command: [\"false\"], period: 1s}]\n";
    let entry = usual.replace(SERVICE, "tiered") + &dynamic + &broken;
    let agent = agent(&cluster, "agent-2", &entry);
    let tier = || listed(&cluster, "agent-2", "tiered").map(|database| database["labels"].clone());
    until("the command's first line is the label", PATIENCE, || {
        (tier()? == serde_json::json!({"env": "test", "tier": "gold"})).then_some(())
    });
    // What a role denies by would not be there.
    assert_eq!(
        listed(&cluster, "agent-2", "broken"),
        None,
        "without its label a database is not served"
    );
    std::fs::write(&value, "silver").expect("ours");
    until("the label follows", PATIENCE, || {
        (tier()?["tier"] == "silver").then_some(())
    });
    std::fs::remove_file(&value).expect("ours");
    until("the failure is logged", PATIENCE, || {
        agent.process().log_text().contains("label=\"tier\"").then_some(())
    });
    assert_eq!(
        tier().expect("listed")["tier"],
        "silver",
        "a failure keeps the last value"
    );
    let client = cluster.client_for("tiered", "alice", "app", "app");
    let deny = "kind: role\nversion: v5\nmetadata:\n  name: tester\nspec:\n  allow:\n    db_labels: {'*': '*'}\n    \
                db_users: [app]\n    db_names: ['*']\n  deny:\n    db_labels: {tier: silver}\n";
    Wire::connect(&client).expect("nothing denies it yet");
    cluster.create(deny).ok();
    until("the role that denies by the label counts", PATIENCE, || {
        Wire::connect(&client).err()
    });
}

#[test]
fn a_registered_database_is_served_by_an_agent_that_its_labels_match_until_it_is_removed() {
    let cluster = Cluster::start(Form::Apart);
    let entries =
        usual_database(&cluster.postgres).replace(SERVICE, "fixed") + "  resources:\n  - labels: {tier: [one, two]}\n";
    let agent = agent(&cluster, "agent-2", &entries);
    let registered = |name: &str, tier: &str| {
        format!(
            "kind: db\nversion: v3\nmetadata:\n  name: {name}\n  description: registered\n  labels: {{tier: {tier}}}\nspec:\n  \
             protocol: postgres\n  uri: localhost:{}\n",
            cluster.postgres.port
        )
    };
    let documents = [
        registered("late", "two"),
        registered("fixed", "one"),
        registered("other", "three"),
    ];
    cluster.create(&documents.join("---\n")).ok();
    health(&cluster, "agent-2", "late", "healthy");
    let fixed = listed(&cluster, "agent-2", "fixed").expect("it is the file's");
    assert_eq!(
        fixed["labels"],
        serde_json::json!({"env": "test"}),
        "the file's database wins"
    );
    assert!(agent.process().log_text().contains("which wins"));
    assert!(listed(&cluster, "agent-2", "other").is_none() && listed(&cluster, "agent-1", "late").is_none());

    let client = cluster.client_for("late", "alice", "app", "app");
    let mut wire = until_ok("it is used", PATIENCE, || {
        Wire::connect(&client).map_err(|error| format!("{error:?}"))
    });
    assert_eq!(wire.query("select 1"), Ok(vec!["1".to_owned()]));
    cluster.ctl(&["rm", "db/late"]).ok();
    let ended = until("its session ends with a reason", PATIENCE, || {
        wire.query("select 2").err()
    });
    assert!(ended.words().contains("was removed or defined anew"), "{ended:?}");
    until("nobody gets in any more", PATIENCE, || Wire::connect(&client).err());
    assert!(listed(&cluster, "agent-2", "late").is_none());
}

#[test]
fn an_agent_makes_and_renews_the_certificate_of_its_postgresql_and_reloads_it() {
    let cluster = Cluster::start(Form::Apart);
    let prefix = cluster.postgres.file("server");
    let owner = crate::harness::postgres::postgres_account()
        .map_or(String::new(), |account| format!(", owner: {}", account.name));
    let kept = format!(
        "    server_certificate: {{out: {}, ttl: 720h, reload_command: {}{owner}}}\n",
        prefix.display(),
        cluster.postgres.reload_command()
    );
    // The server has a certificate of one day, and its clients' authority stands in another file.
    health(&cluster, "agent-1", SERVICE, "healthy");
    let key = std::fs::read(prefix.with_extension("key")).expect("signed by hand");
    let before = std::fs::read(prefix.with_extension("crt")).expect("signed by hand");
    let agent = agent(&cluster, "agent-2", &(usual_database(&cluster.postgres) + &kept));
    let told = |times: usize| {
        until("PostgreSQL was told to read its certificate", PATIENCE, || {
            let log = agent.process().log_text();
            (log.matches("PostgreSQL was told to read").count() == times).then_some(())
        });
    };
    told(1);
    let made = std::fs::read(prefix.with_extension("crt")).expect("made");
    assert_ne!(made, before);
    assert_eq!(std::fs::read(prefix.with_extension("key")).expect("kept"), key);
    let mut wire = Wire::connect(&cluster.client("alice", "app", "app")).expect("the new certificate is accepted");
    assert_eq!(wire.query("select 1"), Ok(vec!["1".to_owned()]));
    cluster.audited(&format!("node {}", node_id(&cluster, "agent-2")), "TC000I", |event| {
        event["cert_type"] == "db" && event["identity"]["hosts"] == serde_json::json!(["localhost"])
    });

    std::fs::remove_file(prefix.with_extension("crt")).expect("ours");
    told(2);
    let renewed = std::fs::read(prefix.with_extension("crt")).expect("made again");
    assert_ne!(renewed, made);
    let log = cluster.postgres.log();
    assert!(
        !log.contains("could not load") && !log.contains("does not match"),
        "{log}"
    );
}

fn node_id(cluster: &Cluster, name: &str) -> String {
    let nodes = json(cluster, &["nodes", "ls", "--format", "json"]);
    let nodes = nodes.as_array().expect("a list");
    let node = nodes.iter().find(|found| found["name"] == name).expect("it lives");
    node["id"].as_str().expect("an id").to_owned()
}
