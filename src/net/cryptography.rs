//! The cryptography under TLS: AWS-LC's, and for the records, with the keys that are derived for them, that of *ring* on processors where it
//! is much faster (decision 0026).

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use std::sync::Arc;

pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = cipher_suites(rings_aes_is_faster()).to_vec();
    Arc::new(provider)
}

/// The same suites in the same order, whosever.
fn cipher_suites(of_ring: bool) -> &'static [SupportedCipherSuite] {
    if of_ring {
        ring::DEFAULT_CIPHER_SUITES
    } else {
        aws_lc_rs::DEFAULT_CIPHER_SUITES
    }
}

/// An instruction of AWS-LC's encrypts four blocks of AES with AVX-512, and one elsewhere; one of *ring*'s two with AVX2. Processors with the
/// second and without the first are AMD's Zen 3, Intel's for desktops, and virtual machines that hide AVX-512.
fn rings_aes_is_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // What each of the two asks for before it takes that way: ring 0.17.14 (`aead/aes_gcm.rs`), aws-lc-sys 0.47 (`modes/gcm.c`).
        let wide = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
        let wider = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        wide && is_x86_feature_detected!("avx2") && !wider
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection};
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use std::io::{Read as _, Write as _};
    use std::ops::DerefMut;

    /// In one record, which rustls holds for its reader.
    const BYTES: usize = 10_000;

    #[test]
    fn what_is_offered_and_preferred_does_not_depend_on_the_processor() {
        let names = |of_ring| {
            cipher_suites(of_ring)
                .iter()
                .map(SupportedCipherSuite::suite)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(true), names(false));
    }

    #[test]
    fn the_suites_of_either_library_read_what_those_of_the_other_have_written() {
        let suite_of = |of_ring, name| {
            cipher_suites(of_ring)
                .iter()
                .copied()
                .find(|suite| suite.suite() == name)
        };
        for suite in cipher_suites(true) {
            let name = suite.suite();
            if format!("{name:?}").contains("ECDHE_RSA") {
                // The same functions as with ECDSA, and a key that rcgen does not make here.
                continue;
            }
            for client_has_rings in [true, false] {
                let (client, server) = (suite_of(client_has_rings, name), suite_of(!client_has_rings, name));
                talk(client.expect("the same suites"), server.expect("the same suites"));
            }
        }
    }

    /// A handshake, and bytes both ways.
    fn talk(client_has: SupportedCipherSuite, server_has: SupportedCipherSuite) {
        let with = |suite| {
            Arc::new(CryptoProvider {
                cipher_suites: vec![suite],
                ..aws_lc_rs::default_provider()
            })
        };
        let made = rcgen::generate_simple_self_signed(vec!["gate.example".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(with(client_has))
            .with_protocol_versions(&[client_has.version()])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(with(server_has))
            .with_protocol_versions(&[server_has.version()])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let name = ServerName::try_from("gate.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            carry(&mut client, &mut server);
            carry(&mut server, &mut client);
        }
        assert_eq!(
            client.negotiated_cipher_suite().map(|suite| suite.suite()),
            Some(server_has.suite())
        );
        for _ in 0..3 {
            assert_eq!(said(&mut client, &mut server), [7; BYTES]);
            assert_eq!(said(&mut server, &mut client), [7; BYTES]);
        }
    }

    fn said<A, B>(
        from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
        to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
    ) -> Vec<u8> {
        from.writer().write_all(&[7; BYTES]).unwrap();
        carry(from, to);
        let mut heard = vec![0; BYTES];
        to.reader().read_exact(&mut heard).unwrap();
        heard
    }

    fn carry<A, B>(
        from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
        to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
    ) {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            to.read_tls(&mut wire).unwrap();
            to.process_new_packets().unwrap();
        }
    }
}
