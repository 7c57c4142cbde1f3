//! Reading what a certificate of ours says: the counterpart of `profile`. Nothing here decides whether to believe it.

use super::CaKind;
use super::error::CertificateError;
use super::profile::{
    MAX_CERTIFICATE_BYTES, MFA_PROVED, OID_CLUSTER, OID_DB_NAME, OID_DB_USER, OID_MFA, OID_NODE_NAME, OID_PINNED_IP,
    OID_PROTOCOL, OID_SERVICE, OID_TRAITS, PROTOCOL, SEPARATOR, authority_common_name,
};
use super::verify::HostIdentity;
use crate::model::{ClusterName, PersonName, Principal, RoleName, Route, Timestamp, Traits};
use rustls_pki_types::CertificateDer;
use std::fmt::Display;
use std::str::FromStr;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::name::Name;
use x509_cert::time::Time;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
pub(super) const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
pub(super) const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// What a person's certificate says, for showing it to its holder. Nobody has verified it: nothing may be decided by it.
#[derive(Debug, Clone)]
pub struct PersonClaims {
    pub name: PersonName,
    pub cluster: ClusterName,
    pub roles: Vec<RoleName>,
    pub route: Option<Route>,
    pub valid_until: Timestamp,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl PersonClaims {
    /// Reads one's own certificate.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] when it is not of the form of a person's.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let leaf = Leaf::read(certificate)?;
        let person = leaf.person()?;
        Ok(Self {
            name: person.name,
            cluster: person.cluster,
            roles: person.roles,
            route: person.route,
            valid_until: person.valid_until,
            public_key: leaf.public_key,
        })
    }
}

/// A certificate, read but not believed.
pub(super) struct Leaf {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    pub usages: Vec<ObjectIdentifier>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Leaf {
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let broken = |e| CertificateError::malformed(format!("it is not X.509 in DER ({e})"));
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::malformed(format!(
                "it is {} bytes long; at most {MAX_CERTIFICATE_BYTES} are read",
                der.len()
            )));
        }
        let read = Certificate::from_der(der).map_err(broken)?.tbs_certificate;
        let mut leaf = Self {
            public_key: read.subject_public_key_info.to_der().map_err(broken)?,
            subject: read.subject,
            issuer: read.issuer,
            extensions: read.extensions.unwrap_or_default(),
            usages: Vec::new(),
            not_before: timestamp(read.validity.not_before),
            not_after: timestamp(read.validity.not_after),
        };
        if let Some(value) = leaf.extension(EXTENDED_KEY_USAGE)? {
            leaf.usages = ExtendedKeyUsage::from_der(value).map_err(broken)?.0;
        }
        Ok(leaf)
    }

    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// The cluster whose CA the issuer says it is; only good for a message.
    pub fn issuing_cluster(&self) -> Option<ClusterName> {
        let text = attribute(&self.issuer, ORGANIZATION).ok().flatten()?;
        ClusterName::new(text).ok()
    }

    /// The cluster that a CA's certificate is for.
    pub fn authority_cluster(&self) -> Result<ClusterName, CertificateError> {
        let text = attribute(&self.subject, ORGANIZATION)?;
        parsed(text.ok_or_else(|| missing("the cluster (O)"))?, "the cluster (O)")
    }

    /// Whether this is the certificate of this cluster's CA of this kind, going by its name.
    pub fn is_authority_of(&self, kind: CaKind, cluster: &ClusterName) -> bool {
        self.is_authority(kind) && self.authority_cluster().is_ok_and(|found| found == *cluster)
    }

    pub fn is_authority(&self, kind: CaKind) -> bool {
        attribute(&self.subject, COMMON_NAME).is_ok_and(|name| name == Some(&authority_common_name(kind)))
    }

    pub fn person(&self) -> Result<Principal, CertificateError> {
        let roles = match attribute(&self.subject, ORGANIZATION)? {
            Some(text) => text
                .split(SEPARATOR)
                .map(|role| parsed::<RoleName>(role, "a role (O)"))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let traits = match self.text(OID_TRAITS)? {
            Some(json) => serde_json::from_str(json)
                .map_err(|_| CertificateError::malformed("the traits are not an object of lists"))?,
            None => Traits::new(),
        };
        let mfa = match self.text(OID_MFA)? {
            None => false,
            Some(MFA_PROVED) => true,
            Some(_) => return Err(CertificateError::malformed("the MFA mark is not `true`")),
        };
        Ok(Principal {
            name: parsed(self.common_name()?, "the name (CN)")?,
            cluster: parsed(self.needed(OID_CLUSTER, "the cluster")?, "the cluster")?,
            roles,
            traits,
            mfa,
            valid_until: self.not_after,
            route: self.route()?,
            pinned_ip: self
                .text(OID_PINNED_IP)?
                .map(|text| parsed(text, "the pinned address"))
                .transpose()?,
        })
    }

    fn route(&self) -> Result<Option<Route>, CertificateError> {
        let Some(service) = self.text(OID_SERVICE)? else {
            return Ok(None);
        };
        if self.text(OID_PROTOCOL)? != Some(PROTOCOL) {
            return Err(CertificateError::malformed("the route's protocol is not `postgres`"));
        }
        let user = self.text(OID_DB_USER)?;
        let name = self.text(OID_DB_NAME)?;
        Ok(Some(Route {
            service: parsed(service, "the route's service")?,
            db_user: user.map(|t| parsed(t, "the route's user")).transpose()?,
            db_name: name.map(|t| parsed(t, "the route's database")).transpose()?,
        }))
    }

    pub fn host(&self) -> Result<HostIdentity, CertificateError> {
        let cluster = attribute(&self.subject, ORGANIZATION)?;
        let cluster = cluster.ok_or_else(|| missing("the cluster (O)"))?;
        let kinds = attribute(&self.subject, ORGANIZATIONAL_UNIT)?;
        let kinds = kinds.ok_or_else(|| missing("the kind of node (OU)"))?;
        Ok(HostIdentity {
            node_id: parsed(self.common_name()?, "the node's id (CN)")?,
            node_name: parsed(self.needed(OID_NODE_NAME, "the node's name")?, "the node's name")?,
            cluster: parsed(cluster, "the cluster (O)")?,
            kinds: kinds
                .split(SEPARATOR)
                .map(|kind| parsed(kind, "the kind of node (OU)"))
                .collect::<Result<_, _>>()?,
            valid_until: self.not_after,
        })
    }

    fn common_name(&self) -> Result<&str, CertificateError> {
        attribute(&self.subject, COMMON_NAME)?.ok_or_else(|| missing("the name (CN)"))
    }

    fn needed(&self, oid: ObjectIdentifier, what: &str) -> Result<&str, CertificateError> {
        self.text(oid)?.ok_or_else(|| missing(what))
    }

    fn text(&self, oid: ObjectIdentifier) -> Result<Option<&str>, CertificateError> {
        self.extension(oid)?
            .map(|value| {
                Utf8StringRef::from_der(value)
                    .map(|text| text.as_str())
                    .map_err(|_| CertificateError::malformed(format!("extension {oid} is not a UTF8String")))
            })
            .transpose()
    }

    fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, CertificateError> {
        let found = self.extensions.iter().filter(|e| e.extn_id == oid);
        at_most_one(found.map(|e| e.extn_value.as_bytes()), oid)
    }
}

/// The value of an attribute of a name, which may stand there once.
fn attribute(name: &Name, oid: ObjectIdentifier) -> Result<Option<&str>, CertificateError> {
    let values = name.0.iter().flat_map(|rdn| rdn.0.iter());
    let values = values.filter(|a| a.oid == oid).map(|a| &a.value);
    at_most_one(values, oid)?
        .map(|value| {
            value
                .decode_as::<Utf8StringRef<'_>>()
                .map(|text| text.as_str())
                .map_err(|_| CertificateError::malformed(format!("attribute {oid} is not a UTF8String")))
        })
        .transpose()
}

fn at_most_one<T>(mut found: impl Iterator<Item = T>, oid: ObjectIdentifier) -> Result<Option<T>, CertificateError> {
    let first = found.next();
    if found.next().is_some() {
        return Err(CertificateError::malformed(format!("{oid} stands there twice")));
    }
    Ok(first)
}

fn parsed<T: FromStr<Err: Display>>(text: &str, what: &str) -> Result<T, CertificateError> {
    text.parse()
        .map_err(|e| CertificateError::malformed(format!("{what}: {e}")))
}

fn missing(what: &str) -> CertificateError {
    CertificateError::malformed(format!("{what} is missing"))
}

pub(super) fn timestamp(time: Time) -> Timestamp {
    let micros = i64::try_from(time.to_unix_duration().as_micros());
    Timestamp::from_micros(micros.unwrap_or(i64::MAX))
}
