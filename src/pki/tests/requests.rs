//! Certificate requests and private keys.

use super::*;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

fn refused(request: &[u8]) -> String {
    PublicKey::from_csr(request).expect_err("refused").to_string()
}

#[test]
fn a_request_gives_the_key_that_signed_it() {
    let key = PrivateKey::generate().unwrap();
    let request = key.csr("ünï, \"code\"").unwrap();
    assert_eq!(PublicKey::from_csr(&request).unwrap(), key.public_key());
}

#[test]
fn a_request_that_is_not_signed_by_its_own_key_is_refused() {
    let key = PrivateKey::generate().unwrap();
    let request = key.csr("test").unwrap();
    let at = request.windows(4).position(|w| w == b"test").unwrap();
    let mut renamed = request.clone();
    renamed[at] = b'b';
    assert!(refused(&renamed).contains("does not hold the private key"));
    let other = PrivateKey::generate().unwrap();
    let (ours, theirs) = (key.public_key().to_spki_der(), other.public_key().to_spki_der());
    let at = request.windows(ours.len()).position(|w| w == ours).unwrap();
    let mut stolen = request.clone();
    stolen[at..at + ours.len()].copy_from_slice(&theirs);
    assert!(refused(&stolen).contains("does not hold the private key"));
}

#[test]
fn no_bit_of_a_request_can_be_changed() {
    let request = PrivateKey::generate().unwrap().csr("test").unwrap();
    for at in 0..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 1;
        assert!(PublicKey::from_csr(&changed).is_err(), "byte {at}");
    }
    assert!(PublicKey::from_csr(&request[..request.len() - 1]).is_err());
    assert!(PublicKey::from_csr(&[request.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn only_p256_is_signed() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert!(refused(request.der()).contains("not ECDSA P-256"));
        assert!(PrivateKey::from_pkcs8_der(key.serialized_der()).is_err());
    }
}

#[test]
fn a_request_is_of_bounded_size() {
    let request = PrivateKey::generate()
        .unwrap()
        .csr(&"x".repeat(key::MAX_REQUEST_BYTES))
        .unwrap();
    assert!(refused(&request).contains("at most 4096"));
}

#[test]
fn a_private_key_survives_pem_and_is_never_shown() {
    let key = PrivateKey::generate().unwrap();
    let pem = key.to_pem().unwrap();
    assert!(pem.expose().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let read = PrivateKey::from_pem(pem.expose()).unwrap();
    assert_eq!(read.public_key(), key.public_key());
    assert_eq!(read.to_rustls().secret_der(), key.to_rustls().secret_der());
    assert_eq!(format!("{pem:?}"), "[redacted]");
    let shown = format!("{key:?}");
    assert!(shown.starts_with("PrivateKey { public: PublicKey(P-256 "), "{shown}");
    assert!(shown.len() < 100, "{shown}");
    assert!(PrivateKey::from_pem("no key").is_err());
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(PublicKey::from_csr(&bytes).is_err());
        let chain = [CertificateDer::from(bytes)];
        prop_assert!(verify_person(&chain, &TrustAnchors::default(), NOW).is_err());
        prop_assert!(verify_db_server(&chain, &chain, None, NOW).is_err());
    }
}
