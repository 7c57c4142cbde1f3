//! The administrator's API as people: each route by each role, and the name in the audit log.

use super::*;

/// A request, and the status that somebody with only databases, an editor and an auditor reads. 200 and 4xx other than 403 are
/// what the actor behind the route says.
const TABLE: &[(&str, &str, &str, [u16; 3])] = &[
    ("GET", "/v1/status", "null", [200, 200, 200]),
    ("GET", "/v1/resources?kind=role", "null", [403, 200, 403]),
    ("GET", "/v1/resources?kind=role&name=access", "null", [403, 200, 403]),
    ("GET", "/v1/resources?kind=users", "null", [403, 200, 403]),
    ("GET", "/v1/resources?kind=locks", "null", [403, 200, 403]),
    ("GET", "/v1/resources?kind=db", "null", [403, 200, 403]),
    ("GET", "/v1/resources?kind=nodes", "null", [403, 200, 200]),
    ("DELETE", "/v1/resources/role/none", "null", [403, 404, 403]),
    ("DELETE", "/v1/resources/user/none", "null", [403, 404, 403]),
    ("DELETE", "/v1/resources/lock/none", "null", [403, 404, 403]),
    ("DELETE", "/v1/resources/db/none", "null", [403, 404, 403]),
    ("DELETE", "/v1/resources/node/none", "null", [403, 404, 403]),
    (
        "POST",
        "/v1/certificates/person",
        r#"{"user":"eve","db_service":null,"ttl_secs":60,"csr":""}"#,
        [403, 403, 403],
    ),
    (
        "POST",
        "/v1/certificates/database",
        r#"{"hosts":["db"],"ttl_secs":60,"csr":""}"#,
        [403, 403, 403],
    ),
    (
        "POST",
        "/v1/tokens",
        r#"{"roles":["db"],"ttl_secs":60,"uses":null,"value":null,"labels":{}}"#,
        [403, 200, 403],
    ),
    ("GET", "/v1/tokens", "null", [403, 200, 403]),
    ("POST", "/v1/tokens/remove", r#"{"token":"none"}"#, [403, 404, 403]),
    (
        "POST",
        "/v1/users",
        r#"{"name":"new","roles":["access"],"traits":{},"ttl_secs":60}"#,
        [403, 200, 403],
    ),
    ("GET", "/v1/users", "null", [403, 200, 403]),
    (
        "PATCH",
        "/v1/users/alice",
        r#"{"roles":["dev"],"traits":{}}"#,
        [403, 200, 403],
    ),
    ("POST", "/v1/users/alice/reset", r#"{"ttl_secs":60}"#, [403, 200, 403]),
    ("DELETE", "/v1/users/none", "null", [403, 404, 403]),
    ("GET", "/v1/audit", "null", [403, 403, 200]),
    // The agent of this room has no link.
    ("GET", "/v1/nodes/agent-1/actors", "null", [403, 502, 502]),
    ("GET", "/v1/nodes/agent-1/actors/agent", "null", [403, 502, 502]),
    ("GET", "/v1/connections", "null", [403, 200, 200]),
    ("GET", "/v1/connections/00000000000000ff/trace", "null", [403, 200, 200]),
];

#[test]
fn each_route_is_open_to_those_whose_rules_allow_it_and_to_nobody_else() {
    in_a_room(|room| async move {
        for (method, path, body, expected) in TABLE {
            let body: Value = serde_json::from_str(body).unwrap();
            for (name, status) in ["alice", "eve", "otto"].into_iter().zip(expected) {
                let said = room.ask(&room.person(name), method, path, &body).await;
                assert_eq!(said.0, *status, "{method} {path} as {name}: {}", said.1);
                if said.0 == 403 {
                    said.refused(403, "access denied to perform action");
                }
            }
        }
    });
}

#[test]
fn documents_are_written_by_those_who_may_and_audited_with_their_names() {
    in_a_room(|room| async move {
        let role = |name: &str| format!("kind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec: {{}}\n");
        let put = json!({ "yaml": role("made"), "replace": false });
        let said = room.ask(&room.person("alice"), "PUT", "/v1/resources", &put).await;
        said.refused(403, "access denied to perform action \"create\" on \"role\"");
        room.ask(&room.person("eve"), "PUT", "/v1/resources", &put).await.ok();
        let created = room.events("T9000I");
        assert!(
            created
                .iter()
                .any(|event| event["name"] == "made" && event["user"] == "eve"),
            "{created:?}"
        );

        // One document that is not allowed keeps all from being written.
        let writer = "kind: role\nversion: v7\nmetadata: {name: dev}\nspec:\n  allow:\n    rules:\n    - resources: [lock]\n      \
                      verbs: [create]\n";
        let put = json!({ "yaml": writer, "replace": true });
        room.ask(&room.person("eve"), "PUT", "/v1/resources", &put).await.ok();
        let lock = "kind: lock\nversion: v2\nmetadata: {name: mine}\nspec:\n  target: {user: otto}\n";
        let both = json!({ "yaml": format!("{lock}---\n{}", role("more")), "replace": false });
        let said = room.ask(&room.person("alice"), "PUT", "/v1/resources", &both).await;
        said.refused(403, "\"create\" on \"role\"");
        let one = json!({ "yaml": lock, "replace": true });
        let said = room.ask(&room.person("alice"), "PUT", "/v1/resources", &one).await;
        said.refused(403, "\"update\" on \"lock\"");
        let one = json!({ "yaml": lock, "replace": false });
        room.ask(&room.person("alice"), "PUT", "/v1/resources", &one).await.ok();
    });
}

#[test]
fn who_may_only_create_replaces_nothing_whatever_the_request_says() {
    in_a_room(|room| async move {
        let creator = "kind: role\nversion: v7\nmetadata: {name: dev}\nspec:\n  allow:\n    rules:\n    - resources: [user]\n      \
                       verbs: [list, read, create]\n";
        let put = json!({ "yaml": creator, "replace": true });
        room.ask(&room.person("eve"), "PUT", "/v1/resources", &put).await.ok();
        let before = room
            .get(&room.person("alice"), "/v1/resources?kind=user&name=alice")
            .await
            .ok();
        let before = before["documents"][0].clone();
        let mut risen = before.clone();
        risen["spec"]["roles"] = json!(["dev", "editor"]);
        let put = json!({ "yaml": risen.to_string(), "replace": false, "instead_of": before });
        let said = room.ask(&room.person("alice"), "PUT", "/v1/resources", &put).await;
        said.refused(403, "\"update\" on \"user\"");
        // Not even somebody who may everything swaps one document for another of another name.
        let mut another = risen;
        another["metadata"]["name"] = json!("somebody");
        let put = json!({ "yaml": another.to_string(), "replace": true, "instead_of": before });
        let said = room.ask(&room.person("eve"), "PUT", "/v1/resources", &put).await;
        said.refused(400, "of its kind and name");
    });
}

#[test]
fn of_several_documents_none_is_written_where_one_is_there_already() {
    in_a_room(|room| async move {
        let role = |name: &str| format!("kind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec: {{}}\n");
        let both = json!({ "yaml": format!("{}---\n{}", role("new"), role("access")), "replace": false });
        let said = room.ask(&room.person("eve"), "PUT", "/v1/resources", &both).await;
        said.refused(409, "\"access\"");
        let said = room.get(&room.person("eve"), "/v1/resources?kind=role&name=new").await;
        assert_eq!(said.0, 404, "{}", said.1);
    });
}

#[test]
fn the_status_names_nodes_and_databases_to_those_who_may_list_them() {
    in_a_room(|room| async move {
        let plain = room.get(&room.person("alice"), "/v1/status").await.ok();
        assert!(
            plain["cluster"] == "gate.example" && plain["nodes"] == json!([]),
            "{plain}"
        );
        let auditor = room.get(&room.person("otto"), "/v1/status").await.ok();
        assert_eq!(
            auditor["nodes"][0]["databases"].as_array().unwrap().len(),
            2,
            "{auditor}"
        );
    });
}
