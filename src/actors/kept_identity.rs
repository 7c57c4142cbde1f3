//! Who this node is, as it is kept on disk: its host certificate with its key, and the authorities it believes.

use crate::model::{ClusterName, NodeId, NodeName, Timestamp};
use crate::net::tls::Credentials;
use crate::pki::pem::{certificates_from_pem, certificates_to_pem, write_private};
use crate::pki::{CertificateError, PeerUsage, PkiError, PrivateKey, TrustAnchors, verify_host};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

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

/// Key, certificate and authorities in one file: they belong together, and a crash leaves the old ones or the new.
const FILE: &str = "identity.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// PEM, PKCS#8.
    key: String,
    /// PEM: the node's certificate.
    certificate: String,
    anchors: TrustAnchors,
}

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

    /// Whether `dir` holds an identity, sound or not.
    pub fn is_kept_in(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// The identity kept in `dir`; `None` when this node has not joined yet.
    pub fn load(dir: &Path, now: Timestamp) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let path = path.display().to_string();
                return Err(IdentityError::Read { path, error });
            }
        };
        let damaged = |why: String| IdentityError::Damaged {
            path: path.display().to_string(),
            why,
        };
        let kept: Kept = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let key = PrivateKey::from_pem(&Zeroizing::new(kept.key))?;
        let chain = certificates_from_pem(kept.certificate.as_bytes(), "the node's certificate")?;
        let leaf = chain
            .into_iter()
            .next()
            .ok_or_else(|| damaged("there is no certificate in it".to_owned()))?;
        Self::new(leaf, key, kept.anchors, now)
            .map(Some)
            .map_err(|error| IdentityError::Certificate {
                path: dir.display().to_string(),
                error,
            })
    }

    /// Keeps the identity in `dir`.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let kept = Kept {
            key: self.credentials.key.to_pem()?.expose().clone(),
            certificate: certificates_to_pem(&self.credentials.chain[..1])?,
            anchors: self.anchors.clone(),
        };
        let text = serde_json::to_vec(&kept).map(Zeroizing::new);
        drop(Zeroizing::new(kept.key));
        let text = text.map_err(|error| IdentityError::Damaged {
            path: dir.display().to_string(),
            why: error.to_string(),
        })?;
        write_private(&dir.join(FILE), &text)?;
        Ok(())
    }
}
