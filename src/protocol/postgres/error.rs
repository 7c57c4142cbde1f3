//! How a peer can break the protocol. Each message says what came and what is allowed, and holds nothing of a statement.

use super::frames::Direction;
use crate::model::{Refusal, RefusalKind};

/// A name that a peer sent is repeated to them up to this many characters: PostgreSQL's own names are no longer
/// (NAMEDATALEN - 1), so a longer one is not a name anyway.
const MAX_QUOTED_CHARS: usize = 63;

/// What a peer sent that PostgreSQL's protocol does not allow. The connection cannot go on after it, because it is no
/// longer known where the next message begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("invalid length of startup packet: {length}; 8 to {max} bytes are allowed")]
    StartupLength { length: i32, max: usize },
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{newest}")]
    UnsupportedVersion { major: u16, minor: u16, newest: u16 },
    #[error("{request} has {length} bytes after its code; it must have none")]
    RequestWithBody { request: &'static str, length: usize },
    #[error("a cancel key of {length} bytes was sent; 4 to 256 bytes are allowed")]
    CancelKeyLength { length: usize },
    #[error("invalid startup packet layout: {rule}")]
    StartupLayout { rule: &'static str },
    #[error("startup parameter {name} was sent twice; each may be sent once")]
    DuplicateParameter { name: String },
    #[error("more than {max} startup parameters were sent; set the others with SET after connecting")]
    TooManyParameters { max: usize },
    #[error("no PostgreSQL user name specified in startup packet; send the parameter \"user\"")]
    NoUser,
    #[error("{what} is not UTF-8; names and values of the startup packet must be")]
    NotUtf8 { what: &'static str },
    #[error("{what} has a NUL byte in it or is empty; it must be neither")]
    NotEncodable { what: &'static str },
    #[error(
        "invalid message length {length} of the {direction} message {kind:?}; 4 to {max} are allowed",
        length = as_signed(.length), kind = as_char(.message_type)
    )]
    MessageLength {
        direction: Direction,
        message_type: u8,
        length: u32,
        max: u32,
    },
    #[error(
        "invalid frontend message type {message_type} ({kind:?}); a client may send B C c d E f F D H p P Q S X",
        kind = as_char(.message_type)
    )]
    UnknownMessageType { message_type: u8 },
    #[error("a {message} message has a body of {length} bytes; at least {least} are needed")]
    BodyTooShort {
        message: &'static str,
        length: u32,
        least: u32,
    },
    #[error("a {message} message has a body of {length} bytes; at most {most} are allowed")]
    BodyTooLong {
        message: &'static str,
        length: usize,
        most: usize,
    },
    #[error("a {message} message ends inside a string; every string must end with a NUL byte")]
    Unterminated { message: &'static str },
    #[error("a {message} message ends before its last field; its counts and its length must agree")]
    Truncated { message: &'static str },
    #[error("a {message} message has {count} bytes after its last field; it must have none")]
    TrailingBytes { message: &'static str, count: usize },
    #[error("a name in a {message} message is longer than {max} bytes")]
    NameTooLong { message: &'static str, max: usize },
    #[error(
        "a {message} message has {formats} parameter formats but {parameters} parameters; none, one, or one for each is allowed"
    )]
    FormatCount {
        message: &'static str,
        formats: usize,
        parameters: usize,
    },
    #[error("a {message} message has the format code {code}; 0 (text) and 1 (binary) exist")]
    FormatCode { message: &'static str, code: u16 },
    #[error("a {message} message has a value of length {length}; -1 (NULL) and up are allowed")]
    ValueLength { message: &'static str, length: i32 },
    #[error("a {message} message has the kind {byte}; 'S' (statement) and 'P' (portal) exist")]
    ObjectKind { message: &'static str, byte: u8 },
    #[error("a ReadyForQuery message has the status {status}; I, T and E exist")]
    ReadyStatus { status: u8 },
}

impl ProtocolError {
    /// The ErrorResponse for a client that sent this: SQLSTATE 08P01, or 0A000 for a version of the protocol that does
    /// not exist here. An error of PostgreSQL's direction is for the log; the client is told that PostgreSQL was lost.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::UnsupportedVersion { .. } => Refusal::new(RefusalKind::NotSupported, self.to_string())
                .hint("Use a client that speaks protocol 3.0 (PostgreSQL 7.4 or later)."),
            _ => Refusal::new(RefusalKind::ProtocolViolation, self.to_string()),
        }
    }
}

/// PostgreSQL reads a length as signed; so does the sentence.
fn as_signed(length: &u32) -> i32 {
    length.cast_signed()
}

fn as_char(message_type: &u8) -> char {
    char::from(*message_type)
}

/// A name from a peer, escaped and cut, for a sentence.
pub(super) fn quoted(name: &str) -> String {
    match name.char_indices().nth(MAX_QUOTED_CHARS) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}...", name.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_protocol_is_08p01_and_a_version_that_does_not_exist_is_0a000() {
        let old = ProtocolError::UnsupportedVersion {
            major: 2,
            minor: 0,
            newest: 2,
        };
        assert_eq!(old.refusal().kind.sqlstate(), "0A000");
        assert_eq!(
            old.to_string(),
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"
        );
        assert_eq!(ProtocolError::NoUser.refusal().kind.sqlstate(), "08P01");
    }

    #[test]
    fn a_name_is_repeated_escaped_and_cut() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(&"é".repeat(500)), format!("\"{}\"...", "é".repeat(63)));
    }
}
