//! Who may do what with the cluster's own resources.

use super::*;
use crate::policy::{PRESETS, parse_resources};

fn snapshot(documents: &str) -> PolicySnapshot {
    let mut snapshot = PolicySnapshot::empty(1, Timestamp::from_secs(0));
    for resource in parse_resources(documents).unwrap_or_else(|e| panic!("{e}")) {
        snapshot.add(resource).expect("one of each");
    }
    snapshot
}

fn ask(documents: &str, resource: ResourceKind, verb: Verb) -> Result<(), RuleDenied> {
    let alice = PersonName::new("alice").expect("a name");
    may(&snapshot(documents), &alice, resource, verb, Timestamp::from_secs(1))
}

fn with_roles(allow: &str, deny: &str) -> String {
    format!(
        "kind: user\nversion: v2\nmetadata: {{name: alice}}\nspec: {{roles: [ghost, a, d]}}\n---\n\
         kind: role\nversion: v7\nmetadata: {{name: a}}\nspec: {{allow: {{rules: [{allow}]}}}}\n---\n\
         kind: role\nversion: v7\nmetadata: {{name: d}}\nspec: {{deny: {{rules: [{deny}]}}}}\n"
    )
}

#[test]
fn a_rule_allows_its_verbs_on_its_resources_and_a_deny_wins() {
    use ResourceKind::{Event, Role, User};
    use Verb::{Create, Delete, List, Read, ReadNoSecrets};
    for (allow, deny, resource, verb, expected) in [
        ("", "", Role, List, false),
        ("{resources: [role], verbs: [list]}", "", Role, List, true),
        ("{resources: [role], verbs: [list]}", "", Role, Read, false),
        ("{resources: [role], verbs: [list]}", "", User, List, false),
        ("{resources: ['*'], verbs: [list]}", "", Event, List, true),
        ("{resources: [user, role], verbs: ['*']}", "", User, Delete, true),
        ("{resources: ['*'], verbs: ['*']}", "", Event, Create, true),
        ("{resources: [role], verbs: [read]}", "", Role, ReadNoSecrets, true),
        ("{resources: [role], verbs: [readnosecrets]}", "", Role, Read, false),
        ("{resources: [trusted_cluster], verbs: ['*']}", "", Role, Read, false),
        ("{resources: [], verbs: ['*']}", "", Role, Read, false),
        (
            "{resources: [user], verbs: [list]}, {resources: [role], verbs: [read]}",
            "",
            User,
            Read,
            false,
        ),
        (
            "{resources: ['*'], verbs: ['*']}",
            "{resources: [role], verbs: [delete]}",
            Role,
            Delete,
            false,
        ),
        (
            "{resources: ['*'], verbs: ['*']}",
            "{resources: [role], verbs: [delete]}",
            Role,
            Create,
            true,
        ),
        (
            "{resources: ['*'], verbs: ['*']}",
            "{resources: ['*'], verbs: ['*']}",
            Role,
            Create,
            false,
        ),
        (
            "{resources: ['*'], verbs: ['*']}",
            "{resources: [role], verbs: [read]}",
            Role,
            ReadNoSecrets,
            true,
        ),
        (
            "{resources: ['*'], verbs: ['*']}",
            "{resources: [role], verbs: [readnosecrets]}",
            Role,
            Read,
            false,
        ),
    ] {
        let decided = ask(&with_roles(allow, deny), resource, verb);
        assert_eq!(
            decided.is_ok(),
            expected,
            "allow {allow} deny {deny}: {verb} {resource}: {decided:?}"
        );
    }
}

#[test]
fn who_is_locked_or_unknown_may_do_nothing() {
    let all = with_roles("{resources: ['*'], verbs: ['*']}", "");
    let lock = "---\nkind: lock\nversion: v2\nmetadata: {name: l}\nspec: {target: {role: a}, message: leaked}\n";
    let denied = ask(&format!("{all}{lock}"), ResourceKind::Role, Verb::List).expect_err("locked");
    assert_eq!(denied.refusal().kind, RefusalKind::Locked);
    assert_eq!(denied.to_string(), "lock targeting Role:\"a\" is in force: leaked");
    let nobody = ask(&all.replace("name: alice", "name: bob"), ResourceKind::Role, Verb::List);
    assert!(matches!(nobody, Err(RuleDenied::UnknownPerson(_))), "{nobody:?}");
}

#[test]
fn a_denial_says_what_was_asked_and_to_operators_which_role_said_no() {
    let denied = ask(
        &with_roles("", "{resources: [role], verbs: [create]}"),
        ResourceKind::Role,
        Verb::Create,
    );
    let denied = denied.expect_err("denied");
    assert_eq!(
        denied.to_string(),
        "role \"d\" denies it to create resources of kind role"
    );
    assert_eq!(
        denied.refusal().message,
        "access denied to perform action \"create\" on \"role\""
    );
    let nothing = ask(&with_roles("", ""), ResourceKind::Event, Verb::Read).expect_err("nothing");
    assert_eq!(
        nothing.to_string(),
        "no role of \"alice\" allows it to read resources of kind event"
    );
}

#[test]
fn the_presets_editor_and_auditor_may_do_what_they_are_for() {
    let as_preset = |name: &str, resource, verb| {
        let user = format!("---\nkind: user\nversion: v2\nmetadata: {{name: alice}}\nspec: {{roles: [{name}]}}\n");
        ask(&format!("{}{user}", PRESETS.join("---\n")), resource, verb).is_ok()
    };
    for verb in [Verb::List, Verb::Create, Verb::Read, Verb::Update, Verb::Delete] {
        assert!(as_preset("editor", ResourceKind::Role, verb), "{verb}");
        assert!(!as_preset("access", ResourceKind::Role, verb), "{verb}");
        assert!(!as_preset("auditor", ResourceKind::Role, verb), "{verb}");
    }
    assert!(as_preset("editor", ResourceKind::Lock, Verb::Create));
    assert!(!as_preset("editor", ResourceKind::CertAuthority, Verb::Read), "no keys");
    assert!(!as_preset("editor", ResourceKind::Event, Verb::Read));
    assert!(as_preset("auditor", ResourceKind::Event, Verb::Read));
    assert!(as_preset("auditor", ResourceKind::Session, Verb::List));
    assert!(!as_preset("auditor", ResourceKind::Event, Verb::Delete));
}
