//! Locks, pinned addresses, options and expressions in a decision, and what an explanation says of them.

use super::tests::{principal, request, snapshot};
use super::{Denial, PINNED_IP_MESSAGE, Permit, decide, explain};
use crate::model::{Labels, NodeId, NodeName, PersonName, RefusalKind, Timestamp};
use crate::policy::PolicySnapshot;
use std::net::IpAddr;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_000);
const ALICE: &str = "\
kind: user
version: v2
metadata: {name: alice}
spec: {roles: [open, strict, ghost], traits: {team: [blue]}}
---
kind: role
version: v7
metadata: {name: open}
spec: {allow: {db_labels: {'*': '*'}, db_users: ['*'], db_names: ['*']}}
---
";

fn lock(target: &str, rest: &str) -> String {
    format!("kind: lock\nversion: v2\nmetadata: {{name: l1}}\nspec: {{target: {{{target}}}{rest}}}\n---\n")
}

fn role(name: &str, spec: &str) -> String {
    format!("kind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n")
}

fn asked(nodes: &[(NodeId, &str)]) -> super::AccessRequest {
    let labels = Labels::parse("env=prod").expect("labels");
    let mut asked = request(principal(Timestamp::from_secs(2_000), None), labels, "app", "app");
    asked.nodes = nodes
        .iter()
        .map(|(id, name)| (*id, NodeName::new(*name).expect("a name")))
        .collect();
    asked
}

fn ask(documents: &str) -> Result<Permit, Denial> {
    let agent = NodeId::from_random([1; 16]);
    decide(
        &snapshot(&format!("{ALICE}{documents}")),
        &asked(&[(agent, "agent-1")]),
        NOW,
    )
}

#[test]
fn a_lock_on_the_person_a_role_or_a_node_keeps_a_session_from_beginning() {
    let id = NodeId::from_random([1; 16]).to_string();
    for (target, locked) in [
        ("user: alice".to_owned(), true),
        ("user: Alice".to_owned(), false),
        ("user: bob".to_owned(), false),
        ("role: open".to_owned(), true),
        ("role: ghost".to_owned(), true),
        ("role: access".to_owned(), false),
        ("node: agent-1".to_owned(), true),
        (format!("node: {id}"), true),
        (format!("server_id: {}", id.to_uppercase()), true),
        ("node: agent-2".to_owned(), false),
    ] {
        let denial = ask(&lock(&target, "")).err();
        assert_eq!(
            matches!(denial, Some(Denial::Locked(_))),
            locked,
            "{target}: {denial:?}"
        );
        assert_eq!(denial.is_some(), locked, "{target}");
    }
}

#[test]
fn a_lock_is_told_in_the_words_that_users_of_teleport_know() {
    let denial = ask(&lock("user: alice", ", message: under investigation")).expect_err("locked");
    let refusal = denial.refusal();
    assert_eq!(
        refusal.message,
        "lock targeting User:\"alice\" is in force: under investigation"
    );
    assert_eq!((refusal.kind, refusal.kind.sqlstate()), (RefusalKind::Locked, "42501"));
    assert_eq!(denial.to_string(), format!("{} (lock l1)", refusal.message));
    let silent = ask(&lock("role: open", "")).expect_err("locked");
    assert_eq!(silent.refusal().message, "lock targeting Role:\"open\" is in force");
}

#[test]
fn a_lock_is_in_force_until_the_moment_it_names() {
    for (expires, locked) in [("1970-01-01T00:16:40Z", false), ("1970-01-01T00:16:40.001Z", true)] {
        let denied = ask(&lock("user: alice", &format!(", expires: '{expires}'"))).is_err();
        assert_eq!(denied, locked, "{expires}");
    }
}

#[test]
fn a_lock_goes_before_every_other_reason() {
    let documents = format!(
        "{ALICE}{}{}",
        lock("user: alice", ""),
        role("strict", "deny: {db_users: ['*']}")
    );
    let mut asked = asked(&[]);
    asked.principal = principal(NOW, Some("other")).into();
    assert!(matches!(
        decide(&snapshot(&documents), &asked, NOW),
        Err(Denial::Locked(_))
    ));
    let nobody = lock("user: alice", "");
    assert!(matches!(
        decide(&snapshot(&nobody), &asked, NOW),
        Err(Denial::Locked(_))
    ));
}

fn pinned(pinned: Option<&str>, observed: Option<&str>) -> Result<Permit, Denial> {
    let documents = format!("{ALICE}{}", role("strict", "options: {pin_source_ip: true}"));
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let mut alice = principal(Timestamp::from_secs(2_000), None);
    alice.pinned_ip = pinned.map(ip);
    let mut asked = asked(&[]);
    (asked.principal, asked.client_ip) = (alice.into(), observed.map(ip));
    decide(&snapshot(&documents), &asked, NOW)
}

#[test]
fn a_pinned_certificate_is_good_from_its_own_address_only() {
    for (certificate, client, allowed) in [
        (Some("192.0.2.1"), Some("192.0.2.1"), true),
        (Some("192.0.2.1"), Some("::ffff:192.0.2.1"), true),
        (Some("192.0.2.1"), Some("192.0.2.2"), false),
        (Some("2001:db8::1"), Some("2001:db8::1"), true),
        (None, Some("192.0.2.1"), false),
        (None, None, false),
        // Auth, which does not see the client: the nodes before it have compared.
        (Some("192.0.2.1"), None, true),
    ] {
        let decided = pinned(certificate, client);
        assert_eq!(decided.is_ok(), allowed, "{certificate:?} {client:?}: {decided:?}");
    }
    let denial = pinned(Some("192.0.2.1"), Some("192.0.2.2")).expect_err("elsewhere");
    assert_eq!(denial.refusal().message, PINNED_IP_MESSAGE);
    assert!(
        denial
            .to_string()
            .contains("pinned to 192.0.2.1, and the client connects from 192.0.2.2"),
        "{denial}"
    );
    assert!(ask("").is_ok(), "no role asks for it");
}

#[test]
fn a_permit_carries_the_strictest_options_of_all_roles() {
    let with = |open: &str, strict: &str| {
        let user = "kind: user\nversion: v2\nmetadata: {name: alice}\nspec: {roles: [open, strict, none]}\n---\n";
        let open = role(
            "open",
            &format!("allow: {{db_labels: {{'*': '*'}}, db_users: ['*'], db_names: ['*']}}, options: {{{open}}}"),
        );
        snapshot(&format!(
            "{user}{open}{}{}",
            role("strict", &format!("options: {{{strict}}}")),
            role("none", "")
        ))
    };
    let options = |snapshot: &PolicySnapshot| *decide(snapshot, &asked(&[]), NOW).expect("allowed").options();
    let seconds = |n| Some(Duration::from_secs(n));
    let snapshot = with(
        "client_idle_timeout: 5m, max_session_ttl: 8h",
        "client_idle_timeout: 0s, max_session_ttl: 1h",
    );
    assert_eq!(options(&snapshot).client_idle_timeout, seconds(300), "zero is no limit");
    assert_eq!(options(&snapshot).max_session_ttl, seconds(3600));
    let snapshot = with(
        "client_idle_timeout: 5m, max_connections: 9",
        "client_idle_timeout: 10s, max_connections: 0",
    );
    assert_eq!(options(&snapshot).client_idle_timeout, seconds(10));
    assert_eq!(
        options(&snapshot).max_connections.map(u32::from),
        Some(9),
        "zero is no limit"
    );
    let snapshot = with(
        "disconnect_expired_cert: no, max_connections: 9",
        "disconnect_expired_cert: yes, max_connections: 2",
    );
    assert!(options(&snapshot).disconnect_expired_cert);
    assert!(options(&with("audit: default", "audit: strict")).strict_audit);
    assert!(!options(&with("audit: default", "")).strict_audit);
    assert_eq!(options(&snapshot).max_connections.map(u32::from), Some(2));
    assert_eq!(options(&with("", "")), crate::policy::SessionOptions::default());
    let alice = PersonName::new("alice").expect("a name");
    assert_eq!(snapshot.options_of(&alice), options(&snapshot));
    let bob = PersonName::new("bob").expect("a name");
    assert_eq!(snapshot.options_of(&bob), crate::policy::SessionOptions::default());
}

/// `allow` of the one role besides users and names; whether it allows a database with `env=prod` to alice of team blue.
const EXPRESSION_CASES: &[(&str, bool)] = &[
    (r#"db_labels_expression: 'labels["env"] == "prod"'"#, true),
    (r#"db_labels_expression: 'labels["env"] == "dev"'"#, false),
    (
        r#"db_labels: {env: prod}, db_labels_expression: 'labels["env"] == "prod"'"#,
        true,
    ),
    (
        r#"db_labels: {env: dev}, db_labels_expression: 'labels["env"] == "prod"'"#,
        false,
    ),
    (
        r#"db_labels: {env: prod}, db_labels_expression: 'labels["env"] == "dev"'"#,
        false,
    ),
    (
        r#"db_labels: {}, db_labels_expression: 'labels["env"] == "prod"'"#,
        false,
    ),
    (
        r#"db_labels: {'*': '*'}, db_labels_expression: 'contains(user.spec.traits["team"], "blue")'"#,
        true,
    ),
    (
        r#"db_labels: {'*': '*'}, db_labels_expression: 'contains(user.spec.traits["team"], "red")'"#,
        false,
    ),
];

#[test]
fn in_allow_labels_and_expression_must_both_hold_and_in_deny_either_is_enough() {
    let decide_for = |spec: &str| {
        let user =
            "kind: user\nversion: v2\nmetadata: {name: alice}\nspec: {roles: [only], traits: {team: [blue]}}\n---\n";
        decide(&snapshot(&format!("{user}{}", role("only", spec))), &asked(&[]), NOW)
    };
    for (allow, allowed) in EXPRESSION_CASES {
        let decided = decide_for(&format!("allow: {{{allow}, db_users: ['*'], db_names: ['*']}}"));
        assert_eq!(decided.is_ok(), *allowed, "{allow}: {decided:?}");
    }
    for (deny, denied) in [
        (r#"db_labels_expression: 'labels["env"] == "prod"'"#, true),
        (r#"db_labels_expression: 'labels["env"] == "dev"'"#, false),
        (
            r#"db_labels: {env: dev}, db_labels_expression: 'labels["env"] == "prod"'"#,
            true,
        ),
        (
            r#"db_labels: {env: prod}, db_labels_expression: 'labels["env"] == "dev"'"#,
            true,
        ),
    ] {
        let spec = format!("allow: {{db_labels: {{'*': '*'}}, db_users: ['*'], db_names: ['*']}}, deny: {{{deny}}}");
        let decided = decide_for(&spec);
        assert_eq!(
            matches!(decided, Err(Denial::DeniedByRole { .. })),
            denied,
            "{deny}: {decided:?}"
        );
    }
}

#[test]
fn an_explanation_names_every_role_rule_lock_and_option() {
    let documents = format!(
        "{ALICE}{}{}",
        lock("node: agent-1", ", message: old, expires: '1970-01-01T00:00:01Z'"),
        role(
            "strict",
            "options: {client_idle_timeout: 10m}, deny: {db_users: [admin]}"
        )
    );
    let agent = NodeId::from_random([1; 16]);
    let explained = explain(&snapshot(&documents), &asked(&[(agent, "agent-1")]), NOW);
    assert_eq!(
        explained.to_string(),
        "ALLOWED: alice as database user \"app\" and database name \"app\" at orders (labels \"env=prod\")\n\
         because: role \"open\" allows it\n\
         by version 42 of the rules\n\
         lock l1: Node:\"agent-1\", expired, until 1970-01-01T00:00:01.000Z: old\n\
         option client_idle_timeout: 10m, from role \"strict\"\n\
         role \"open\" would allow\n  \
           yes  allow  allow.db_labels {\"*\": [\"*\"]} match the labels \"env=prod\"\n  \
           yes  allow  allow.db_users \"*\" matches database user \"app\"\n  \
           yes  allow  allow.db_names \"*\" matches database name \"app\"\n\
         role \"strict\" does not allow\n   \
            no  deny   database user \"app\" is not among deny.db_users [\"admin\"]\n   \
            no  allow  allow.db_labels selects no database\n   \
            no  allow  database user \"app\" is not among allow.db_users []\n   \
            no  allow  database name \"app\" is not among allow.db_names []\n\
         role \"ghost\" does not exist and grants nothing\n"
    );
    let json = serde_json::to_value(&explained).expect("json");
    assert_eq!(json["roles"][2]["verdict"], "missing");
    assert_eq!(json["options"][0]["role"], "strict");
}
