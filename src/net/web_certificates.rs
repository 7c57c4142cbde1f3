//! The certificates that a proxy presents to people: those of its configuration, by the name that the client asks for, and
//! where there are none, the one of the cluster's own host authority.

use super::cryptography::provider;
use super::tls::Credentials;
use crate::config::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A chain of certificates is a few KiB; what is longer is another file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum WebCertificateError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} has more than {FILE_BYTES_MAX} bytes; a certificate chain is a few thousand", path.display())]
    TooLong { path: PathBuf },
    #[error("{}: no certificate in PEM is in it", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: no unencrypted private key in PEM is in it", path.display())]
    NoKey { path: PathBuf },
    #[error("{} and {}: {error}", pair.cert_file.display(), pair.key_file.display())]
    Pair { pair: Box<KeyPair>, error: rustls::Error },
}

/// What is presented now. Clones share it, so that files that were replaced are taken over while the proxy runs.
#[derive(Debug, Clone, Default)]
pub struct WebCertificates(Arc<RwLock<Vec<Arc<CertifiedKey>>>>);

impl WebCertificates {
    /// Reads all pairs, and takes them over only where every one is sound.
    ///
    /// # Errors
    /// A file cannot be read, holds no certificate or key, or the two do not belong together.
    pub fn load(&self, pairs: &[KeyPair]) -> Result<(), WebCertificateError> {
        let provider = provider();
        let loaded = pairs
            .iter()
            .map(|pair| read(pair, &provider))
            .collect::<Result<_, _>>()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// The one for the name that the client asks for; the first where none fits, or it asks for none.
    fn pick(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let fitting = name.and_then(|name| known.iter().find(|pair| is_for(pair, &name)));
        fitting.or(known.first()).cloned()
    }
}

fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = pair.end_entity_cert().ok();
    let certificate = certificate.and_then(|der| webpki::EndEntityCert::try_from(der).ok());
    certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
}

fn read(pair: &KeyPair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, WebCertificateError> {
    let path = &pair.cert_file;
    let chain = CertificateDer::pem_slice_iter(&read_file(path)?)
        .collect::<Result<Vec<_>, _>>()
        .unwrap_or_default();
    if chain.is_empty() {
        return Err(WebCertificateError::NoCertificate { path: path.clone() });
    }
    let path = &pair.key_file;
    let key = PrivateKeyDer::from_pem_slice(&read_file(path)?)
        .map_err(|_| WebCertificateError::NoKey { path: path.clone() })?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|error| WebCertificateError::Pair {
            pair: Box::new(pair.clone()),
            error,
        })
}

fn read_file(path: &Path) -> Result<Vec<u8>, WebCertificateError> {
    let failed = |error| WebCertificateError::Read {
        path: path.to_owned(),
        error,
    };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(WebCertificateError::TooLong { path: path.to_owned() });
    }
    std::fs::read(path).map_err(failed)
}

/// Chooses for one handshake.
#[derive(Debug)]
pub(super) struct Resolver {
    configured: WebCertificates,
    own: Arc<CertifiedKey>,
}

impl Resolver {
    pub(super) fn new(
        configured: WebCertificates,
        own: &Credentials,
        provider: &CryptoProvider,
    ) -> Result<Self, rustls::Error> {
        let own = CertifiedKey::from_der(own.chain.clone(), own.key.to_rustls(), provider)?;
        Ok(Self {
            configured,
            own: Arc::new(own),
        })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.configured
            .pick(hello.server_name())
            .or_else(|| Some(self.own.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A self-signed pair for `name`, in files of a directory.
    fn pair(directory: &Path, name: &str) -> KeyPair {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (cert_file, key_file) = (
            directory.join(format!("{name}.crt")),
            directory.join(format!("{name}.key")),
        );
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        KeyPair { cert_file, key_file }
    }

    #[test]
    fn the_certificate_is_the_one_for_the_name_that_is_asked_for_or_else_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = WebCertificates::default();
        assert!(certificates.pick(Some("a.example.com")).is_none());
        let pairs = [
            pair(directory.path(), "a.example.com"),
            pair(directory.path(), "b.example.com"),
        ];
        certificates.load(&pairs).unwrap();
        let picked = |name: Option<&str>, pair: &KeyPair| {
            let presented = certificates.pick(name).unwrap().cert[0].clone();
            let expected = CertificateDer::from_pem_file(&pair.cert_file).unwrap();
            presented == expected
        };
        assert!(picked(Some("b.example.com"), &pairs[1]));
        assert!(picked(Some("a.example.com"), &pairs[0]));
        assert!(picked(Some("other.example.com"), &pairs[0]) && picked(None, &pairs[0]));
    }

    #[test]
    fn files_that_do_not_belong_together_change_nothing_and_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = WebCertificates::default();
        let good = pair(directory.path(), "a.example.com");
        certificates.load(std::slice::from_ref(&good)).unwrap();
        let other = pair(directory.path(), "b.example.com");
        let mixed = KeyPair {
            key_file: other.key_file,
            ..good.clone()
        };
        let error = certificates.load(&[mixed]).unwrap_err().to_string();
        assert!(
            error.contains("a.example.com.crt") && error.contains("b.example.com.key"),
            "{error}"
        );
        let swapped = KeyPair {
            cert_file: good.key_file.clone(),
            key_file: good.cert_file.clone(),
        };
        let error = certificates.load(&[swapped]).unwrap_err().to_string();
        assert!(error.contains("no certificate in PEM"), "{error}");
        let missing = KeyPair {
            cert_file: directory.path().join("none.crt"),
            key_file: good.key_file,
        };
        let error = certificates.load(&[missing]).unwrap_err().to_string();
        assert!(error.contains("none.crt"), "{error}");
        assert!(certificates.pick(None).is_some(), "the old one is still presented");
    }
}
