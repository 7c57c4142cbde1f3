//! Roles as text: what is read, what is refused, and what the errors say.

use crate::model::RoleName;
use crate::policy::{Position, Resource, ResourceError, Role, RoleVersion};
use std::time::Duration;

/// A role that says everything it can.
pub(in crate::policy) const FULL: &str = r#"# a comment
kind: role
version: v5
metadata:
  name: dba
  description: 'all: of "it"'
  labels: {team: "1"}
spec:
  allow:
    db_labels:
      env: [dev, 'stage-*', '^qa-\d+$']
      team: "{{external[\"team\"]}}"
    db_users: ['{{internal.db_users}}', "no", '*']
    db_names: [app]
    db_labels_expression: labels["env"] != 'prod' || contains(user.spec.traits["team"], "ops")
    rules:
    - {resources: [role, cluster_auth_preference], verbs: [list, readnosecrets]}
    db_replication: yes
  deny:
    db_labels: {}
    db_names: [postgres]
    rules: [{resources: ['*'], verbs: ['*']}]
  options:
    max_session_ttl: 8h30m
    client_idle_timeout: 10m
    disconnect_expired_cert: yes
    max_connections: 5
    pin_source_ip: false
    audit: strict
"#;

fn role(spec: &str) -> Result<Role, ResourceError> {
    Role::parse_yaml(&format!("kind: role\nversion: v7\nmetadata:\n  name: x\nspec:\n{spec}"))
}

fn refused(spec: &str) -> String {
    role(spec).expect_err(spec).to_string()
}

#[test]
fn a_role_is_read_with_everything_it_says() {
    let role = Role::parse_yaml(FULL).expect("fine");
    assert_eq!(role.name, RoleName::new("dba").expect("a name"));
    assert_eq!(role.version, RoleVersion::V5);
    assert_eq!(role.description.as_deref(), Some("all: of \"it\""));
    assert_eq!(
        role.options.max_session_ttl,
        Some(Duration::from_secs(8 * 3600 + 30 * 60))
    );
    assert_eq!(
        role.allow.db_users.to_string(),
        r#"["{{internal.db_users}}", "no", "*"]"#
    );
    assert_eq!(role.allowed_labels().0["team"].len(), 1);
    assert!(role.deny.db_labels.is_some_and(|s| s.0.is_empty()));
    assert!(role.allow.db_replication && !role.deny.db_replication);
}

#[test]
fn replication_is_what_a_role_says_in_so_many_words() {
    let said = |spec: &str| role(spec).expect(spec).allow.db_replication;
    assert!(said("  allow: {db_replication: true}"));
    assert!(!said("  allow: {db_replication: false}") && !said("  allow: {}"));
    for not_a_truth in ["database", "'*'", "1", "[true]", "{}"] {
        let why = refused(&format!("  allow: {{db_replication: {not_a_truth}}}"));
        assert!(why.contains("spec.allow.db_replication"), "{why}");
    }
    let unsaid = role("  allow: {db_users: [a]}").expect("fine");
    assert!(
        !Resource::Role(unsaid).to_json().contains("replication"),
        "a node of an older version reads roles that do not say it"
    );
}

#[test]
fn a_v3_role_without_labels_selects_everything_and_a_later_one_nothing() {
    let with = |version: &str, allow: &str| {
        let text = format!("kind: role\nversion: {version}\nmetadata: {{name: x}}\nspec: {{allow: {allow}}}\n");
        Role::parse_yaml(&text).expect("fine")
    };
    assert!(with("v3", "{}").allowed_labels().is_everything());
    assert!(!with("v3", "{db_labels: {}}").allowed_labels().is_everything());
    for version in ["v4", "v5", "v6", "v7", "v8"] {
        assert!(with(version, "{}").allowed_labels().0.is_empty(), "{version}");
    }
    let v3 = Resource::Role(with("v3", "{}"));
    assert_eq!(
        Resource::from_json(&v3.to_json()).expect("json"),
        v3,
        "the default is not written down"
    );
}

#[test]
fn an_option_that_is_not_enforced_is_refused_by_name_with_its_line() {
    assert_eq!(
        refused("  options:\n    max_session_ttl: 1h\n    require_session_mfa: yes\n"),
        "role \"x\": option \"require_session_mfa\" is not enforced by this version of Postern, so it is refused \
         rather than ignored; remove it (line 8, column 5)"
    );
    for option in [
        "require_session_mfa",
        "create_db_user",
        "create_db_user_mode",
        "lock",
        "record_session",
        "device_trust_mode",
        "mfa_verification_interval",
    ] {
        let error = refused(&format!("  options: {{{option}: true}}\n"));
        assert!(error.contains(&format!("option {option:?} is not enforced")), "{error}");
    }
}

#[test]
fn a_condition_that_is_not_enforced_is_refused_by_name_in_allow_and_in_deny() {
    for condition in [
        "db_roles",
        "db_permissions",
        "db_service_labels",
        "logins",
        "kubernetes_groups",
        "node_labels",
        "app_labels",
        "impersonate",
        "request",
    ] {
        for section in ["allow", "deny"] {
            let error = refused(&format!("  {section}:\n    {condition}: []\n"));
            let expected = format!("role \"x\": condition {condition:?} is not enforced");
            assert!(error.starts_with(&expected) && error.contains("line 7"), "{error}");
        }
    }
}

#[test]
fn what_is_wrong_in_a_role_is_said_with_its_place_and_the_next_step() {
    for (spec, expected) in [
        (
            "  dney: {}\n",
            r#"unknown key "dney" in spec; did you mean "deny"? (line 6, column 3)"#,
        ),
        (
            "  allow:\n    db_user: []\n",
            r#"unknown key "db_user" in spec.allow; did you mean "db_users"? (line 7, column 5)"#,
        ),
        (
            "  allow:\n    zzz: []\n",
            "known keys are db_labels, db_labels_expression, db_users, db_names, db_replication, rules",
        ),
        (
            "  options: {max_sesion_ttl: 1h}\n",
            r#"did you mean "max_session_ttl"?"#,
        ),
        (
            "  allow:\n    db_users: admin\n",
            "spec.allow.db_users must be a list of texts, but is the text \"admin\" (line 7, column 15)",
        ),
        (
            "  allow:\n    db_users: [true]\n",
            "spec.allow.db_users must be a text, but is the number or boolean true; put it in quotes",
        ),
        (
            "  allow:\n    db_users: ['{{regexp.replace(internal.a, \"(b)\", \"$1_rw\")}}']\n",
            "no group \"1_rw\"",
        ),
        (
            "  allow:\n    db_users: [a, 5]\n",
            "but is the number or boolean 5; put it in quotes (line 7, column 19)",
        ),
        (
            "  allow:\n    db_users:\n",
            "spec.allow.db_users must be a list of texts, but is empty",
        ),
        ("  allow: []\n", "spec.allow must be a mapping, but is a list"),
        ("  allow:\n    db_users: ['']\n", "a name must not be empty"),
        (
            "  allow:\n    db_labels: dev\n",
            "spec.allow.db_labels must be a mapping",
        ),
        (
            "  allow:\n    db_labels: {'*': dev}\n",
            "the key \"*\" goes with the one value \"*\" only",
        ),
        ("  allow:\n    db_labels: {'{{internal.k}}': dev}\n", "a key is literal"),
        (
            "  allow:\n    db_labels:\n      env: ['^(dev$']\n",
            r#"spec.allow.db_labels "env" "^(dev$": the regular expression does not compile: unclosed group (line 8, column 13)"#,
        ),
        (
            "  deny:\n    db_names: ['{{internal.x']\n",
            r#"spec.deny.db_names "{{internal.x": }} is expected at the end (line 7, column 16)"#,
        ),
        (
            "  options: {max_session_ttl: 30}\n",
            r#"spec.options.max_session_ttl "30" is not a duration: a unit is missing"#,
        ),
        ("  options: {max_session_ttl: 0h}\n", "longer than nothing"),
        ("  options: {max_session_ttl: 1d}\n", "units are h, m and s"),
        ("  options: {max_session_ttl: 5m1h}\n", "in this order"),
        ("  options: {max_session_ttl: -1h}\n", "a whole number"),
        ("  options: {max_session_ttl: 9999h}\n", "longer than 8760h"),
        (
            "  options: {client_idle_timeout: often}\n",
            r#"spec.options.client_idle_timeout "often" is not a duration"#,
        ),
        (
            "  options: {disconnect_expired_cert: maybe}\n",
            r#"spec.options.disconnect_expired_cert "maybe": it is neither true nor false; write true or false (line 6, column 38)"#,
        ),
        (
            "  options: {pin_source_ip: [true]}\n",
            "spec.options.pin_source_ip must be a text, but is a list",
        ),
        (
            "  options: {audit: none}\n",
            r#"spec.options.audit "none": statements are audited always; write strict for on disk before they run, or default"#,
        ),
        (
            "  options: {max_connections: -1}\n",
            r#"spec.options.max_connections "-1": a whole number from 0 (no limit) to 4294967295 is expected"#,
        ),
        (
            "  allow:\n    db_labels_expression: labels.env == 'x'\n",
            "or a text in quotes is expected before \"labels.env == 'x\" (character 1 of the expression) (line 7",
        ),
        (
            "  allow:\n    rules: [{resources: [kube_config], verbs: [read]}]\n",
            r#"spec.allow.rules.resources "kube_config": a resource that is not known; known are user, role, token, db,"#,
        ),
        (
            "  deny:\n    rules: [{resources: [role], verbs: [write]}]\n",
            r#"spec.deny.rules.verbs "write": a verb that is not known; known are list, read, readnosecrets, create,"#,
        ),
        (
            "  allow:\n    rules: [{resources: [session], verbs: [read], where: 'true'}]\n",
            r#"field "where" is not enforced by this version"#,
        ),
        (
            "  allow:\n    rules: [{resources: [session]}]\n",
            r#"spec.allow.rules has no "verbs"; add it"#,
        ),
        (
            "  allow:\n    rules: {resources: [session]}\n",
            "spec.allow.rules must be a list of rules, but is a mapping",
        ),
        (
            "  options: {max_session_ttl: 99999999999999999999h}\n",
            "a whole number",
        ),
    ] {
        let error = refused(spec);
        assert!(error.starts_with("role \"x\": "), "{error}");
        assert!(error.contains(expected), "{spec}\n gives {error}\n not {expected}");
    }
}

#[test]
fn what_is_wrong_around_a_role_is_said_too() {
    for (text, expected) in [
        (
            "kind: role\nversion: v2\nmetadata: {name: x}\nspec: {}\n",
            "role \"x\": version \"v2\" of kind role is not known; known are v3, v4, v5, v6, v7, v8 (line 2, column 10)",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: 'a b'}\nspec: {}\n",
            "metadata.name: a role name \"a b\" must not contain ' '",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {}\nspec: {}\n",
            "metadata has no \"name\"; add it (line 3",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x}\n",
            "role \"x\": the document has no \"spec\"; add it (line 1",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x, expires: '2030'}\nspec: {}\n",
            "field \"expires\" is not enforced",
        ),
        (
            "kind: user\nversion: v2\nmetadata: {name: x}\nspec: {}\n",
            "this is a user, where a role is expected",
        ),
        (
            "kind: github\nversion: v2\n",
            "kind \"github\" is not known; known are role, user, db, lock (line 1, column 7)",
        ),
        ("", "there are 0 documents, where one role is expected"),
        ("kind: [role\n", "the text cannot be read: "),
        ("kind: role\nkind: role\n", "(line 2, column 1)"),
        ("a: &x 1\nb: *x\n", "the text cannot be read: "),
    ] {
        let error = Role::parse_yaml(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}\n gives {error}\n not {expected}");
    }
    let syntax = Role::parse_yaml("kind: role\nmetadata:\n  name: 'x\n").expect_err("an open quote");
    assert!(syntax.position().is_some_and(|at: Position| at.line >= 3), "{syntax}");
}

#[test]
fn everything_has_a_limit() {
    let values = |n: usize, value: &str| vec![format!("'{value}'"); n].join(", ");
    for (spec, expected) in [
        (
            format!("  allow: {{db_users: [{}]}}\n", values(1025, "a")),
            "1025 values; at most 1024",
        ),
        (
            format!("  allow: {{db_users: [{}]}}\n", "a".repeat(1025)),
            "1025 bytes; at most 1024",
        ),
        (
            format!("  allow: {{db_labels: {{a: [{}]}}}}\n", values(65, "^x$")),
            "65 regular expressions; at most 64",
        ),
        (
            format!(
                "  allow: {{db_labels: {{{}}}}}\n",
                (0..65).map(|i| format!("k{i}: a")).collect::<Vec<_>>().join(", ")
            ),
            "65 keys; at most 64",
        ),
        (
            "  allow: {db_labels: {a: '^((x{100}){100}){100}$'}}\n".to_owned(),
            "bytes when compiled",
        ),
        (
            format!("  allow: {}{}\n", "[".repeat(40), "]".repeat(40)),
            "the text cannot be read",
        ),
        (
            format!("  # {}\n", "x".repeat(5 * 1024 * 1024)),
            "at most 4194304 are allowed",
        ),
    ] {
        let error = refused(&spec);
        assert!(error.contains(expected), "{error} does not say {expected}");
    }
    let long = format!("{{\"kind\":\"role\",\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    assert!(
        Role::from_json(&long)
            .expect_err("long")
            .to_string()
            .contains("at most 262144")
    );
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Role::from_json(&deep).is_err());
}

#[test]
fn words_that_some_yaml_takes_for_booleans_are_texts() {
    let role = role("  allow: {db_users: [y, no, On, yes]}\n").expect("fine");
    assert_eq!(role.allow.db_users.to_string(), r#"["y", "no", "On", "yes"]"#);
}

#[test]
fn options_are_read_in_teleports_spellings() {
    let options = |text: &str| role(&format!("  options: {{{text}}}\n")).expect(text).options;
    for (text, expected) in [
        ("true", true),
        ("yes", true),
        ("'yes'", true),
        ("on", true),
        ("no", false),
        ("false", false),
    ] {
        let read = options(&format!("pin_source_ip: {text}, disconnect_expired_cert: {text}"));
        assert_eq!(read.pin_source_ip, Some(expected), "{text}");
        assert_eq!(read.disconnect_expired_cert, Some(expected), "{text}");
    }
    for (text, expected) in [("strict", Some(true)), ("default", Some(false))] {
        assert_eq!(options(&format!("audit: {text}")).strict_audit, expected, "{text}");
    }
    for (text, expected) in [("never", 0), ("0", 0), ("0s", 0), ("90s", 90), ("1h", 3600)] {
        let read = options(&format!("client_idle_timeout: {text}")).client_idle_timeout;
        assert_eq!(read, Some(Duration::from_secs(expected)), "{text}");
    }
    for text in ["7", "'7'"] {
        assert_eq!(options(&format!("max_connections: {text}")).max_connections, Some(7));
    }
}
