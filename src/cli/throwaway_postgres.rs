//! A private PostgreSQL for `postern dev`: made in a fresh directory, reachable from this machine only, gone when it is stopped.
//!
//! It requires TLS with a client certificate on TCP, as a real one behind Postern does; as its superuser one comes in only over
//! the Unix socket in its directory, which has mode 0700. PostgreSQL refuses to run as root, so that for root everything
//! runs as the account `postgres`. Everything here blocks; it is called before and after the asynchronous runtime.

mod directory;
mod installation;
mod leftovers;
#[cfg(test)]
mod tests;

pub use installation::Installation;
pub use leftovers::sweep_leftovers;

use directory::{Directory, MAX_SOCKET_DIRECTORY_BYTES, file_error};
use installation::{ACCOUNT, words_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

const POLL_EVERY: Duration = Duration::from_millis(50);
/// A start takes about half a second; a loaded machine gets 30 s.
const START_POLLS: u32 = 600;
/// Fast shutdown ends sessions and writes a checkpoint: 10 s; then 5 s to quit at once.
const FAST_STOP_POLLS: u32 = 200;
const QUIT_POLLS: u32 = 100;
/// Another program may take a port that was free a moment ago; how often one is chosen.
const PORT_ATTEMPTS: u32 = 3;

/// Why there is no throw-away PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "PostgreSQL is not installed here; install it with `sudo apt-get install postgresql`, or name a server that runs \
         with `--uri host:port`"
    )]
    NotInstalled,
    #[error(
        "PostgreSQL does not run as root, and there is no account {ACCOUNT:?} to run it as; start as another user, or make \
         the account with `useradd --system {ACCOUNT}`"
    )]
    NoAccount,
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot run {}: {source}", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the directory {} is too long for a Unix socket (at most {MAX_SOCKET_DIRECTORY_BYTES} bytes); set TMPDIR to a shorter one",
        .0.display()
    )]
    DirectoryTooLong(PathBuf),
    #[error("the directory {} holds a character that PostgreSQL's configuration cannot carry; set TMPDIR to another one", .0.display())]
    DirectoryName(PathBuf),
    #[error("initdb failed, so there is no database: {output}")]
    Initdb { output: String },
    #[error("port {port} on 127.0.0.1 is taken by another program; choose another one, or 0 for any that is free")]
    PortTaken { port: u16 },
    #[error("cannot listen on port {port} of 127.0.0.1: {source}")]
    Port {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("PostgreSQL ended while it started; its log ends with:\n{log}")]
    NotStarted { log: String },
    #[error("PostgreSQL did not accept connections within {} s; its log ends with:\n{log}", (POLL_EVERY * START_POLLS).as_secs())]
    NotReady { log: String },
    #[error("the script was refused by PostgreSQL: {output}")]
    Sql { output: String },
}

/// What PostgreSQL presents, and whom it believes; all PEM.
#[derive(Debug, Clone, Copy)]
pub struct ServerTls<'a> {
    pub certificate_pem: &'a str,
    pub key_pem: &'a str,
    pub client_ca_pem: &'a str,
}

/// A PostgreSQL that has its files and does not run. Dropping it removes them.
#[derive(Debug)]
pub struct Prepared {
    installation: Installation,
    directory: Directory,
}

/// A PostgreSQL that runs. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct ThrowawayPostgres {
    // Dropped in this order: the directory is removed under no running process.
    server: Server,
    prepared: Prepared,
    port: u16,
}

impl ThrowawayPostgres {
    /// Makes a fresh directory in `parent` (by default the system's for temporary files) and a database cluster in it, with
    /// the superuser `postgres`.
    ///
    /// # Errors
    /// The directory cannot be made, or `initdb` fails; its words are in the error.
    pub fn prepare(installation: &Installation, parent: Option<&Path>) -> Result<Prepared, PostgresError> {
        let temporary = std::env::temp_dir();
        let directory = Directory::make(parent.unwrap_or(&temporary))?;
        let mut initdb = installation.command("initdb", directory.account, &directory.path);
        initdb
            .args([
                "-U",
                "postgres",
                "--auth=trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(directory.data());
        let output = installation.run("initdb", &mut initdb)?;
        if !output.status.success() {
            return Err(PostgresError::Initdb {
                output: words_of(&output),
            });
        }
        Ok(Prepared {
            installation: installation.clone(),
            directory,
        })
    }

    /// The TCP port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where the Unix socket is: `host` for a client that comes in as superuser.
    pub fn socket_directory(&self) -> &Path {
        &self.prepared.directory.path
    }

    /// Runs `script` in `database` as superuser, up to the first error, and returns what it prints: rows as lines, columns
    /// separated by `|`.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with the words of `psql`.
    pub fn sql(&self, database: &str, script: &str) -> Result<String, PostgresError> {
        let Prepared {
            installation,
            directory,
        } = &self.prepared;
        // From a file rather than through a pipe, so that neither side can wait for the other.
        let path = directory.path.join("script.sql");
        directory.write(&path, script)?;
        let input = File::open(&path).map_err(file_error("read", &path))?;
        let mut psql = self.prepared.client("psql", self.port);
        psql.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(database)
            .stdin(input);
        let output = installation.run("psql", &mut psql);
        std::fs::remove_file(&path).map_err(file_error("remove", &path))?;
        let output = output?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(PostgresError::Sql {
                output: words_of(&output),
            })
        }
    }

    /// Ends it: fast shutdown first, then ever harder, and removes its files.
    ///
    /// # Errors
    /// The directory cannot be removed; its record is kept then.
    pub fn stop(mut self) -> Result<(), PostgresError> {
        self.server.end();
        self.prepared.directory.remove()
    }
}

/// The process, our direct child. Dropping it ends it.
#[derive(Debug)]
struct Server {
    child: Child,
    ended: bool,
}

impl Server {
    fn has_ended(&mut self) -> bool {
        self.ended = self.ended || !matches!(self.child.try_wait(), Ok(None));
        self.ended
    }

    fn end(&mut self) {
        for (signal, polls) in [(Signal::SIGINT, FAST_STOP_POLLS), (Signal::SIGQUIT, QUIT_POLLS)] {
            if self.has_ended() {
                return;
            }
            if let Ok(pid) = i32::try_from(self.child.id()) {
                // It fails only where the process has ended, which the next line sees.
                let _ = kill(Pid::from_raw(pid), signal);
            }
            poll(polls, || self.has_ended());
        }
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.ended = true;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks until the answer is yes or `polls` are used up; says which.
fn poll(polls: u32, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..polls {
        if done() {
            return true;
        }
        std::thread::sleep(POLL_EVERY);
    }
    done()
}

impl Prepared {
    /// Writes to the file `record` what there is to remove, until it is removed; see [`sweep_leftovers`].
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn recorded_in(mut self, record: &Path) -> Result<Self, PostgresError> {
        self.directory.record = Some(record.to_owned());
        self.directory.keep_record(None)?;
        Ok(self)
    }

    /// Starts PostgreSQL on 127.0.0.1 and `port` (0: any that is free) and waits until it accepts connections.
    ///
    /// # Errors
    /// The port is taken, or PostgreSQL does not start; the end of its log is in the error.
    pub fn start(self, tls: &ServerTls<'_>, port: u16) -> Result<ThrowawayPostgres, PostgresError> {
        self.write_tls(tls)?;
        let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            let chosen = free_port(port)?;
            attempts -= 1;
            match self.start_on(chosen) {
                Ok(server) => {
                    return Ok(ThrowawayPostgres {
                        server,
                        prepared: self,
                        port: chosen,
                    });
                }
                Err(PostgresError::PortTaken { .. }) if attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn start_on(&self, port: u16) -> Result<Server, PostgresError> {
        self.write_configuration(port)?;
        let mut server = Server {
            child: self.spawn()?,
            ended: false,
        };
        self.directory.keep_record(Some(server.child.id()))?;
        for _ in 0..START_POLLS {
            if server.has_ended() {
                let log = self.directory.log_tail();
                // Its exit status is the same for every cause; the log, in English by LC_ALL=C, says which.
                return Err(if log.contains("Address already in use") {
                    PostgresError::PortTaken { port }
                } else {
                    PostgresError::NotStarted { log }
                });
            }
            let mut is_ready = self.client("pg_isready", port);
            is_ready.args(["-q", "-t", "1"]);
            if self.installation.run("pg_isready", &mut is_ready)?.status.success() {
                return Ok(server);
            }
            std::thread::sleep(POLL_EVERY);
        }
        Err(PostgresError::NotReady {
            log: self.directory.log_tail(),
        })
    }

    /// A client that comes in as superuser over the Unix socket.
    fn client(&self, program: &str, port: u16) -> Command {
        let mut command = self
            .installation
            .command(program, self.directory.account, &self.directory.path);
        command
            .env("PGCONNECT_TIMEOUT", "10")
            .arg("-h")
            .arg(&self.directory.path)
            .args(["-U", "postgres", "-p"])
            .arg(port.to_string());
        command
    }

    fn write_tls(&self, tls: &ServerTls<'_>) -> Result<(), PostgresError> {
        let write = |name: &str, pem: &str| self.directory.write(&self.directory.path.join(name), pem);
        write("server.crt", tls.certificate_pem)?;
        write("server.key", tls.key_pem)?;
        write("client-ca.crt", tls.client_ca_pem)
    }

    fn write_configuration(&self, port: u16) -> Result<(), PostgresError> {
        let data = self.directory.data();
        let base = self.directory.path.display().to_string().replace('\'', "''");
        // fsync off: what is thrown away need not survive a power cut, and a small machine starts in a quarter of the time.
        let configuration = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{base}'\n\
             ssl = on\nssl_cert_file = '{base}/server.crt'\nssl_key_file = '{base}/server.key'\n\
             ssl_ca_file = '{base}/client-ca.crt'\nssl_min_protocol_version = 'TLSv1.2'\n\
             fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n\
             log_destination = 'stderr'\nlogging_collector = off\n"
        );
        self.directory.write(&data.join("postgresql.conf"), &configuration)?;
        let access = "local   all all              trust\nhostssl all all 127.0.0.1/32 cert\n";
        self.directory.write(&data.join("pg_hba.conf"), access)
    }

    fn spawn(&self) -> Result<Child, PostgresError> {
        let path = self.directory.log();
        self.directory.write(&path, "")?;
        let open = || {
            OpenOptions::new()
                .append(true)
                .open(&path)
                .map_err(file_error("write", &path))
        };
        self.installation
            .command("postgres", self.directory.account, &self.directory.path)
            .arg("-D")
            .arg(self.directory.data())
            .stdout(open()?)
            .stderr(open()?)
            // Its own process group: a Ctrl-C at the terminal is for us, and we stop it in our own order.
            .process_group(0)
            .spawn()
            .map_err(|source| PostgresError::Run {
                program: self.installation.program("postgres"),
                source,
            })
    }
}

/// Makes sure that `port` is free, or finds one that is. Another program may still take it before PostgreSQL does.
fn free_port(port: u16) -> Result<u16, PostgresError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => PostgresError::PortTaken { port },
            _ => PostgresError::Port { port, source },
        })
}
