//! Users, streams, snapshots, and the way of every resource through YAML and JSON.

use crate::model::{PersonName, RoleName, Timestamp, Traits};
use crate::policy::role::tests::FULL;
use crate::policy::{PRESETS, PolicySnapshot, Resource, UserRecord, max_session_ttl, parse_resources};
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

const USER: &str = "\
kind: user
version: v2
metadata:
  name: alice@example.com
spec:
  roles: [dba, access]
  traits:
    db_users: ['*', 'yes', '007']
    db_names: []
    team: blue
";

const DATABASE: &str = "\
kind: db
version: v3
metadata:
  name: orders
  description: The orders
  labels: {env: prod}
spec:
  protocol: postgres
  uri: postgres://db.internal:5433
  tls:
    mode: verify-ca
    server_name: orders.db
    ca_cert: |
      -----BEGIN CERTIFICATE-----
      MIIB
      -----END CERTIFICATE-----
";

const LOCK: &str = "\
kind: lock
version: v2
metadata: {name: 3f2a9c1e-0000-4000-8000-000000000001}
spec:
  target: {user: alice@example.com}
  message: under investigation
  expires: '2026-02-01T00:00:00.123456Z'
  created_at: '2026-01-31T12:00:00Z'
  created_by: admin
";

#[test]
fn a_resource_survives_yaml_and_json() {
    let mut texts = vec![FULL, USER, DATABASE, LOCK];
    texts.extend(PRESETS);
    for text in texts {
        let resource = parse_resources(text).expect("fine").remove(0);
        let json = resource.to_json();
        assert!(!json.contains('\n'));
        assert_eq!(Resource::from_json(&json).expect("json"), resource, "{json}");
        assert_eq!(Resource::from_json(&json).expect("json").to_json(), json);
        let yaml = resource.to_yaml().expect("yaml");
        assert_eq!(parse_resources(&yaml).expect("yaml"), [resource], "{yaml}");
    }
}

#[test]
fn a_user_is_read_with_roles_and_traits() {
    let user = UserRecord::parse_yaml(USER).expect("fine");
    assert_eq!(user.name.as_str(), "alice@example.com");
    assert_eq!(
        user.roles.iter().map(RoleName::as_str).collect::<Vec<_>>(),
        ["dba", "access"]
    );
    assert_eq!(user.traits["db_users"], ["*", "yes", "007"]);
    assert_eq!(user.traits["team"], ["blue"], "one value may stand alone");
    assert!(user.traits["db_names"].is_empty());
}

#[test]
fn what_is_wrong_in_a_user_is_said_with_its_place() {
    for (text, expected) in [
        (
            "kind: user\nversion: v1\nmetadata: {name: bob}\nspec: {}\n",
            "user \"bob\": version \"v1\" of kind user is not known; known are v2",
        ),
        (
            "kind: user\nversion: v2\nmetadata: {name: bob}\nspec:\n  rolls: []\n",
            "unknown key \"rolls\" in spec; did you mean \"roles\"? (line 5, column 3)",
        ),
        (
            "kind: user\nversion: v2\nmetadata: {name: bob}\nspec:\n  roles: [a, 'b c']\n",
            "spec.roles: a role name \"b c\" must not contain ' '; allowed are letters, digits, '.', '-', '_', ':' and '@' (line 5, column 14)",
        ),
        (
            "kind: user\nversion: v2\nmetadata: {name: bob}\nspec: {expires: x}\n",
            "field \"expires\" is not enforced",
        ),
        (
            "kind: user\nversion: v2\nmetadata: {name: bob}\nspec: {traits: {a: {}}}\n",
            "spec.traits.a must be a text or a list of texts, but is a mapping",
        ),
        (
            "kind: user\nversion: v2\nmetadata: {name: 'bob smith'}\nspec: {}\n",
            "metadata.name: a user name",
        ),
    ] {
        let error = UserRecord::parse_yaml(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}\n gives {error}\n not {expected}");
    }
}

#[test]
fn a_stream_holds_roles_and_users_and_its_errors_count_lines_from_its_beginning() {
    let stream = format!("---\n{FULL}---\n{USER}---\n");
    let kinds: Vec<_> = parse_resources(&stream)
        .expect("fine")
        .iter()
        .map(Resource::kind)
        .collect();
    assert_eq!(kinds, ["role", "user"]);
    let lines = stream.lines().count();
    let error = parse_resources(&format!(
        "{stream}kind: role\nversion: v1\nmetadata: {{name: y}}\nspec: {{}}\n"
    ));
    let error = error.expect_err("v1");
    assert_eq!(error.position().map(|at| at.line), Some(lines as u64 + 2), "{error}");
    let twice = parse_resources(&format!("{FULL}---\n{FULL}"))
        .expect_err("twice")
        .to_string();
    assert!(twice.starts_with("role \"dba\": it is given twice"), "{twice}");
    let unknown = parse_resources("kind: github\n").expect_err("unknown").to_string();
    assert_eq!(
        unknown,
        "kind \"github\" is not known; known are role, user, db, lock (line 1, column 7)"
    );
    assert!(parse_resources("").expect("nothing").is_empty());
}

#[test]
fn a_snapshot_survives_its_documents_and_refuses_a_broken_or_repeated_one() {
    let mut documents: Vec<String> = PRESETS
        .iter()
        .chain(&[FULL, USER, DATABASE, LOCK])
        .flat_map(|t| parse_resources(t).expect("fine"))
        .map(|r| r.to_json())
        .collect();
    let at = Timestamp::from_secs(1);
    let snapshot = PolicySnapshot::from_documents(7, at, &documents).expect("fine");
    assert_eq!(
        (snapshot.version, snapshot.roles.len(), snapshot.users.len()),
        (7, 4, 1)
    );
    assert_eq!((snapshot.databases.len(), snapshot.locks.len()), (1, 1));
    let again = PolicySnapshot::from_documents(7, at, &snapshot.to_documents()).expect("fine");
    assert_eq!(again, snapshot);
    documents.push(documents[0].clone());
    assert!(PolicySnapshot::from_documents(7, at, &documents).is_err());
    assert!(PolicySnapshot::from_documents(7, at, &["{}".to_owned()]).is_err());
}

#[test]
fn the_shortest_session_of_a_persons_roles_counts() {
    let documents: Vec<String> = PRESETS
        .iter()
        .chain(&[FULL, USER])
        .flat_map(|t| parse_resources(t).expect("fine"))
        .map(|r| r.to_json())
        .collect();
    let mut snapshot = PolicySnapshot::from_documents(1, Timestamp::from_secs(0), &documents).expect("fine");
    let alice = PersonName::new("alice@example.com").expect("a name");
    assert_eq!(max_session_ttl(&snapshot, &alice), Some(Duration::from_secs(30_600)));
    snapshot.roles.clear();
    assert_eq!(max_session_ttl(&snapshot, &alice), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives_yaml_and_json(values in vec(prop_oneof!["[ -~]{0,6}", "[yYnN~0-9._eExo+-]{1,4}", any::<String>()], 0..8)) {
        let name = PersonName::new("alice").expect("a name");
        let user = UserRecord::new(name, Vec::new(), Traits::from([("t".to_owned(), values)]));
        let resource = Resource::User(user);
        prop_assert_eq!(&Resource::from_json(&resource.to_json()).expect("json"), &resource);
        let yaml = resource.to_yaml().expect("yaml");
        let read = parse_resources(&yaml).map_err(|e| TestCaseError::fail(format!("{e}\n{yaml}")))?;
        prop_assert_eq!(&read[..], std::slice::from_ref(&resource), "{}", yaml);
    }
}
