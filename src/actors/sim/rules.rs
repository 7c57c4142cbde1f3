//! The rules of the simulated cluster, in a handful of versions, and whom each of them denies: said by hand, not by `decide`.

use crate::model::Timestamp;
use crate::policy::{PolicySnapshot, parse_resources};
use std::sync::{Arc, OnceLock};

pub const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "mallory"];
/// Her statements wait for the disk, whatever else the rules are.
pub const STRICTLY_AUDITED: &str = "carol";
pub const DB_USERS: [&str; 2] = ["app", "report"];

const ALL: &str = "db_users: [app, report]";

struct Rules {
    /// What each person's role says, in the order of [`PEOPLE`]; nothing where there is no such person.
    roles: [Option<&'static str>; 4],
    options: &'static str,
    more: &'static str,
    denies: fn(&str, &str) -> bool,
}

const RULES: [Rules; 7] = [
    Rules {
        roles: [Some(ALL), Some(ALL), Some(ALL), Some("db_users: []")],
        options: "",
        more: "",
        denies: |_, _| false,
    },
    Rules {
        roles: [Some(ALL), Some(ALL), Some(ALL), None],
        options: "",
        more: "---\nkind: lock\nversion: v2\nmetadata: {name: l}\nspec: {target: {user: alice}}\n",
        denies: |person, _| person == "alice",
    },
    Rules {
        roles: [Some(ALL), Some("db_users: [report]"), Some(ALL), None],
        options: "",
        more: "",
        denies: |person, db_user| person == "bob" && db_user == "app",
    },
    Rules {
        roles: [Some(ALL), Some(ALL), None, None],
        options: "",
        more: "",
        denies: |person, _| person == "carol",
    },
    Rules {
        roles: [
            Some("db_users: [nobody]"),
            Some("db_users: [nobody]"),
            Some("db_users: [nobody]"),
            None,
        ],
        options: "",
        more: "",
        denies: |_, _| true,
    },
    Rules {
        roles: [Some(ALL), Some(ALL), Some(ALL), None],
        options: "client_idle_timeout: 2s",
        more: "",
        denies: |_, _| false,
    },
    Rules {
        roles: [Some(ALL), Some(ALL), Some("db_users: [app]"), None],
        options: "max_connections: 1",
        more: "",
        denies: |person, db_user| person == "carol" && db_user == "report",
    },
];

/// How many versions there are; the first denies nobody but mallory.
pub const COUNT: u64 = RULES.len() as u64;

/// Whether these rules deny a person a database user.
pub fn denies(rules: usize, person: &str, db_user: &str) -> bool {
    person == "mallory" || (RULES[rules].denies)(person, db_user)
}

pub fn snapshot(rules: usize, version: u64, now: Timestamp) -> Arc<PolicySnapshot> {
    static MADE: OnceLock<Vec<PolicySnapshot>> = OnceLock::new();
    let made = MADE.get_or_init(|| RULES.iter().map(make).collect());
    let mut snapshot = made[rules].clone();
    (snapshot.version, snapshot.published_at) = (version, now);
    Arc::new(snapshot)
}

fn make(rules: &Rules) -> PolicySnapshot {
    let mut snapshot = PolicySnapshot::empty(0, Timestamp::from_secs(0));
    let mut yaml = String::new();
    for (person, role) in PEOPLE.iter().zip(rules.roles) {
        let Some(role) = role else { continue };
        let strict = if *person == STRICTLY_AUDITED {
            "audit: strict, "
        } else {
            ""
        };
        yaml.push_str(&format!(
            "---\nkind: user\nversion: v2\nmetadata: {{name: {person}}}\nspec: {{roles: [of-{person}]}}\n\
             ---\nkind: role\nversion: v7\nmetadata: {{name: of-{person}}}\nspec: {{options: {{{strict}{}}}, \
             allow: {{db_labels: {{'*': '*'}}, db_names: ['*'], {role}}}}}\n",
            rules.options
        ));
    }
    yaml.push_str(rules.more);
    for resource in parse_resources(&yaml).unwrap() {
        snapshot.add(resource).unwrap();
    }
    snapshot
}
