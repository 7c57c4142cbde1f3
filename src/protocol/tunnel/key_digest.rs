//! A cancel key as it travels between nodes: its digest, from which a long key is not found again. An agent that is asked for a
//! key which another agent owns does not learn it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// SHA-256 over the text `postern cancel key` and a NUL byte, the process id (4 bytes, big-endian) and the secret.
///
/// The secret of a client of protocol 3.0 has 4 bytes, and whoever has the digest finds it by trying them all: treat it as the key.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct KeyDigest(pub [u8; Self::BYTES]);

impl KeyDigest {
    pub const BYTES: usize = 32;
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Whether two messages are the same one. What a peer is told depends on a comparison in constant time, in the actors.
impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for KeyDigest {}

#[cfg(test)]
mod tests {
    use super::super::ProxyToDb;
    use super::*;

    #[test]
    fn the_digest_in_a_message_is_not_printed() {
        let asked = ProxyToDb::CancelByKey {
            process_id: 7,
            key: KeyDigest([0xab; KeyDigest::BYTES]),
            client_address: "192.0.2.1:5000".to_owned(),
        };
        let printed = format!("{asked:?}");
        assert!(
            printed.contains("[redacted]") && !printed.contains("171") && !printed.contains("ab"),
            "{printed}"
        );
    }
}
