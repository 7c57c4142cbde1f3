//! An identity in files, as `ctl auth sign --format=file` writes it: PREFIX.crt, PREFIX.key and PREFIX.cas.

use super::Failure;
use crate::net::tls::Credentials;
use crate::pki::PrivateKey;
use crate::pki::pem::certificates_from_pem;
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub struct IdentityFiles {
    pub credentials: Credentials,
    /// The host authority of the cluster.
    pub host_authorities: Vec<CertificateDer<'static>>,
}

impl IdentityFiles {
    /// # Errors
    /// A file that is not there, or does not hold what its ending says.
    pub fn read(prefix: &Path) -> Result<Self, Failure> {
        let certificates = |ending| {
            let (path, text) = read(prefix, ending)?;
            certificates_from_pem(text.as_bytes(), &path.display().to_string()).map_err(Failure::failed)
        };
        let chain = certificates("crt")?;
        let host_authorities = certificates("cas")?;
        let (path, text) = read(prefix, "key")?;
        let key =
            PrivateKey::from_pem(&text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        Ok(Self {
            credentials: Credentials { chain, key },
            host_authorities,
        })
    }
}

fn read(prefix: &Path, ending: &str) -> Result<(PathBuf, Zeroizing<String>), Failure> {
    let mut path = prefix.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    let path = PathBuf::from(path);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::failed(format!(
            "{} cannot be read: {error}; an identity is made with: ctl auth sign --format=file --user=NAME --out=PREFIX",
            path.display()
        ))
    })?;
    Ok((path, Zeroizing::new(text)))
}
