//! Keys and certificates: what each certificate says, who signs it, and how one that a peer shows is checked.
//!
//! Four certificate authorities, each for one purpose (`ca`); `profile` says what is in a certificate and where, `issue` makes
//! it, `verify` reads it back and refuses everything else. Nothing here has a socket, and the only files are those of
//! `seal` and `pem`. The one source of randomness of the program is `entropy`.

pub mod anchors;
pub mod ca;
pub mod entropy;
pub mod error;
pub mod issue;
pub mod key;
pub mod pem;
pub mod pin;
pub mod profile;
mod reading;
pub mod remembered;
pub mod seal;
mod summary;
pub mod verify;

pub use anchors::{PlainTrustAnchors, TrustAnchors};
pub use ca::{CaKind, CertificateAuthority};
pub use error::{CertificateError, PkiError};
pub use key::{PrivateKey, PublicKey};
pub use pin::CaPin;
pub use profile::{DbClientProfile, DbServerProfile, HostName, HostProfile, PROTOCOL, PersonProfile};
pub use reading::PersonClaims;
pub use seal::SealKey;
pub use summary::{CertificateSummary, summary};
pub use verify::{
    CertificateFacts, HostIdentity, PeerUsage, chains_to_user_ca, verify_db_server, verify_host, verify_person,
};

#[cfg(test)]
mod tests;
