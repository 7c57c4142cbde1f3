//! What is put into a certificate comes out of it, and what must not be put in is refused.

use super::*;
use x509_cert::der::{Decode, Encode};

fn issued(cluster: &Cluster, profile: &PersonProfile) -> CertificateDer<'static> {
    cluster
        .ca(CaKind::User)
        .issue_person(profile, &key(), NOW + HOUR, NOW)
        .unwrap()
}

#[test]
fn a_person_is_read_back_as_issued() {
    let cluster = Cluster::named("example.com");
    let bare = PersonProfile {
        roles: vec![],
        traits: Traits::new(),
        mfa: false,
        route: None,
        pinned_ip: None,
        ..person()
    };
    for profile in [person(), bare] {
        let chain = [issued(&cluster, &profile)];
        let read = verify_person(&chain, &cluster.anchors, NOW).unwrap();
        assert_eq!(read.name, profile.name);
        assert_eq!(read.cluster.as_str(), "example.com");
        assert_eq!(read.roles, profile.roles);
        assert_eq!(read.traits, profile.traits);
        assert_eq!(read.mfa, profile.mfa);
        assert_eq!(read.route, profile.route);
        assert_eq!(read.pinned_ip, profile.pinned_ip);
        assert_eq!(read.valid_until, NOW + HOUR);
    }
}

#[test]
fn names_with_odd_characters_survive() {
    let cluster = Cluster::named("example.com");
    for name in ["a,b", "CN=x,O=y", "søren+tag@exämple.org", "李", "#1;<>=", "a\u{301}"] {
        let profile = PersonProfile {
            name: PersonName::new(name).unwrap(),
            traits: Traits::from([("\"k,\\".to_owned(), vec!["v\n\u{0}'".to_owned(), String::new()])]),
            route: Some(Route {
                service: ServiceName::new("example").unwrap(),
                db_user: Some(DbUser::new(r#"o'brien "x", y"#).unwrap()),
                db_name: Some(DbName::new("Bücher / 日本").unwrap()),
            }),
            ..person()
        };
        let read = verify_person(&[issued(&cluster, &profile)], &cluster.anchors, NOW).unwrap();
        assert_eq!(read.name, profile.name);
        assert_eq!(read.traits, profile.traits);
        assert_eq!(read.route, profile.route);
    }
}

#[test]
fn a_node_is_read_back_as_issued_on_both_sides_of_a_handshake() {
    let cluster = Cluster::named("example.com");
    let chain = [cluster.leaf(CaKind::Host)];
    for usage in [PeerUsage::Client, PeerUsage::Server] {
        let read = verify_host(&chain, &cluster.anchors, usage, NOW).unwrap();
        assert_eq!(read.node_id, host().node_id);
        assert_eq!(read.node_name, host().node_name);
        assert_eq!(read.cluster.as_str(), "example.com");
        assert_eq!(read.kinds, [NodeKind::Auth, NodeKind::Proxy]);
        assert_eq!(read.valid_until, NOW + HOUR);
    }
}

#[test]
fn a_node_has_a_name_for_its_id_and_for_each_of_its_kinds() {
    let cluster = Cluster::named("example.com");
    let leaf = cluster.leaf(CaKind::Host);
    let read = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let names: Vec<_> = read.valid_dns_names().collect();
    assert_eq!(
        names,
        [
            profile::node_dns_name(host().node_id).as_str(),
            "auth.kind.postern.internal",
            "proxy.kind.postern.internal",
            "db1.example.com",
            "proxy.example.com",
        ]
    );
}

#[test]
fn a_node_cannot_take_the_name_of_another_or_be_of_no_kind() {
    let cluster = Cluster::named("example.com");
    let refused = |profile: &HostProfile| {
        let ca = cluster.ca(CaKind::Host);
        ca.issue_host(profile, &key(), NOW + HOUR, NOW)
            .expect_err("refused")
            .to_string()
    };
    let named = HostProfile {
        node_name: NodeName::new("AUTH.kind.postern.internal.").unwrap(),
        ..host()
    };
    assert!(refused(&named).contains("postern.internal"));
    let idle = HostProfile {
        kinds: vec![],
        ..host()
    };
    assert!(refused(&idle).contains("at least one of auth, proxy and db"));
    let many = HostProfile {
        names: vec![HostName::new("a.example").unwrap(); profile::MAX_HOST_NAMES + 1],
        ..host()
    };
    assert!(refused(&many).contains("more than 32"));
}

#[test]
fn a_node_name_that_is_no_dns_name_does_not_spoil_the_others() {
    let cluster = Cluster::named("example.com");
    let profile = HostProfile {
        node_name: NodeName::new("-a..b").unwrap(),
        ..host()
    };
    let leaf = cluster
        .ca(CaKind::Host)
        .issue_host(&profile, &key(), NOW + HOUR, NOW)
        .unwrap();
    let read = verify_host(&[leaf], &cluster.anchors, PeerUsage::Server, NOW).unwrap();
    assert_eq!(read.node_name, profile.node_name);
}

#[test]
fn every_ca_refuses_what_is_not_its_own() {
    let cluster = Cluster::named("example.com");
    let (key, end) = (key(), NOW + HOUR);
    for ca in &cluster.authorities {
        let attempts = [
            (CaKind::User, ca.issue_person(&person(), &key, end, NOW)),
            (CaKind::Host, ca.issue_host(&host(), &key, end, NOW)),
            (CaKind::Db, ca.issue_db_server(&db_server(), &key, end, NOW)),
            (CaKind::DbClient, ca.issue_db_client(&db_client(), &key, end, NOW)),
        ];
        for (kind, outcome) in attempts {
            match outcome {
                Ok(_) => assert_eq!(kind, ca.kind()),
                Err(PkiError::WrongAuthority { authority, right, .. }) => {
                    assert_eq!((authority, right), (ca.kind(), kind));
                    assert_ne!(authority, right);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn an_end_in_the_past_or_after_the_ca_is_refused() {
    let cluster = Cluster::named("example.com");
    let ca = cluster.ca(CaKind::User);
    let end = |at| ca.issue_person(&person(), &key(), at, NOW);
    assert!(matches!(end(NOW), Err(PkiError::EndsBeforeItBegins { .. })));
    assert!(matches!(
        end(NOW + ca::CA_LIFETIME + HOUR),
        Err(PkiError::OutlivesAuthority { .. })
    ));
    assert!(end(ca.not_after()).is_ok());
}

#[test]
fn a_certificate_that_nobody_would_read_is_not_made() {
    let cluster = Cluster::named("example.com");
    let profile = PersonProfile {
        traits: Traits::from([("k".to_owned(), vec!["v".repeat(profile::MAX_CERTIFICATE_BYTES)])]),
        ..person()
    };
    let refused = cluster.ca(CaKind::User).issue_person(&profile, &key(), NOW + HOUR, NOW);
    assert!(
        refused
            .expect_err("too long")
            .to_string()
            .contains("fewer roles or shorter traits")
    );
}

#[test]
fn a_leaf_names_its_ca_byte_for_byte_and_by_key_also_after_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let seal = SealKey::load_or_create(&dir.path().join("seal.key")).unwrap();
    let cluster = Cluster::named("example.com");
    for ca in &cluster.authorities {
        let kept = CertificateAuthority::from_record(&ca.to_record(&seal).unwrap(), &seal).unwrap();
        let again = Cluster {
            authorities: vec![kept],
            anchors: TrustAnchors::default(),
        };
        let leaf = x509_cert::Certificate::from_der(&again.leaf(ca.kind())).unwrap();
        let root = x509_cert::Certificate::from_der(ca.certificate()).unwrap();
        let (leaf, root) = (leaf.tbs_certificate, root.tbs_certificate);
        assert_eq!(leaf.issuer.to_der().unwrap(), root.subject.to_der().unwrap());
        let (_, authority) = leaf
            .get::<x509_cert::ext::pkix::AuthorityKeyIdentifier>()
            .unwrap()
            .unwrap();
        let (_, own) = root
            .get::<x509_cert::ext::pkix::SubjectKeyIdentifier>()
            .unwrap()
            .unwrap();
        assert_eq!(authority.key_identifier.unwrap().as_bytes(), own.0.as_bytes());
    }
}
