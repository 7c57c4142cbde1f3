//! What the proxy's port answers to those who do not speak as they should.

use crate::harness::wire::{GSSENC_REQUEST, SSL_REQUEST, dial, read_error, startup, until_the_end};
use crate::harness::{Form, in_both_forms, shared};
use std::io::{Read, Write};

in_both_forms! {
    random_bytes_end_the_connection_and_harm_nobody,
    plain_http_ends_the_connection,
    a_startup_without_tls_is_told_to_use_tls,
    gss_encryption_is_declined_and_tls_then_accepted,
    plaintext_behind_the_ssl_request_ends_the_connection,
    plaintext_after_the_answer_to_the_ssl_request_ends_the_connection,
    a_length_that_cannot_be_ends_the_connection,
}

#[track_caller]
fn after(form: Form, bytes: &[u8]) -> Vec<u8> {
    let cluster = shared(form);
    let mut socket = dial(cluster.proxy_port());
    // The proxy may close before it has read everything.
    drop(socket.write_all(bytes));
    let answer = until_the_end(&mut socket);
    cluster.client("alice", "app", "app").psql("select 1").ok();
    answer
}

fn random_bytes_end_the_connection_and_harm_nobody(form: Form) {
    // A linear congruential generator: the same bytes in each run.
    let mut state: u64 = 0x5eed;
    for length in [1usize, 7, 8, 64, 5000] {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect();
        let cluster = shared(form);
        let mut socket = dial(cluster.proxy_port());
        drop(socket.write_all(&bytes));
        drop(socket.shutdown(std::net::Shutdown::Write));
        until_the_end(&mut socket);
    }
    shared(form).client("alice", "app", "app").psql("select 1").ok();
}

fn plain_http_ends_the_connection(form: Form) {
    let answer = after(form, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(
        !answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

fn a_startup_without_tls_is_told_to_use_tls(form: Form) {
    let answer = after(form, &startup("app", "app"));
    let error = read_error(&mut answer.as_slice());
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "28000"));
    let words = error.words();
    assert!(
        words.contains("TLS") && words.contains("sslmode"),
        "the rule and the next step: {words}"
    );
}

fn gss_encryption_is_declined_and_tls_then_accepted(form: Form) {
    let mut socket = dial(shared(form).proxy_port());
    let mut answer = [0];
    for (request, expected) in [(GSSENC_REQUEST, b'N'), (SSL_REQUEST, b'S')] {
        socket.write_all(&request).expect("the proxy listens");
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[0], expected);
    }
}

fn plaintext_behind_the_ssl_request_ends_the_connection(form: Form) {
    let mut bytes = SSL_REQUEST.to_vec();
    bytes.extend(startup("app", "app"));
    let answer = after(form, &bytes);
    assert!(
        !answer.contains(&b'R'),
        "nothing that came in plaintext is acted on: {answer:?}"
    );
}

fn plaintext_after_the_answer_to_the_ssl_request_ends_the_connection(form: Form) {
    let mut socket = dial(shared(form).proxy_port());
    socket.write_all(&SSL_REQUEST).expect("the proxy listens");
    let mut answer = [0];
    socket.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, *b"S");
    drop(socket.write_all(&startup("app", "app")));
    // A TLS alert at most.
    let rest = until_the_end(&mut socket);
    assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
}

fn a_length_that_cannot_be_ends_the_connection(form: Form) {
    for length in [0u32, 3, 7, u32::MAX] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0, 3, 0, 0, 0]);
        after(form, &bytes);
    }
}
