//! The directory of a throw-away PostgreSQL, and the record of it.

use super::PostgresError;
use super::installation::Account;
use nix::fcntl::OFlag;
use nix::unistd::{chown, fchown, mkdtemp};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The directory's name begins with this, and only such a directory is ever swept.
pub(super) const DIRECTORY_PREFIX: &str = "postern-postgres-";
/// `sun_path` has 108 bytes with its final zero (unix(7)); PostgreSQL adds `/.s.PGSQL.65535`.
pub(super) const MAX_SOCKET_DIRECTORY_BYTES: usize = 107 - "/.s.PGSQL.65535".len();
/// How much of the end of PostgreSQL's log an error shows.
const LOG_TAIL_BYTES: u64 = 4096;
const LOG_TAIL_LINES: usize = 10;

pub(super) fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PostgresError + 'a {
    move |source| PostgresError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The directory of everything: data, socket, certificates, log. Removed, with its record, when it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    pub path: PathBuf,
    pub account: Option<Account>,
    pub record: Option<PathBuf>,
}

impl Directory {
    pub(super) fn make(parent: &Path) -> Result<Self, PostgresError> {
        let account = Account::for_this_process()?;
        let template = parent.join(format!("{DIRECTORY_PREFIX}XXXXXX"));
        if template.as_os_str().len() > MAX_SOCKET_DIRECTORY_BYTES {
            return Err(PostgresError::DirectoryTooLong(template));
        }
        // A comma separates directories in `unix_socket_directories`; a newline ends a line of the configuration.
        let plain = |text: &str| !text.contains(|c: char| c.is_control() || c == ',' || c == '"');
        if !parent.is_absolute() || !template.to_str().is_some_and(plain) {
            return Err(PostgresError::DirectoryName(template));
        }
        // mkdtemp makes it with mode 0700 and a name that did not exist.
        let path = mkdtemp(&template)
            .map_err(io::Error::from)
            .map_err(file_error("make the directory", &template))?;
        let directory = Self {
            path,
            account,
            record: None,
        };
        directory.hand_over(&directory.path)?;
        Ok(directory)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    fn hand_over(&self, path: &Path) -> Result<(), PostgresError> {
        match self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid))
                .map_err(io::Error::from)
                .map_err(file_error("hand over", path)),
            None => Ok(()),
        }
    }

    /// Writes a file that only PostgreSQL's account may read.
    ///
    /// The directory belongs to that account: what it might have put there in the meantime is not followed, and what is
    /// handed over is the file that was opened.
    pub(super) fn write(&self, path: &Path, content: &str) -> Result<(), PostgresError> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .map_err(file_error("open", path))?;
        file.write_all(content.as_bytes()).map_err(file_error("write", path))?;
        match self.account {
            Some(account) => fchown(&file, Some(account.uid), Some(account.gid))
                .map_err(io::Error::from)
                .map_err(file_error("hand over", path)),
            None => Ok(()),
        }
    }

    /// Writes which directory and process there are, for [`sweep_leftovers`].
    pub(super) fn keep_record(&self, pid: Option<u32>) -> Result<(), PostgresError> {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
        std::fs::write(record, format!("{}\n{pid}\n", self.path.display())).map_err(file_error("write", record))
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&self.log()).unwrap_or_else(|error| format!("(the log cannot be read: {error})"))
    }

    pub(super) fn remove(&mut self) -> Result<(), PostgresError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("remove", &self.path)(error));
            }
            _ => {}
        }
        if let Some(record) = self.record.take() {
            match std::fs::remove_file(&record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("remove", &record)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed stays in the record for the next start.
        let _ = self.remove();
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
}
