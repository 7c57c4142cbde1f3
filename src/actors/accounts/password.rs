//! Passwords: the rule for new ones, and their hashes.
//!
//! A password is the bytes that were typed. It is not brought into a normal form of Unicode: browsers and terminals send what a
//! keyboard makes, which is the same each time, and a form of Unicode that changes would lock people out.

use super::refused::AccountError;
use crate::model::Secret;
use crate::pki::entropy;
use crate::telemetry::panics;
use crate::telemetry::registry::Seat;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// The reference's rule: length is what makes guessing hopeless, not kinds of characters (NIST SP 800-63B, 3.1.1.2).
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The reference's; far beyond any phrase that somebody types.
pub const PASSWORD_CHARS_MAX: usize = 128;
/// A longer text is no password of anybody, and is not hashed.
pub(super) const PASSWORD_BYTES_MAX: usize = 4 * PASSWORD_CHARS_MAX;
/// Argon2id as the OWASP Password Storage Cheat Sheet has it first: 19 MiB, two passes, one lane. About 30 ms of one core; with a
/// lock-out after five tries and a second factor what is left to slow down is a stolen store.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The memory that a stored hash may ask for, so that a damaged record does not take the machine's.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Logins that wait for a core: two seconds of work on one core. Whoever comes then is told to come again, so that a flood of
/// logins takes neither memory nor the time of those who wait.
const WAITING_MAX: usize = 64;

/// What a new password must be.
pub(super) fn check_new(password: &Secret<String>) -> Result<(), AccountError> {
    match password.expose().chars().count() {
        chars if chars < PASSWORD_CHARS_MIN => Err(AccountError::PasswordTooShort),
        chars if chars > PASSWORD_CHARS_MAX => Err(AccountError::PasswordTooLong),
        _ => Ok(()),
    }
}

/// A hash with all that is needed to make it again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PasswordHash {
    algorithm: Kind,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    hash: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Argon2id,
}

impl PasswordHash {
    fn make(password: &str) -> Result<Self, AccountError> {
        let salt = entropy::bytes::<SALT_BYTES>();
        let hash = digest((MEMORY_KIB, PASSES, LANES), password, &salt)?;
        Ok(Self {
            algorithm: Kind::Argon2id,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: BASE64.encode(&salt),
            hash: BASE64.encode(hash.as_slice()),
        })
    }

    /// A hash that no password has, for those who have no password: it takes as long to check.
    fn decoy() -> Self {
        Self {
            algorithm: Kind::Argon2id,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: BASE64.encode(&[0; SALT_BYTES]),
            hash: String::new(),
        }
    }

    fn is_of(&self, password: &str) -> Result<bool, AccountError> {
        let damaged = |error: data_encoding::DecodeError| AccountError::Unreadable(error.to_string());
        let salt = BASE64.decode(self.salt.as_bytes()).map_err(damaged)?;
        let expected = BASE64.decode(self.hash.as_bytes()).map_err(damaged)?;
        let hash = digest((self.memory_kib, self.passes, self.lanes), password, &salt)?;
        Ok(verify_slices_are_equal(hash.as_slice(), &expected).is_ok())
    }
}

fn digest(
    (memory, passes, lanes): (u32, u32, u32),
    password: &str,
    salt: &[u8],
) -> Result<Zeroizing<[u8; HASH_BYTES]>, AccountError> {
    let refused = |error: argon2::Error| AccountError::Unreadable(format!("a password's hash: {error}"));
    if memory > MEMORY_KIB_MAX {
        return Err(AccountError::Unreadable(format!(
            "a password's hash asks for {memory} KiB"
        )));
    }
    let params = Params::new(memory, passes, lanes, Some(HASH_BYTES)).map_err(refused)?;
    let mut out = Zeroizing::new([0; HASH_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, out.as_mut_slice())
        .map_err(refused)?;
    Ok(out)
}

/// What hashes, as the views of the process have it.
const HASHING: &str = "password-hashing";

/// The right to one hash.
pub(super) struct Place(OwnedSemaphorePermit);

/// Hashes on threads of their own, no more at a time than there are cores.
#[derive(Clone)]
pub(super) struct Hasher {
    /// Its places: those who hash, and who wait for it.
    seat: Arc<Seat>,
    pub(super) cores: Arc<Semaphore>,
}

impl Hasher {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            seat: Seat::of_thread(HASHING, u32::try_from(cores + WAITING_MAX).unwrap_or(u32::MAX)),
            cores: Arc::new(Semaphore::new(cores)),
        }
    }

    /// A place among those who hash or wait for it: taken before a login is counted, so that a flood locks nobody out.
    pub fn enter(&self) -> Result<Place, AccountError> {
        let place = self.seat.room().clone().try_acquire_owned();
        place.map(Place).map_err(|_| AccountError::Busy)
    }

    pub async fn hash(&self, place: Place, password: Secret<String>) -> Result<PasswordHash, AccountError> {
        self.run(place, move || PasswordHash::make(password.expose())).await
    }

    /// Whether the password is the one of the hash. Without a hash it takes as long, and is not.
    pub async fn check(
        &self,
        place: Place,
        hash: Option<PasswordHash>,
        password: Secret<String>,
    ) -> Result<bool, AccountError> {
        let is_real = hash.is_some();
        let hash = hash.unwrap_or_else(PasswordHash::decoy);
        let is_it = self.run(place, move || hash.is_of(password.expose())).await?;
        Ok(is_it && is_real)
    }

    async fn run<T: Send + 'static>(
        &self,
        Place(place): Place,
        work: impl FnOnce() -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        // The semaphore is never closed. The thread holds the core, also when nobody waits for it any more.
        let core = self
            .cores
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| AccountError::Busy)?;
        let hashed = tokio::task::spawn_blocking(move || {
            // Of its own: as many hash at a time as there are cores.
            let seat = Seat::of_thread(format!("{HASHING}/hash"), 0);
            let done = seat.does("hash", work);
            drop((core, place));
            done
        });
        hashed
            .await
            .map_err(|error| AccountError::Unreadable(format!("a password's hash: {}", panics::of_task(error))))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_password_alone_and_no_two_are_the_same() {
        let hash = PasswordHash::make("correct horse").unwrap();
        assert!(hash.is_of("correct horse").unwrap());
        for other in ["correct horsf", "correct hors", "", "Correct horse"] {
            assert!(!hash.is_of(other).unwrap(), "{other}");
        }
        assert!(hash != PasswordHash::make("correct horse").unwrap());
    }

    #[test]
    fn a_hash_in_the_store_that_asks_for_too_much_memory_is_refused() {
        let mut hash = PasswordHash::make("correct horse").unwrap();
        hash.memory_kib = u32::MAX;
        assert!(matches!(hash.is_of("correct horse"), Err(AccountError::Unreadable(_))));
    }

    #[test]
    fn a_new_password_has_12_to_128_characters_of_any_kind() {
        let said = |text: &str| check_new(&Secret::new(text.to_owned()));
        assert!(said("elevenchars").is_err() && said("twelve chars").is_ok());
        assert!(said(&"ä".repeat(12)).is_ok() && said(&"ä".repeat(128)).is_ok());
        let why = said(&"ä".repeat(129)).unwrap_err().to_string();
        assert!(why.contains("at most 128"), "{why}");
    }
}
