//! The matching rules case by case, from what Teleport documents.

use super::Denial;
use super::tests::ask;

const ANY: &str = "db_labels: {'*': '*'}";
const TRAITS: &str = "{db_users: [alice, app], db_names: ['*'], team: [blue], env: ['dev-*', '^qa[0-9]$'], \
                      email: [alice@example.com], bad: ['(']}";

/// One role, v7, with this `allow`; labels, user and name; whether it is allowed.
const ALLOW_CASES: &[(&str, (&str, &str, &str), bool)] = &[
    // Names: exact, case-sensitive, or the one wildcard.
    (
        "db_labels: {'*': '*'}, db_users: [alice], db_names: [app]",
        ("", "alice", "app"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: [alice], db_names: [app]",
        ("", "Alice", "app"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: [alice], db_names: [app]",
        ("", "alice", "APP"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: [bob, alice], db_names: [x, app]",
        ("", "alice", "app"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['*'], db_names: ['*']",
        ("", "anyone", "anything"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['al*'], db_names: ['*']",
        ("", "alice", "app"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['al*'], db_names: ['*']",
        ("", "al*", "app"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['^alice$'], db_names: ['*']",
        ("", "alice", "app"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['**'], db_names: ['*']",
        ("", "alice", "app"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: [], db_names: ['*']",
        ("", "alice", "app"),
        false,
    ),
    ("db_labels: {'*': '*'}, db_names: ['*']", ("", "alice", "app"), false),
    ("db_labels: {'*': '*'}, db_users: ['*']", ("", "alice", "app"), false),
    // Labels: keys and values.
    ("db_users: ['*'], db_names: ['*']", ("env=dev", "alice", "app"), false),
    (
        "db_labels: {}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        false,
    ),
    (
        "db_labels: {'*': ['*'], env: prod}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: dev}, db_users: ['*'], db_names: ['*']",
        ("env=dev,team=x", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: dev}, db_users: ['*'], db_names: ['*']",
        ("env=Dev", "alice", "app"),
        false,
    ),
    (
        "db_labels: {Env: dev}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        false,
    ),
    (
        "db_labels: {'e*': dev}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: dev}, db_users: ['*'], db_names: ['*']",
        ("", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: '*'}, db_users: ['*'], db_names: ['*']",
        ("env=prod", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: '*'}, db_users: ['*'], db_names: ['*']",
        ("team=x", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: [dev, stage]}, db_users: ['*'], db_names: ['*']",
        ("env=stage", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: dev, team: x}, db_users: ['*'], db_names: ['*']",
        ("env=dev,team=y", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: dev, team: x}, db_users: ['*'], db_names: ['*']",
        ("env=dev,team=x", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: []}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: 'us-*-1'}, db_users: ['*'], db_names: ['*']",
        ("env=us-west-1", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: 'us-*-1'}, db_users: ['*'], db_names: ['*']",
        ("env=us-west-12", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: 'd.v'}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        false,
    ),
    (
        "db_labels: {env: '^d.v$'}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: '^dev|stage$'}, db_users: ['*'], db_names: ['*']",
        ("env=mystage", "alice", "app"),
        true,
    ),
    (
        "db_labels: {env: '^dev'}, db_users: ['*'], db_names: ['*']",
        ("env=dev", "alice", "app"),
        false,
    ),
    // Templates.
    (
        "db_labels: {'*': '*'}, db_users: ['{{internal.db_users}}'], db_names: ['{{internal.db_names}}']",
        ("", "app", "x"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{internal.db_users}}'], db_names: ['*']",
        ("", "postgres", "x"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{external.db_users}}'], db_names: ['*']",
        ("", "app", "x"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{external[\"db_users\"]}}'], db_names: ['*']",
        ("", "app", "x"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{internal.none}}'], db_names: ['*']",
        ("", "app", "x"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{internal.none}}', bob], db_names: ['*']",
        ("", "bob", "x"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['ro_{{internal.team}}'], db_names: ['*']",
        ("", "ro_blue", "x"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['ro_{{internal.db_names}}'], db_names: ['*']",
        ("", "ro_x", "x"),
        false,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{email.local(external.email)}}'], db_names: ['*']",
        ("", "alice", "x"),
        true,
    ),
    (
        "db_labels: {'*': '*'}, db_users: ['{{regexp.replace(external.email, \"^(.*)@example.com$\", \"${1}_rw\")}}'], db_names: ['*']",
        ("", "alice_rw", "x"),
        true,
    ),
    (
        "db_labels: {team: '{{internal.team}}'}, db_users: ['*'], db_names: ['*']",
        ("team=blue", "alice", "x"),
        true,
    ),
    (
        "db_labels: {team: '{{internal.none}}'}, db_users: ['*'], db_names: ['*']",
        ("team=blue", "alice", "x"),
        false,
    ),
    (
        "db_labels: {env: '{{internal.env}}'}, db_users: ['*'], db_names: ['*']",
        ("env=dev-eu", "alice", "x"),
        true,
    ),
    (
        "db_labels: {env: '{{internal.env}}'}, db_users: ['*'], db_names: ['*']",
        ("env=qa7", "alice", "x"),
        true,
    ),
    (
        "db_labels: {env: '^{{internal.team}}-.+$'}, db_users: ['*'], db_names: ['*']",
        ("env=blue-1", "alice", "x"),
        true,
    ),
    (
        "db_labels: {env: '^{{internal.bad}}$'}, db_users: ['*'], db_names: ['*']",
        ("env=(", "alice", "x"),
        false,
    ),
];

#[test]
fn one_role_allows_what_its_labels_users_and_names_all_match() {
    for (allow, asked, expected) in ALLOW_CASES {
        let allow = format!("{{allow: {{{allow}}}}}");
        let decision = ask(&[("v7", &allow)], TRAITS, *asked);
        assert_eq!(decision.is_ok(), *expected, "{allow} on {asked:?}: {decision:?}");
    }
}

/// One role that allows everything and has this `deny`; whether it denies.
const DENY_CASES: &[(&str, (&str, &str, &str), bool)] = &[
    ("", ("env=prod", "alice", "app"), false),
    ("db_labels: {}", ("env=prod", "alice", "app"), false),
    ("db_labels: {}, db_users: [], db_names: []", ("", "alice", "app"), false),
    ("db_users: [admin]", ("env=dev", "admin", "app"), true),
    ("db_users: [admin]", ("env=dev", "Admin", "app"), false),
    ("db_names: [postgres]", ("", "alice", "postgres"), true),
    ("db_users: ['*']", ("", "alice", "app"), true),
    ("db_labels: {env: prod}", ("env=prod", "alice", "app"), true),
    ("db_labels: {env: prod}", ("env=dev", "alice", "app"), false),
    ("db_labels: {env: prod, team: x}", ("env=prod", "alice", "app"), false),
    ("db_labels: {env: '^prod.*$'}", ("env=prod-eu", "alice", "app"), true),
    ("db_labels: {'*': '*'}", ("", "alice", "app"), true),
    // Greedy: any single matcher is enough, labels do not narrow names.
    (
        "db_labels: {env: prod}, db_users: [admin]",
        ("env=dev", "admin", "app"),
        true,
    ),
    (
        "db_labels: {env: prod}, db_users: [admin]",
        ("env=prod", "alice", "app"),
        true,
    ),
    ("db_users: ['{{internal.db_users}}']", ("", "app", "x"), true),
    ("db_users: ['{{internal.none}}']", ("", "app", "x"), false),
    // The one wildcard and exact texts in names, as in allow: no globs, no expressions.
    ("db_names: ['*']", ("", "alice", "app"), true),
    ("db_users: ['al*']", ("", "alice", "app"), false),
    ("db_users: ['al*']", ("", "al*", "app"), true),
    ("db_names: ['^app$']", ("", "alice", "app"), false),
    ("db_users: ['**']", ("", "alice", "app"), false),
    ("db_users: ['{{internal.db_names}}']", ("", "anyone", "app"), true),
    ("db_labels: {env: []}", ("env=prod", "alice", "app"), false),
    ("db_labels: {'*': '*', env: dev}", ("env=prod", "alice", "app"), true),
    (
        r#"db_labels_expression: 'labels["env"] == "prod"'"#,
        ("env=prod", "alice", "app"),
        true,
    ),
    (
        r#"db_labels_expression: 'labels["env"] == "prod"'"#,
        ("env=dev", "alice", "app"),
        false,
    ),
    (
        r#"db_labels_expression: 'contains(user.spec.traits["team"], labels["team"])'"#,
        ("team=blue", "alice", "app"),
        true,
    ),
    (
        r#"db_labels: {env: prod}, db_labels_expression: 'labels["team"] == "x"'"#,
        ("env=prod", "alice", "app"),
        true,
    ),
    (
        r#"db_labels_expression: 'labels["none"] == "x"', db_names: [postgres]"#,
        ("env=dev", "alice", "postgres"),
        true,
    ),
    (
        "db_labels: {team: '{{internal.team}}'}",
        ("team=blue", "app", "x"),
        true,
    ),
    (
        "db_labels: {env: '^{{internal.bad}}$'}",
        ("env=dev", "alice", "x"),
        true,
    ),
];

#[test]
fn a_role_denies_when_any_one_of_its_denials_matches() {
    for (deny, asked, expected) in DENY_CASES {
        let spec = format!("{{allow: {{{ANY}, db_users: ['*'], db_names: ['*']}}, deny: {{{deny}}}}}");
        match ask(&[("v7", &spec)], TRAITS, *asked) {
            Err(Denial::DeniedByRole { role, rule, .. }) => {
                assert!(*expected, "{deny} on {asked:?}: {rule}");
                assert_eq!(role.as_str(), "r0");
            }
            other => assert!(!*expected && other.is_ok(), "{deny} on {asked:?}: {other:?}"),
        }
    }
}

/// What `allow` says of labels, and the versions in which that selects a database with `env=prod`.
const VERSION_CASES: &[(&str, &[&str])] = &[
    ("", &["v3"]),
    ("db_labels: {}, ", &[]),
    ("db_labels: {env: prod}, ", &["v3", "v4", "v5", "v6", "v7", "v8"]),
    ("db_labels: {'*': '*'}, ", &["v3", "v4", "v5", "v6", "v7", "v8"]),
    ("db_labels: {env: dev}, ", &[]),
    (
        r#"db_labels_expression: 'labels["env"] == "prod"', "#,
        &["v3", "v4", "v5", "v6", "v7", "v8"],
    ),
    (r#"db_labels_expression: 'labels["env"] == "dev"', "#, &[]),
];

#[test]
fn versions_differ_only_in_what_a_role_without_labels_selects() {
    for (labels, versions) in VERSION_CASES {
        let spec = format!("{{allow: {{{labels}db_users: ['*'], db_names: ['*']}}}}");
        for version in ["v3", "v4", "v5", "v6", "v7", "v8"] {
            let decision = ask(&[(version, &spec)], TRAITS, ("env=prod", "alice", "app"));
            assert_eq!(
                decision.is_ok(),
                versions.contains(&version),
                "{version} {spec}: {decision:?}"
            );
        }
    }
}

#[test]
fn a_denied_user_or_name_is_denied_in_every_version_and_at_every_database() {
    for version in ["v3", "v4", "v5", "v6", "v7", "v8"] {
        for deny in ["db_users: [alice]", "db_names: ['*']", "db_names: [alice]"] {
            let spec = format!("{{allow: {{{ANY}, db_users: ['*'], db_names: ['*']}}, deny: {{{deny}}}}}");
            // As when the client names no database: the user's name is what is decided on.
            let decision = ask(&[(version, &spec)], TRAITS, ("", "alice", "alice"));
            assert!(
                matches!(decision, Err(Denial::DeniedByRole { .. })),
                "{version} {spec}: {decision:?}"
            );
        }
    }
}
