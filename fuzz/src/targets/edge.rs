//! What comes before anything is known: a balancer's header, and first bytes of other protocols.

use super::{is_a_sentence, splits};
use postern::protocol::foreign;
use postern::protocol::proxy_header::{HeaderReader, ProxyHeaderError, Said, V1_MAX_BYTES, V2_MAX_LENGTH};

/// How many bytes belong to the header, and what it says; `None` where it is not whole.
fn read(pieces: &[&[u8]]) -> Result<Option<(usize, Said)>, ProxyHeaderError> {
    let (mut reader, mut taken) = (HeaderReader::default(), 0);
    for piece in pieces {
        let (count, said) = reader.read(piece)?;
        taken += count;
        match said {
            Some(said) => return Ok(Some((taken, said))),
            None => assert_eq!(count, piece.len(), "what is not taken is not of the header"),
        }
    }
    Ok(None)
}

/// Any split gives the same, nothing behind the header counts, and what the header says is what a writer would write.
pub fn proxy_header(bytes: &[u8]) {
    let whole = read(&[bytes]);
    for pieces in splits(bytes) {
        assert_eq!(read(&pieces), whole);
    }
    match whole {
        Ok(Some((taken, said))) => {
            assert!(taken <= bytes.len() && taken <= V1_MAX_BYTES.max(16 + V2_MAX_LENGTH));
            assert_eq!(read(&[&bytes[..taken]]), Ok(Some((taken, said))));
            assert_eq!(read(&[&bytes[..taken - 1]]), Ok(None), "it ends with its last byte");
            if let Said::Client(client) = said {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let line = format!("PROXY {family} {0} {0} {1} {1}\r\n", client.ip(), client.port());
                assert_eq!(read(&[line.as_bytes()]), Ok(Some((line.len(), said))));
            }
        }
        Ok(None) => assert!(bytes.len() < V1_MAX_BYTES.max(16 + V2_MAX_LENGTH)),
        Err(error) => is_a_sentence(&error),
    }
    let first = &bytes[..bytes.len().min(foreign::LOOKED_AT)];
    match foreign::recognise(first) {
        Some(foreign) => assert!(!foreign.answer().is_empty()),
        None => assert!(first.len() < foreign::LOOKED_AT, "so many bytes are enough"),
    }
}
