//! With the PostgreSQL that is installed; where there is none, only the tests that need none say anything.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use std::process::Output;

struct Certificates {
    certificate: String,
    key: String,
    ca: String,
}

impl Certificates {
    fn new() -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        Self {
            certificate: server.signed_by(&key, &issuer).expect("a certificate").pem(),
            key: key.serialize_pem(),
            ca: ca_certificate.pem(),
        }
    }

    fn tls(&self) -> ServerTls<'_> {
        ServerTls {
            certificate_pem: &self.certificate,
            key_pem: &self.key,
            client_ca_pem: &self.ca,
        }
    }
}

fn installed() -> Option<Installation> {
    Installation::find().ok()
}

fn psql_over_tcp(installation: &Installation, running: &ThrowawayPostgres, sslmode: &str) -> Output {
    let target = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=10 sslmode={sslmode}",
        running.port()
    );
    let mut psql = installation.command("psql", None, Path::new("/"));
    psql.env("HOME", "/nonexistent")
        .args(["-X", "-w", "-c", "select 1", &target]);
    psql.output().expect("psql runs")
}

#[test]
fn it_starts_answers_over_its_socket_asks_for_certificates_on_tcp_and_leaves_nothing() {
    let Some(installation) = installed() else {
        return;
    };
    let certificates = Certificates::new();
    let prepared = ThrowawayPostgres::prepare(&installation, None).expect("prepared");
    let running = prepared.start(&certificates.tls(), 0).expect("started");
    assert_eq!(running.sql("postgres", "select 1;").expect("an answer"), "1\n");
    assert_eq!(
        running.sql("postgres", "select current_user, 'ä';").expect("an answer"),
        "postgres|ä\n"
    );
    let refused = running.sql("postgres", "select 1/0;\nselect 2;").expect_err("refused");
    assert!(refused.to_string().contains("division by zero"), "{refused}");

    let with_tls = psql_over_tcp(&installation, &running, "require");
    assert!(!with_tls.status.success());
    let words = String::from_utf8_lossy(&with_tls.stderr).into_owned();
    assert!(words.contains("requires a valid client certificate"), "{words}");
    let plain = psql_over_tcp(&installation, &running, "disable");
    let words = String::from_utf8_lossy(&plain.stderr).into_owned();
    assert!(words.contains("no pg_hba.conf entry"), "{words}");

    let directory = running.socket_directory().to_owned();
    let pid = running.server.child.id();
    assert!(directory.exists());
    running.stop().expect("stopped");
    assert!(!directory.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn dropping_it_stops_it_and_removes_its_directory_and_its_record() {
    let Some(installation) = installed() else {
        return;
    };
    let certificates = Certificates::new();
    let records = tempfile::tempdir().expect("a directory");
    let record = records.path().join("postgres");
    let prepared = ThrowawayPostgres::prepare(&installation, None).expect("prepared");
    let prepared = prepared.recorded_in(&record).expect("recorded");
    let running = prepared.start(&certificates.tls(), 0).expect("started");
    let directory = running.socket_directory().to_owned();
    let pid = running.server.child.id();
    assert_eq!(
        std::fs::read_to_string(&record).expect("the record"),
        format!("{}\n{pid}\n", directory.display())
    );
    drop(running);
    assert!(!directory.exists() && !record.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let Some(installation) = installed() else {
        return;
    };
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let prepared = ThrowawayPostgres::prepare(&installation, None).expect("prepared");
    let directory = prepared.directory.path.clone();
    let certificates = Certificates::new();
    prepared.write_tls(&certificates.tls()).expect("written");
    // As if it had been taken after it was looked at.
    let late = prepared.start_on(port).expect_err("taken");
    assert!(matches!(late, PostgresError::PortTaken { .. }), "{late}");
    let refused = prepared.start(&certificates.tls(), port).expect_err("taken");
    assert_eq!(
        refused.to_string(),
        format!("port {port} on 127.0.0.1 is taken by another program; choose another one, or 0 for any that is free")
    );
    assert!(!directory.exists(), "nothing is left of what did not start");
}

#[test]
fn one_that_cannot_start_shows_the_end_of_its_log() {
    let Some(installation) = installed() else {
        return;
    };
    let prepared = ThrowawayPostgres::prepare(&installation, None).expect("prepared");
    let broken = prepared.directory.data().join("postgresql.auto.conf");
    prepared
        .directory
        .write(&broken, "no_such_setting = on\n")
        .expect("written");
    let refused = prepared
        .start(&Certificates::new().tls(), 0)
        .expect_err("bad")
        .to_string();
    assert!(refused.contains("no_such_setting"), "{refused}");
    assert!(refused.contains("FATAL"), "{refused}");
}

#[test]
fn what_a_killed_process_left_is_swept_and_another_process_is_not_hit() {
    let Some(installation) = installed() else {
        return;
    };
    let certificates = Certificates::new();
    let records = tempfile::tempdir().expect("a directory");
    let record = records.path().join("postgres");
    let prepared = ThrowawayPostgres::prepare(&installation, None).expect("prepared");
    let prepared = prepared.recorded_in(&record).expect("recorded");
    let mut running = prepared.start(&certificates.tls(), 0).expect("started");
    let directory = running.socket_directory().to_owned();
    // Our own pid in the record: the number was given to another program. PostgreSQL's own file has the right one.
    let ours = std::process::id();
    std::fs::write(&record, format!("{}\n{ours}\n", directory.display())).expect("written");
    assert_eq!(sweep_leftovers(&record).expect("swept"), Some(directory.clone()));
    assert!(!directory.exists() && !record.exists());
    assert!(running.server.has_ended(), "the server was ended with its directory");
    assert_eq!(sweep_leftovers(&record).expect("nothing to do"), None);
}

#[test]
fn a_record_that_names_another_directory_removes_nothing_but_itself() {
    let precious = tempfile::tempdir().expect("a directory");
    let record = precious.path().join("record");
    let link = precious.path().join("postern-postgres-link");
    std::os::unix::fs::symlink("/", &link).expect("a link");
    for named in [
        precious.path(),
        link.as_path(),
        Path::new("postern-postgres-x"),
        Path::new("/"),
    ] {
        std::fs::write(&record, format!("{}\n1\n", named.display())).expect("written");
        assert_eq!(sweep_leftovers(&record).expect("swept"), None);
        assert!(precious.path().exists() && link.is_symlink() && !record.exists());
    }
}

#[test]
fn without_an_installation_the_error_says_what_to_type() {
    let empty = tempfile::tempdir().expect("a directory");
    let missing = Installation::find_in(empty.path(), [empty.path().to_owned()].into_iter()).expect_err("none");
    assert!(missing.to_string().contains("sudo apt-get install postgresql"));
    assert!(missing.to_string().contains("--uri"));
}

#[test]
fn the_newest_version_is_taken() {
    let root = tempfile::tempdir().expect("a directory");
    for version in ["9", "15", "16"] {
        let programs = root.path().join(version).join("bin");
        std::fs::create_dir_all(&programs).expect("made");
        // 16 is not complete: only its clients are installed.
        let installed: &[&str] = if version == "16" {
            &["psql"]
        } else {
            &["initdb", "postgres", "psql", "pg_isready"]
        };
        for program in installed {
            std::fs::write(programs.join(program), "").expect("written");
        }
    }
    let found = Installation::find_in(root.path(), std::iter::empty()).expect("found");
    assert_eq!(found.program("psql"), root.path().join("15/bin/psql"));
}

#[test]
fn a_directory_that_is_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let Some(installation) = installed() else {
        return;
    };
    let parent = tempfile::tempdir().expect("a directory");
    let long = parent.path().join("x".repeat(100));
    std::fs::create_dir(&long).expect("made");
    let refused = ThrowawayPostgres::prepare(&installation, Some(&long)).expect_err("too long");
    assert!(refused.to_string().contains("set TMPDIR to a shorter one"), "{refused}");
    assert_eq!(std::fs::read_dir(&long).expect("still there").count(), 0);
}
