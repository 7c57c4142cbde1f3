//! Each mode against certificates that are right, of somebody else, for another name, and stolen.

use super::*;
use crate::model::ClusterName;
use crate::model::clock::HeldClock;
use crate::pki::{CaKind, CertificateAuthority, DbServerProfile, HostName, PrivateKey};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesServerCert for Presents {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn authority(cluster: &str) -> CertificateAuthority {
    CertificateAuthority::generate(CaKind::Db, &ClusterName::new(cluster).expect("valid"), NOW).expect("made")
}

/// A server whose certificate is for `db.internal`; with `holds_key` it has that certificate's key.
fn server(of: &CertificateAuthority, holds_key: bool) -> Arc<ServerConfig> {
    let key = PrivateKey::generate().expect("made");
    let profile = DbServerProfile {
        names: vec![HostName::new("db.internal").expect("valid")],
    };
    let until = NOW + Duration::from_secs(3600);
    let certificate = of
        .issue_db_server(&profile, &key.public_key(), until, NOW)
        .expect("issued");
    let signs = if holds_key {
        key
    } else {
        PrivateKey::generate().expect("made")
    };
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&signs.to_rustls()).expect("a key");
    let certified = CertifiedKey::new(vec![certificate], signer);
    let config = ServerConfig::builder_with_provider(p256_first())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Presents(Arc::new(certified))));
    Arc::new(config)
}

/// The handshake of a client that trusts `trusted` with that server, in memory.
fn handshake(
    mode: DatabaseTlsMode,
    trusted: &CertificateAuthority,
    name: &str,
    server: Arc<ServerConfig>,
) -> Result<(), rustls::Error> {
    handshake_at(NOW, mode, trusted, name, server)
}

fn handshake_at(
    now: Timestamp,
    mode: DatabaseTlsMode,
    trusted: &CertificateAuthority,
    name: &str,
    server: Arc<ServerConfig>,
) -> Result<(), rustls::Error> {
    let trust = UpstreamTrust {
        mode,
        server_name: name.to_owned(),
        authorities: vec![trusted.certificate().clone()],
    };
    let clock: SharedClock = HeldClock::at(now);
    let client = UpstreamClient::anonymous(&trust, &clock).expect("a client");
    let mut client = ClientConnection::new(client.config, client.name).expect("a connection");
    let mut server = ServerConnection::new(server).expect("a connection");
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("memory");
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn each_mode_verifies_what_it_says_and_no_more() {
    use DatabaseTlsMode::{Insecure, VerifyCa, VerifyFull};
    let (ours, foreign) = (authority("ours"), authority("theirs"));
    let passes = |mode, name, of: &CertificateAuthority| {
        handshake(mode, &ours, name, server(of, true)).map_err(|e| e.to_string())
    };
    for mode in [VerifyFull, VerifyCa, Insecure] {
        assert_eq!(passes(mode, "db.internal", &ours), Ok(()), "{mode:?}");
    }
    assert!(passes(VerifyFull, "other.internal", &ours).is_err());
    assert_eq!(passes(VerifyCa, "other.internal", &ours), Ok(()));
    assert_eq!(passes(Insecure, "other.internal", &ours), Ok(()));
    assert!(passes(VerifyFull, "db.internal", &foreign).is_err());
    assert!(passes(VerifyCa, "db.internal", &foreign).is_err());
    assert_eq!(passes(Insecure, "db.internal", &foreign), Ok(()));
}

#[test]
fn a_server_that_does_not_hold_the_key_of_its_certificate_is_refused_in_every_mode() {
    let ours = authority("ours");
    for mode in [
        DatabaseTlsMode::VerifyFull,
        DatabaseTlsMode::VerifyCa,
        DatabaseTlsMode::Insecure,
    ] {
        let refused = handshake(mode, &ours, "db.internal", server(&ours, false));
        assert!(
            matches!(refused, Err(rustls::Error::InvalidCertificate(_))),
            "{mode:?}: {refused:?}"
        );
    }
}

#[test]
fn a_certificate_that_has_ended_is_refused_where_the_chain_is_verified() {
    let ours = authority("ours");
    let trust = UpstreamTrust {
        mode: DatabaseTlsMode::VerifyCa,
        server_name: "db.internal".to_owned(),
        authorities: vec![ours.certificate().clone()],
    };
    let verifier = Verifier::new(&trust, &p256_first()).expect("a verifier");
    let key = PrivateKey::generate().expect("made").public_key();
    let profile = DbServerProfile {
        names: vec![HostName::new("db.internal").expect("valid")],
    };
    let leaf = ours
        .issue_db_server(&profile, &key, NOW + Duration::from_secs(60), NOW)
        .expect("issued");
    let at = |secs: u64| {
        let name = ServerName::try_from("db.internal").expect("valid");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(secs));
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).map(drop)
    };
    assert_eq!(at(1_800_000_001), Ok(()));
    assert_eq!(
        at(1_800_000_100),
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Expired))
    );
}

#[test]
fn a_chain_that_was_good_is_asked_about_anew_for_another_name_authority_mode_or_time() {
    use DatabaseTlsMode::{VerifyCa, VerifyFull};
    let (ours, foreign) = (authority("ours"), authority("theirs"));
    let one = server(&ours, true);
    for _ in 0..2 {
        assert_eq!(handshake(VerifyFull, &ours, "db.internal", one.clone()), Ok(()));
        assert_eq!(handshake(VerifyCa, &ours, "other.internal", one.clone()), Ok(()));
    }
    assert!(handshake(VerifyFull, &ours, "other.internal", one.clone()).is_err());
    assert!(handshake(VerifyFull, &foreign, "db.internal", one.clone()).is_err());
    assert!(handshake(VerifyCa, &foreign, "db.internal", one.clone()).is_err());
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    for mode in [VerifyFull, VerifyCa] {
        for (outside, word) in [(NOW + hour + hour, "Expired"), (NOW - day, "NotValidYet")] {
            let refused = handshake_at(outside, mode, &ours, "db.internal", one.clone()).expect_err("not valid");
            assert!(format!("{refused:?}").contains(word), "{mode:?}: {refused:?}");
        }
        assert_eq!(
            handshake_at(NOW + hour, mode, &ours, "db.internal", one.clone()),
            Ok(())
        );
    }
}
