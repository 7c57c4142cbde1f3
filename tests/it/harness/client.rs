//! A person's side: a certificate, and the programs that connect with it.

use super::postgres::program;
use super::process::{Output, TestDir, run};
use super::{PATIENCE, clean_environment};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Where to connect and as whom. The files of the certificate are removed with the last copy.
#[derive(Debug, Clone)]
pub struct Client {
    pub home: Arc<TestDir>,
    /// `PREFIX.crt`, `PREFIX.key`, and `PREFIX.cas` for the authority of the proxy.
    pub prefix: PathBuf,
    pub port: u16,
    pub db_user: String,
    pub db_name: String,
    pub with_certificate: bool,
}

impl Client {
    pub fn new(home: TestDir, prefix: PathBuf, port: u16, db_user: &str, db_name: &str) -> Self {
        Self {
            home: Arc::new(home),
            prefix,
            port,
            db_user: db_user.to_owned(),
            db_name: db_name.to_owned(),
            with_certificate: true,
        }
    }

    /// The same person as another database user.
    #[must_use]
    pub fn as_db_user(&self, db_user: &str) -> Self {
        Self {
            db_user: db_user.to_owned(),
            ..self.clone()
        }
    }

    /// The same person in another database.
    #[must_use]
    pub fn in_database(&self, db_name: &str) -> Self {
        Self {
            db_name: db_name.to_owned(),
            ..self.clone()
        }
    }

    #[must_use]
    pub fn without_certificate(&self) -> Self {
        Self {
            with_certificate: false,
            ..self.clone()
        }
    }

    /// Sets what libpq reads, with full verification of the proxy.
    pub fn connects(&self, command: &mut Command) {
        clean_environment(command, self.home.path());
        let file = |suffix| self.prefix.with_extension(suffix);
        command
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.db_user)
            .env("PGDATABASE", &self.db_name)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", file("cas"))
            .env("PGCONNECT_TIMEOUT", "20");
        if self.with_certificate {
            command.env("PGSSLCERT", file("crt")).env("PGSSLKEY", file("key"));
        } else {
            command
                .env("PGSSLCERT", self.home.join("none.crt"))
                .env("PGSSLKEY", self.home.join("none.key"));
        }
    }

    /// One of PostgreSQL's client programs, connecting through Postern.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = program(name, self.home.path());
        self.connects(&mut command);
        command
    }

    pub fn psql_command(&self) -> Command {
        let mut command = self.tool("psql");
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "VERBOSITY=verbose",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        command
    }

    /// Runs one command string; rows as `a|b` lines, errors with their SQLSTATE.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> Output {
        let mut command = self.psql_command();
        command.args(["-c", sql]);
        run(command, PATIENCE * 4)
    }
}
