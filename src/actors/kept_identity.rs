//! Who this node is, as it is kept on disk: its host certificate with its key, and the authorities it believes.

use crate::model::{ClusterName, NodeId, NodeName, Timestamp};
use crate::net::tls::Credentials;
use crate::pki::pem::{certificates_from_pem, certificates_to_pem, write_private};
use crate::pki::{CertificateError, PeerUsage, PkiError, PrivateKey, TrustAnchors, verify_host};
use rustls_pki_types::CertificateDer;
use std::io;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("the node's identity in {path} cannot be read: {error}")]
    Read { path: String, error: io::Error },
    #[error(
        "the node's certificate in {path} is not accepted: {error}; to join again, remove that directory and start with a \
         token"
    )]
    Certificate { path: String, error: CertificateError },
    #[error(
        "the node's identity in {path} is damaged: {why}; to join again, remove that directory and start with a token"
    )]
    Damaged { path: String, why: String },
}

#[derive(Debug, Clone)]
pub struct Identity {
    pub node: NodeId,
    pub name: NodeName,
    pub cluster: ClusterName,
    pub valid_until: Timestamp,
    /// The chain is the leaf and the host authority, so that a peer that knows only a pin finds its anchor in it.
    pub credentials: Credentials,
    pub anchors: TrustAnchors,
}

const CERTIFICATE: &str = "host.crt";
const KEY: &str = "host.key";
const ANCHORS: &str = "anchors.json";

impl Identity {
    /// What a certificate that was just issued makes of this node.
    pub fn new(
        leaf: CertificateDer<'static>,
        key: PrivateKey,
        anchors: TrustAnchors,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let host = verify_host(std::slice::from_ref(&leaf), &anchors, PeerUsage::Server, now)?;
        let mut chain = vec![leaf];
        chain.extend(anchors.host.iter().cloned());
        Ok(Self {
            node: host.node_id,
            name: host.node_name,
            cluster: host.cluster,
            valid_until: host.valid_until,
            credentials: Credentials { chain, key },
            anchors,
        })
    }

    /// The identity kept in `dir`; `None` when this node has not joined yet.
    pub fn load(dir: &Path, now: Timestamp) -> Result<Option<Self>, IdentityError> {
        let path = dir.display().to_string();
        if !dir.join(CERTIFICATE).exists() {
            return Ok(None);
        }
        let read = |name: &str| {
            std::fs::read(dir.join(name)).map_err(|error| IdentityError::Read {
                path: dir.join(name).display().to_string(),
                error,
            })
        };
        let chain = certificates_from_pem(&read(CERTIFICATE)?, "the node's certificate")?;
        let key = PrivateKey::from_pem(&String::from_utf8_lossy(&read(KEY)?))?;
        let anchors: TrustAnchors =
            serde_json::from_slice(&read(ANCHORS)?).map_err(|error| IdentityError::Damaged {
                path: path.clone(),
                why: error.to_string(),
            })?;
        let leaf = chain.into_iter().next().ok_or_else(|| IdentityError::Damaged {
            path: path.clone(),
            why: "there is no certificate in host.crt".to_owned(),
        })?;
        Self::new(leaf, key, anchors, now)
            .map(Some)
            .map_err(|error| IdentityError::Certificate { path, error })
    }

    /// Keeps the identity in `dir`. The certificate comes last: where it is, the rest is.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let damaged = |error: serde_json::Error| IdentityError::Damaged {
            path: dir.display().to_string(),
            why: error.to_string(),
        };
        write_private(&dir.join(KEY), self.credentials.key.to_pem()?.expose().as_bytes())?;
        write_private(&dir.join(ANCHORS), &serde_json::to_vec(&self.anchors).map_err(damaged)?)?;
        let pem = certificates_to_pem(&self.credentials.chain)?;
        write_private(&dir.join(CERTIFICATE), pem.as_bytes())?;
        Ok(())
    }
}
