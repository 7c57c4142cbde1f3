//! TLS towards PostgreSQL's clients, as their libraries rely on it.

use crate::harness::wire::{SSL_REQUEST, dial, startup, tls};
use crate::harness::{Form, shared};
use std::io::{Read, Write};

/// What PostgreSQL's own server puts into one record, its send buffer, and the most that TLS 1.3 adds: the type, the tag.
const RECORD_MAX: usize = 8192 + 1 + 16;

/// libpq makes room for so much before it reads a record. Of a larger one a part may stay in OpenSSL, where a program that waits for
/// the socket does not see it.
#[test]
fn no_record_to_a_client_is_larger_than_postgresqls_own() {
    let client = shared(Form::Apart).client("alice", "app", "app");
    let mut socket = dial(client.port);
    socket.write_all(&SSL_REQUEST).expect("it listens");
    let mut answer = [0];
    socket.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"S");
    let mut tls = tls(&client).expect("a client");
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).expect("a handshake");
    }
    tls.writer().write_all(&startup("app", "app")).expect("room");
    let query = "select repeat('x', 1000) from generate_series(1, 2000)\0";
    let mut message = vec![b'Q'];
    message.extend(u32::try_from(query.len() + 4).expect("short").to_be_bytes());
    message.extend(query.as_bytes());
    tls.writer().write_all(&message).expect("room");
    while tls.wants_write() {
        tls.write_tls(&mut socket).expect("it reads");
    }
    let (mut largest, mut whole) = (0, 0);
    // All rows, whatever else comes.
    while whole < 2_000_000 {
        // Type, version, length (RFC 8446, 5.1).
        let mut header = [0; 5];
        socket.read_exact(&mut header).expect("a record");
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let mut body = vec![0; length];
        socket.read_exact(&mut body).expect("its rest");
        largest = largest.max(length);
        whole += length;
    }
    assert!(largest > RECORD_MAX / 2, "they are filled: {largest}");
    assert!(largest <= RECORD_MAX, "{largest}");
}
