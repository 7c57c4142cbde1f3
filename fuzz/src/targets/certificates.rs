//! Keys, requests and certificates that others send.

use super::is_a_sentence;
use postern::model::{ClusterName, Timestamp};
use postern::pki::{
    CaKind, CaPin, CertificateAuthority, CertificateFacts, PeerUsage, PersonClaims, PrivateKey, PublicKey,
    TrustAnchors, pem, summary, verify_host, verify_person,
};
use std::sync::OnceLock;

/// 2026-01-01.
const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

/// The bytes are a request, a certificate, a key or a PEM text. What is read is in the bytes; and nobody is let in by a certificate
/// that authorities made just now have not signed.
pub fn certificates(bytes: &[u8]) {
    match PublicKey::from_csr(bytes) {
        Ok(key) => {
            let spki = key.to_spki_der();
            assert!(
                bytes.windows(spki.len()).any(|part| part == spki),
                "a key that is not in the request"
            );
        }
        Err(error) => is_a_sentence(&error),
    }
    if let Ok(key) = PrivateKey::from_pkcs8_der(bytes) {
        let pem = key.to_pem().expect("PEM");
        let again = PrivateKey::from_pem(pem.expose()).expect("what was written");
        assert_eq!(again.public_key(), key.public_key());
    }
    certificate(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(error) = PrivateKey::from_pem(text)
    {
        is_a_sentence(&error);
    }
    match pem::certificates_from_pem(bytes, "the input") {
        Ok(chain) => {
            let written = pem::certificates_to_pem(&chain).expect("PEM");
            assert_eq!(
                pem::certificates_from_pem(written.as_bytes(), "the output").ok(),
                Some(chain.clone())
            );
            chain.iter().for_each(|one| certificate(one));
            admitted(&chain);
        }
        Err(error) => is_a_sentence(&error),
    }
}

fn certificate(der: &[u8]) {
    let one = der.to_vec().into();
    let facts = CertificateFacts::read(der);
    if let Err(error) = &facts {
        is_a_sentence(error);
    }
    match PersonClaims::read(&one) {
        Ok(claims) => {
            let facts = facts.as_ref().expect("a person's certificate is a certificate");
            assert_eq!(
                (&facts.public_key, facts.valid_until),
                (&claims.public_key, claims.valid_until)
            );
        }
        Err(error) => is_a_sentence(&error),
    }
    if let Err(error) = summary(&one) {
        is_a_sentence(&error);
    }
    if let Ok(pin) = CaPin::of(&one) {
        assert!(pin.matches(&one));
    }
    admitted(&[one]);
}

fn admitted(chain: &[rustls_pki_types::CertificateDer<'static>]) {
    static ANCHORS: OnceLock<TrustAnchors> = OnceLock::new();
    let anchors = ANCHORS.get_or_init(|| {
        let cluster = ClusterName::new("fuzzed").expect("a name");
        let authorities =
            CaKind::ALL.map(|kind| CertificateAuthority::generate(kind, &cluster, NOW).expect("an authority"));
        TrustAnchors::from_authorities(&authorities)
    });
    is_a_sentence(&verify_person(chain, anchors, NOW).expect_err("a person whom nobody vouches for"));
    for usage in [PeerUsage::Client, PeerUsage::Server] {
        is_a_sentence(&verify_host(chain, anchors, usage, NOW).expect_err("a node that nobody vouches for"));
    }
}
