//! A second, naive reading of the rules, over plain texts, and the property that `decide` agrees with it.
//!
//! It shares no code with the matchers: names and values are expanded by hand into lists, globs become regular expressions,
//! and everything is compiled anew for every question.

use super::tests::{principal, request, snapshot};
use super::{Denial, decide};
use crate::model::{Labels, Timestamp};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Selector = BTreeMap<String, Vec<String>>;

#[derive(Debug, Clone)]
struct Section {
    labels: Option<Selector>,
    users: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug, Clone)]
struct NaiveRole {
    version: &'static str,
    allow: Section,
    deny: Section,
}

#[derive(Debug, Clone)]
struct World {
    roles: Vec<NaiveRole>,
    /// Indices of roles; one beyond the last does not exist.
    held: Vec<usize>,
    traits: BTreeMap<String, Vec<String>>,
    labels: BTreeMap<String, String>,
    user: String,
    name: String,
    known: bool,
    expires_in: i64,
    bound: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Allowed(String),
    Denied(String),
    NotAllowed,
    Unknown,
    Expired,
    Elsewhere,
}

/// Every value that a text stands for.
fn expand(text: &str, traits: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let Some(open) = text.find("{{") else {
        return vec![text.to_owned()];
    };
    let close = text.rfind("}}").expect("generated whole");
    let (before, inside, after) = (&text[..open], &text[open + 2..close], &text[close + 2..]);
    let of = |name: &str| traits.get(name).cloned().unwrap_or_default();
    let values: Vec<String> = match inside {
        "internal.t" | "external.t" | "external[\"t\"]" => of("t"),
        "internal.none" => of("none"),
        "email.local(external.t)" => of("t")
            .iter()
            .filter(|v| v.matches('@').count() == 1)
            .map(|v| v[..v.find('@').unwrap_or(0)].to_owned())
            .collect(),
        "regexp.replace(internal.t, \"^a(.*)$\", \"b$1\")" => of("t")
            .iter()
            .filter(|v| v.starts_with('a'))
            .map(|v| format!("b{}", &v[1..]))
            .collect(),
        other => panic!("the oracle does not know {other}"),
    };
    values
        .into_iter()
        .filter(|v| !v.is_empty())
        .map(|v| format!("{before}{v}{after}"))
        .collect()
}

fn name_matches(patterns: &[String], name: &str, world: &World) -> bool {
    patterns
        .iter()
        .flat_map(|p| expand(p, &world.traits))
        .any(|p| p == "*" || p == name)
}

fn value_matches(pattern: &str, value: &str, denying: bool) -> bool {
    let expression = if pattern.starts_with('^') && pattern.ends_with('$') {
        pattern.to_owned()
    } else {
        format!("(?s)^{}$", regex::escape(pattern).replace(r"\*", ".*"))
    };
    Regex::new(&expression).map_or(denying, |regex| regex.is_match(value))
}

fn labels_match(selector: &Selector, world: &World, denying: bool) -> bool {
    if selector.is_empty() {
        return false;
    }
    if selector.contains_key("*") {
        return true;
    }
    selector.iter().all(|(key, patterns)| match world.labels.get(key) {
        Some(value) => patterns
            .iter()
            .flat_map(|p| expand(p, &world.traits))
            .any(|p| value_matches(&p, value, denying)),
        None => false,
    })
}

fn naive(world: &World) -> Answer {
    if !world.known {
        return Answer::Unknown;
    }
    if world.expires_in <= 0 {
        return Answer::Expired;
    }
    if world.bound.is_some_and(|service| service != "orders") {
        return Answer::Elsewhere;
    }
    let held = || {
        world
            .held
            .iter()
            .filter_map(|at| world.roles.get(*at).map(|role| (format!("r{at}"), role)))
    };
    for (name, role) in held() {
        let by_labels = role.deny.labels.as_ref().is_some_and(|s| labels_match(s, world, true));
        let by_user = name_matches(&role.deny.users, &world.user, world);
        let by_name = name_matches(&role.deny.names, &world.name, world);
        if by_labels || by_user || by_name {
            return Answer::Denied(name);
        }
    }
    for (name, role) in held() {
        let labels = match &role.allow.labels {
            Some(selector) => labels_match(selector, world, false),
            None => role.version == "v3",
        };
        let user = name_matches(&role.allow.users, &world.user, world);
        if labels && user && name_matches(&role.allow.names, &world.name, world) {
            return Answer::Allowed(name);
        }
    }
    Answer::NotAllowed
}

fn real(world: &World) -> Answer {
    let asked = request(
        principal(Timestamp::from_micros(world.expires_in), world.bound),
        Labels(world.labels.clone()),
        &world.user,
        &world.name,
    );
    match decide(&snapshot(&documents(world)), &asked, Timestamp::from_micros(0)) {
        Ok(permit) => Answer::Allowed(permit.role().as_str().to_owned()),
        Err(denial) => {
            assert!(!denial.to_string().is_empty());
            match denial {
                Denial::DeniedByRole { role, .. } => Answer::Denied(role.as_str().to_owned()),
                Denial::NotAllowed(not_allowed) => {
                    assert!(
                        not_allowed
                            .considered
                            .iter()
                            .all(|shortfall| !shortfall.misses.is_empty())
                    );
                    Answer::NotAllowed
                }
                Denial::UnknownPerson { .. } => Answer::Unknown,
                Denial::Expired { .. } => Answer::Expired,
                Denial::OtherService { .. } => Answer::Elsewhere,
            }
        }
    }
}

/// The world as a YAML stream; JSON is YAML.
fn documents(world: &World) -> String {
    let section = |section: &Section| {
        let mut map = Map::new();
        if let Some(labels) = &section.labels {
            map.insert("db_labels".to_owned(), json!(labels));
        }
        map.insert("db_users".to_owned(), json!(section.users));
        map.insert("db_names".to_owned(), json!(section.names));
        Value::Object(map)
    };
    let mut stream = String::new();
    for (at, role) in world.roles.iter().enumerate() {
        let spec = json!({ "allow": section(&role.allow), "deny": section(&role.deny) });
        let role =
            json!({ "kind": "role", "version": role.version, "metadata": { "name": format!("r{at}") }, "spec": spec });
        stream += &format!("{role}\n---\n");
    }
    let roles: Vec<_> = world.held.iter().map(|at| format!("r{at}")).collect();
    let name = if world.known { "alice" } else { "bob" };
    let user = json!({ "kind": "user", "version": "v2", "metadata": { "name": name }, "spec": { "roles": roles, "traits": world.traits } });
    stream + &user.to_string()
}

const NAMES: &[&str] = &["a", "b", "ab", "ba", "a*"];
const NAME_PATTERNS: &[&str] = &[
    "a",
    "b",
    "ab",
    "a*",
    "*",
    "^a$",
    "{{internal.t}}",
    "{{external[\"t\"]}}",
    "a{{external.t}}",
    "{{internal.none}}",
    "{{email.local(external.t)}}",
    "{{regexp.replace(internal.t, \"^a(.*)$\", \"b$1\")}}",
];
const VALUES: &[&str] = &["a", "b", "ab", "aab", ""];
const VALUE_PATTERNS: &[&str] = &[
    "a",
    "b",
    "*",
    "a*",
    "*b",
    "a*b",
    "a.",
    "^a.*$",
    "^(a|b)$",
    "^a|b$",
    "^b",
    "{{internal.t}}",
    "{{external.t}}*",
    "^{{internal.t}}.*$",
    "{{internal.none}}",
    "{{email.local(external.t)}}",
    "{{regexp.replace(internal.t, \"^a(.*)$\", \"b$1\")}}",
];
const TRAITS: &[&str] = &["a", "b", "ab", "*", "a*", "^a.$", "(", "^($", "a@b", "@b", "a@b@a", ""];

fn texts(from: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    vec(select(from).prop_map(str::to_owned), 0..=most)
}

fn selectors(pattern_lists: impl Strategy<Value = Vec<String>>) -> impl Strategy<Value = Option<Selector>> {
    let keyed = btree_map(select(&["k", "l"][..]).prop_map(str::to_owned), pattern_lists, 0..=2);
    let any = Just(Selector::from([("*".to_owned(), vec!["*".to_owned()])]));
    option::weighted(0.8, prop_oneof![2 => keyed, 1 => any])
}

fn roles() -> impl Strategy<Value = NaiveRole> {
    let allow = (selectors(texts(VALUE_PATTERNS, 4)), likely_names(), likely_names());
    // Denials are rare, or nothing would ever be allowed.
    let deny = (
        option::weighted(0.2, selectors(texts(VALUE_PATTERNS, 1))),
        rare_names(),
        rare_names(),
    );
    (select(&["v3", "v4", "v8"][..]), allow, deny).prop_map(|(version, allow, deny)| NaiveRole {
        version,
        allow: Section {
            labels: allow.0,
            users: allow.1,
            names: allow.2,
        },
        deny: Section {
            labels: deny.0.flatten(),
            users: deny.1,
            names: deny.2,
        },
    })
}

fn likely_names() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![1 => Just(vec!["*".to_owned()]), 2 => texts(NAME_PATTERNS, 5)]
}

fn rare_names() -> impl Strategy<Value = Vec<String>> {
    option::weighted(0.15, texts(NAME_PATTERNS, 1)).prop_map(Option::unwrap_or_default)
}

fn worlds() -> impl Strategy<Value = World> {
    let labels = btree_map(
        select(&["k", "l"][..]).prop_map(str::to_owned),
        select(VALUES).prop_map(str::to_owned),
        0..=2,
    );
    let certificate = (
        prop::bool::weighted(0.97),
        prop_oneof![30 => Just(5_i64), 1 => -1_i64..=1],
        option::weighted(0.2, select(&["orders", "orders", "orders", "other"][..])),
    );
    (
        vec(roles(), 1..=4),
        vec(0_usize..4, 0..=5),
        option::weighted(0.9, texts(TRAITS, 4)),
        labels,
        select(NAMES),
        select(NAMES),
        certificate,
    )
        .prop_map(
            |(roles, held, values, labels, user, name, (known, expires_in, bound))| World {
                roles,
                held,
                traits: values.map(|v| ("t".to_owned(), v)).into_iter().collect(),
                labels,
                user: user.to_owned(),
                name: name.to_owned(),
                known,
                expires_in,
                bound,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_agrees_with_a_naive_reading_of_the_rules(world in worlds()) {
        prop_assert_eq!(real(&world), naive(&world));
    }
}

#[test]
fn the_random_worlds_are_varied_enough_to_mean_something() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut counts = [0_usize; 3];
    for _ in 0..1000 {
        let world = worlds().new_tree(&mut runner).expect("a world").current();
        match naive(&world) {
            Answer::Allowed(_) => counts[0] += 1,
            Answer::Denied(_) => counts[1] += 1,
            Answer::NotAllowed => counts[2] += 1,
            Answer::Unknown | Answer::Expired | Answer::Elsewhere => {}
        }
    }
    assert!(
        counts.iter().all(|count| *count >= 60),
        "allowed, denied, not allowed: {counts:?}"
    );
}
