//! PostgreSQL unreachable, without TLS, with a certificate that is not trusted, or distrusting ours.

use crate::harness::cluster::Options;
use crate::harness::configuration::database;
use crate::harness::{Cluster, Form, Postgres, ServerError, TestDir, Wire, in_both_forms};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::TcpListener;
use std::path::PathBuf;

in_both_forms! {
    a_postgresql_that_cannot_be_used_is_told_to_the_client_with_its_cause,
}

/// An authority that the cluster does not know, and a certificate of its for localhost, as files `foreign.crt`, `.key`, `.cas`.
fn foreign_authority(directory: &TestDir) -> PathBuf {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    directory.write("foreign.cas", authority.pem());
    directory.write("foreign.key", key.serialize_pem());
    directory.write("foreign.crt", certificate.pem());
    directory.join("foreign")
}

fn a_postgresql_that_cannot_be_used_is_told_to_the_client_with_its_cause(form: Form) {
    let directory = TestDir::new();
    let foreign = foreign_authority(&directory);
    let without_tls = Postgres::start();
    let other = Postgres::start();
    other.use_tls(&foreign);
    other.admin("postgres", "create role app login");
    // Bound and never listening further: it accepts into its queue and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let silent_port = silent.local_addr().expect("bound").port();
    let trusting_foreign = format!("ca_cert_file: {}", foreign.with_extension("cas").display());
    let databases = [
        // Nothing listens on the port of tcpmux.
        database("unreachable", "127.0.0.1:1", ""),
        database("nameless", "no-such-host.invalid:5432", ""),
        database("silent", &format!("127.0.0.1:{silent_port}"), ""),
        database("without-tls", &format!("localhost:{}", without_tls.port), ""),
        database("untrusted", &format!("localhost:{}", other.port), ""),
        database("distrusting", &format!("localhost:{}", other.port), &trusting_foreign),
    ];
    let cluster = Cluster::start_with(
        form,
        Options {
            databases: databases.concat(),
            ..Options::default()
        },
    );
    let refusal = |service: &str, db_user: &str| -> ServerError {
        let client = cluster.client_for(service, "alice", db_user, "postgres");
        let error = Wire::connect(&client).map(drop).expect_err(service);
        eprintln!("{service}: {} {} (hint: {})", error.code, error.message, error.hint);
        assert_eq!(error.severity, "FATAL", "{service}: {error:?}");
        error
    };
    let expected: [(&str, &str, &[&str]); 6] = [
        ("unreachable", "08001", &["127.0.0.1:1"]),
        ("nameless", "08001", &["no-such-host.invalid"]),
        ("silent", "08001", &["127.0.0.1"]),
        ("without-tls", "08001", &["TLS", "ssl"]),
        ("untrusted", "08001", &["certificate"]),
        ("distrusting", "28000", &["certificate"]),
    ];
    for (service, code, words) in expected {
        let error = refusal(service, "app");
        assert_eq!(error.code, code, "{service}: {error:?}");
        for word in words {
            assert!(error.words().contains(word), "{service}: {word:?} is not in {error:?}");
        }
        assert!(
            !error.hint.is_empty() || error.message.contains(';'),
            "{service}: the next step is said: {error:?}"
        );
        let event = cluster.audited("alice", "TDB00W", |event| event["db_service"] == service);
        assert!(event["error"].as_str().is_some_and(|text| !text.is_empty()), "{event}");
    }
    // PostgreSQL's own refusal passes as it is.
    let error = refusal("orders", "unwelcome");
    assert_eq!(error.code, "28000", "{error:?}");
    assert!(error.message.contains("pg_hba.conf"), "{error:?}");
    // And the usual database is served all the while.
    cluster.client("alice", "app", "app").psql("select 1").ok();
}
