//! OpenSSL reads the same certificates, as PostgreSQL does. Where there is no `openssl` in PATH there is nothing to compare.

use super::*;
use std::path::Path;
use std::process::Command;

/// What the command printed, or nothing when there is no `openssl`.
fn openssl(dir: &Path, args: &[&str]) -> Option<String> {
    match Command::new("openssl").args(args).current_dir(dir).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {args:?}: {text}{errors}");
            Some(text)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("openssl cannot be run: {e}"),
    }
}

#[test]
fn openssl_verifies_every_kind_for_its_purpose() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::named("example.com");
    let at = NOW.as_secs().to_string();
    for kind in CaKind::ALL {
        let write = |name: &str, certificate: &CertificateDer<'static>| {
            let text = pem::certificates_to_pem(std::slice::from_ref(certificate)).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        write("ca.pem", cluster.ca(kind).certificate());
        write("leaf.pem", &cluster.leaf(kind));
        let purposes: &[&str] = match kind {
            CaKind::User | CaKind::DbClient => &["sslclient"],
            CaKind::Host => &["sslclient", "sslserver"],
            CaKind::Db => &["sslserver"],
        };
        for purpose in purposes {
            let verify = ["verify", "-x509_strict", "-attime", &at, "-purpose", purpose];
            let args = [verify.as_slice(), &["-CAfile", "ca.pem", "leaf.pem"]].concat();
            if let Some(text) = openssl(dir.path(), &args) {
                assert_eq!(text.trim(), "leaf.pem: OK", "{kind}");
            }
        }
    }
}

#[test]
fn openssl_shows_the_database_user_as_the_common_name() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::named("example.com");
    let leaf = pem::certificates_to_pem(&[cluster.leaf(CaKind::DbClient)]).unwrap();
    std::fs::write(dir.path().join("leaf.pem"), leaf).unwrap();
    let show = ["x509", "-in", "leaf.pem", "-noout", "-subject", "-nameopt", "RFC2253"];
    if let Some(text) = openssl(dir.path(), &show) {
        assert_eq!(text.trim(), "subject=O=example.com,CN=postgres");
    }
}

#[test]
fn a_request_and_a_key_of_openssl_are_taken_and_ours_by_openssl() {
    let dir = tempfile::tempdir().unwrap();
    let make = [
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x/O=y",
        "-addext",
        "subjectAltName=DNS:x",
        "-keyout",
        "key.pem",
        "-outform",
        "DER",
        "-out",
        "request.der",
    ];
    if openssl(dir.path(), &make).is_none() {
        return;
    }
    let request = std::fs::read(dir.path().join("request.der")).unwrap();
    let key = std::fs::read_to_string(dir.path().join("key.pem")).unwrap();
    let key = PrivateKey::from_pem(&key).unwrap();
    assert_eq!(PublicKey::from_csr(&request).unwrap(), key.public_key());

    std::fs::write(dir.path().join("ours.der"), key.csr("ours").unwrap()).unwrap();
    openssl(
        dir.path(),
        &["req", "-inform", "DER", "-in", "ours.der", "-verify", "-noout"],
    );
}
