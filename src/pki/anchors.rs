//! The certificates of a cluster's CAs, by kind: what a node believes others by. Several of a kind stand side by side while a
//! CA is rotated.

use super::{CaKind, CertificateAuthority, PkiError};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// A rotation has two CAs of a kind; a rotation begun again before it ended has three.
pub const MAX_ANCHORS_PER_KIND: usize = 8;

/// The CA certificates of one cluster. Serialises as [`PlainTrustAnchors`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PlainTrustAnchors", into = "PlainTrustAnchors")]
pub struct TrustAnchors {
    pub user: Vec<CertificateDer<'static>>,
    pub host: Vec<CertificateDer<'static>>,
    pub db: Vec<CertificateDer<'static>>,
    pub db_client: Vec<CertificateDer<'static>>,
}

/// The same as plain bytes (DER), for messages and files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainTrustAnchors {
    pub user: Vec<Vec<u8>>,
    pub host: Vec<Vec<u8>>,
    pub db: Vec<Vec<u8>>,
    pub db_client: Vec<Vec<u8>>,
}

impl TrustAnchors {
    /// The certificates of these CAs.
    pub fn from_authorities<'a>(authorities: impl IntoIterator<Item = &'a CertificateAuthority>) -> Self {
        let mut anchors = Self::default();
        for authority in authorities {
            anchors.of_mut(authority.kind()).push(authority.certificate().clone());
        }
        anchors
    }

    pub fn of(&self, kind: CaKind) -> &[CertificateDer<'static>] {
        match kind {
            CaKind::User => &self.user,
            CaKind::Host => &self.host,
            CaKind::Db => &self.db,
            CaKind::DbClient => &self.db_client,
        }
    }

    pub fn of_mut(&mut self, kind: CaKind) -> &mut Vec<CertificateDer<'static>> {
        match kind {
            CaKind::User => &mut self.user,
            CaKind::Host => &mut self.host,
            CaKind::Db => &mut self.db,
            CaKind::DbClient => &mut self.db_client,
        }
    }
}

impl TryFrom<PlainTrustAnchors> for TrustAnchors {
    type Error = PkiError;

    fn try_from(plain: PlainTrustAnchors) -> Result<Self, PkiError> {
        Ok(Self {
            user: certificates(plain.user)?,
            host: certificates(plain.host)?,
            db: certificates(plain.db)?,
            db_client: certificates(plain.db_client)?,
        })
    }
}

impl From<TrustAnchors> for PlainTrustAnchors {
    fn from(anchors: TrustAnchors) -> Self {
        Self {
            user: bytes(&anchors.user),
            host: bytes(&anchors.host),
            db: bytes(&anchors.db),
            db_client: bytes(&anchors.db_client),
        }
    }
}

fn certificates(plain: Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    if plain.len() > MAX_ANCHORS_PER_KIND {
        return Err(PkiError::TooMany {
            what: "the CA certificates of one kind",
            found: plain.len(),
            max: MAX_ANCHORS_PER_KIND,
        });
    }
    Ok(plain.into_iter().map(CertificateDer::from).collect())
}

fn bytes(certificates: &[CertificateDer<'static>]) -> Vec<Vec<u8>> {
    certificates.iter().map(|c| c.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_survive_serialisation_and_have_a_bound() {
        let mut anchors = TrustAnchors::default();
        for (at, kind) in CaKind::ALL.into_iter().enumerate() {
            anchors.of_mut(kind).push(CertificateDer::from(vec![at as u8]));
        }
        let text = serde_json::to_string(&anchors).unwrap();
        assert_eq!(serde_json::from_str::<TrustAnchors>(&text).unwrap(), anchors);
        let many = PlainTrustAnchors {
            user: vec![vec![]; MAX_ANCHORS_PER_KIND + 1],
            ..PlainTrustAnchors::default()
        };
        assert!(TrustAnchors::try_from(many).is_err());
    }
}
