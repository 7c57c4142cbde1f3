//! Keys: ECDSA P-256 (FIPS 186-5), the one kind that every PostgreSQL and every client library takes.

use super::{PkiError, pem};
use crate::model::Secret;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::sync::Arc;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::request::CertReq;

/// An uncompressed point of P-256 (SEC 1, section 2.3.3): 0x04, x, y.
const POINT_BYTES: usize = 65;
/// A request with a P-256 key is about 250 bytes; with a long name and some attributes below 2 KiB.
pub const MAX_REQUEST_BYTES: usize = 4096;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A private key, with its PKCS#8 form (RFC 5958). `Debug` shows the public half only.
#[derive(Clone)]
pub struct PrivateKey {
    pkcs8: Secret<Vec<u8>>,
    signer: Arc<EcdsaKeyPair>,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    /// [`PkiError::Library`] when the library cannot.
    pub fn generate() -> Result<Self, PkiError> {
        let failed = |_| PkiError::Library { doing: "make a key" };
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        let document = pair.to_pkcs8v1().map_err(failed)?;
        Self::from_pkcs8_der(document.as_ref())
    }

    /// Reads PKCS#8 DER.
    ///
    /// # Errors
    /// [`PkiError::Key`] when it is anything but a P-256 key that agrees with its public half.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, PkiError> {
        let refused = |why: String| PkiError::Key { what: "the key", why };
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map_err(|e| refused(e.to_string()))?;
        let point = pair.public_key().as_ref();
        let point = <[u8; POINT_BYTES]>::try_from(point)
            .map_err(|_| refused(format!("its public half is {} bytes long", point.len())))?;
        Ok(Self {
            pkcs8: Secret::new(der.to_vec()),
            signer: Arc::new(pair),
            public: PublicKey(point),
        })
    }

    /// Reads the first `PRIVATE KEY` section of a PEM text.
    ///
    /// # Errors
    /// [`PkiError::Key`] when there is none or it is not a P-256 key.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|e| PkiError::Key {
            what: "the PEM text",
            why: pem::in_words(&e).to_owned(),
        })?;
        Self::from_pkcs8_der(key.secret_pkcs8_der())
    }

    /// The key as PEM, label `PRIVATE KEY`.
    ///
    /// # Errors
    /// [`PkiError::Library`] when the text cannot be made.
    pub fn to_pem(&self) -> Result<Secret<String>, PkiError> {
        pem::encode("PRIVATE KEY", self.pkcs8.expose()).map(Secret::new)
    }

    /// The key in the form that rustls takes. The copy is the caller's to keep secret.
    pub fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.expose().clone()))
    }

    pub fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    /// A certificate request (PKCS#10, RFC 2986) in DER, signed with this key. Whoever signs takes only the public key from
    /// it; the name is for the log.
    ///
    /// # Errors
    /// [`PkiError::Make`] when it cannot be signed.
    pub fn csr(&self, common_name: &str) -> Result<Vec<u8>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        Ok(params.serialize_request(self)?.der().to_vec())
    }

    pub(super) fn pkcs8(&self) -> &Secret<Vec<u8>> {
        &self.pkcs8
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signer
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RingUnspecified)
    }
}

/// A public key: an uncompressed point of P-256.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_BYTES]);

impl PublicKey {
    /// Takes the public key of a certificate request, and nothing else of it. The request's own signature must verify, so that
    /// whoever sent it is known to hold the private half (proof of possession, RFC 2986, section 3).
    ///
    /// # Errors
    /// [`PkiError::Request`] when it is too long, not PKCS#10 in DER, not P-256 with SHA-256, or wrongly signed.
    pub fn from_csr(der: &[u8]) -> Result<Self, PkiError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(refused(format!(
                "it is {} bytes long; at most {MAX_REQUEST_BYTES} are read",
                der.len()
            )));
        }
        let request = CertReq::from_der(der).map_err(not_pkcs10)?;
        let point = point_of(&request)?;
        if request.algorithm.oid != ECDSA_WITH_SHA256 || request.algorithm.parameters.is_some() {
            return Err(refused("it is not signed with ECDSA and SHA-256".to_owned()));
        }
        let signature = request
            .signature
            .as_bytes()
            .ok_or_else(|| refused("its signature is not whole bytes".to_owned()))?;
        // The bytes as they came: a signature is over those, not over what we would have written.
        let signed = signed_bytes(der).map_err(not_pkcs10)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(signed, signature)
            .map_err(|_| {
                refused(
                    "its signature is not by the key that it names; the sender does not hold the private key"
                        .to_owned(),
                )
            })?;
        Ok(Self(point))
    }

    /// The SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) in DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }
}

fn refused(why: String) -> PkiError {
    PkiError::Request { why }
}

fn not_pkcs10(error: x509_cert::der::Error) -> PkiError {
    refused(format!("it is not PKCS#10 in DER ({error})"))
}

fn point_of(request: &CertReq) -> Result<[u8; POINT_BYTES], PkiError> {
    let key = &request.info.public_key;
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(PRIME256V1) {
        return Err(refused(
            "its key is not ECDSA P-256, the only kind that is signed here".to_owned(),
        ));
    }
    key.subject_public_key
        .as_bytes()
        .and_then(|bytes| <[u8; POINT_BYTES]>::try_from(bytes).ok())
        .filter(|point| point[0] == 4)
        .ok_or_else(|| refused("its key is not an uncompressed point".to_owned()))
}

/// The first element of the outer SEQUENCE, header included.
fn signed_bytes(der: &[u8]) -> x509_cert::der::Result<&[u8]> {
    let outer = AnyRef::from_der(der)?;
    SliceReader::new(outer.value())?.tlv_bytes()
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(P-256 {})", data_encoding::HEXLOWER.encode(&self.0[1..9]))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
