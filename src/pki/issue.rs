//! Issuing: a profile and a public key become a certificate. Each function is for one CA and refuses the others.

use super::CertificateAuthority;
use super::error::PkiError;
use super::key::PublicKey;
use super::profile::{
    CLOCK_SKEW, DbClientProfile, DbServerProfile, HostProfile, MAX_CERTIFICATE_BYTES, PersonProfile, Profile,
    serial_number, set_validity,
};
use crate::model::Timestamp;
use rustls_pki_types::CertificateDer;

impl CertificateAuthority {
    /// Signs a person's certificate; for the user CA.
    ///
    /// # Errors
    /// For this function and the three that follow: [`PkiError::WrongAuthority`] on another CA;
    /// [`PkiError::EndsBeforeItBegins`] and [`PkiError::OutlivesAuthority`] for an end that cannot be;
    /// [`PkiError::TooLong`] above [`MAX_CERTIFICATE_BYTES`]; and what the profile refuses ([`PkiError::Empty`],
    /// [`PkiError::TooMany`], [`PkiError::HostName`]).
    pub fn issue_person(
        &self,
        profile: &PersonProfile,
        key: &PublicKey,
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, PkiError> {
        self.issue(profile, key, not_after, now)
    }

    /// Signs a node's certificate; for the host CA. Errors as [`issue_person`](Self::issue_person).
    pub fn issue_host(
        &self,
        profile: &HostProfile,
        key: &PublicKey,
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, PkiError> {
        self.issue(profile, key, not_after, now)
    }

    /// Signs the certificate of a PostgreSQL server; for the db CA. Errors as [`issue_person`](Self::issue_person).
    pub fn issue_db_server(
        &self,
        profile: &DbServerProfile,
        key: &PublicKey,
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, PkiError> {
        self.issue(profile, key, not_after, now)
    }

    /// Signs what an agent shows PostgreSQL; for the db-client CA. Errors as [`issue_person`](Self::issue_person).
    pub fn issue_db_client(
        &self,
        profile: &DbClientProfile,
        key: &PublicKey,
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, PkiError> {
        self.issue(profile, key, not_after, now)
    }

    fn issue<P: Profile>(
        &self,
        profile: &P,
        key: &PublicKey,
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, PkiError> {
        if self.kind() != P::SIGNED_BY {
            return Err(PkiError::WrongAuthority {
                authority: self.kind(),
                wanted: P::WHAT,
                right: P::SIGNED_BY,
            });
        }
        if not_after <= now {
            return Err(PkiError::EndsBeforeItBegins { not_after, now });
        }
        if not_after > self.not_after() {
            return Err(PkiError::OutlivesAuthority {
                authority: self.kind(),
                not_after,
                authority_ends: self.not_after(),
            });
        }
        let mut params = profile.params(self.cluster())?;
        params.serial_number = Some(serial_number());
        set_validity(&mut params, now - CLOCK_SKEW, not_after)?;
        let certificate = params.signed_by(key, &self.issuer())?.der().clone();
        // Whoever is shown a longer one refuses it, so it is refused here, where the reason can be told.
        if certificate.len() > MAX_CERTIFICATE_BYTES {
            return Err(PkiError::TooLong {
                whom: profile.whom(),
                length: certificate.len(),
                max: MAX_CERTIFICATE_BYTES,
            });
        }
        Ok(certificate)
    }
}
