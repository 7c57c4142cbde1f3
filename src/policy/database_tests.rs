//! Registered databases as documents, and which of them a matcher matches.

use super::*;

fn database(spec: &str) -> Result<DatabaseResource, ResourceError> {
    DatabaseResource::parse_yaml(&format!(
        "kind: db\nversion: v3\nmetadata: {{name: orders}}\nspec: {{{spec}}}\n"
    ))
}

#[test]
fn a_uri_is_a_host_and_a_port() {
    for (uri, expected) in [
        ("db:5432", "db:5432"),
        ("db", "db:5432"),
        ("postgres://db.internal:6000/", "db.internal:6000"),
        ("postgresql://[::1]:1", "[::1]:1"),
        ("10.0.0.1:5433", "10.0.0.1:5433"),
    ] {
        let read = database(&format!("protocol: postgres, uri: '{uri}'")).expect(uri);
        assert_eq!(read.endpoint.to_string(), expected, "{uri}");
    }
    for (uri, why) in [
        ("", "names no host"),
        (":5432", "names no host"),
        ("db:0", "from 1 to 65535"),
        ("db:x", "from 1 to 65535"),
        ("mysql://db", "host:port or postgres://"),
        ("db/app", "more than host and port"),
        ("::1", "in brackets"),
        ("[db]:1", "only an IPv6 address"),
        ("a b", "names no host"),
    ] {
        let error = database(&format!("protocol: postgres, uri: '{uri}'"))
            .expect_err(uri)
            .to_string();
        assert!(error.contains(why), "{uri}: {error}");
    }
    let error = database("protocol: postgres, uri: 'postgres://me:secret@db'").expect_err("a password");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn what_is_wrong_in_a_database_is_said_with_its_place() {
    for (spec, expected) in [
        ("uri: db", "spec has no \"protocol\"; add it"),
        (
            "protocol: mysql, uri: db",
            "spec.protocol \"mysql\": it is not a protocol of this version; it speaks postgres",
        ),
        ("protocol: postgres", "spec has no \"uri\""),
        (
            "protocol: postgres, uri: db, dynamic_labels: [{name: a, command: [id], period: 1m}]",
            "unknown key \"dynamic_labels\" in spec; commands run on the agent's machine",
        ),
        (
            "protocol: postgres, uri: db, admin_user: {name: x}",
            "field \"admin_user\" is not enforced",
        ),
        (
            "protocol: postgres, uri: db, tls: {mode: require}",
            "spec.tls.mode \"require\": it is not a mode",
        ),
        (
            "protocol: postgres, uri: db, tls: {ca_cert: /etc/ca.pem}",
            "holds no certificate in PEM",
        ),
        (
            "protocol: postgres, uri: db, tls: {trust_system_cert_pool: true}",
            "is not enforced",
        ),
    ] {
        let error = database(spec).expect_err(spec).to_string();
        assert!(
            error.starts_with("db \"orders\": ") && error.contains(expected),
            "{spec}\n gives {error}"
        );
    }
}

#[test]
fn a_matcher_asks_for_every_key_and_any_of_its_values() {
    let matches = |labels: &[(&str, &[&str])], asked: &str| {
        let labels = labels.iter().map(|(key, values)| {
            let values = values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
            ((*key).to_owned(), values)
        });
        let matcher = ResourceMatcher::new(&labels.collect()).expect("fine");
        matcher.matches(&Labels::parse(asked).expect("labels"))
    };
    assert!(matches(&[("*", &["*"])], ""));
    assert!(!matches(&[], "env=dev"), "no key matches nothing");
    assert!(matches(&[("env", &["dev", "stage-*"])], "env=stage-1,team=x"));
    assert!(!matches(&[("env", &["dev"]), ("team", &["y"])], "env=dev,team=x"));
    assert!(!matches(&[("env", &["*"])], "team=x"));
    assert!(matches(&[("env", &["^(dev|qa)$"])], "env=qa"));
}

#[test]
fn a_matcher_has_no_templates_and_no_half_wildcards() {
    let new =
        |key: &str, value: &str| ResourceMatcher::new(&BTreeMap::from([(key.to_owned(), vec![value.to_owned()])]));
    assert!(
        new("env", "{{internal.env}}")
            .expect_err("a template")
            .contains("there is no person here")
    );
    assert!(new("*", "dev").expect_err("half").contains("the one value \"*\" only"));
    assert!(new("env", "^($").is_err());
}
