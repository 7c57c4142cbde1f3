//! What `ctl status` prints of a cluster.

use super::*;
use crate::web::api::{DatabaseStatus, HealthStatus};

fn authority(name: &str, until: &str) -> AuthorityStatus {
    AuthorityStatus {
        authority: name.to_owned(),
        rotation: "never updated".to_owned(),
        algorithm: "ECDSA P-256".to_owned(),
        valid_until: until.to_owned(),
    }
}

fn database(name: &str, state: HealthWord, detail: &str, until: Option<&str>) -> DatabaseStatus {
    DatabaseStatus {
        name: name.to_owned(),
        description: String::new(),
        labels: BTreeMap::new(),
        uri: format!("{name}.internal:5432"),
        health: HealthStatus {
            state,
            since: None,
            detail: detail.to_owned(),
            certificate_until: until.map(str::to_owned),
        },
    }
}

fn node(name: &str, kind: &str, version: &str, databases: Vec<DatabaseStatus>) -> NodeStatus {
    NodeStatus {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        kinds: vec![kind.to_owned()],
        version: version.to_owned(),
        addresses: Vec::new(),
        databases,
    }
}

fn cluster() -> Status {
    Status {
        cluster: "gate.example.com".to_owned(),
        version: "0.1.0".to_owned(),
        ca_pins: vec!["sha256:00".to_owned()],
        policy_version: Some(3),
        time: "2026-01-01T00:00:00Z".to_owned(),
        authorities: vec![
            authority("user", "2036-01-01T00:00:00.000Z"),
            authority("host", "2026-01-30T00:00:00.000Z"),
        ],
        nodes: vec![
            node("auth-1", "auth", "0.1.0", vec![]),
            node("proxy-1", "proxy", "0.0.9", vec![]),
            node(
                "agent-1",
                "db",
                "0.1.0",
                vec![
                    database("orders", HealthWord::Healthy, "", Some("2026-01-02T00:00:00.000Z")),
                    database(
                        "billing",
                        HealthWord::Unhealthy,
                        "it refuses\x1b[2J",
                        Some("2027-01-02T00:00:00.000Z"),
                    ),
                ],
            ),
        ],
    }
}

#[test]
fn the_text_names_what_is_not_well_and_what_ends_soon_with_the_command_that_renews_it() {
    let status = cluster();
    let text = text(&report(&status, Program::Tctl).unwrap());
    for line in [
        "Cluster  gate.example.com\nVersion  0.1.0\nCA pin   sha256:00\n\n",
        "3 nodes (1 auth, 1 proxy, 1 agent)\n",
        "  proxy-1 runs version 0.0.9, auth runs 0.1.0\n",
        "2 databases: 1 healthy, 1 unhealthy, 0 unknown\n",
        "  billing at agent-1 is unhealthy: it refuses\\u{1b}[2J\n",
        "\nEnds within 30 days:\n  the server certificate of database \"orders\", on 2026-01-02T00:00:00.000Z\n    renew: tctl auth sign \
         --format=db --host=orders.internal --ttl=2190h --out=server\n  the host authority, on 2026-01-30T00:00:00.000Z\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in: {text}");
    }
    let user = text.lines().find(|line| line.trim_start().starts_with("user")).unwrap();
    let words: Vec<&str> = user.split_whitespace().collect();
    assert_eq!(
        words,
        ["user", "never", "updated", "ECDSA", "P-256", "2036-01-01T00:00:00.000Z"]
    );
}

#[test]
fn nothing_is_said_of_ends_when_none_is_near() {
    let mut status = cluster();
    status.authorities.truncate(1);
    status.nodes.truncate(1);
    let text = text(&report(&status, Program::Postern).unwrap());
    assert!(
        text.ends_with("\n1 node (1 auth)\n0 databases: 0 healthy, 0 unhealthy, 0 unknown\n"),
        "{text}"
    );
}

#[test]
fn json_has_the_parts_of_the_text() {
    let status = cluster();
    let json = serde_json::to_value(report(&status, Program::Postern).unwrap()).unwrap();
    assert_eq!(
        json["nodes"],
        serde_json::json!({"total": 3, "auth": 1, "proxy": 1, "agent": 1})
    );
    assert_eq!(json["databases"]["not_healthy"][0]["database"], "billing");
    assert_eq!(json["authorities"][1]["rotation"], "never updated");
    assert_eq!(json["other_versions"][0]["node"], "proxy-1");
    assert!(
        json["ends_soon"][0]["renew"]
            .as_str()
            .unwrap()
            .starts_with("postern ctl auth sign")
    );
    assert_eq!(json["ca_pins"][0], "sha256:00");
}
