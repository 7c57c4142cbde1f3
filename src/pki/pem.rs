//! PEM (RFC 7468) for certificates, and the writing of files that only their owner may read.

use super::{PkiError, entropy};
use data_encoding::HEXLOWER;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use x509_cert::der::pem::{LineEnding, encode_string};

/// The largest PEM text that is read. The bundles of operating systems are about 250 KB.
pub const MAX_PEM_BYTES: usize = 1024 * 1024;

/// The certificates as PEM, one after the other, lines ended by LF.
///
/// # Errors
/// [`PkiError::Library`] when the text cannot be made, which is a certificate larger than memory allows.
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> Result<String, PkiError> {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str(&encode("CERTIFICATE", certificate)?);
    }
    Ok(text)
}

/// Every certificate of a PEM text; other sections (keys, comments) are passed over. `what` names the source in errors.
///
/// # Errors
/// [`PkiError::Certificate`] when the text is too long, is not PEM, or holds no certificate.
pub fn certificates_from_pem(text: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let refused = |why: String| PkiError::Certificate {
        what: what.to_owned(),
        why,
    };
    if text.len() > MAX_PEM_BYTES {
        return Err(refused(format!("it is longer than {MAX_PEM_BYTES} bytes")));
    }
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|e| refused(format!("the PEM is broken: {}", in_words(&e))))?;
    if found.is_empty() {
        return Err(refused("there is no BEGIN CERTIFICATE in it".to_owned()));
    }
    Ok(found)
}

/// What is wrong with a PEM text. The library's own words quote it, as a list of numbers and without a bound: also a key that has lost
/// its line feeds.
pub(super) fn in_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no line that ends it",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is not as it should be",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::NoItemsFound => "there is nothing of the kind in it",
        _ => "it cannot be read",
    }
}

pub(super) fn encode(label: &str, der: &[u8]) -> Result<String, PkiError> {
    encode_string(label, LineEnding::LF, der).map_err(|_| PkiError::Library { doing: "write PEM" })
}

/// Writes a file that only its owner may read or write (0600), whole or not at all: a reader sees the old content or the
/// new one, also after a power cut. An existing file is replaced, with the new mode.
///
/// # Errors
/// [`PkiError::SymbolicLink`] when `path` is one; [`PkiError::File`] for the rest.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_symlink() => {
            return Err(PkiError::SymbolicLink { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(PkiError::file("look at", path)(e)),
    }
    let temporary = Temporary::beside(path, bytes, None)?;
    // A link that appears at this moment is replaced by the rename, not followed.
    fs::rename(&temporary.0, path).map_err(PkiError::file("put in place", path))?;
    sync_directory(path)
}

/// As [`write_private`], with these permissions in place of 0600 from the moment at which the file is there.
///
/// # Errors
/// As of [`write_private`].
pub fn write_with(path: &Path, bytes: &[u8], permissions: fs::Permissions) -> Result<(), PkiError> {
    let temporary = Temporary::beside(path, bytes, None)?;
    fs::set_permissions(&temporary.0, permissions).map_err(PkiError::file("set the permissions of", path))?;
    fs::rename(&temporary.0, path).map_err(PkiError::file("put in place", path))?;
    sync_directory(path)
}

/// As [`write_private`], for a user and group of the system. Without those the owner of a file that is there stays its owner.
///
/// # Errors
/// As of [`write_private`]; among them that this process may not give the file away, which takes root.
pub fn write_private_for(path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> Result<(), PkiError> {
    let owner = match (owner, fs::symlink_metadata(path)) {
        (_, Ok(found)) if found.file_type().is_symlink() => {
            return Err(PkiError::SymbolicLink { path: path.to_owned() });
        }
        (Some(owner), _) => Some(owner),
        (None, Ok(found)) => Some((found.uid(), found.gid())),
        (None, Err(e)) if e.kind() == io::ErrorKind::NotFound => None,
        (None, Err(e)) => return Err(PkiError::file("look at", path)(e)),
    };
    let temporary = Temporary::beside(path, bytes, owner)?;
    fs::rename(&temporary.0, path).map_err(PkiError::file("put in place", path))?;
    sync_directory(path)
}

/// As [`write_private`], but only where there is nothing yet: `false` when something is there already.
///
/// # Errors
/// [`PkiError::File`].
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, PkiError> {
    let temporary = Temporary::beside(path, bytes, None)?;
    // A hard link is the way to put a whole file in place that fails when the name is taken.
    match fs::hard_link(&temporary.0, path) {
        Ok(()) => {
            sync_directory(path)?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(PkiError::file("put in place", path)(e)),
    }
}

/// A file beside the one meant, removed when it has not been renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> Result<Self, PkiError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", HEXLOWER.encode(&entropy::bytes::<8>())));
        let temporary = Self(path.with_file_name(name));
        // create_new is O_EXCL: it follows no link and takes over no file that someone else prepared.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary.0)
            .map_err(PkiError::file("create a file beside", path))?;
        if let Some((user, group)) = owner {
            fchown(&file, Some(user), Some(group)).map_err(PkiError::file("give to its owner", path))?;
        }
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(PkiError::file("write", path))?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// A new name is on disk only once its directory is.
fn sync_directory(path: &Path) -> Result<(), PkiError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(PkiError::file("sync the directory", directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_wrong_with_a_text_is_said_without_a_word_of_it() {
        let key = super::super::PrivateKey::generate().unwrap().to_pem().unwrap();
        let in_one_line = key.expose().replace('\n', "");
        let error = super::super::PrivateKey::from_pem(&in_one_line).expect_err("no line feeds");
        let inside = &key.expose().lines().nth(1).unwrap()[..16];
        let numbers = format!("{:?}", inside.as_bytes());
        let said = error.to_string();
        assert!(
            !said.contains(inside) && !said.contains(numbers.trim_matches(['[', ']'])),
            "{said}"
        );
        assert!(said.contains("a section has no line that ends it"), "{said}");
        let unending = format!("-----BEGIN CERTIFICATE{}-----\nAAAA\n", "x".repeat(5000));
        let error = certificates_from_pem(unending.as_bytes(), "it").expect_err("no end");
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[test]
    fn a_private_file_is_its_owners_alone_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no file is left over");
    }

    #[test]
    fn a_private_file_is_never_written_through_a_symbolic_link() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        let link = dir.path().join("link");
        fs::write(&target, "theirs").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let refused = write_private(&link, b"ours").expect_err("a link");
        assert!(matches!(refused, PkiError::SymbolicLink { .. }));
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let refused = write_private(&dir.path().join("no/such/key"), b"x").expect_err("no directory");
        assert!(refused.to_string().contains("no/such/key"), "{refused}");
    }

    #[test]
    fn certificates_survive_pem_in_their_order() {
        let certificates: Vec<_> = [vec![0x30, 0], vec![0x30, 1, 7]]
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let text = certificates_to_pem(&certificates).unwrap();
        assert_eq!(certificates_from_pem(text.as_bytes(), "test").unwrap(), certificates);
    }

    #[test]
    fn a_text_without_a_certificate_is_refused_by_name() {
        let refused = certificates_from_pem(b"hello", "ca.pem").expect_err("no PEM");
        assert_eq!(
            refused.to_string(),
            "ca.pem is not a usable certificate: there is no BEGIN CERTIFICATE in it"
        );
        assert!(certificates_from_pem(&vec![b' '; MAX_PEM_BYTES + 1], "ca.pem").is_err());
    }
}
