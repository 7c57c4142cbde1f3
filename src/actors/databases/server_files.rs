//! PostgreSQL's certificate as files: `PREFIX.key`, `PREFIX.crt` and `PREFIX.cas` (whose clients it believes).
//!
//! The key is written first and kept over renewals: whatever certificate PostgreSQL finds, whenever it reads, is of the key beside
//! it. For a new key, remove `PREFIX.key` and `PREFIX.crt`.

use crate::model::Timestamp;
use crate::pki::pem::{certificates_from_pem, certificates_to_pem, write_private_for};
use crate::pki::{CertificateFacts, PkiError, PrivateKey, verify_db_server};
use rustls_pki_types::CertificateDer;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("{path}: {error}", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} holds a key that is not ECDSA P-256 ({error}); move it away, and the agent makes one", path = path.display())]
    ForeignKey { path: PathBuf, error: PkiError },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Of the three files, without the dot.
    pub prefix: PathBuf,
    /// Whose they are: user and group. `None` keeps the owner of a file that is there.
    pub owner: Option<(u32, u32)>,
}

/// What the files have to be.
pub struct Wanted<'a> {
    pub hosts: &'a [String],
    pub ttl: Duration,
    /// Of the cluster's db authority.
    pub authorities: &'a [CertificateDer<'static>],
    /// The authorities of PostgreSQL's clients.
    pub clients: &'a [CertificateDer<'static>],
}

impl ServerFiles {
    fn path(&self, ending: &str) -> PathBuf {
        let mut path = self.prefix.clone().into_os_string();
        path.push(".");
        path.push(ending);
        PathBuf::from(path)
    }

    fn read(&self, ending: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FilesError> {
        let path = self.path(ending);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FilesError::Io { path, error }),
        }
    }

    fn write(&self, ending: &str, content: &[u8]) -> Result<(), FilesError> {
        Ok(write_private_for(&self.path(ending), content, self.owner)?)
    }

    fn known_key(&self) -> Result<Option<PrivateKey>, FilesError> {
        let Some(text) = self.read("key")? else {
            return Ok(None);
        };
        let foreign = |error| FilesError::ForeignKey {
            path: self.path("key"),
            error,
        };
        PrivateKey::from_pem(&String::from_utf8_lossy(&text))
            .map(Some)
            .map_err(foreign)
    }

    /// The key that is there, or a new one, which is on disk before anything is signed for it.
    pub fn key(&self) -> Result<PrivateKey, FilesError> {
        if let Some(key) = self.known_key()? {
            return Ok(key);
        }
        let key = PrivateKey::generate()?;
        self.write("key", key.to_pem()?.expose().as_bytes())?;
        Ok(key)
    }

    /// Why a new certificate is needed; `None` when all is well.
    pub fn due(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<Option<&'static str>, FilesError> {
        let (Some(key), Some(certificate)) = (self.known_key()?, self.read("crt")?) else {
            return Ok(Some("there is none"));
        };
        let known = self
            .read("cas")?
            .and_then(|text| certificates_from_pem(&text, "its clients").ok());
        if !known.is_some_and(|known| wanted.clients.iter().all(|client| known.contains(client))) {
            return Ok(Some("the authority of its clients is another"));
        }
        let Ok(chain) = certificates_from_pem(&certificate, "the certificate") else {
            return Ok(Some("what is there is not one"));
        };
        let Ok(facts) = CertificateFacts::read(&chain[0]) else {
            return Ok(Some("what is there is not one"));
        };
        if facts.public_key != key.public_key().to_spki_der() {
            return Ok(Some("the one that is there is of another key"));
        }
        let is_for = |host: &String| verify_db_server(&chain, wanted.authorities, Some(host), now).is_ok();
        if !wanted.hosts.iter().all(is_for) {
            return Ok(Some(
                "the one that is there is not of this cluster, not for these hosts, or has ended",
            ));
        }
        let life = facts.valid_until.since(facts.valid_from).min(wanted.ttl);
        let is_old = facts.valid_until.since(now) < life / 2;
        Ok(is_old.then_some("less than half of its life is left"))
    }

    /// Puts a new certificate beside the key, and marks that PostgreSQL has not been told of it.
    pub fn put(&self, certificate: &[u8], clients: &[CertificateDer<'_>]) -> Result<(), FilesError> {
        let leaf = CertificateDer::from(certificate);
        self.write(
            "reload-due",
            b"PostgreSQL has not read the new certificate yet; its agent sees to it.\n",
        )?;
        self.write("cas", certificates_to_pem(clients)?.as_bytes())?;
        self.write("crt", certificates_to_pem(&[leaf])?.as_bytes())
    }

    pub fn reload_is_due(&self) -> bool {
        self.path("reload-due").exists()
    }

    pub fn reloaded(&self) -> Result<(), FilesError> {
        let path = self.path("reload-due");
        std::fs::remove_file(&path).map_err(|error| FilesError::Io { path, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClusterName;
    use crate::pki::{CaKind, CertificateAuthority, DbServerProfile, HostName};
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_is_due_when_it_is_missing_half_over_for_other_hosts_or_with_other_clients() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = ServerFiles {
            prefix: directory.path().join("server"),
            owner: None,
        };
        let cluster = ClusterName::new("test").expect("valid");
        let ca = |kind| CertificateAuthority::generate(kind, &cluster, NOW).expect("made");
        let (db, clients, others) = (ca(CaKind::Db), ca(CaKind::DbClient), ca(CaKind::DbClient));
        let due = |host: &str, client: &CertificateAuthority, now| {
            let hosts = [host.to_owned()];
            let wanted = Wanted {
                hosts: &hosts,
                ttl: DAY * 90,
                authorities: std::slice::from_ref(db.certificate()),
                clients: std::slice::from_ref(client.certificate()),
            };
            files.due(&wanted, now).expect("readable")
        };
        assert_eq!(due("db.internal", &clients, NOW), Some("there is none"));
        let key = files.key().expect("made");
        assert_eq!(
            due("db.internal", &clients, NOW),
            Some("there is none"),
            "a key alone is none"
        );
        let profile = DbServerProfile {
            names: vec![HostName::new("db.internal").expect("valid")],
        };
        let sign = |now| {
            db.issue_db_server(&profile, &key.public_key(), now + DAY * 90, now)
                .expect("issued")
        };
        files
            .put(&sign(NOW), std::slice::from_ref(clients.certificate()))
            .expect("written");
        assert!(files.reload_is_due());
        files.reloaded().expect("removed");
        assert!(!files.reload_is_due());
        assert_eq!(due("db.internal", &clients, NOW), None);
        assert_eq!(due("db.internal", &clients, NOW + DAY * 44), None);
        assert!(
            due("db.internal", &clients, NOW + DAY * 46)
                .expect("due")
                .contains("half")
        );
        assert!(due("other.internal", &clients, NOW).expect("due").contains("hosts"));
        assert!(due("db.internal", &others, NOW).expect("due").contains("clients"));
        let again = files.key().expect("there");
        assert!(again.public_key() == key.public_key(), "a renewal keeps the key");
        for ending in ["key", "crt", "cas"] {
            let mode = std::fs::metadata(files.path(ending))
                .expect("written")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{ending}");
        }
        std::fs::write(
            files.path("key"),
            PrivateKey::generate().expect("made").to_pem().expect("PEM").expose(),
        )
        .expect("ours");
        assert!(due("db.internal", &clients, NOW).expect("due").contains("another key"));
    }
}
