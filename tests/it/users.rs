//! People: how an administrator adds, lists, changes, resets and removes them, and what is said about it.

use crate::harness::cluster::Node;
use crate::harness::{NodeConfig, TestDir, until};
use postern::actors::accounts::{INVITE_TTL_MAX, RESET_TTL};
use std::time::Duration;

/// A cluster of auth and a proxy, with nobody in it.
fn alone() -> (TestDir, Node) {
    let directory = TestDir::new();
    let config = NodeConfig::new("auth-1", directory.join("data"))
        .with_auth()
        .with_proxy();
    let mut node = Node::new(directory.path(), config, None);
    node.start();
    (directory, node)
}

#[track_caller]
fn ctl(node: &Node, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    crate::harness::cluster::ctl(node, &words).ok()
}

#[track_caller]
fn refused(node: &Node, line: &str, code: i32, words: &[&str]) {
    let typed: Vec<&str> = line.split(' ').collect();
    let said = crate::harness::cluster::ctl(node, &typed).failed_with(code);
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// The token of the first link that was printed, which stands alone on its line.
#[track_caller]
fn token(said: &str, page: &str) -> String {
    let line = said.lines().find(|line| line.contains("https://")).expect("a link");
    let (before, token) = line.split_once(page).expect("the page");
    assert!(before.starts_with("https://localhost:"), "{line}");
    assert!(
        token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit()),
        "{line}"
    );
    token.to_owned()
}

#[track_caller]
fn audited(node: &Node, event: &str, name: &str) -> serde_json::Value {
    until("the event is in the log", Duration::from_secs(20), || {
        let listed = ctl(node, &format!("audit ls --event={event} --format=json"));
        let events = listed.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let mut of_name = events.filter(|event: &serde_json::Value| event["name"] == name);
        of_name.next_back()
    })
}

#[test]
fn an_administrator_adds_changes_resets_and_removes_people() {
    let (_directory, node) = alone();
    assert_eq!(ctl(&node, "users ls"), "No users found\n");

    let said = ctl(
        &node,
        "users add alice --roles=access,auditor --roles access --db-users=reader --db-users writer --db-names=*",
    );
    let first = "User \"alice\" has been created but requires a password. Share this URL with the user to complete user setup, \
                 link is valid for 1h:";
    assert_eq!(said.lines().next(), Some(first));
    let invite = token(&said, "/web/invite/");
    assert!(
        said.contains("points at a Postern proxy which users can access."),
        "{said}"
    );
    let event = audited(&node, "reset_password_token.create", "alice");
    assert!(
        !event.to_string().contains(&invite) && event["ttl"] == "3600s",
        "{event}"
    );

    refused(
        &node,
        "users add alice --roles=access",
        1,
        &[
            "user \"alice\" already exists",
            "NOTE: To update an existing local user:\n> ctl users update alice --set-roles",
        ],
    );
    let listed = ctl(&node, "users ls");
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["User", "Roles"], ["alice", "access,auditor"]]);

    assert_eq!(
        ctl(
            &node,
            "users update alice --set-roles=editor --set-db-users=reader --set-db-names="
        ),
        "User alice has been updated:\n\tNew roles: editor\n\tNew database users: reader\n\tNew database names: \n"
    );
    let users: serde_json::Value = serde_json::from_str(&ctl(&node, "users ls --format=json")).expect("JSON");
    assert_eq!(
        users,
        serde_json::json!([{ "name": "alice", "roles": ["editor"], "traits": { "db_users": ["reader"] } }])
    );

    let said = ctl(&node, "users reset alice");
    assert!(
        said.contains("User \"alice\" has been reset.") && said.contains("valid for 8h:"),
        "{said}"
    );
    assert_ne!(token(&said, "/web/reset/"), invite);
    assert_eq!(RESET_TTL, Duration::from_secs(8 * 3600));

    assert_eq!(ctl(&node, "users rm alice"), "User \"alice\" has been deleted\n");
    refused(&node, "users rm alice", 1, &["no user called \"alice\""]);
    refused(&node, "users reset alice", 1, &["no user \"alice\""]);
    assert_eq!(ctl(&node, "users ls"), "No users found\n");
}

#[test]
fn what_makes_no_user_is_refused_with_the_next_step_and_makes_none() {
    let (_directory, node) = alone();
    refused(
        &node,
        "users add bob --roles=acess",
        1,
        &["role \"acess\" does not exist", "access, auditor, editor"],
    );
    refused(&node, "users add bob", 2, &["--roles"]);
    refused(&node, "users add bob --roles=", 1, &["at least one role"]);
    let hours = INVITE_TTL_MAX.as_secs() / 3600 + 1;
    let line = format!("users add bob --roles=access --ttl={hours}h");
    refused(&node, &line, 2, &["valid for 1s to 48h"]);
    refused(&node, "users add bo/b --roles=access", 1, &["must not contain '/'"]);
    refused(&node, "users add b\u{1b}[2Jb --roles=access", 1, &["\\u{1b}"]);
    refused(
        &node,
        "users update bob",
        2,
        &["Nothing to update. Please provide at least one --set flag."],
    );
    refused(
        &node,
        "users update bob --set-roles=access",
        1,
        &["no user called \"bob\""],
    );
    assert_eq!(ctl(&node, "users ls"), "No users found\n");
}
