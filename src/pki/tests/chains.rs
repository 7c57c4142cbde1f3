//! What is refused: the wrong kind, the wrong time, the wrong cluster, the wrong signer.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use std::sync::Arc;

fn outcomes(leaf: &CertificateDer<'static>, anchors: &TrustAnchors) -> [(CaKind, Result<(), CertificateError>); 4] {
    let chain = std::slice::from_ref(leaf);
    let host = |usage| verify_host(chain, anchors, usage, NOW).map(|_| ());
    [
        (CaKind::User, verify_person(chain, anchors, NOW).map(|_| ())),
        (CaKind::Host, host(PeerUsage::Client)),
        (CaKind::Host, host(PeerUsage::Server)),
        (CaKind::Db, verify_db_server(chain, &anchors.db, None, NOW)),
    ]
}

/// A certificate of the right name, made outside of `issue` with the key of `signer`.
fn forged(signer: &Issuer<'_, &PrivateKey>, edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    use profile::Profile;
    let cluster = ClusterName::new("example.com").unwrap();
    let mut params = person().params(&cluster).unwrap();
    profile::set_validity(&mut params, NOW, NOW + HOUR).unwrap();
    edit(&mut params);
    params.signed_by(&key(), signer).unwrap().der().clone()
}

fn authority_named(kind: CaKind) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, profile::authority_common_name(kind));
    params.distinguished_name.push(DnType::OrganizationName, "example.com");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[test]
fn a_certificate_passes_the_check_of_its_own_kind_only() {
    let cluster = Cluster::named("example.com");
    for kind in CaKind::ALL {
        for (checked_as, outcome) in outcomes(&cluster.leaf(kind), &cluster.anchors) {
            assert_eq!(
                outcome.is_ok(),
                kind == checked_as,
                "{kind} as {checked_as}: {outcome:?}"
            );
            if kind != checked_as && checked_as != CaKind::Db {
                let expected = CertificateError::WrongUsage {
                    expected: checked_as.signs(),
                    found: kind.signs().to_owned(),
                };
                assert_eq!(outcome, Err(expected));
            }
        }
    }
}

#[test]
fn a_ca_put_among_the_anchors_of_another_kind_does_not_make_its_certificates_pass() {
    let cluster = Cluster::named("example.com");
    for kind in CaKind::ALL {
        let ca = cluster.ca(kind).certificate();
        let mixed = TrustAnchors {
            user: vec![ca.clone()],
            host: vec![ca.clone()],
            ..TrustAnchors::default()
        };
        for (checked_as, outcome) in outcomes(&cluster.leaf(kind), &mixed) {
            assert_eq!(
                outcome.is_ok(),
                kind == checked_as && kind != CaKind::Db,
                "{kind} as {checked_as}"
            );
        }
    }
}

#[test]
fn no_certificate_at_all_is_told_apart() {
    let anchors = TrustAnchors::default();
    assert_eq!(verify_person(&[], &anchors, NOW), Err(CertificateError::Missing));
    assert_eq!(chains_to_user_ca(&[], &anchors), Err(CertificateError::Missing));
    assert_eq!(verify_db_server(&[], &[], None, NOW), Err(CertificateError::Missing));
}

#[test]
fn dates_are_told_and_the_tls_layer_lets_them_through() {
    let cluster = Cluster::named("example.com");
    let second = Duration::from_secs(1);
    let person = [cluster.leaf(CaKind::User)];
    let node = [cluster.leaf(CaKind::Host)];
    let server = [cluster.leaf(CaKind::Db)];
    let end = NOW + HOUR;
    let begin = NOW - profile::CLOCK_SKEW;
    for (at, expected) in [
        (begin - second, Some(CertificateError::NotYetValid { from: begin })),
        (begin, None),
        (end, None),
        (end + second, Some(CertificateError::Expired { at: end })),
    ] {
        let anchors = &cluster.anchors;
        assert_eq!(verify_person(&person, anchors, at).err(), expected);
        assert_eq!(verify_host(&node, anchors, PeerUsage::Server, at).err(), expected);
        assert_eq!(verify_db_server(&server, &anchors.db, None, at).err(), expected);
    }
    assert_eq!(chains_to_user_ca(&person, &cluster.anchors), Ok(()));
    let sentence = CertificateError::Expired { at: end }.to_string();
    assert_eq!(sentence, "the certificate expired at 2027-01-15T09:00:00.000Z");
}

#[test]
fn a_certificate_that_was_good_is_refused_under_other_anchors_with_another_chain_and_after_its_end() {
    let (cluster, other) = (Cluster::named("example.com"), Cluster::named("example.com"));
    let person = [cluster.leaf(CaKind::User)];
    for _ in 0..2 {
        verify_person(&person, &cluster.anchors, NOW).expect("good");
    }
    assert!(verify_person(&person, &other.anchors, NOW).is_err());
    assert!(verify_person(&person, &TrustAnchors::default(), NOW).is_err());
    assert!(verify_host(&person, &cluster.anchors, PeerUsage::Client, NOW).is_err());
    let with_another_ca = [person[0].clone(), other.ca(CaKind::User).certificate().clone()];
    assert!(verify_person(&with_another_ca, &cluster.anchors, NOW).is_err());
    let ended = verify_person(&person, &cluster.anchors, NOW + HOUR + HOUR);
    assert!(matches!(ended, Err(CertificateError::Expired { .. })), "{ended:?}");
    verify_person(&person, &cluster.anchors, NOW).expect("still good");
}

#[test]
fn the_tls_layer_lets_a_wrong_usage_through_and_no_other_ca() {
    let cluster = Cluster::named("example.com");
    let odd = forged(&cluster.ca(CaKind::User).issuer(), |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let chain = [odd];
    assert_eq!(chains_to_user_ca(&chain, &cluster.anchors), Ok(()));
    assert!(matches!(
        verify_person(&chain, &cluster.anchors, NOW),
        Err(CertificateError::WrongUsage { found, .. }) if found == "one for servers only"
    ));
    for kind in [CaKind::Host, CaKind::Db, CaKind::DbClient] {
        assert!(
            chains_to_user_ca(&[cluster.leaf(kind)], &cluster.anchors).is_err(),
            "{kind}"
        );
    }
}

#[test]
fn a_certificate_without_any_extended_key_usage_is_refused() {
    let cluster = Cluster::named("example.com");
    let open = forged(&cluster.ca(CaKind::User).issuer(), |params| {
        params.extended_key_usages.clear()
    });
    assert!(matches!(
        verify_person(&[open], &cluster.anchors, NOW),
        Err(CertificateError::WrongUsage { .. })
    ));
}

#[test]
fn another_cluster_is_refused_by_name_or_by_key() {
    let ours = Cluster::named("example.com");
    let theirs = Cluster::named("elsewhere");
    let expected = CertificateError::OtherCluster {
        found: "elsewhere".to_owned(),
    };
    let person = [theirs.leaf(CaKind::User)];
    assert_eq!(verify_person(&person, &ours.anchors, NOW), Err(expected.clone()));
    let node = [theirs.leaf(CaKind::Host)];
    let outcome = verify_host(&node, &ours.anchors, PeerUsage::Client, NOW);
    assert_eq!(outcome, Err(expected.clone()));
    let namesake = [Cluster::named("example.com").leaf(CaKind::User)];
    let outcome = verify_person(&namesake, &ours.anchors, NOW);
    assert!(
        matches!(outcome, Err(CertificateError::Untrusted { .. })),
        "{outcome:?}"
    );
    // Signed by a CA that is trusted, and yet it says that it belongs elsewhere.
    let mut both = ours.anchors.clone();
    both.user.push(theirs.ca(CaKind::User).certificate().clone());
    let claims = [forged(&theirs.ca(CaKind::User).issuer(), |_| ())];
    let outcome = verify_person(&claims, &both, NOW);
    assert!(
        matches!(outcome, Err(CertificateError::OtherCluster { .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_certificate_signed_by_itself_is_refused() {
    let cluster = Cluster::named("example.com");
    let own = PrivateKey::generate().unwrap();
    let mut plain = authority_named(CaKind::User);
    plain.is_ca = IsCa::NoCa;
    for named in [authority_named(CaKind::User), plain] {
        let chain = [named.self_signed(&own).unwrap().der().clone()];
        for (_, outcome) in outcomes(&chain[0], &cluster.anchors) {
            assert!(outcome.is_err());
        }
    }
    let ca = [cluster.ca(CaKind::User).certificate().clone()];
    assert!(matches!(
        verify_person(&ca, &cluster.anchors, NOW),
        Err(CertificateError::WrongUsage { found, .. }) if found == "the certificate of a CA"
    ));
}

#[test]
fn no_byte_of_a_certificate_can_be_changed() {
    let cluster = Cluster::named("example.com");
    let leaf = cluster.leaf(CaKind::User);
    for at in 0..leaf.len() {
        let mut changed = leaf.to_vec();
        changed[at] ^= 1;
        let chain = [CertificateDer::from(changed)];
        assert!(verify_person(&chain, &cluster.anchors, NOW).is_err(), "byte {at}");
        assert!(chains_to_user_ca(&chain, &cluster.anchors).is_err(), "byte {at}");
    }
}

#[test]
fn our_own_ca_may_follow_and_nothing_else_may() {
    let cluster = Cluster::named("example.com");
    let leaf = cluster.leaf(CaKind::User);
    let ca = |kind| cluster.ca(kind).certificate().clone();
    let with_ca = [leaf.clone(), ca(CaKind::User)];
    assert!(verify_person(&with_ca, &cluster.anchors, NOW).is_ok());
    for chain in [
        vec![leaf.clone(), ca(CaKind::Host)],
        vec![leaf.clone(), leaf.clone()],
        vec![leaf.clone(), ca(CaKind::User), ca(CaKind::User)],
    ] {
        let outcome = verify_person(&chain, &cluster.anchors, NOW);
        assert!(
            matches!(outcome, Err(CertificateError::Untrusted { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn an_intermediate_or_cross_signed_ca_opens_no_way_in() {
    let cluster = Cluster::named("example.com");
    let (stolen, root) = (PrivateKey::generate().unwrap(), cluster.ca(CaKind::User));
    let public = stolen.public_key();
    // A CA below ours, one of the same name below ours, and one of our user CA's name that the host CA signed.
    let mut below = authority_named(CaKind::User);
    below.distinguished_name.push(DnType::CommonName, "below");
    for (params, signer) in [
        (below, root),
        (authority_named(CaKind::User), root),
        (authority_named(CaKind::User), cluster.ca(CaKind::Host)),
    ] {
        let middle = params.signed_by(&public, &signer.issuer()).unwrap().der().clone();
        let leaf = forged(&Issuer::new(params, &stolen), |_| ());
        for chain in [
            vec![leaf.clone()],
            vec![leaf.clone(), middle.clone()],
            vec![leaf.clone(), middle, signer.certificate().clone()],
            vec![leaf, signer.certificate().clone()],
        ] {
            let outcome = verify_person(&chain, &cluster.anchors, NOW);
            assert!(
                matches!(outcome, Err(CertificateError::Untrusted { .. })),
                "{outcome:?}"
            );
            assert!(chains_to_user_ca(&chain, &cluster.anchors).is_err());
        }
    }
}

#[test]
fn during_a_rotation_the_old_and_the_new_ca_both_count() {
    let (old, new) = (Cluster::named("example.com"), Cluster::named("example.com"));
    let mut anchors = old.anchors.clone();
    anchors.user.extend(new.anchors.user.clone());
    for cluster in [&old, &new] {
        assert!(verify_person(&[cluster.leaf(CaKind::User)], &anchors, NOW).is_ok());
    }
}

#[test]
fn a_database_server_must_have_the_name_that_was_dialled() {
    let cluster = Cluster::named("example.com");
    let chain = [cluster.leaf(CaKind::Db)];
    let check = |name| verify_db_server(&chain, &cluster.anchors.db, Some(name), NOW);
    for name in ["pg.example.com", "PG.example.com", "10.0.0.8", "a.pg.example.com"] {
        assert_eq!(check(name), Ok(()), "{name}");
    }
    for name in ["other.example.com", "10.0.0.9", "a.b.pg.example.com", "", "not a name"] {
        assert!(matches!(check(name), Err(CertificateError::WrongName { .. })), "{name}");
    }
    assert_eq!(
        check("other.example.com").unwrap_err().to_string(),
        "the certificate is for pg.example.com, 10.0.0.8, *.pg.example.com, not for other.example.com; \
         a name counts only as a subject alternative name"
    );
    assert!(verify_db_server(&chain, &[], None, NOW).is_err(), "no roots");
}

#[test]
fn a_database_may_have_an_intermediate_of_its_own_pki() {
    let (root_key, key) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "their root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut middle = root.clone();
    middle.distinguished_name.push(DnType::CommonName, "their intermediate");
    let root_der = root.self_signed(&root_key).unwrap().der().clone();
    let issuer = Issuer::new(root, &root_key);
    let middle_der = middle.signed_by(&key.public_key(), &issuer).unwrap().der().clone();
    let leaf = CertificateParams::new(vec!["pg".to_owned()]).unwrap();
    let leaf = leaf
        .signed_by(&super::key(), &Issuer::new(middle, &key))
        .unwrap()
        .der()
        .clone();
    let chain = [leaf, middle_der];
    let roots = [root_der];
    assert_eq!(verify_db_server(&chain, &roots, Some("pg"), NOW), Ok(()));
    assert!(verify_db_server(&chain[..1], &roots, None, NOW).is_err());
}

#[test]
fn a_stolen_certificate_of_a_postgresql_a_person_or_a_node_logs_in_at_no_postgresql() {
    // PostgreSQL checks clients against the one authority of its `ssl_ca_file`, as this verifier does.
    let cluster = Cluster::named("example.com");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cluster.ca(CaKind::DbClient).certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs().try_into().unwrap()));
    for kind in CaKind::ALL {
        let beside = [cluster.ca(kind).certificate().clone()];
        let outcome = verifier.verify_client_cert(&cluster.leaf(kind), &beside, now);
        assert_eq!(outcome.is_ok(), kind == CaKind::DbClient, "{kind}: {outcome:?}");
    }
}
