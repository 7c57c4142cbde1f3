//! `postern dev`, and the example that starts several nodes.

use crate::harness::postgres::program;
use crate::harness::wait::until_ok;
use crate::harness::{Output, PATIENCE, Postgres, Process, TestDir, postern, run};
use nix::sys::signal::Signal;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A running `postern dev` whose files, and those of its PostgreSQL, are in one directory.
struct Dev {
    process: Process,
    directory: TestDir,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        let directory = TestDir::new();
        let temporary = directory.join("t");
        std::fs::create_dir(&temporary).expect("ours");
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o1777)).expect("ours");
        let process = launch(&directory, arguments);
        Self { process, directory }
    }

    /// A command of the program with this cluster's `--data-dir`.
    fn postern(&self, verbs: &[&str]) -> Command {
        let mut command = postern(self.directory.path());
        command.args(verbs).arg("--data-dir").arg(self.directory.join("dev"));
        command
    }

    /// psql with the variables of `postern dev env`.
    fn psql(&self, arguments: &[&str]) -> Output {
        let text = run(self.postern(&["dev", "env"]), PATIENCE).ok();
        let mut psql = program("psql", self.directory.path());
        for line in text.lines() {
            let (name, value) = line
                .strip_prefix("export ")
                .and_then(|rest| rest.split_once('='))
                .unwrap_or_else(|| panic!("{line}"));
            psql.env(name, value.trim_matches(['\'', '"']));
        }
        for name in [
            "HOST",
            "PORT",
            "USER",
            "DATABASE",
            "SSLMODE",
            "SSLROOTCERT",
            "SSLCERT",
            "SSLKEY",
        ] {
            assert!(
                text.contains(&format!("export PG{name}=")),
                "PG{name} is not in:\n{text}"
            );
        }
        psql.args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose"]).args(arguments);
        run(psql, PATIENCE)
    }

    #[track_caller]
    fn serves(&self) {
        let rows = self.psql(&["-c", "select current_user, count(*) > 0 from orders"]).ok();
        assert_eq!(rows, "app|t\n");
    }

    #[track_caller]
    fn stop(mut self, signal: Signal) {
        self.process.send(signal);
        assert_eq!(self.process.wait(PATIENCE), 0, "{}", self.process.log_tail());
        self.left_nothing();
    }

    #[track_caller]
    fn left_nothing(&self) {
        assert_eq!(postgres_below(self.directory.path()), Vec::<String>::new());
        let temporary = std::fs::read_dir(self.directory.join("t")).expect("ours");
        let left: Vec<_> = temporary.flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

fn launch(directory: &TestDir, arguments: &[&str]) -> Process {
    let mut command = postern(directory.path());
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.join("dev"))
        .args(arguments)
        .env("TMPDIR", directory.join("t"));
    let log = directory.join("dev.log");
    // Of an earlier run.
    drop(std::fs::remove_file(&log));
    let mut dev = Process::start("dev", command, log).ended_with(Signal::SIGTERM);
    until_ok("dev is ready", PATIENCE * 2, || {
        if let Some(code) = dev.exit_code() {
            panic!("dev ended with {code}:\n{}", dev.log_tail());
        }
        let log = dev.log_text();
        if log.lines().any(|line| line.starts_with("Postern is ready")) {
            Ok(())
        } else {
            Err(log)
        }
    });
    dev
}

/// Command lines of the PostgreSQL servers whose data is in the directory.
fn postgres_below(directory: &Path) -> Vec<String> {
    let wanted = directory.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains("postgres") && line.contains(&wanted))
        .collect()
}

fn serves_denies_and_audits(dev: &Dev) {
    dev.serves();
    let denied = dev.psql(&["-U", "postgres", "-c", "select 1"]).failed_with(2);
    assert!(denied.to_lowercase().contains("access to db denied"), "{denied}");
    until_ok("the audit log has both decisions and the denial", PATIENCE, || {
        let audit = run(dev.postern(&["ctl", "audit", "ls", "--format=json"]), PATIENCE).ok();
        let parts = [
            "PDB00I",
            "TDB00I",
            "TDB00W",
            "\"decided_by\":\"proxy\"",
            "\"decided_by\":\"agent\"",
        ];
        if parts.iter().all(|part| audit.contains(part)) {
            Ok(())
        } else {
            Err(audit)
        }
    });
    assert!(
        !postgres_below(dev.directory.path()).is_empty(),
        "the throw-away PostgreSQL is below the directory for temporary files"
    );
}

#[test]
fn dev_serves_a_database_until_ctrl_c_and_leaves_nothing_behind() {
    let dev = Dev::start(&[]);
    serves_denies_and_audits(&dev);
    dev.stop(Signal::SIGINT);
}

#[test]
fn dev_with_a_tunnel_serves_a_database_until_it_is_terminated_and_leaves_nothing_behind() {
    let dev = Dev::start(&["--tunnel"]);
    serves_denies_and_audits(&dev);
    dev.stop(Signal::SIGTERM);
}

#[test]
fn what_a_killed_dev_left_is_removed_by_the_next_one() {
    let mut dev = Dev::start(&[]);
    dev.process.kill9();
    let left = postgres_below(dev.directory.path());
    assert!(!left.is_empty(), "a killed process removes nothing");
    dev.process = launch(&dev.directory, &[]);
    dev.serves();
    let data_of = |line: &String| {
        line.split_whitespace()
            .find(|word| word.contains("/t/"))
            .map(str::to_owned)
    };
    let now: Vec<_> = postgres_below(dev.directory.path())
        .iter()
        .filter_map(data_of)
        .collect();
    let before: Vec<_> = left.iter().filter_map(data_of).collect();
    assert!(
        !now.iter().any(|directory| before.contains(directory)),
        "{before:?} still run: {now:?}"
    );
    dev.stop(Signal::SIGTERM);
}

#[test]
fn dev_uses_a_postgresql_that_runs_already() {
    let postgres = Postgres::start();
    let dev = Dev::start(&["--uri", &format!("localhost:{}", postgres.port)]);
    let prefix = dev.directory.join("server");
    let mut sign = dev.postern(&["ctl", "auth", "sign", "--format=db", "--host=localhost", "--ttl=24h"]);
    sign.arg(crate::harness::cluster::out(&prefix));
    run(sign, PATIENCE).ok();
    assert!(
        dev.process.log_text().contains("auth sign --format=db"),
        "it says so itself"
    );
    postgres.use_tls(&prefix);
    postgres.admin("postgres", "create role app login");
    postgres.admin("postgres", "create database app owner app");
    postgres.admin(
        "app",
        "create table orders as select 1 as id; alter table orders owner to app",
    );
    dev.serves();
    dev.stop(Signal::SIGTERM);
    assert_eq!(
        postgres.admin("app", "select count(*) from orders").trim(),
        "1",
        "it is not ours to end"
    );
}

fn dev_fails(directory: &TestDir, change: impl FnOnce(&mut Command)) -> String {
    let mut command = postern(directory.path());
    command.args(["dev", "--data-dir"]).arg(directory.join("dev"));
    change(&mut command);
    let said = run(command, PATIENCE).failed_with(1);
    assert!(
        said.lines().any(|line| line.starts_with("postern: ")) && !said.contains("panicked"),
        "{said}"
    );
    said
}

#[test]
fn dev_without_postgresql_installed_says_what_to_install() {
    let directory = TestDir::new();
    let said = dev_fails(&directory, |dev| {
        dev.args(["--listen", "127.0.0.1:0"])
            .env("POSTERN_POSTGRES_DIR", "/nonexistent")
            .env("PATH", "/nonexistent");
    });
    for word in ["PostgreSQL", "not installed", "postgresql", "--uri"] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

#[test]
fn dev_with_a_postgresql_that_does_not_start_shows_why() {
    let directory = TestDir::new();
    for bin in ["lib/99/bin", "lib/bin"] {
        let bin = directory.join(bin);
        std::fs::create_dir_all(&bin).expect("ours");
        for tool in ["initdb", "postgres", "psql", "pg_ctl", "pg_isready"] {
            let path = bin.join(tool);
            std::fs::write(&path, "#!/bin/sh\necho 'the disk is made of cheese' >&2\nexit 1\n").expect("ours");
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("ours");
        }
    }
    let said = dev_fails(&directory, |dev| {
        dev.args(["--listen", "127.0.0.1:0"])
            .env("POSTERN_POSTGRES_DIR", directory.join("lib"));
    });
    assert!(said.contains("made of cheese"), "{said}");
}

#[test]
fn dev_on_a_port_that_is_taken_names_it() {
    let directory = TestDir::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = taken.local_addr().expect("bound");
    let said = dev_fails(&directory, |dev| {
        dev.args(["--listen", &address.to_string()]);
    });
    assert!(said.contains(&address.port().to_string()), "{said}");
    assert_eq!(postgres_below(directory.path()), Vec::<String>::new());
}

#[test]
fn dev_on_an_address_of_the_network_is_refused() {
    let directory = TestDir::new();
    let mut command = postern(directory.path());
    command
        .args(["dev", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(directory.join("dev"));
    let output = run(command, PATIENCE);
    assert!([1, 2].contains(&output.code), "{output:?}");
    assert!(output.stderr.contains("loopback"), "{}", output.stderr);
}

#[test]
fn the_example_of_several_nodes_runs() {
    let directory = TestDir::new();
    let mut command = Command::new("bash");
    crate::harness::clean_environment(&mut command, directory.path());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster.sh"));
    command
        .env("POSTERN", env!("CARGO_BIN_EXE_postern"))
        .env("CLUSTER_ONCE", "1");
    let said = run(command, PATIENCE * 3).ok();
    assert!(said.contains("lantern"), "{said}");
}
