//! What a certificate says of itself, for lists that people read. Nothing here decides whether to believe it.

use super::error::CertificateError;
use super::profile::MAX_CERTIFICATE_BYTES;
use super::reading::timestamp;
use crate::model::Timestamp;
use data_encoding::HEXUPPER;
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// In upper-case hexadecimal digits, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// Of the key: `ECDSA P-256`; an object identifier for what this program does not make.
    pub algorithm: String,
    pub not_after: Timestamp,
}

/// Reads what a list shows of a certificate.
///
/// # Errors
/// [`CertificateError`] when it is too long or not X.509 in DER.
pub fn summary(certificate: &CertificateDer<'_>) -> Result<CertificateSummary, CertificateError> {
    if certificate.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::malformed(format!(
            "it is {} bytes long; at most {MAX_CERTIFICATE_BYTES} are read",
            certificate.len()
        )));
    }
    let read = Certificate::from_der(certificate)
        .map_err(|error| CertificateError::malformed(format!("it is not X.509 in DER ({error})")))?
        .tbs_certificate;
    // DER puts a zero before a number whose first bit is set.
    let serial = match read.serial_number.as_bytes() {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    Ok(CertificateSummary {
        serial: HEXUPPER.encode(serial),
        algorithm: algorithm(&read.subject_public_key_info),
        not_after: timestamp(read.validity.not_after),
    })
}

fn algorithm(key: &SubjectPublicKeyInfoOwned) -> String {
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .map(|any| any.decode_as::<ObjectIdentifier>());
    match (key.algorithm.oid, curve) {
        (EC_PUBLIC_KEY, Some(Ok(P256))) => "ECDSA P-256".to_owned(),
        (other, _) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClusterName;
    use crate::pki::{CaKind, CertificateAuthority};

    #[test]
    fn an_authority_is_listed_with_its_algorithm_its_serial_number_and_its_end() {
        let now = Timestamp::from_secs(1_700_000_000);
        let ca = CertificateAuthority::generate(CaKind::Host, &ClusterName::new("c.example").unwrap(), now).unwrap();
        let read = summary(ca.certificate()).unwrap();
        assert_eq!(read.algorithm, "ECDSA P-256");
        assert_eq!(read.not_after, ca.not_after());
        assert!(
            read.serial.len() >= 16 && !read.serial.starts_with("00"),
            "{}",
            read.serial
        );
        assert!(summary(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
