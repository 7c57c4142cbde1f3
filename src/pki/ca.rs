//! The certificate authorities of a cluster: four, so that no key that is stolen does another's work.

use super::error::PkiError;
use super::profile::{self, authority_common_name, serial_number, set_validity};
use super::reading::Leaf;
use super::seal::SealKey;
use super::{CaPin, PrivateKey};
use crate::model::{ClusterName, Timestamp};
use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a CA's certificate lasts: longer than any cluster goes without a rotation.
pub const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The longest record that is read: a certificate and a key are below 2 KiB.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

/// What a CA signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaKind {
    /// People's certificates.
    User,
    /// Certificates of nodes, and the web certificate where there is no public one.
    Host,
    /// What PostgreSQL servers present.
    Db,
    /// What agents present to PostgreSQL. Apart from `Db`, so that a stolen server key cannot act as a client.
    DbClient,
}

impl CaKind {
    pub const ALL: [Self; 4] = [Self::User, Self::Host, Self::Db, Self::DbClient];

    pub const fn label(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::Db => "db",
            Self::DbClient => "db-client",
        }
    }

    /// What a certificate of this CA is, in the words of messages.
    pub const fn signs(self) -> &'static str {
        match self {
            Self::User => "a person's certificate",
            Self::Host => "a node's certificate",
            Self::Db => "a database server's certificate",
            Self::DbClient => "a database client's certificate",
        }
    }
}

impl fmt::Display for CaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for CaKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.label() == text)
            .ok_or_else(|| format!("{text:?} is not a kind of CA; there are user, host, db and db-client"))
    }
}

/// One CA: its certificate and its key.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    kind: CaKind,
    cluster: ClusterName,
    certificate: CertificateDer<'static>,
    not_after: Timestamp,
    key: PrivateKey,
}

/// How a CA is kept in the store. Only the key is secret, and it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u8,
    kind: CaKind,
    cluster: ClusterName,
    /// DER, in base64.
    certificate: String,
    /// PKCS#8 DER, sealed, in base64.
    sealed_key: String,
}

const RECORD_VERSION: u8 = 1;

impl CertificateAuthority {
    /// Makes a CA with a new key and a self-signed certificate of ten years: CN `Postern <kind> CA`, O the cluster's name, for
    /// signing certificates and revocation lists only, and for no CA below it.
    ///
    /// # Errors
    /// [`PkiError::Library`], [`PkiError::Make`] or [`PkiError::OutsideCalendar`].
    pub fn generate(kind: CaKind, cluster: &ClusterName, now: Timestamp) -> Result<Self, PkiError> {
        let key = PrivateKey::generate()?;
        let not_after = Timestamp::from_secs((now + CA_LIFETIME).as_secs());
        let mut params = authority_params(kind, cluster);
        params.serial_number = Some(serial_number());
        set_validity(&mut params, now - profile::CLOCK_SKEW, not_after)?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            kind,
            cluster: cluster.clone(),
            certificate,
            not_after,
            key,
        })
    }

    pub fn kind(&self) -> CaKind {
        self.kind
    }

    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// When the CA's own certificate ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// # Errors
    /// None for a CA made here or read from a record; see [`CaPin::of`].
    pub fn pin(&self) -> Result<CaPin, PkiError> {
        CaPin::of(&self.certificate)
    }

    /// Who signs, for rcgen. The name is made from the same parameters as the CA's own certificate, so it is the same, byte
    /// for byte, and so is the key identifier.
    pub(super) fn issuer(&self) -> Issuer<'static, &PrivateKey> {
        Issuer::new(authority_params(self.kind, &self.cluster), &self.key)
    }

    /// The CA as JSON for the store, the key sealed.
    ///
    /// # Errors
    /// [`PkiError::Library`] or [`PkiError::Record`].
    pub fn to_record(&self, seal: &SealKey) -> Result<Vec<u8>, PkiError> {
        let context = seal_context(self.kind, &self.cluster, &self.certificate)?;
        let record = Record {
            version: RECORD_VERSION,
            kind: self.kind,
            cluster: self.cluster.clone(),
            certificate: BASE64.encode(&self.certificate),
            sealed_key: BASE64.encode(&seal.seal(self.key.pkcs8().expose(), &context)?),
        };
        serde_json::to_vec(&record).map_err(damaged)
    }

    /// Reads [`to_record`](Self::to_record) back. The certificate must say the kind and the cluster of the record, and the key
    /// must be the certificate's.
    ///
    /// # Errors
    /// [`PkiError::Record`] when the record is damaged or does not agree with itself, [`PkiError::Sealed`] when the key does
    /// not open.
    pub fn from_record(record: &[u8], seal: &SealKey) -> Result<Self, PkiError> {
        if record.len() > MAX_RECORD_BYTES {
            return Err(damaged(format!("it is longer than {MAX_RECORD_BYTES} bytes")));
        }
        let record: Record = serde_json::from_slice(record).map_err(damaged)?;
        if record.version != RECORD_VERSION {
            return Err(damaged(format!(
                "its version is {}, and this program reads version {RECORD_VERSION}",
                record.version
            )));
        }
        let certificate = BASE64.decode(record.certificate.as_bytes());
        let certificate = CertificateDer::from(certificate.map_err(damaged)?);
        let read = Leaf::read(&certificate).map_err(damaged)?;
        if !read.is_authority_of(record.kind, &record.cluster) {
            return Err(damaged(format!(
                "its certificate is not that of the {} CA of {}",
                record.kind, record.cluster
            )));
        }
        let context = seal_context(record.kind, &record.cluster, &certificate)?;
        let sealed = BASE64.decode(record.sealed_key.as_bytes()).map_err(damaged)?;
        let key = PrivateKey::from_pkcs8_der(seal.open(&sealed, &context)?.expose())?;
        if read.public_key != key.public_key().to_spki_der() {
            return Err(damaged("its key is not that of its certificate"));
        }
        Ok(Self {
            kind: record.kind,
            cluster: record.cluster,
            not_after: read.not_after,
            certificate,
            key,
        })
    }
}

fn damaged(why: impl fmt::Display) -> PkiError {
    PkiError::Record { why: why.to_string() }
}

/// Binds a sealed key to its certificate, so that a record cannot be put together from two.
fn seal_context(kind: CaKind, cluster: &ClusterName, certificate: &CertificateDer<'_>) -> Result<String, PkiError> {
    Ok(format!("ca/{kind}/{cluster}/{}", CaPin::of(certificate)?))
}

fn authority_params(kind: CaKind, cluster: &ClusterName) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, authority_common_name(kind));
    name.push(DnType::OrganizationName, cluster.as_str());
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn seal(dir: &tempfile::TempDir, name: &str) -> SealKey {
        SealKey::load_or_create(&dir.path().join(name)).unwrap()
    }

    fn authority(kind: CaKind) -> CertificateAuthority {
        CertificateAuthority::generate(kind, &ClusterName::new("example.com").unwrap(), NOW).unwrap()
    }

    #[test]
    fn a_ca_survives_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let seal = seal(&dir, "a");
        for kind in CaKind::ALL {
            let made = authority(kind);
            let record = made.to_record(&seal).unwrap();
            let read = CertificateAuthority::from_record(&record, &seal).unwrap();
            assert_eq!(read.kind(), kind);
            assert_eq!(read.cluster(), made.cluster());
            assert_eq!(read.certificate(), made.certificate());
            assert_eq!(read.not_after(), made.not_after());
            assert_eq!(read.key.pkcs8().expose(), made.key.pkcs8().expose());
            assert_eq!(kind.label().parse::<CaKind>().unwrap(), kind);
        }
    }

    #[test]
    fn a_record_does_not_open_under_another_sealing_key() {
        let dir = tempfile::tempdir().unwrap();
        let record = authority(CaKind::User).to_record(&seal(&dir, "a")).unwrap();
        let refused = CertificateAuthority::from_record(&record, &seal(&dir, "b"));
        assert!(matches!(refused, Err(PkiError::Sealed { .. })));
    }

    #[test]
    fn a_record_put_together_from_two_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let seal = seal(&dir, "a");
        let read =
            |ca: &CertificateAuthority| -> Record { serde_json::from_slice(&ca.to_record(&seal).unwrap()).unwrap() };
        let refused =
            |record: &Record| CertificateAuthority::from_record(&serde_json::to_vec(record).unwrap(), &seal).is_err();
        let (one, two) = (authority(CaKind::Db), authority(CaKind::Db));
        let mut mixed = read(&one);
        assert!(!refused(&mixed), "the record itself is right");
        mixed.sealed_key = read(&two).sealed_key;
        assert!(refused(&mixed), "the key of another CA");
        let mut relabelled = read(&one);
        relabelled.kind = CaKind::DbClient;
        assert!(refused(&relabelled), "another kind");
        let mut moved = read(&one);
        moved.cluster = ClusterName::new("other").unwrap();
        assert!(refused(&moved), "another cluster");
    }

    #[test]
    fn the_private_key_is_in_neither_the_record_nor_the_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(CaKind::User);
        let der = ca.key.pkcs8().expose();
        let record = ca.to_record(&seal(&dir, "a")).unwrap();
        let scalar = &der[36..68];
        let shown = format!("{ca:?} {:?}", ca.key);
        let hex = data_encoding::HEXLOWER.encode(scalar);
        let list = format!("{scalar:?}");
        assert!(!shown.contains(&hex) && !shown.contains(list.trim_matches(['[', ']'])));
        assert!(!shown.contains(&BASE64.encode(der)));
        let record = String::from_utf8(record).unwrap();
        assert!(!record.contains(&BASE64.encode(der)) && !record.contains(&hex));
    }
}
