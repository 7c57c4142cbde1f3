//! Verifying what a peer shows. webpki checks the signature and the path to the CA; this file says which CA counts for what, and
//! tells the peer's fault in words.
//!
//! People and nodes show one certificate, signed by a CA of the cluster itself. The CA's own certificate may follow it; any other
//! makes the chain refused, so that neither an intermediate nor a cross-signed CA opens a way in.

use super::anchors::TrustAnchors;
use super::ca::CaKind;
use super::error::CertificateError;
use super::reading::{CLIENT_AUTH, Leaf, SERVER_AUTH};
use super::remembered::{Question, Remembered};
use crate::model::{ClusterName, NodeId, NodeKind, NodeName, Principal, Timestamp};
use rustls_pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, anchor_from_trusted_cert};
use x509_cert::der::asn1::ObjectIdentifier;

/// A leaf and, if the peer likes, the CA that signed it.
const MAX_CHAIN: usize = 2;
/// A database server's chain may have intermediates of someone else's PKI; public ones have two.
pub const MAX_DB_CHAIN: usize = 8;

/// What our own CAs sign with, and P-384 for a CA that is kept elsewhere.
static OUR_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
];

/// What the CAs of databases are found to sign with. No SHA-1, no RSA below 2048 bits.
static DB_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// On which side of the TLS handshake the peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerUsage {
    Client,
    Server,
}

/// A node, as its certificate names it. Only a verified certificate is turned into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    pub node_id: NodeId,
    pub node_name: NodeName,
    pub cluster: ClusterName,
    /// At least one, in order.
    pub kinds: Vec<NodeKind>,
    pub valid_until: Timestamp,
}

/// The person whose certificate this is: signed by the cluster's user CA, for clients, valid now.
///
/// # Errors
/// See [`CertificateError`]; a chain that is not ours is told before its dates.
pub fn verify_person(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<Principal, CertificateError> {
    let established = establish(chain, anchors, CaKind::User)?;
    let leaf = &established.leaf;
    check_usage(leaf, CLIENT_AUTH, "a person's certificate")?;
    check_time(leaf, now)?;
    let principal = leaf.person()?;
    check_cluster(&principal.cluster, &established.cluster)?;
    Ok(principal)
}

/// The node whose certificate this is: signed by the cluster's host CA, for this side of the handshake, valid now.
///
/// # Errors
/// As [`verify_person`].
pub fn verify_host(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    usage: PeerUsage,
    now: Timestamp,
) -> Result<HostIdentity, CertificateError> {
    let established = establish(chain, anchors, CaKind::Host)?;
    let leaf = &established.leaf;
    match usage {
        PeerUsage::Client => check_usage(leaf, CLIENT_AUTH, "a node's certificate for clients")?,
        PeerUsage::Server => check_usage(leaf, SERVER_AUTH, "a node's certificate for servers")?,
    }
    check_time(leaf, now)?;
    let host = leaf.host()?;
    check_cluster(&host.cluster, &established.cluster)?;
    Ok(host)
}

/// Whether the certificate is one of the cluster's user CA, whatever its dates and its usage say. For the TLS layer, which
/// lets such a peer speak, so that what is wrong with the dates or the usage can be told in words after the StartupMessage;
/// [`verify_person`] decides.
///
/// # Errors
/// As [`verify_person`], without `Expired` and `NotYetValid`.
pub fn chains_to_user_ca(chain: &[CertificateDer<'_>], anchors: &TrustAnchors) -> Result<(), CertificateError> {
    establish(chain, anchors, CaKind::User).map(|_| ())
}

/// Whether a PostgreSQL server's certificate leads to one of `roots`, is for servers, valid now, and, when `server_name` is
/// given (verify-full), is for that DNS name or IP address. The roots may be someone else's, and so may intermediates be.
///
/// # Errors
/// See [`CertificateError`].
pub fn verify_db_server(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    server_name: Option<&str>,
    now: Timestamp,
) -> Result<(), CertificateError> {
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateError::Missing)?;
    if chain.len() > MAX_DB_CHAIN {
        return Err(CertificateError::untrusted(format!(
            "the chain has {} certificates; at most {MAX_DB_CHAIN} are read",
            chain.len()
        )));
    }
    let leaf = EndEntityCert::try_from(leaf).map_err(refused)?;
    let roots = trust(roots)?;
    leaf.verify_for_usage(
        DB_ALGORITHMS,
        &roots,
        intermediates,
        unix_time(now),
        KeyUsage::server_auth(),
        None,
        None,
    )
    .map_err(refused)?;
    let Some(name) = server_name else {
        return Ok(());
    };
    let wanted = ServerName::try_from(name).map_err(|_| CertificateError::WrongName {
        expected: format!("{name:?}, which is neither a DNS name nor an IP address"),
        presented: presented(leaf.valid_dns_names().map(str::to_owned)),
    })?;
    leaf.verify_is_valid_for_subject_name(&wanted).map_err(refused)
}

/// What any certificate says of itself. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    pub valid_from: Timestamp,
    pub valid_until: Timestamp,
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl CertificateFacts {
    /// # Errors
    /// It is not X.509, or too long.
    pub fn read(certificate: &[u8]) -> Result<Self, CertificateError> {
        Leaf::read(certificate).map(|leaf| Self {
            valid_from: leaf.not_before,
            valid_until: leaf.not_after,
            public_key: leaf.public_key,
        })
    }
}

/// A leaf that a CA of a cluster signed.
struct Established {
    leaf: Leaf,
    /// Of the CA.
    cluster: ClusterName,
}

/// Certificates that were established, each under the anchors of that time.
static ESTABLISHED: Remembered<Arc<Established>> = Remembered::nothing();

/// Reads the leaf and shows that a CA of this kind, of this cluster, signed it. Dates and usage are left to the caller; nothing else
/// changes with time, so that it is done once for a chain and its anchors.
fn establish(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    kind: CaKind,
) -> Result<Arc<Established>, CertificateError> {
    let signers = anchors.of(kind);
    let lengths = [kind as u64, chain.len() as u64].map(u64::to_be_bytes);
    let whole = lengths.iter().map(<[u8; 8]>::as_slice);
    let question = Question::of(whole.chain(chain.iter().chain(signers).map(|certificate| &certificate[..])));
    if let Some(known) = ESTABLISHED.answer(&question) {
        return Ok(known);
    }
    let established = Arc::new(establish_anew(chain, anchors, kind)?);
    ESTABLISHED.keep(question, established.clone());
    Ok(established)
}

fn establish_anew(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    kind: CaKind,
) -> Result<Established, CertificateError> {
    let (first, rest) = chain.split_first().ok_or(CertificateError::Missing)?;
    if chain.len() > MAX_CHAIN {
        return Err(CertificateError::untrusted(format!(
            "the chain has {} certificates; a certificate of a cluster is signed by its CA itself",
            chain.len()
        )));
    }
    let leaf = Leaf::read(first)?;
    // A moment at which the leaf is valid, as its dates are told by their own check and not here.
    let moment = leaf.not_before;
    let signer = match signer_among(first, anchors.of(kind), moment) {
        Ok(at) => &anchors.of(kind)[at],
        Err(error) => return Err(explain(error, first, &leaf, anchors, kind, moment)),
    };
    if rest.iter().any(|ca| !anchors.of(kind).contains(ca)) {
        return Err(CertificateError::untrusted(
            "it came with a CA certificate that is not this cluster's",
        ));
    }
    let authority = Leaf::read(signer)?;
    // Kinds are kept apart by their lists; the CA's own name says the same, and must.
    if !authority.is_authority(kind) {
        return Err(CertificateError::untrusted(format!(
            "the CA that signed it does not say that it is the {kind} CA"
        )));
    }
    Ok(Established {
        leaf,
        cluster: authority.authority_cluster()?,
    })
}

/// The place in `anchors` of the CA that signed the leaf.
fn signer_among(
    leaf: &CertificateDer<'_>,
    anchors: &[CertificateDer<'_>],
    moment: Timestamp,
) -> Result<usize, webpki::Error> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let anchors: Vec<TrustAnchor<'_>> = anchors.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>()?;
    let path = leaf.verify_for_usage(
        OUR_ALGORITHMS,
        &anchors,
        &[],
        unix_time(moment),
        UsageIsCheckedApart,
        None,
        None,
    )?;
    anchors
        .iter()
        .position(|anchor| std::ptr::eq(anchor, path.anchor()))
        .ok_or(webpki::Error::UnknownIssuer)
}

/// Lets every extended key usage pass: `check_usage` is stricter than webpki's check, which passes a certificate without any.
struct UsageIsCheckedApart;

impl ExtendedKeyUsageValidator for UsageIsCheckedApart {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// Why no CA of the kind signed the leaf, as exactly as can be told.
fn explain(
    error: webpki::Error,
    leaf: &CertificateDer<'_>,
    read: &Leaf,
    anchors: &TrustAnchors,
    kind: CaKind,
    moment: Timestamp,
) -> CertificateError {
    if error == webpki::Error::CaUsedAsEndEntity {
        return CertificateError::WrongUsage {
            expected: kind.signs(),
            found: "the certificate of a CA".to_owned(),
        };
    }
    if !matches!(
        error,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey
    ) {
        return refused(error);
    }
    let other = CaKind::ALL
        .into_iter()
        .filter(|other| *other != kind)
        .find(|other| signer_among(leaf, anchors.of(*other), moment).is_ok());
    if let Some(other) = other {
        return CertificateError::WrongUsage {
            expected: kind.signs(),
            found: other.signs().to_owned(),
        };
    }
    let ours = anchors
        .of(kind)
        .iter()
        .find_map(|ca| Leaf::read(ca).ok()?.authority_cluster().ok());
    match (read.issuing_cluster(), ours) {
        _ if read.is_self_issued() => CertificateError::untrusted("it is signed by itself"),
        (Some(theirs), Some(ours)) if theirs != ours => CertificateError::OtherCluster {
            found: theirs.to_string(),
        },
        _ => CertificateError::untrusted(format!("it is not signed by the {kind} CA of this cluster")),
    }
}

fn check_usage(leaf: &Leaf, needed: ObjectIdentifier, expected: &'static str) -> Result<(), CertificateError> {
    if leaf.usages.contains(&needed) {
        return Ok(());
    }
    let found = if leaf.usages.contains(&SERVER_AUTH) {
        "one for servers only"
    } else if leaf.usages.contains(&CLIENT_AUTH) {
        "one for clients only"
    } else {
        "one for something else"
    };
    Err(CertificateError::WrongUsage {
        expected,
        found: found.to_owned(),
    })
}

fn check_time(leaf: &Leaf, now: Timestamp) -> Result<(), CertificateError> {
    if now < leaf.not_before {
        return Err(CertificateError::NotYetValid { from: leaf.not_before });
    }
    if now > leaf.not_after {
        return Err(CertificateError::Expired { at: leaf.not_after });
    }
    Ok(())
}

fn check_cluster(says: &ClusterName, signed_by: &ClusterName) -> Result<(), CertificateError> {
    if says == signed_by {
        return Ok(());
    }
    Err(CertificateError::OtherCluster {
        found: says.to_string(),
    })
}

fn trust<'a>(roots: &'a [CertificateDer<'_>]) -> Result<Vec<TrustAnchor<'a>>, CertificateError> {
    if roots.is_empty() {
        return Err(CertificateError::untrusted(
            "no CA is configured to trust it by; name one as the database's CA certificate",
        ));
    }
    roots
        .iter()
        .map(|root| {
            anchor_from_trusted_cert(root)
                .map_err(|e| CertificateError::untrusted(format!("a configured CA certificate is broken: {e}")))
        })
        .collect()
}

fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_secs()).unwrap_or(0)))
}

fn timestamp(at: UnixTime) -> Timestamp {
    // Seconds of a four-digit year; the microseconds of year 9999 fit.
    Timestamp::from_secs(i64::try_from(at.as_secs()).unwrap_or(0))
}

fn presented(names: impl Iterator<Item = String>) -> String {
    /// Enough for a person to see the mistake.
    const SHOWN: usize = 8;
    let names: Vec<_> = names.take(SHOWN).collect();
    if names.is_empty() {
        return "no name".to_owned();
    }
    names.join(", ")
}

/// The name out of webpki's `DnsName("a")` or `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

/// webpki's verdict in words.
fn refused(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::CertExpired { not_after, .. } => CertificateError::Expired {
            at: timestamp(not_after),
        },
        E::CertNotValidYet { not_before, .. } => CertificateError::NotYetValid {
            from: timestamp(not_before),
        },
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => CertificateError::WrongUsage {
            expected: "a certificate for servers",
            found: "one for something else".to_owned(),
        },
        E::CertNotValidForName(context) => CertificateError::WrongName {
            expected: context.expected.to_str().into_owned(),
            presented: presented(context.presented.iter().map(|name| bare(name))),
        },
        E::UnknownIssuer => CertificateError::untrusted("it is not signed by a CA that is trusted here"),
        E::InvalidSignatureForPublicKey => CertificateError::untrusted("its signature does not verify"),
        E::CaUsedAsEndEntity => CertificateError::untrusted("it is itself a CA's; a server needs one that a CA signed"),
        E::EndEntityUsedAsCa => CertificateError::untrusted("it is signed with a certificate that is not a CA's"),
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            CertificateError::untrusted("it is signed with an algorithm that is not accepted")
        }
        E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions => {
            CertificateError::malformed(format!("it is not X.509 in DER ({error})"))
        }
        other => CertificateError::untrusted(other.to_string()),
    }
}
