//! A second, naive reading of the rules, over plain texts, and the property that `decide` agrees with it.
//!
//! It shares no code with the matchers: names and values are expanded by hand into lists, globs become regular expressions,
//! and everything is compiled anew for every question.

use super::tests::{principal, request, snapshot};
use super::{AccessRequest, Denial, RoleVerdict, decide, explain};
use crate::model::{Labels, NodeId, NodeName, Replication, Timestamp};
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
    /// An index into `EXPRESSIONS`.
    expression: Option<usize>,
    users: Vec<String>,
    names: Vec<String>,
    replication: bool,
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
    replication: Option<Replication>,
    known: bool,
    expires_in: i64,
    bound: Option<&'static str>,
    /// Target and whether it is in force still.
    locks: Vec<(&'static str, bool)>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Locked,
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

/// Expressions, each with what it means.
type Meaning = fn(&World) -> bool;
const EXPRESSIONS: &[(&str, Meaning)] = &[
    (r#"labels["k"] == "a""#, |w| label(w, "k") == "a"),
    (r#"labels["k"] != labels["l"]"#, |w| label(w, "k") != label(w, "l")),
    (r#"contains(user.spec.traits["t"], labels["k"])"#, |w| {
        w.traits.get("t").is_some_and(|t| t.contains(&label(w, "k")))
    }),
    (r#"!regexp.match(labels["l"], "^a") || labels["k"] == """#, |w| {
        !label(w, "l").starts_with('a') || label(w, "k").is_empty()
    }),
    (
        r#"regexp.match(user.spec.traits["t"], "@") && user.metadata.name == "alice""#,
        |w| w.traits.get("t").is_some_and(|t| t.iter().any(|v| v.contains('@'))),
    ),
];

fn label(world: &World, key: &str) -> String {
    world.labels.get(key).cloned().unwrap_or_default()
}

/// A lock on `rN` meets whoever has that role, also when it does not exist.
fn is_locked(world: &World) -> bool {
    world.locks.iter().any(|(target, in_force)| {
        let of_role = |at: &usize| world.known && *target == format!("role: r{at}");
        let met = matches!(*target, "user: alice" | "node: here") || world.held.iter().any(of_role);
        *in_force && met
    })
}

fn naive(world: &World) -> Answer {
    if is_locked(world) {
        return Answer::Locked;
    }
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
        let by_expression = role.deny.expression.is_some_and(|at| EXPRESSIONS[at].1(world));
        let by_replication = world.replication.is_some() && role.deny.replication;
        if by_labels || by_user || by_name || by_expression || by_replication {
            return Answer::Denied(name);
        }
    }
    for (name, role) in held() {
        let labels = match &role.allow.labels {
            Some(selector) => labels_match(selector, world, false),
            None => role.version == "v3" || role.allow.expression.is_some(),
        };
        let labels = labels && role.allow.expression.is_none_or(|at| EXPRESSIONS[at].1(world));
        let user = name_matches(&role.allow.users, &world.user, world);
        let replication = world.replication.is_none() || role.allow.replication;
        if labels && user && replication && name_matches(&role.allow.names, &world.name, world) {
            return Answer::Allowed(name);
        }
    }
    Answer::NotAllowed
}

const NOW: Timestamp = Timestamp::from_micros(0);

fn asked(world: &World) -> AccessRequest {
    let mut asked = request(
        principal(Timestamp::from_micros(world.expires_in), world.bound),
        Labels(world.labels.clone()),
        &world.user,
        &world.name,
    );
    let here = NodeName::new("here").expect("a name");
    asked.replication = world.replication;
    asked.nodes = vec![(NodeId::from_random([7; 16]), here)];
    asked
}

fn real(world: &World) -> Answer {
    match decide(&snapshot(&documents(world)), &asked(world), NOW) {
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
                Denial::Locked(_) => Answer::Locked,
                Denial::PinnedIp { .. } => panic!("no role asks for it"),
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
        if let Some(at) = section.expression {
            map.insert("db_labels_expression".to_owned(), json!(EXPRESSIONS[at].0));
        }
        map.insert("db_users".to_owned(), json!(section.users));
        map.insert("db_names".to_owned(), json!(section.names));
        map.insert("db_replication".to_owned(), json!(section.replication));
        Value::Object(map)
    };
    let mut stream = String::new();
    for (at, role) in world.roles.iter().enumerate() {
        let spec = json!({ "allow": section(&role.allow), "deny": section(&role.deny) });
        let role =
            json!({ "kind": "role", "version": role.version, "metadata": { "name": format!("r{at}") }, "spec": spec });
        stream += &format!("{role}\n---\n");
    }
    for (at, (target, in_force)) in world.locks.iter().enumerate() {
        // The moment of the question is the epoch: a lock that ends then is over.
        let expires = if *in_force {
            "1970-01-01T00:00:01Z"
        } else {
            "1970-01-01T00:00:00Z"
        };
        stream += &format!(
            "{{kind: lock, version: v2, metadata: {{name: l{at}}}, spec: {{target: {{{target}}}, expires: '{expires}'}}}}\n---\n"
        );
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
    let allow = (
        selectors(texts(VALUE_PATTERNS, 4)),
        likely_names(),
        likely_names(),
        expressions(0.25),
        prop::bool::ANY,
    );
    // Denials are rare, or nothing would ever be allowed.
    let deny = (
        option::weighted(0.2, selectors(texts(VALUE_PATTERNS, 1))),
        rare_names(),
        rare_names(),
        expressions(0.05),
        prop::bool::weighted(0.05),
    );
    (select(&["v3", "v4", "v8"][..]), allow, deny).prop_map(|(version, allow, deny)| NaiveRole {
        version,
        allow: Section {
            labels: allow.0,
            expression: allow.3,
            users: allow.1,
            names: allow.2,
            replication: allow.4,
        },
        deny: Section {
            labels: deny.0.flatten(),
            expression: deny.3,
            users: deny.1,
            names: deny.2,
            replication: deny.4,
        },
    })
}

fn expressions(likely: f64) -> impl Strategy<Value = Option<usize>> {
    option::weighted(likely, 0..EXPRESSIONS.len())
}

fn locks() -> impl Strategy<Value = Vec<(&'static str, bool)>> {
    let targets = &[
        "user: alice",
        "user: bob",
        "role: r0",
        "role: r3",
        "node: here",
        "node: there",
    ][..];
    let lock = (select(targets), prop::bool::weighted(0.5));
    prop_oneof![9 => Just(Vec::new()), 1 => vec(lock, 1..=2)]
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
    let replication = option::weighted(0.3, select(&Replication::ALL[..]));
    (
        vec(roles(), 1..=4),
        vec(0_usize..4, 0..=5),
        option::weighted(0.9, texts(TRAITS, 4)),
        labels,
        (select(NAMES), select(NAMES), replication),
        certificate,
        locks(),
    )
        .prop_map(
            |(roles, held, values, labels, (user, name, replication), (known, expires_in, bound), locks)| World {
                roles,
                held,
                traits: values.map(|v| ("t".to_owned(), v)).into_iter().collect(),
                labels,
                user: user.to_owned(),
                name: name.to_owned(),
                replication,
                known,
                expires_in,
                bound,
                locks,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_agrees_with_a_naive_reading_of_the_rules(world in worlds()) {
        prop_assert_eq!(real(&world), naive(&world));
    }

    #[test]
    fn an_explanation_agrees_with_the_decision(world in worlds()) {
        let snapshot = snapshot(&documents(&world));
        let explained = explain(&snapshot, &asked(&world), NOW);
        let decided = naive(&world);
        prop_assert_eq!(explained.allowed, matches!(&decided, Answer::Allowed(_)));
        prop_assert_eq!(explained.locks.iter().any(|lock| lock.in_force), decided == Answer::Locked);
        let first = |verdict| explained.roles.iter().find(|role| role.verdict == verdict).map(|role| role.role.clone());
        let (denies, allows) = (first(RoleVerdict::Denies), first(RoleVerdict::Allows));
        match decided {
            Answer::Denied(role) => prop_assert_eq!(denies, Some(role)),
            Answer::Allowed(role) => prop_assert_eq!((denies, allows), (None, Some(role))),
            Answer::NotAllowed => prop_assert_eq!((denies, allows), (None, None)),
            Answer::Locked | Answer::Unknown | Answer::Expired | Answer::Elsewhere => {}
        }
        prop_assert!(explained.to_string().contains(&explained.reason));
    }
}

#[test]
fn the_random_worlds_are_varied_enough_to_mean_something() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut counts = [0_usize; 4];
    for _ in 0..1000 {
        let world = worlds().new_tree(&mut runner).expect("a world").current();
        match naive(&world) {
            Answer::Allowed(_) => counts[0] += 1,
            Answer::Denied(_) => counts[1] += 1,
            Answer::NotAllowed => counts[2] += 1,
            Answer::Locked => counts[3] += 1,
            Answer::Unknown | Answer::Expired | Answer::Elsewhere => {}
        }
    }
    assert!(
        counts.iter().all(|count| *count >= 30),
        "allowed, denied, not allowed, locked: {counts:?}"
    );
}
