//! The JDBC driver of Debian's libpostgresql-jdbc-java; the methods are in `Jdbc.java`. Without a JDK and the driver these are not run.

use super::{CLARA, beside, rows};
use crate::harness::{Cluster, PATIENCE, TestDir, clean_environment, figure, run};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

rows! {
    prepared: "prepared statements in each query mode, text and binary" => "works",
    batches: "batches, also with `reWriteBatchedInserts`" => "works",
    copies: "the COPY API" => "works",
    timeouts: "`setQueryTimeout`: a cancel request of the driver" => "works: 57014, and the session goes on",
    portions: "`setFetchSize`: a cursor" => "works",
    transactions: "transactions, savepoints, isolation" => "works",
    notifications: "LISTEN and NOTIFY" => "works",
    large_objects: "the LargeObject API, which is FunctionCall" => "works",
    types: "arrays, UUIDs, metadata, `currentSchema`, `ApplicationName`, warnings" => "works",
    pem: "the key as psql has it" => "the driver reads PKCS#8 in DER only: see above",
}

const DRIVER: &str = "/usr/share/java/postgresql.jar";

/// The compiled class; or nothing, where Java is not installed.
static CLASSES: LazyLock<Option<TestDir>> = LazyLock::new(|| {
    if !Path::new(DRIVER).exists() || !Path::new("/usr/bin/javac").exists() {
        figure("NOT RUN: JDBC: javac or libpostgresql-jdbc-java is not installed");
        return None;
    }
    let classes = TestDir::new();
    let mut javac = Command::new("/usr/bin/javac");
    clean_environment(&mut javac, classes.path());
    javac
        .args(["-J-XX:TieredStopAtLevel=1", "-cp", DRIVER, "-d"])
        .arg(classes.path())
        .arg(beside("Jdbc.java"));
    run(javac, PATIENCE * 2).ok();
    let key = PrivateKeyDer::from_pem_file(CLARA.prefix.with_extension("key")).expect("PEM");
    classes.write("client.pk8", key.secret_der());
    Some(classes)
});

pub fn version() -> String {
    let jar = std::fs::canonicalize(DRIVER).expect("the driver");
    let beside = jar.parent().expect("a directory").read_dir().expect("a directory");
    let numbered = beside.flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Some(name.strip_prefix("postgresql-4")?.strip_suffix(".jar")?.to_owned())
    });
    let mut java = Command::new("java");
    java.arg("--version");
    let java = run(java, PATIENCE).ok();
    format!(
        "pgjdbc 4{}, {}",
        numbered.unwrap_or_default(),
        java.lines().next().unwrap_or_default()
    )
}

#[track_caller]
fn method(name: &str) {
    let Some(classes) = CLASSES.as_ref() else { return };
    let file = |suffix| CLARA.prefix.with_extension(suffix).display().to_string();
    let url = format!(
        "jdbc:postgresql://localhost:{}/app?user=app&sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        CLARA.port,
        file("cas"),
        file("crt"),
        classes.join("client.pk8").display()
    );
    let mut java = Command::new("java");
    clean_environment(&mut java, classes.path());
    java.args(["-XX:TieredStopAtLevel=1", "-cp"])
        .arg(format!("{DRIVER}:{}", classes.path().display()))
        .args(["Jdbc", name])
        .env("JDBC_URL", url)
        .env("JDBC_PEM_KEY", file("key"));
    assert_eq!(run(java, PATIENCE * 2).ok(), "passed\n");
}

macro_rules! methods {
    ($($name:ident)*) => { $(fn $name(_: &Cluster) { method(stringify!($name)); })* };
}

methods! { prepared batches copies timeouts portions transactions notifications large_objects types pem }
