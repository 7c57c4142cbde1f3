//! A certificate of the operator's own, which the proxy presents to people.

use crate::harness::configuration::SERVICE;
use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, Session, TestDir, Wire, until};
use nix::sys::signal::Signal;
use std::path::PathBuf;

/// A new self-signed certificate for localhost in `web.crt` and `web.key` of the directory.
fn make(directory: &TestDir) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    (
        directory.write("web.crt", made.cert.pem()),
        directory.write("web.key", made.signing_key.serialize_pem()),
    )
}

#[test]
fn people_are_shown_the_configured_certificate_nodes_the_cluster_s_and_sighup_takes_over_a_new_one() {
    let directory = TestDir::new();
    let (certificate, key) = make(&directory);
    let mut cluster = Cluster::start(Form::Apart);
    let ours = cluster.client("alice", "app", "app");
    let proxy = cluster.node_mut(Kind::Proxy);
    proxy.config.proxy = format!(
        "  https_keypairs: [{{cert_file: {}, key_file: {}}}]\n",
        certificate.display(),
        key.display()
    );
    proxy.kill9();
    proxy.start();

    // Who trusts only the configured certificate's issuer gets in, who trusts the cluster's does not.
    let trusting = |path: &PathBuf| {
        let client = cluster.client_for(SERVICE, "alice", "app", "app");
        std::fs::copy(path, client.prefix.with_extension("cas")).expect("ours");
        client
    };
    let client = trusting(&certificate);
    let mut wire = until("the agent is back", FIVE_SECONDS * 2, || Wire::connect(&client).ok());
    wire.query("select 1").expect("allowed");
    let refused = ours.psql("select 1");
    assert!(refused.stderr.contains("certificate verify failed"), "{refused:?}");

    // A new certificate in the same files, as a renewal writes it.
    make(&directory);
    cluster.node(Kind::Proxy).process().send(Signal::SIGHUP);
    let renewed = trusting(&certificate);
    until("the new certificate is presented", FIVE_SECONDS, || {
        (renewed.psql("select 1").code == 0).then_some(())
    });
    wire.query("select 2").expect("an open session is not touched");
    drop(Session::open(&renewed));
}
