//! The certificate profiles: what each kind of certificate says, and where.
//!
//! | certificate | CA | EKU | subject | SAN | extensions |
//! |---|---|---|---|---|---|
//! | person | user | clientAuth | CN name, O roles | – | cluster, traits, MFA, route, pinned address |
//! | node | host | serverAuth, clientAuth | CN node id, O cluster, OU kinds | names below, node name, extra | node name |
//! | database server | db | serverAuth | CN first name, O cluster | host list | – |
//! | database client | db-client | clientAuth | CN database user, O cluster | – | cluster, principal |
//!
//! All have a P-256 key for digital signatures only, a random serial number of 127 bits, a critical basicConstraints that
//! says "no CA", and begin one minute before they were made.
//!
//! rcgen writes an attribute type once in a subject, so several roles or kinds stand in one attribute with commas between
//! them; neither may contain a comma. The private extensions are not critical and each holds one UTF8String in DER. Those in
//! 1.3.9999.1 and 1.3.9999.2 mean what they mean to Teleport's tools; those in 1.3.9999.80 are ours.

use super::CaKind;
use super::entropy;
use super::error::PkiError;
use crate::model::{ClusterName, DbUser, NodeId, NodeKind, NodeName, PersonName, RoleName, Route, Timestamp, Traits};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::DnsName;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;
use x509_cert::der::Encode;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};

/// Certificates begin this long before they are made, for peers whose clocks are behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The longest certificate of ours. TLS stacks take chains of 64 KiB to 100 KiB; ten times a usual certificate is enough.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// The most names for one certificate: what fits well below [`MAX_CERTIFICATE_BYTES`].
pub const MAX_HOST_NAMES: usize = 32;
/// Names below this one say which node a host certificate is for. Only we put them there.
pub const RESERVED_DOMAIN: &str = "postern.internal";
/// 9999-12-31T23:59:59Z, the last second that a certificate can name (RFC 5280, section 4.1.2.5).
const LAST_SECOND: i64 = 253_402_300_799;

/// The cluster that issued the certificate.
pub const OID_CLUSTER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.1.7");
/// `true` when the second factor was proved; absent when not.
pub const OID_MFA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.1.8");
/// The route of `db login`: the database service.
pub const OID_SERVICE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.1");
/// The route's protocol, always `postgres`.
pub const OID_PROTOCOL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.2");
/// The route's default database user.
pub const OID_DB_USER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.3");
/// The route's default database name.
pub const OID_DB_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.4");
/// The address that the certificate was issued to; absent when it is not pinned.
pub const OID_PINNED_IP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.15");
/// The traits as a JSON object of lists; absent when there are none.
pub const OID_TRAITS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.80.1");
/// In a database client's certificate: the person for whom it was made.
pub const OID_PRINCIPAL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.80.2");
/// In a node's certificate: the node's name, for people.
pub const OID_NODE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.80.3");

/// The one protocol that a route may name.
pub const PROTOCOL: &str = "postgres";
pub(super) const MFA_PROVED: &str = "true";
pub(super) const SEPARATOR: char = ',';

/// What a person's certificate says. The cluster is that of the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonProfile {
    pub name: PersonName,
    pub roles: Vec<RoleName>,
    pub traits: Traits,
    pub mfa: bool,
    pub route: Option<Route>,
    /// The address of whoever it is issued to, where a role asks for that.
    pub pinned_ip: Option<IpAddr>,
}

/// What a node's certificate says. The cluster is that of the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProfile {
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// At least one.
    pub kinds: Vec<NodeKind>,
    /// Under which others reach it, besides the names that every node has.
    pub names: Vec<HostName>,
}

/// What the certificate of a PostgreSQL server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbServerProfile {
    /// At least one.
    pub names: Vec<HostName>,
}

/// What an agent shows PostgreSQL: PostgreSQL's `cert` method compares the CN with the database user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbClientProfile {
    pub db_user: DbUser,
    pub principal: PersonName,
}

/// A name under which a host is reached: an IP address, or a DNS name in lower case, the first label of which may be `*`. Never
/// one below `postern.internal`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    Dns(DnsHostName),
    Ip(IpAddr),
}

/// A DNS name that was checked by [`HostName::new`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsHostName(String);

impl DnsHostName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostName {
    /// # Errors
    /// [`PkiError::HostName`] when it is neither an address nor a DNS name, or when it is reserved.
    pub fn new(text: &str) -> Result<Self, PkiError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        let refused = |why| PkiError::HostName {
            name: text.chars().take(300).collect(),
            why,
        };
        let name = text.to_ascii_lowercase();
        if name.ends_with('.') {
            return Err(refused("leave out the dot at the end; certificates do not carry it"));
        }
        let below = name.strip_prefix("*.").unwrap_or(&name);
        if DnsName::try_from(below).is_err() || (below != name && !below.contains('.')) {
            return Err(refused("it is neither an IP address nor a DNS name"));
        }
        if is_reserved(&name) {
            return Err(refused(
                "names below postern.internal say which node a certificate is for, and are not given out",
            ));
        }
        Ok(Self::Dns(DnsHostName(name)))
    }

    fn to_san(&self) -> Result<SanType, PkiError> {
        Ok(match self {
            Self::Ip(ip) => SanType::IpAddress(*ip),
            Self::Dns(name) => SanType::DnsName(name.0.as_str().try_into()?),
        })
    }
}

impl FromStr for HostName {
    type Err = PkiError;
    fn from_str(text: &str) -> Result<Self, PkiError> {
        Self::new(text)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(&name.0),
            Self::Ip(ip) => fmt::Display::fmt(ip, f),
        }
    }
}

fn is_reserved(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.strip_suffix(RESERVED_DOMAIN)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The DNS name that the certificate of exactly this node is for.
pub fn node_dns_name(node: NodeId) -> String {
    format!("{node}.node.{RESERVED_DOMAIN}")
}

/// The DNS name that the certificate of every node of this kind is for.
pub fn kind_dns_name(kind: NodeKind) -> String {
    format!("{kind}.kind.{RESERVED_DOMAIN}")
}

pub(super) fn authority_common_name(kind: CaKind) -> String {
    format!("Postern {kind} CA")
}

/// A profile, as the parameters of a certificate without serial number and dates.
pub(super) trait Profile {
    const WHAT: &'static str;
    const SIGNED_BY: CaKind;

    /// The name of the thing, for messages.
    fn whom(&self) -> String;
    fn params(&self, cluster: &ClusterName) -> Result<CertificateParams, PkiError>;
}

impl Profile for PersonProfile {
    const WHAT: &'static str = CaKind::User.signs();
    const SIGNED_BY: CaKind = CaKind::User;

    fn whom(&self) -> String {
        self.name.to_string()
    }

    fn params(&self, cluster: &ClusterName) -> Result<CertificateParams, PkiError> {
        let mut params = leaf(self.name.as_str(), &[ExtendedKeyUsagePurpose::ClientAuth]);
        if !self.roles.is_empty() {
            let roles = joined(self.roles.iter().map(RoleName::as_str));
            params.distinguished_name.push(DnType::OrganizationName, roles);
        }
        let mut extensions = vec![(OID_CLUSTER, cluster.to_string())];
        if self.mfa {
            extensions.push((OID_MFA, MFA_PROVED.to_owned()));
        }
        if !self.traits.is_empty() {
            let json = serde_json::to_string(&self.traits).map_err(|_| PkiError::Library {
                doing: "write the traits as JSON",
            })?;
            extensions.push((OID_TRAITS, json));
        }
        if let Some(route) = &self.route {
            extensions.push((OID_SERVICE, route.service.to_string()));
            extensions.push((OID_PROTOCOL, PROTOCOL.to_owned()));
            extensions.extend(route.db_user.iter().map(|user| (OID_DB_USER, user.to_string())));
            extensions.extend(route.db_name.iter().map(|name| (OID_DB_NAME, name.to_string())));
        }
        extensions.extend(self.pinned_ip.map(|ip| (OID_PINNED_IP, ip.to_string())));
        params.custom_extensions = encoded(&extensions)?;
        Ok(params)
    }
}

impl Profile for HostProfile {
    const WHAT: &'static str = CaKind::Host.signs();
    const SIGNED_BY: CaKind = CaKind::Host;

    fn whom(&self) -> String {
        self.node_name.to_string()
    }

    fn params(&self, cluster: &ClusterName) -> Result<CertificateParams, PkiError> {
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.is_empty() {
            return Err(PkiError::Empty {
                what: "the list of a node's kinds",
                rule: "a node is at least one of auth, proxy and db",
            });
        }
        if is_reserved(self.node_name.as_str()) {
            return Err(PkiError::HostName {
                name: self.node_name.to_string(),
                why: "a node cannot be named after another; names below postern.internal are not given out",
            });
        }
        check_count(&self.names)?;
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let mut params = leaf(&self.node_id.to_string(), &usages);
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, cluster.as_str());
        let labels = joined(kinds.iter().map(|kind| kind.label()));
        subject.push(DnType::OrganizationalUnitName, labels);
        let mut names = vec![SanType::DnsName(node_dns_name(self.node_id).try_into()?)];
        for kind in kinds {
            names.push(SanType::DnsName(kind_dns_name(kind).try_into()?));
        }
        // A node's name need not be a DNS name (`a..b`); one that is not would spoil the list for whoever checks it.
        if let Ok(name) = HostName::new(self.node_name.as_str()) {
            names.push(name.to_san()?);
        }
        for name in &self.names {
            names.push(name.to_san()?);
        }
        params.subject_alt_names = without_repeats(names);
        params.custom_extensions = encoded(&[(OID_NODE_NAME, self.node_name.to_string())])?;
        Ok(params)
    }
}

impl Profile for DbServerProfile {
    const WHAT: &'static str = CaKind::Db.signs();
    const SIGNED_BY: CaKind = CaKind::Db;

    fn whom(&self) -> String {
        joined(self.names.iter().map(HostName::to_string))
    }

    fn params(&self, cluster: &ClusterName) -> Result<CertificateParams, PkiError> {
        let Some(first) = self.names.first() else {
            return Err(PkiError::Empty {
                what: "the list of the database server's host names",
                rule: "name every host by which agents reach it",
            });
        };
        check_count(&self.names)?;
        let mut params = leaf(&first.to_string(), &[ExtendedKeyUsagePurpose::ServerAuth]);
        params
            .distinguished_name
            .push(DnType::OrganizationName, cluster.as_str());
        let names: Result<Vec<_>, _> = self.names.iter().map(HostName::to_san).collect();
        params.subject_alt_names = without_repeats(names?);
        Ok(params)
    }
}

impl Profile for DbClientProfile {
    const WHAT: &'static str = CaKind::DbClient.signs();
    const SIGNED_BY: CaKind = CaKind::DbClient;

    fn whom(&self) -> String {
        self.db_user.to_string()
    }

    fn params(&self, cluster: &ClusterName) -> Result<CertificateParams, PkiError> {
        let mut params = leaf(self.db_user.as_str(), &[ExtendedKeyUsagePurpose::ClientAuth]);
        params
            .distinguished_name
            .push(DnType::OrganizationName, cluster.as_str());
        params.custom_extensions = encoded(&[
            (OID_CLUSTER, cluster.to_string()),
            (OID_PRINCIPAL, self.principal.to_string()),
        ])?;
        Ok(params)
    }
}

fn leaf(common_name: &str, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    params
}

fn encoded(extensions: &[(ObjectIdentifier, String)]) -> Result<Vec<CustomExtension>, PkiError> {
    extensions
        .iter()
        .map(|(oid, text)| {
            let der = Utf8StringRef::new(text).and_then(|text| text.to_der());
            let der = der.map_err(|_| PkiError::Library {
                doing: "write an extension",
            })?;
            let arcs: Vec<u64> = oid.arcs().map(u64::from).collect();
            Ok(CustomExtension::from_oid_content(&arcs, der))
        })
        .collect()
}

fn check_count(names: &[HostName]) -> Result<(), PkiError> {
    if names.len() > MAX_HOST_NAMES {
        return Err(PkiError::TooMany {
            what: "the host names of one certificate",
            found: names.len(),
            max: MAX_HOST_NAMES,
        });
    }
    Ok(())
}

fn without_repeats(names: Vec<SanType>) -> Vec<SanType> {
    let mut kept: Vec<SanType> = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

fn joined<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> String {
    let mut all = String::new();
    for (at, text) in texts.enumerate() {
        if at > 0 {
            all.push(SEPARATOR);
        }
        all.push_str(text.as_ref());
    }
    all
}

/// 127 random bits: positive in DER without a byte more, and twice what RFC 5280 and the CA/Browser Forum ask for.
pub(super) fn serial_number() -> SerialNumber {
    let mut bytes = entropy::bytes::<16>();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

/// Whole seconds: a certificate has no finer ones.
pub(super) fn set_validity(
    params: &mut CertificateParams,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<(), PkiError> {
    let since_epoch = |at: Timestamp| {
        u64::try_from(at.as_secs())
            .ok()
            .filter(|_| at.as_secs() <= LAST_SECOND)
            .map(Duration::from_secs)
            .ok_or(PkiError::OutsideCalendar(at))
    };
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before)?;
    params.not_after = epoch + since_epoch(not_after)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_refused_however_they_are_written() {
        for name in [
            "postern.internal",
            "auth.kind.postern.internal",
            "AUTH.kind.Postern.Internal",
            "auth.kind.postern.internal.",
            "*.postern.internal",
            "*.kind.postern.internal",
        ] {
            assert!(HostName::new(name).is_err(), "{name}");
        }
        assert!(HostName::new("my-postern.internal").is_ok(), "another domain");
    }

    #[test]
    fn host_names_are_addresses_or_dns_names() {
        for name in ["db.example.com", "*.example.com", "localhost", "10.0.0.1", "::1", "a_b"] {
            assert_eq!(HostName::new(name).unwrap().to_string(), name);
        }
        for name in [
            "",
            "a b",
            "a..b",
            "*",
            "*.",
            "*.com",
            "a.*.b",
            "https://x",
            "ü.example",
            "db:5432",
        ] {
            assert!(HostName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn serial_numbers_are_positive_and_differ() {
        let one = serial_number();
        assert_eq!(one.len(), 16);
        assert!(one.as_ref()[0] < 0x80);
        assert_ne!(one, serial_number());
    }
}
