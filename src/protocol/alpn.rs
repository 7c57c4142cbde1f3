//! The application protocols (RFC 7301) that one port tells apart, and the first bytes of those that come without TLS.

/// PostgreSQL 17's direct TLS (`sslnegotiation=direct`); the name is registered with IANA.
pub const POSTGRESQL: &[u8] = b"postgresql";
/// An agent's reverse tunnel: yamux over mutual TLS.
pub const TUNNEL: &[u8] = b"postern-tunnel/1";
/// A node's link to auth: yamux over mutual TLS, end to end.
pub const NODE: &[u8] = b"postern-node/1";
/// A node's first contact, with a token instead of a certificate.
pub const JOIN: &[u8] = b"postern-join/1";
/// On a proxy: what follows the handshake are the bytes of a `NODE` or `JOIN` connection to auth.
pub const TO_AUTH: &[u8] = b"postern-to-auth/1";
/// The API that auth offers to people: HTTP/1.1 and JSON over TLS, with or without a person's certificate.
pub const PERSON: &[u8] = b"postern-person/1";
/// On a proxy: what follows the handshake are the bytes of a `PERSON` connection to auth.
pub const PERSON_TO_AUTH: &[u8] = b"postern-person-to-auth/1";
/// On auth, from a proxy with its host certificate: the address of a client, then the bytes of its `PERSON` connection.
pub const CARRIED: &[u8] = b"postern-carried/1";
pub const HTTP_1: &[u8] = b"http/1.1";
pub const HTTP_2: &[u8] = b"h2";

/// What a peer that opens a connection speaks, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstByte {
    /// A TLS record of type handshake (RFC 8446, section 5.1).
    Tls,
    /// A PostgreSQL packet without a type byte: its length is at most 10 000, so the first byte is 0.
    PostgreSql,
    /// Nothing that is spoken here; see [`super::foreign`].
    Foreign,
}

pub fn classify(first: u8) -> FirstByte {
    match first {
        0x16 => FirstByte::Tls,
        0x00 => FirstByte::PostgreSql,
        _ => FirstByte::Foreign,
    }
}
