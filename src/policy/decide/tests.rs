//! The decision: order, identity, what permits and denials say.

use super::*;
use crate::model::{ClusterName, PersonName, RefusalKind, Route, Traits};
use crate::policy::{PRESETS, parse_resources};

const NOW: Timestamp = Timestamp::from_secs(1_000);

pub(super) fn principal(valid_until: Timestamp, bound: Option<&str>) -> Principal {
    Principal {
        name: PersonName::new("alice").expect("a name"),
        cluster: ClusterName::new("main").expect("a name"),
        roles: Vec::new(),
        traits: Traits::new(),
        mfa: false,
        valid_until,
        pinned_ip: None,
        route: bound.map(|service| Route {
            service: ServiceName::new(service).expect("a name"),
            db_user: None,
            db_name: None,
        }),
    }
}

pub(super) fn snapshot(documents: &str) -> PolicySnapshot {
    let documents: Vec<String> = parse_resources(documents)
        .unwrap_or_else(|e| panic!("{e}\n{documents}"))
        .iter()
        .map(|r| r.to_json())
        .collect();
    PolicySnapshot::from_documents(42, Timestamp::from_secs(0), &documents).expect("one of each")
}

pub(super) fn request(principal: Principal, labels: Labels, db_user: &str, db_name: &str) -> AccessRequest {
    AccessRequest {
        principal: Arc::new(principal),
        service: ServiceName::new("orders").expect("a name"),
        labels,
        db_user: DbUser::new(db_user).expect("a name"),
        db_name: DbName::new(db_name).expect("a name"),
        replication: None,
        nodes: Vec::new(),
        client_ip: None,
    }
}

/// Alice with these roles and traits, as documents.
fn with_roles(roles: &[(&str, &str)], traits: &str) -> String {
    let mut documents = String::new();
    for (at, (version, spec)) in roles.iter().enumerate() {
        documents += &format!("kind: role\nversion: {version}\nmetadata: {{name: r{at}}}\nspec: {spec}\n---\n");
    }
    let names: Vec<_> = (0..roles.len()).map(|at| format!("r{at}")).collect();
    documents += &format!(
        "kind: user\nversion: v2\nmetadata: {{name: alice}}\nspec: {{roles: [{}], traits: {traits}}}\n",
        names.join(", ")
    );
    documents
}

/// Alice with these roles (`version spec`, named r0, r1, …) and traits asks for `labels user name`.
pub(super) fn ask(roles: &[(&str, &str)], traits: &str, asked: (&str, &str, &str)) -> Result<Permit, Denial> {
    let documents = with_roles(roles, traits);
    let (labels, user, name) = asked;
    let labels = Labels::parse(labels).expect("labels");
    let asked = request(
        principal(NOW + std::time::Duration::from_secs(1), None),
        labels,
        user,
        name,
    );
    decide(&snapshot(&documents), &asked, NOW)
}

#[test]
fn a_role_that_denies_wins_over_one_that_allows_whatever_their_order() {
    let allow = (
        "v7",
        "{allow: {db_labels: {'*': '*'}, db_users: ['*'], db_names: ['*']}}",
    );
    let deny = ("v7", "{deny: {db_users: [admin]}}");
    for roles in [[allow, deny], [deny, allow]] {
        assert!(matches!(
            ask(&roles, "{}", ("", "admin", "app")),
            Err(Denial::DeniedByRole { .. })
        ));
        assert!(ask(&roles, "{}", ("", "alice", "app")).is_ok());
    }
}

#[test]
fn labels_of_one_role_do_not_go_with_users_of_another() {
    let labels = ("v7", "{allow: {db_labels: {env: prod}, db_names: ['*']}}");
    let users = (
        "v7",
        "{allow: {db_labels: {env: dev}, db_users: [admin], db_names: ['*']}}",
    );
    assert!(ask(&[labels, users], "{}", ("env=prod", "admin", "app")).is_err());
    assert!(ask(&[labels, users], "{}", ("env=dev", "admin", "app")).is_ok());
}

#[test]
fn a_v3_role_without_labels_allows_every_database_and_a_v4_role_none() {
    let spec = "{allow: {db_users: ['*'], db_names: ['*']}}";
    assert!(ask(&[("v3", spec)], "{}", ("env=prod", "alice", "app")).is_ok());
    assert!(ask(&[("v4", spec)], "{}", ("env=prod", "alice", "app")).is_err());
}

#[test]
fn the_access_role_with_star_traits_gives_everything_and_without_traits_nothing() {
    let documents = |traits: &str| {
        format!(
            "{}---\nkind: user\nversion: v2\nmetadata: {{name: alice}}\nspec: {{roles: [access], traits: {traits}}}\n",
            PRESETS[0]
        )
    };
    let asked = request(
        principal(Timestamp::from_secs(2_000), None),
        Labels::default(),
        "postgres",
        "any",
    );
    let permit = decide(&snapshot(&documents("{db_users: ['*'], db_names: ['*']}")), &asked, NOW).expect("allowed");
    assert_eq!(permit.role().as_str(), "access");
    assert!(decide(&snapshot(&documents("{}")), &asked, NOW).is_err());
    assert!(decide(&snapshot(&documents("{db_users: ['*']}")), &asked, NOW).is_err());
}

const OPEN: &str = "kind: role\nversion: v3\nmetadata: {name: open}\nspec: {allow: {db_users: ['*'], db_names: ['*']}}\n---\n\
                    kind: user\nversion: v2\nmetadata: {name: alice}\nspec: {roles: [ghost, open]}\n";

#[test]
fn a_permit_says_what_was_decided() {
    let until = Timestamp::from_secs(2_000);
    let asked = request(principal(until, Some("orders")), Labels::default(), "app", "orders_db");
    let permit = decide(&snapshot(OPEN), &asked, NOW).expect("allowed");
    assert_eq!(permit.person().as_str(), "alice");
    assert_eq!(permit.service().as_str(), "orders");
    assert_eq!(permit.db_user().as_str(), "app");
    assert_eq!(permit.db_name().as_str(), "orders_db");
    assert_eq!(
        (permit.until(), permit.policy_version(), permit.role().as_str()),
        (until, 42, "open")
    );
}

#[test]
fn what_the_certificate_says_of_roles_and_traits_does_not_count() {
    let documents = "kind: role\nversion: v3\nmetadata: {name: t}\nspec: {allow: {db_users: ['{{internal.u}}'], db_names: ['*']}}\n---\n\
                     kind: user\nversion: v2\nmetadata: {name: alice}\nspec: {roles: [t]}\n";
    let mut alice = principal(Timestamp::from_secs(2_000), None);
    alice.traits.insert("u".to_owned(), vec!["*".to_owned()]);
    let asked = request(alice.clone(), Labels::default(), "app", "app");
    assert!(decide(&snapshot(documents), &asked, NOW).is_err());
    let removed = OPEN.replace("[ghost, open]", "[]");
    alice.roles = vec![crate::model::RoleName::new("open").expect("a name")];
    let asked = request(alice, Labels::default(), "app", "app");
    assert!(decide(&snapshot(&removed), &asked, NOW).is_err());
}

#[test]
fn somebody_who_was_removed_is_denied() {
    let asked = request(
        principal(Timestamp::from_secs(2_000), None),
        Labels::default(),
        "app",
        "app",
    );
    let denial = decide(&snapshot(&OPEN.replace("name: alice", "name: bob")), &asked, NOW).expect_err("nobody");
    assert!(matches!(denial, Denial::UnknownPerson { .. }));
    assert!(denial.to_string().starts_with("there is no user \"alice\""), "{denial}");
}

#[test]
fn a_certificate_is_good_until_the_moment_it_names() {
    let snapshot = snapshot(OPEN);
    let valid_until = |until| request(principal(until, None), Labels::default(), "app", "app");
    assert!(
        decide(
            &snapshot,
            &valid_until(Timestamp::from_micros(NOW.as_micros() + 1)),
            NOW
        )
        .is_ok()
    );
    let denial = decide(&snapshot, &valid_until(NOW), NOW).expect_err("expired");
    assert_eq!(denial.refusal().kind, RefusalKind::CertificateExpired);
    assert_eq!(
        denial.to_string(),
        "the certificate of \"alice\" expired at 1970-01-01T00:16:40.000Z"
    );
}

#[test]
fn a_certificate_for_one_service_does_not_open_another() {
    let asked = request(
        principal(Timestamp::from_secs(2_000), Some("payroll")),
        Labels::default(),
        "app",
        "app",
    );
    let denial = decide(&snapshot(OPEN), &asked, NOW).expect_err("bound");
    assert_eq!(
        denial.to_string(),
        "the certificate of \"alice\" is bound to database service \"payroll\", but \"orders\" was asked for"
    );
    assert_eq!(denial.refusal().message, DENIED_MESSAGE);
}

#[test]
fn a_denial_names_the_nearest_role_and_why_and_the_roles_that_do_not_exist() {
    let documents = OPEN
        .replace("db_users: ['*']", "db_users: [app, '{{internal.u}}']")
        .replace("[ghost, open]", "[none, ghost, open]")
        + "---\nkind: role\nversion: v7\nmetadata: {name: none}\nspec: {}\n";
    let asked = request(
        principal(Timestamp::from_secs(2_000), None),
        Labels::default(),
        "admin",
        "shop",
    );
    let denial = decide(&snapshot(&documents), &asked, NOW).expect_err("no admin");
    assert_eq!(
        denial.to_string(),
        "no role of \"alice\" allows database user \"admin\" and database name \"shop\" at database service \"orders\"; \
         nearest is role \"open\": database user \"admin\" is not among allow.db_users [\"app\", \"{{internal.u}}\"]; \
         also asked: \"none\"; role \"ghost\" does not exist and grants nothing"
    );
    assert_eq!(denial.role().map(crate::model::RoleName::as_str), Some("open"));
}

#[test]
fn a_client_reads_nothing_about_roles() {
    let spec = "{deny: {db_labels: {env: prod}}}";
    let denial = ask(&[("v7", spec)], "{}", ("env=prod", "alice", "app")).expect_err("denied");
    assert_eq!(
        denial.to_string(),
        "role \"r0\" denies it: deny.db_labels {\"env\": [\"prod\"]} match the labels \"env=prod\""
    );
    let refusal = denial.refusal();
    assert_eq!(refusal.kind, RefusalKind::AccessDenied);
    assert_eq!(refusal.kind.sqlstate(), "42501");
    assert_eq!(
        refusal.message,
        "access to db denied. User does not have permissions. Confirm database user and name."
    );
    assert_eq!(refusal.hint.as_deref(), Some(DENIED_HINT));
}

#[test]
fn an_absent_or_empty_database_name_is_the_users() {
    let user = DbUser::new("alice").expect("a name");
    for (requested, expected) in [(None, "alice"), (Some(""), "alice"), (Some("app"), "app")] {
        assert_eq!(
            effective_db_name(requested, &user, None).expect("a name").as_str(),
            expected
        );
    }
    assert!(effective_db_name(Some(&"x".repeat(64)), &user, None).is_err());
}

/// As `ask`, for a replication connection.
fn ask_to_replicate(roles: &[(&str, &str)], mode: Replication, asked: (&str, &str, &str)) -> Result<Permit, Denial> {
    let (user, name) = (DbUser::new(asked.1).expect("a name"), Some(asked.2));
    let name = effective_db_name(name, &user, Some(mode)).expect("a name");
    let labels = Labels::parse(asked.0).expect("labels");
    let mut request = request(
        principal(NOW + std::time::Duration::from_secs(1), None),
        labels,
        asked.1,
        name.as_str(),
    );
    request.replication = Some(mode);
    decide(&snapshot(&with_roles(roles, "{}")), &request, NOW)
}

#[test]
fn a_replication_connection_is_allowed_only_by_a_role_that_says_so_and_matches_the_rest_itself() {
    let open = (
        "v7",
        "{allow: {db_labels: {'*': '*'}, db_users: ['*'], db_names: ['*']}}",
    );
    let replicates = (
        "v7",
        "{allow: {db_labels: {'*': '*'}, db_users: [copier], db_names: [app, replication], db_replication: true}}",
    );
    let says_no_more = ("v7", "{allow: {db_replication: true}}");
    for mode in Replication::ALL {
        let ask = |roles: &[_], user| ask_to_replicate(roles, mode, ("", user, "app"));
        for roles in [&[open][..], &[open, says_no_more], &[says_no_more, open]] {
            let denial = ask(roles, "copier").expect_err("no role allows all of it");
            assert!(
                denial
                    .to_string()
                    .contains(&format!("for {} replication", mode.label())),
                "{denial}"
            );
            assert!(
                denial.to_string().contains("db_replication") || roles.len() > 1,
                "{denial}"
            );
            let refusal = denial.refusal();
            assert_eq!(
                (refusal.kind.sqlstate(), refusal.hint.as_deref()),
                ("42501", Some(REPLICATION_HINT))
            );
        }
        let permit = ask(&[open, replicates], "copier").expect("allowed");
        assert_eq!((permit.replication(), permit.role().as_str()), (Some(mode), "r1"));
        assert!(ask(&[open, replicates], "app").is_err(), "another database user");
        let denies = ("v7", "{deny: {db_replication: true}}");
        assert!(matches!(
            ask(&[replicates, denies], "copier"),
            Err(Denial::DeniedByRole { .. })
        ));
        let ordinary = super::tests::ask(&[open, denies], "{}", ("", "copier", "app")).expect("not about it");
        assert_eq!(ordinary.replication(), None);
    }
}

#[test]
fn a_physical_replication_is_in_no_database_and_the_roles_are_asked_about_the_name_of_pg_hba_conf() {
    let role = |names: &str| {
        format!("{{allow: {{db_labels: {{'*': '*'}}, db_users: ['*'], db_names: [{names}], db_replication: true}}}}")
    };
    let allowed = |names: &str, mode| {
        let spec = role(names);
        ask_to_replicate(&[("v7", &spec)], mode, ("", "copier", "app")).map(|permit| permit.db_name().to_string())
    };
    assert!(
        allowed("app", Replication::Physical).is_err(),
        "whatever database it names"
    );
    assert_eq!(
        allowed("replication", Replication::Physical).expect("allowed"),
        "replication"
    );
    assert_eq!(allowed("'*'", Replication::Physical).expect("allowed"), "replication");
    assert_eq!(allowed("app", Replication::Logical).expect("allowed"), "app");
    assert!(allowed("replication", Replication::Logical).is_err());
}

#[test]
fn the_roles_are_asked_about_the_name_that_an_empty_database_name_stands_for() {
    let roles = [(
        "v7",
        "{allow: {db_labels: {'*': '*'}, db_users: ['*'], db_names: [app]}}",
    )];
    for (db_user, allowed) in [("app", true), ("postgres", false)] {
        let user = DbUser::new(db_user).expect("a name");
        let name = effective_db_name(Some(""), &user, None).expect("a name");
        assert_eq!(
            ask(&roles, "{}", ("", db_user, name.as_str())).is_ok(),
            allowed,
            "{db_user}"
        );
    }
}

#[test]
fn a_name_in_another_case_or_in_letters_that_look_alike_is_another_name() {
    // U+0430 is a Cyrillic a, U+FF41 a wide one, U+0301 an accent of its own: PostgreSQL takes each for another role.
    let variants = [
        "Admin",
        "ADMIN",
        "\u{430}dmin",
        "\u{ff41}dmin",
        "a\u{301}dmin",
        "admin ",
        " admin",
        "admin\u{200b}",
    ];
    let allow = [(
        "v7",
        "{allow: {db_labels: {'*': '*'}, db_users: [admin], db_names: [admin]}}",
    )];
    assert!(ask(&allow, "{}", ("", "admin", "admin")).is_ok());
    for other in variants {
        assert!(ask(&allow, "{}", ("", other, "admin")).is_err(), "user {other:?}");
        assert!(ask(&allow, "{}", ("", "admin", other)).is_err(), "name {other:?}");
    }
    for other in ["Alice", "ALICE", "\u{430}lice", "alic\u{435}"] {
        let mut person = principal(Timestamp::from_secs(2_000), None);
        person.name = PersonName::new(other).expect("a name");
        let denial = decide(&snapshot(OPEN), &request(person, Labels::default(), "app", "app"), NOW).expect_err(other);
        assert!(matches!(denial, Denial::UnknownPerson { .. }), "{other}: {denial}");
    }
}
