//! The frame around a message, and the only file that names bincode.
//!
//! ```text
//! u32 big-endian: bytes that follow │ u8: version, 1 │ u8: dialect │ header, bincode │ body, bincode
//! ```
//!
//! The length is checked before anything is allocated. The header is decoded apart from the body, so that a body that is
//! unknown or broken can still be answered `Refused` by its id. Nothing may follow the body.

use super::messages::{Dialect, Wire};
use serde::{Deserialize, Serialize};

pub const VERSION: u8 = 1;
/// The length field.
pub const PREFIX_BYTES: usize = 4;
/// Version, dialect and a header with every field at its longest (five varints of at most 9 bytes and a reason).
pub const MAX_HEADER_BYTES: usize = 512;
/// A reason is for a person to read; a peer that sends more is cut.
const MAX_REASON_BYTES: usize = 300;

const fn encoding() -> impl bincode::config::Config {
    bincode::config::standard()
}

const fn header_encoding() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_HEADER_BYTES>()
}

/// Why a frame is not accepted, and its header where that could be read, so that it can be refused by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    pub header: Option<Header>,
    pub error: FrameError,
}

/// No message of any dialect is longer; each dialect has a limit of its own below it.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

const fn body_encoding() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_BODY_BYTES>()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameKind {
    /// Nothing is answered. At most once.
    Tell,
    /// To be answered within so many milliseconds (a duration, as two clocks differ).
    Ask { deadline_ms: u32 },
    /// The answer to the ask with this id.
    Answer,
    /// The message with this id was not accepted. There is no body.
    Refused { why: String },
}

/// What every message carries: its id on this stream, why it was sent, and for which connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub id: u64,
    pub kind: FrameKind,
    /// The message of the sending process that caused this one.
    pub cause: Option<u64>,
    pub connection: Option<u64>,
}

impl Header {
    /// Whether this comes back from a question. Such a message is never refused: two sides that refuse each other's refusals
    /// would not end.
    pub fn comes_back(&self) -> bool {
        matches!(self.kind, FrameKind::Answer | FrameKind::Refused { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<B> {
    pub header: Header,
    /// Empty exactly when the kind is `Refused`.
    pub body: Option<B>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a {dialect} message of {bytes} bytes; at most {max} are allowed")]
    TooLong { dialect: Dialect, bytes: usize, max: usize },
    #[error("version {found} of the node protocol; this node speaks version {VERSION}")]
    Version { found: u8 },
    #[error("a message of dialect {found} where {expected} is spoken")]
    OtherDialect { found: u8, expected: Dialect },
    #[error("a frame whose header cannot be read")]
    Header,
    #[error("a {dialect} message that version {} does not know, or that is not whole: {why}", env!("CARGO_PKG_VERSION"))]
    Body { dialect: Dialect, why: String },
    #[error("a {dialect} message with {bytes} bytes after its end")]
    Trailing { dialect: Dialect, bytes: usize },
}

pub fn max_frame_bytes<B: Wire>() -> usize {
    B::MAX_BYTES + MAX_HEADER_BYTES
}

impl<B: Wire> Frame<B> {
    pub fn new(header: Header, body: B) -> Self {
        Self {
            header,
            body: Some(body),
        }
    }

    pub fn refused(id: u64, why: &str) -> Self {
        let mut why = why.to_owned();
        let mut end = MAX_REASON_BYTES.min(why.len());
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        why.truncate(end);
        Self {
            header: Header {
                id,
                kind: FrameKind::Refused { why },
                cause: None,
                connection: None,
            },
            body: None,
        }
    }

    /// The whole frame with its length field. A message beyond its dialect's limit is the sender's error.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = vec![0, 0, 0, 0, VERSION, B::DIALECT as u8];
        let broken = |error: bincode::error::EncodeError| FrameError::Body {
            dialect: B::DIALECT,
            why: error.to_string(),
        };
        bincode::serde::encode_into_std_write(&self.header, &mut bytes, encoding()).map_err(broken)?;
        if let Some(body) = &self.body {
            bincode::serde::encode_into_std_write(body, &mut bytes, encoding()).map_err(broken)?;
        }
        let length = bytes.len() - PREFIX_BYTES;
        match u32::try_from(length) {
            Ok(prefix) if length <= max_frame_bytes::<B>() => {
                bytes[..PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes());
                Ok(bytes)
            }
            _ => Err(FrameError::TooLong {
                dialect: B::DIALECT,
                bytes: length,
                max: max_frame_bytes::<B>(),
            }),
        }
    }

    /// Decodes what follows the length field.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let (header, rest) = decode_header::<B>(bytes)?;
        let refuse = |error| Undecodable {
            header: Some(header.clone()),
            error,
        };
        let trailing = |bytes| {
            refuse(FrameError::Trailing {
                dialect: B::DIALECT,
                bytes,
            })
        };
        if matches!(header.kind, FrameKind::Refused { .. }) {
            return match rest.len() {
                0 => Ok(Self { header, body: None }),
                bytes => Err(trailing(bytes)),
            };
        }
        let decoded = bincode::serde::decode_from_slice(rest, body_encoding());
        let (body, used) = decoded.map_err(|error| {
            refuse(FrameError::Body {
                dialect: B::DIALECT,
                why: error.to_string(),
            })
        })?;
        if used != rest.len() {
            return Err(trailing(rest.len() - used));
        }
        Ok(Self {
            header,
            body: Some(body),
        })
    }
}

/// The dialect that a frame (what follows its length field) says it is in.
pub fn dialect_of(bytes: &[u8]) -> Option<u8> {
    bytes.get(1).copied()
}

/// The header of a frame of whatever dialect, from its first bytes.
pub fn header_of(bytes: &[u8]) -> Option<Header> {
    let (header, _): (Header, usize) = bincode::serde::decode_from_slice(bytes.get(2..)?, header_encoding()).ok()?;
    (bytes.first() == Some(&VERSION)).then_some(header)
}

fn decode_header<B: Wire>(bytes: &[u8]) -> Result<(Header, &[u8]), Undecodable> {
    let unknown = |error| Undecodable { header: None, error };
    let [version, dialect, rest @ ..] = bytes else {
        return Err(unknown(FrameError::Header));
    };
    if *version != VERSION {
        return Err(unknown(FrameError::Version { found: *version }));
    }
    let (header, used): (Header, usize) =
        bincode::serde::decode_from_slice(rest, header_encoding()).map_err(|_| unknown(FrameError::Header))?;
    if *dialect != B::DIALECT as u8 {
        let error = FrameError::OtherDialect {
            found: *dialect,
            expected: B::DIALECT,
        };
        return Err(Undecodable {
            header: Some(header),
            error,
        });
    }
    Ok((header, &rest[used..]))
}
