//! What can go wrong with keys and certificates: `PkiError` for what we make, keep and read, `CertificateError` for what a
//! peer shows us.

use super::ca::CaKind;
use crate::model::Timestamp;
use std::io;
use std::path::{Path, PathBuf};

/// Why a key, a certificate, a request or a file of ours could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is a symbolic link; a private file is never written through one; remove the link or name its target", path.display())]
    SymbolicLink { path: PathBuf },
    #[error("{} can be read by others (mode {mode:04o}); a key file must be its owner's alone; run: chmod 600 '{}'", path.display(), path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{} does not hold a sealing key ({why}); restore it from the backup: what was sealed under it cannot be opened without it", path.display())]
    SealKeyFile { path: PathBuf, why: &'static str },
    #[error(
        "the sealed value for {context:?} does not open: it was changed, or it was sealed under another key; check that the sealing key belongs to this data"
    )]
    Sealed { context: String },
    #[error("{what} is not an ECDSA P-256 private key in PKCS#8 ({why})")]
    Key { what: &'static str, why: String },
    #[error("the cryptographic library could not {doing}")]
    Library { doing: &'static str },
    #[error("the certificate request is refused: {why}")]
    Request { why: String },
    #[error("{what} is not a usable certificate: {why}")]
    Certificate { what: String, why: String },
    #[error("the {authority} CA does not sign {wanted}; that is for the {right} CA")]
    WrongAuthority {
        authority: CaKind,
        wanted: &'static str,
        right: CaKind,
    },
    #[error("the certificate would end at {not_after}, which is not after now ({now}); ask for a later end")]
    EndsBeforeItBegins { not_after: Timestamp, now: Timestamp },
    #[error(
        "the certificate would end at {not_after}, after its {authority} CA ends at {authority_ends}; ask for less or rotate the CA"
    )]
    OutlivesAuthority {
        authority: CaKind,
        not_after: Timestamp,
        authority_ends: Timestamp,
    },
    #[error("{0} cannot be written in a certificate: its dates are from 1970 to 9999")]
    OutsideCalendar(Timestamp),
    #[error("host name {name:?} is refused: {why}")]
    HostName { name: String, why: &'static str },
    #[error("{what}: {found} are more than {max}")]
    TooMany {
        what: &'static str,
        found: usize,
        max: usize,
    },
    #[error("{what} is empty; {rule}")]
    Empty { what: &'static str, rule: &'static str },
    #[error("the certificate of {whom:?} is {length} bytes long, more than {max}; give fewer roles or shorter traits")]
    TooLong { whom: String, length: usize, max: usize },
    #[error("the record of a certificate authority is damaged: {why}")]
    Record { why: String },
    #[error("{text:?} is not a CA pin: {why}; a pin is `sha256:` and 64 hexadecimal digits, as `ctl status` shows it")]
    Pin { text: String, why: &'static str },
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl PkiError {
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// Why the certificate that a peer showed does not identify it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("no certificate was presented")]
    Missing,
    #[error("the certificate expired at {at}")]
    Expired { at: Timestamp },
    #[error("the certificate is not valid before {from}; check the clocks")]
    NotYetValid { from: Timestamp },
    #[error("{expected} is needed here, and the one presented is {found}")]
    WrongUsage { expected: &'static str, found: String },
    #[error("the certificate is not trusted: {why}")]
    Untrusted { why: String },
    #[error("the certificate belongs to another cluster, {found:?}")]
    OtherCluster { found: String },
    #[error("the certificate is for {presented}, not for {expected}; a name counts only as a subject alternative name")]
    WrongName { expected: String, presented: String },
    #[error("the certificate cannot be understood: {what}")]
    Malformed { what: String },
}

impl CertificateError {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    pub(super) fn untrusted(why: impl Into<String>) -> Self {
        Self::Untrusted { why: why.into() }
    }
}
