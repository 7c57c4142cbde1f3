//! CA pins: the short text by which a new node knows the right cluster.

use super::PkiError;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::str::FromStr;
use webpki::EndEntityCert;

const PREFIX: &str = "sha256:";

/// `sha256:` and the SHA-256 of the certificate's SubjectPublicKeyInfo DER in lowercase hex. It names the key, not the
/// certificate: a certificate made anew for the same key has the same pin.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaPin([u8; SHA256_OUTPUT_LEN]);

impl CaPin {
    /// The pin of a certificate.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when it is not an X.509 certificate in DER.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let read = EndEntityCert::try_from(certificate).map_err(|e| PkiError::Certificate {
            what: "the certificate to pin".to_owned(),
            why: e.to_string(),
        })?;
        let hash = digest(&SHA256, &read.subject_public_key_info());
        let mut pin = [0; SHA256_OUTPUT_LEN];
        pin.copy_from_slice(hash.as_ref());
        Ok(Self(pin))
    }

    /// Whether the certificate holds the pinned key; compared in constant time. What is no certificate does not.
    pub fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        Self::of(certificate).is_ok_and(|of| verify_slices_are_equal(&of.0, &self.0).is_ok())
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CaPin {
    type Err = PkiError;

    /// Digits in upper case are taken too, as other tools print them so.
    fn from_str(text: &str) -> Result<Self, PkiError> {
        let text = text.trim();
        let refused = |why| PkiError::Pin {
            text: text.chars().take(100).collect(),
            why,
        };
        let digits = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| refused("it does not begin with sha256:"))?;
        if digits.len() != 2 * SHA256_OUTPUT_LEN {
            return Err(refused("it does not have 64 digits"));
        }
        let bytes = HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_| refused("not every digit is hexadecimal"))?;
        <[u8; SHA256_OUTPUT_LEN]>::try_from(bytes)
            .map(Self)
            .map_err(|_| refused("it does not have 64 digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::pem::certificates_from_pem;

    /// Made with `openssl req -x509`.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBrTCCAVOgAwIBAgIUOmR6swZciZw8txPvbqhPFZj7WaAwCgYIKoZIzj0EAwIw
LDEYMBYGA1UEAwwPUG9zdGVybiBob3N0IENBMRAwDgYDVQQKDAdleGFtcGxlMB4X
DTI2MTEyMjEyMzM0NVoXDTM2MTExOTEyMzM0NVowLDEYMBYGA1UEAwwPUG9zdGVy
biBob3N0IENBMRAwDgYDVQQKDAdleGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEkU6lcdyHbt5Ks19v5bVek2f4Ie5CJtwAR3FwPDlHX4xC4D2VZ5ONBUi9
DHThEtiFHJ8o1gQBcJey/ULMnga5vKNTMFEwHQYDVR0OBBYEFBAK9ADgWiyNApJJ
xcpoFmuSKfKGMB8GA1UdIwQYMBaAFBAK9ADgWiyNApJJxcpoFmuSKfKGMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAKCzilULk8PrZnHq4j20H/8b
FDMqmHi10YXPrrGvc+9QAiAgXbyX1Fc8j3sgGeLXDWfpXtA8pMFfmT+FqhPbhsWo
jg==
-----END CERTIFICATE-----
";
    /// `openssl x509 -pubkey | openssl pkey -pubin -outform der | sha256sum`
    const PIN: &str = "sha256:8f358b327aff75a2ea8494d1689ef8ea904139d9b1ebe44cede0ca301e64bdbe";

    fn certificate() -> CertificateDer<'static> {
        certificates_from_pem(CERTIFICATE.as_bytes(), "test").unwrap().remove(0)
    }

    #[test]
    fn the_pin_is_what_openssl_computes_from_the_public_key() {
        let pin = CaPin::of(&certificate()).unwrap();
        assert_eq!(pin.to_string(), PIN);
        assert_eq!(PIN.parse::<CaPin>().unwrap(), pin);
        assert!(pin.matches(&certificate()));
    }

    #[test]
    fn another_key_does_not_match() {
        let mut other = CaPin::of(&certificate()).unwrap();
        other.0[31] ^= 1;
        assert!(!other.matches(&certificate()));
        assert!(!other.matches(&CertificateDer::from(vec![1, 2, 3])));
    }

    #[test]
    fn a_text_that_is_no_pin_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "begin with sha256:"),
            ("sha1:00", "begin with sha256:"),
            ("sha256:00", "64 digits"),
            (&format!("sha256:{}", "g".repeat(64)), "hexadecimal"),
        ] {
            let refused = text.parse::<CaPin>().expect_err(text).to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let upper = format!("sha256:{}", PIN[7..].to_uppercase());
        assert_eq!(upper.parse::<CaPin>().unwrap().to_string(), PIN);
    }
}
