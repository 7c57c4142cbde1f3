//! A certificate of the operator's own, which the proxy presents to people.

use crate::harness::configuration::{SERVICE, presenting, web_certificate};
use crate::harness::person::{PASSWORD, Person};
use crate::harness::sign_up::code_at;
use crate::harness::{Cluster, FIVE_SECONDS, Form, Kind, Session, TestDir, Wire, until};
use nix::sys::signal::Signal;
use std::path::PathBuf;

#[test]
fn people_are_shown_the_configured_certificate_nodes_the_cluster_s_and_sighup_takes_over_a_new_one() {
    let directory = TestDir::new();
    let (certificate, key) = web_certificate(&directory);
    let mut cluster = Cluster::start(Form::Apart);
    let ours = cluster.client("alice", "app", "app");
    let proxy = cluster.node_mut(Kind::Proxy);
    proxy.config.proxy = presenting(&certificate, &key);
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
    web_certificate(&directory);
    cluster.node(Kind::Proxy).process().send(Signal::SIGHUP);
    let renewed = trusting(&certificate);
    until("the new certificate is presented", FIVE_SECONDS, || {
        (renewed.psql("select 1").code == 0).then_some(())
    });
    wire.query("select 2").expect("an open session is not touched");
    drop(Session::open(&renewed));
}

#[test]
fn who_trusts_the_configured_certificate_logs_in_without_a_pin_and_psql_believes_it_and_the_cluster_s() {
    let directory = TestDir::new();
    let (certificate, key) = web_certificate(&directory);
    let mut cluster = Cluster::start(Form::OneProcess);
    let mut dora = Person::sign_up(&cluster, "dora");
    dora.trusts = Some(certificate.clone());
    let proxy = cluster.node_mut(Kind::Proxy);
    proxy.config.proxy = presenting(&certificate, &key);
    proxy.kill9();
    proxy.start();

    let line = format!("tsh login --proxy={} --user=dora", dora.proxy);
    dora.typed_with(&line, &format!("{PASSWORD}\n{}\n", code_at(&dora.secret, 0)))
        .ok();
    dora.typed("tctl status").ok();
    dora.typed("tsh db login --db-name=app orders").ok();
    let rope = |when: &str| {
        until(when, FIVE_SECONDS * 2, || {
            let output = dora.psql("test.example-orders", "select item from orders where id = 2");
            (output.stdout == "rope\n").then_some(())
        });
    };
    rope("psql believes the configured certificate");

    let proxy = cluster.node_mut(Kind::Proxy);
    proxy.config.proxy = String::new();
    proxy.kill9();
    proxy.start();
    rope("psql believes the cluster's certificate");
}
