//! The data directory: one process, one directory, nobody else's eyes.

use crate::actors::identity::Identity;
use serde_json::json;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "the data directory {path} cannot be used: {error}; it must be writable by this account (see data_dir in the \
         configuration, or run as its owner)"
    )]
    Unusable { path: String, error: io::Error },
    #[error(
        "the data directory {path} is locked: process {owner} uses it; one directory belongs to one process, so stop that one or \
         choose another data_dir"
    )]
    Locked { path: String, owner: String },
}

#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held while the process lives; the kernel releases it however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there (0700) and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable {
            path: path.display().to_string(),
            error,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Who it is only helps the reader; the lock itself is the answer.
                let _unknown = lock.read_to_string(&mut owner);
                return Err(DataDirError::Locked {
                    path: path.display().to_string(),
                    owner: if owner.trim().is_empty() {
                        "(unknown)".to_owned()
                    } else {
                        owner.trim().to_owned()
                    },
                });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(unusable)?;
        for part in ["backend", "identity", "spool", "log"] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path.join(part))
                .map_err(unusable)?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("backend/state.sqlite")
    }

    /// Beside the store's directory, not in it: a copy of the store alone opens no key.
    pub fn seal_key(&self) -> PathBuf {
        self.path.join("seal.key")
    }

    pub fn identity(&self) -> PathBuf {
        identity_in(&self.path)
    }

    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn admin_socket(&self) -> PathBuf {
        admin_socket_in(&self.path)
    }

    pub fn debug_socket(&self) -> PathBuf {
        debug_socket_in(&self.path)
    }

    fn listening(&self) -> PathBuf {
        self.path.join("listening.json")
    }

    pub fn forget_listening(&self) -> Result<(), DataDirError> {
        match std::fs::remove_file(self.listening()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DataDirError::Unusable {
                path: self.path.display().to_string(),
                error,
            }),
            _ => Ok(()),
        }
    }

    /// Says on which ports the services listen (a configuration may leave the choice to the system) and that they do.
    pub fn announce_listening(&self, auth: Option<SocketAddr>, proxy: Option<SocketAddr>, diag: Option<SocketAddr>) {
        let mut content = json!({ "pid": std::process::id() });
        for (name, address) in [("auth", auth), ("proxy", proxy), ("diag", diag)] {
            if let Some(address) = address {
                content[name] = json!(address.to_string());
            }
        }
        let temporary = self.path.join("listening.json.new");
        let written = std::fs::write(&temporary, content.to_string())
            .and_then(|()| std::fs::rename(&temporary, self.listening()));
        if let Err(error) = written {
            tracing::warn!(%error, "listening.json was not written");
        }
    }

    /// Removes what says that a process is here.
    pub fn close(&self) {
        for path in [self.listening(), self.admin_socket()] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "not removed");
                }
                _ => {}
            }
        }
    }
}

/// Whether the node of a data directory has joined a cluster.
pub fn has_joined(data_dir: &Path) -> bool {
    Identity::is_kept_in(&identity_in(data_dir))
}

fn identity_in(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

pub fn admin_socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

pub fn debug_socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("debug.sock")
}
