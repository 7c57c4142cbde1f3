//! Sealing of secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key that is kept outside the store's directory.
//!
//! A sealed value is `version (1) | nonce (12) | ciphertext | tag (16)`. Its associated data are the version and a context, the
//! name of the thing that is sealed, so that one sealed value cannot be put in the place of another.

use super::{PkiError, entropy, pem};
use crate::model::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use data_encoding::BASE64;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

const KEY_BYTES: usize = 32;
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
/// A key file is 44 characters of base64 and the end of the line.
const MAX_KEY_FILE_BYTES: u64 = 64;
/// The longest value that is opened. Keys are hundreds of bytes; whatever is far beyond is not one.
pub const MAX_SEALED_BYTES: usize = 1024 * 1024;

/// The key under which secrets are sealed. Nonces are random: with 96 bits of them, one key is good for 2^32 values.
pub struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// Reads the key file (32 bytes in base64 on one line), or makes one with mode 0600 where there is none. Two processes that
    /// start at once end up with the same key.
    ///
    /// # Errors
    /// [`PkiError::TooOpen`] when group or others have any right to the file; [`PkiError::SealKeyFile`] when it is not a key;
    /// [`PkiError::File`] when it cannot be read or made.
    pub fn load_or_create(path: &Path) -> Result<Self, PkiError> {
        match File::open(path) {
            Ok(file) => return Self::read(path, file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(PkiError::file("open the sealing key", path)(e)),
        }
        let key = Zeroizing::new(entropy::bytes::<KEY_BYTES>());
        let line = Zeroizing::new(BASE64.encode(key.as_slice()) + "\n");
        if pem::create_private(path, line.as_bytes())? {
            return Self::from_bytes(key.as_slice());
        }
        let file = File::open(path).map_err(PkiError::file("open the sealing key", path))?;
        Self::read(path, file)
    }

    fn read(path: &Path, file: File) -> Result<Self, PkiError> {
        let mode = file
            .metadata()
            .map_err(PkiError::file("look at the sealing key", path))?
            .permissions()
            .mode()
            & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PkiError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize + 1));
        file.take(MAX_KEY_FILE_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(PkiError::file("read the sealing key", path))?;
        let refused = |why| PkiError::SealKeyFile {
            path: path.to_owned(),
            why,
        };
        let decoded = BASE64.decode(text.trim_ascii());
        let key = Zeroizing::new(decoded.map_err(|_| refused("it is not base64"))?);
        if key.len() != KEY_BYTES {
            return Err(refused("it is not 32 bytes long"));
        }
        Self::from_bytes(&key)
    }

    fn from_bytes(key: &[u8]) -> Result<Self, PkiError> {
        RandomizedNonceKey::new(&AES_256_GCM, key)
            .map(Self)
            .map_err(|_| PkiError::Library {
                doing: "use the sealing key",
            })
    }

    /// Seals a value. `context` names it, and must be given again to open it.
    ///
    /// # Errors
    /// [`PkiError::Library`] when the library refuses, which it does for nothing shorter than 64 GiB.
    pub fn seal(&self, plaintext: &[u8], context: &str) -> Result<Vec<u8>, PkiError> {
        // With room for the tag from the start: a buffer that grows leaves a copy of the plaintext behind.
        let mut body = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        body.extend_from_slice(plaintext);
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(associated(context)), &mut body)
            .map_err(|_| {
                body.zeroize();
                PkiError::Library { doing: "seal a value" }
            })?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) made with the same key and context.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] for anything else, without saying which part differs.
    pub fn open(&self, sealed: &[u8], context: &str) -> Result<Secret<Vec<u8>>, PkiError> {
        let refused = || PkiError::Sealed {
            context: context.to_owned(),
        };
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        if *version != VERSION || sealed.len() > MAX_SEALED_BYTES {
            return Err(refused());
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut body = Zeroizing::new(body.to_vec());
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(associated(context)), &mut body)
            .map_err(|_| refused())?;
        Ok(Secret::new(opened.to_vec()))
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey([redacted])")
    }
}

fn associated(context: &str) -> Vec<u8> {
    let mut data = vec![VERSION];
    data.extend_from_slice(b"postern:");
    data.extend_from_slice(context.as_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn key() -> SealKey {
        SealKey::from_bytes(&entropy::bytes::<KEY_BYTES>()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_context_only() {
        let key = key();
        let sealed = key.seal(b"the key", "ca/user").unwrap();
        assert_eq!(key.open(&sealed, "ca/user").unwrap().expose(), b"the key");
        assert!(key.open(&sealed, "ca/host").is_err(), "another context");
        assert!(self::key().open(&sealed, "ca/user").is_err(), "another key");
        assert_ne!(key.seal(b"the key", "ca/user").unwrap(), sealed, "the nonce is fresh");
        assert!(!sealed.windows(7).any(|w| w == b"the key"));
    }

    #[test]
    fn one_flipped_bit_anywhere_or_a_missing_end_is_refused() {
        let key = key();
        let sealed = key.seal(b"the key", "c").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(key.open(&changed, "c").is_err(), "byte {at}, bit {bit}");
            }
            assert!(key.open(&sealed[..at], "c").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_with_mode_0600_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        let made = SealKey::load_or_create(&path).unwrap();
        let sealed = made.seal(b"x", "c").unwrap();
        let read = SealKey::load_or_create(&path).unwrap();
        assert_eq!(read.open(&sealed, "c").unwrap().expose(), b"x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no file is left over");
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_command_to_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        SealKey::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = SealKey::load_or_create(&path).expect_err("too open").to_string();
        assert!(
            refused.contains(&format!("chmod 600 '{}'", path.display())),
            "{refused}"
        );
        assert!(refused.contains("0640"), "{refused}");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        for content in ["", "AAAA\n", "not base64!", &"A".repeat(1000)] {
            pem::write_private(&path, content.as_bytes()).unwrap();
            assert!(matches!(
                SealKey::load_or_create(&path),
                Err(PkiError::SealKeyFile { .. })
            ));
            assert_eq!(fs::read(&path).unwrap(), content.as_bytes());
        }
    }
}
