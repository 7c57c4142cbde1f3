//! The programs of an installed PostgreSQL, and the account that they run as.

use super::PostgresError;
use nix::unistd::{Gid, Uid, User, geteuid};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where Debian and Ubuntu put PostgreSQL, a directory for each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// Names another directory of that form, for a PostgreSQL that was installed elsewhere.
const ROOT_VARIABLE: &str = "POSTERN_POSTGRES_DIR";
/// Account that packages of PostgreSQL make.
pub(super) const ACCOUNT: &str = "postgres";

/// The programs of one PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    programs: PathBuf,
}

impl Installation {
    /// The newest version under `/usr/lib/postgresql` (or `POSTERN_POSTGRES_DIR`), else the one whose `initdb` is in `PATH`.
    ///
    /// # Errors
    /// [`PostgresError::NotInstalled`], which says what to do.
    pub fn find() -> Result<Self, PostgresError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let root = std::env::var_os(ROOT_VARIABLE).unwrap_or_else(|| DEBIAN_ROOT.into());
        Self::find_in(Path::new(&root), std::env::split_paths(&path))
    }

    pub(super) fn find_in(root: &Path, path: impl Iterator<Item = PathBuf>) -> Result<Self, PostgresError> {
        let complete = |programs: &PathBuf| {
            ["initdb", "postgres", "psql", "pg_isready"]
                .iter()
                .all(|program| programs.join(program).is_file())
        };
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions
            .into_iter()
            .map(|(_, programs)| programs)
            .chain(path)
            .find(complete)
            .map(|programs| Self { programs })
            .ok_or(PostgresError::NotInstalled)
    }

    pub(super) fn program(&self, program: &str) -> PathBuf {
        self.programs.join(program)
    }

    /// Runs `command`, which `program` made, to its end and gives what it wrote.
    pub(super) fn run(&self, program: &str, command: &mut Command) -> Result<Output, PostgresError> {
        command.output().map_err(|source| PostgresError::Run {
            program: self.program(program),
            source,
        })
    }

    /// A command that hears nothing of this process's environment (`PGHOST`, `PGSSLMODE`, …), run as the right account.
    pub(super) fn command(&self, program: &str, account: Option<Account>, directory: &Path) -> Command {
        let mut command = Command::new(self.program(program));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir(directory)
            .stdin(Stdio::null());
        if let Some(account) = account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        command
    }
}

/// Who PostgreSQL runs as, where that is not who we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub uid: Uid,
    pub gid: Gid,
}

impl Account {
    pub(super) fn for_this_process() -> Result<Option<Self>, PostgresError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        match User::from_name(ACCOUNT) {
            Ok(Some(user)) => Ok(Some(Self {
                uid: user.uid,
                gid: user.gid,
            })),
            _ => Err(PostgresError::NoAccount),
        }
    }
}

/// What a program that failed said.
pub(super) fn words_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = if text.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout)
    } else {
        text
    };
    match text.trim() {
        "" => output.status.to_string(),
        words => words.to_owned(),
    }
}
