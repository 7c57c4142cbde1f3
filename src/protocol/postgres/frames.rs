//! The frames after start-up, in either direction: one type byte, a length that counts itself, a body.
//!
//! The walker is told of every byte that passes and keeps none of the body, so it costs a few branches for each message
//! and nothing for each byte.

use super::error::ProtocolError;
use std::fmt;

/// The longest frame that PostgreSQL reads from a client: `PQ_LARGE_MESSAGE_LIMIT`, MaxAllocSize - 1
/// (src/include/libpq/libpq.h, src/include/utils/memutils.h). The length counts itself, not the type byte.
pub const MAX_FRONTEND_LENGTH: u32 = 0x3fff_fffe;
/// The longest frame that PostgreSQL can send: a body is built in one allocation, at most MaxAllocSize (0x3fffffff).
pub const MAX_BACKEND_LENGTH: u32 = 0x3fff_ffff + LENGTH_BYTES;

const LENGTH_BYTES: u32 = 4;
const HEADER_BYTES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to PostgreSQL.
    Frontend,
    /// From PostgreSQL to the client.
    Backend,
}

impl Direction {
    pub const fn max_length(self) -> u32 {
        match self {
            Self::Frontend => MAX_FRONTEND_LENGTH,
            Self::Backend => MAX_BACKEND_LENGTH,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        })
    }
}

/// A part of one message, as much of it as one slice held. `first` comes as soon as the header is whole, perhaps with an
/// empty body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub message_type: u8,
    /// Bytes of the whole body.
    pub body_length: u32,
    pub body: &'a [u8],
    /// Bytes of the body that come after this piece.
    pub left: u32,
    pub first: bool,
}

impl Piece<'_> {
    pub fn last(&self) -> bool {
        self.left == 0
    }
}

/// Follows the frames of one direction through slices that may be cut anywhere.
#[derive(Debug, Clone)]
pub struct FrameWalker {
    direction: Direction,
    header: [u8; HEADER_BYTES],
    /// Bytes of the next header that are in `header`.
    filled: usize,
    message_type: Option<u8>,
    body_length: u32,
    left: u32,
    last_complete: Option<u8>,
    ready_status: Option<u8>,
    failed: Option<ProtocolError>,
}

impl FrameWalker {
    pub const fn new(direction: Direction) -> Self {
        Self {
            direction,
            header: [0; HEADER_BYTES],
            filled: 0,
            message_type: None,
            body_length: 0,
            left: 0,
            last_complete: None,
            ready_status: None,
            failed: None,
        }
    }

    /// No message is under way: here, and only here, a message of ours may be put into the stream.
    pub fn at_boundary(&self) -> bool {
        self.left == 0 && self.filled == 0
    }

    /// The type of the message under way, or of the last one.
    pub fn message_type(&self) -> Option<u8> {
        self.message_type
    }

    /// Bytes of the body under way that are still to come.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The type of the last message that is whole.
    pub fn last_complete(&self) -> Option<u8> {
        self.last_complete
    }

    /// The transaction status of the last ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one.
    pub fn last_ready_status(&self) -> Option<u8> {
        self.ready_status
    }

    /// PostgreSQL's last whole message was an ErrorResponse: if it closes now, it has said why.
    pub fn ended_with_error(&self) -> bool {
        self.direction == Direction::Backend && self.last_complete == Some(b'E')
    }

    /// Follows all of `bytes`.
    pub fn skim(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        while self.next_piece(&mut bytes)?.is_some() {}
        Ok(())
    }

    /// Follows all of `bytes` and shows each piece.
    pub fn walk<'a>(&mut self, mut bytes: &'a [u8], mut seen: impl FnMut(Piece<'a>)) -> Result<(), ProtocolError> {
        while let Some(piece) = self.next_piece(&mut bytes)? {
            seen(piece);
        }
        Ok(())
    }

    /// Takes the next piece off the front of `bytes`; `None` when nothing more can be made of them, and then `bytes` is
    /// empty. After an error every call gives the same error, because nobody knows where the next message begins.
    pub fn next_piece<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ProtocolError> {
        let first = self.left == 0;
        if first {
            if let Some(failed) = &self.failed {
                return Err(failed.clone());
            }
            let Some(header) = self.take_header(bytes) else {
                return Ok(None);
            };
            self.begin(header)?;
        } else if bytes.is_empty() {
            return Ok(None);
        }
        let take = bytes.len().min(self.left as usize);
        let (body, rest) = bytes.split_at(take);
        *bytes = rest;
        // `take` is at most `left`, so it fits.
        self.left -= take as u32;
        let message_type = self.message_type.unwrap_or_default();
        if self.left == 0 {
            self.complete(message_type, body)?;
        }
        Ok(Some(Piece {
            message_type,
            body_length: self.body_length,
            body,
            left: self.left,
            first,
        }))
    }

    fn take_header(&mut self, bytes: &mut &[u8]) -> Option<[u8; HEADER_BYTES]> {
        if self.filled == 0
            && let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
        {
            *bytes = rest;
            return Some(*header);
        }
        let take = bytes.len().min(HEADER_BYTES - self.filled);
        let (some, rest) = bytes.split_at(take);
        self.header[self.filled..self.filled + take].copy_from_slice(some);
        self.filled += take;
        *bytes = rest;
        if self.filled < HEADER_BYTES {
            return None;
        }
        self.filled = 0;
        Some(self.header)
    }

    fn begin(&mut self, header: [u8; HEADER_BYTES]) -> Result<(), ProtocolError> {
        let [message_type, length @ ..] = header;
        let length = u32::from_be_bytes(length);
        self.message_type = Some(message_type);
        if !(LENGTH_BYTES..=self.direction.max_length()).contains(&length) {
            return Err(self.fail(ProtocolError::MessageLength {
                direction: self.direction,
                message_type,
                length,
                max: self.direction.max_length(),
            }));
        }
        self.body_length = length - LENGTH_BYTES;
        if self.direction == Direction::Backend && message_type == b'Z' && self.body_length != 1 {
            return Err(self.fail(ProtocolError::MessageLength {
                direction: self.direction,
                message_type,
                length,
                max: LENGTH_BYTES + 1,
            }));
        }
        self.left = self.body_length;
        Ok(())
    }

    fn complete(&mut self, message_type: u8, body: &[u8]) -> Result<(), ProtocolError> {
        if self.direction == Direction::Backend && message_type == b'Z' {
            match body {
                [status @ (b'I' | b'T' | b'E')] => self.ready_status = Some(*status),
                _ => {
                    let status = body.first().copied().unwrap_or_default();
                    return Err(self.fail(ProtocolError::ReadyStatus { status }));
                }
            }
        }
        self.last_complete = Some(message_type);
        Ok(())
    }

    fn fail(&mut self, error: ProtocolError) -> ProtocolError {
        self.failed = Some(error.clone());
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message_type: u8, length: u32, body: &[u8]) -> Vec<u8> {
        let mut out = vec![message_type];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_message_length_below_four_or_above_the_cap_or_wrapping_is_refused() {
        for direction in [Direction::Frontend, Direction::Backend] {
            for length in [0, 1, 3, direction.max_length() + 1, i32::MIN as u32, u32::MAX] {
                let mut walker = FrameWalker::new(direction);
                let refused = walker.skim(&frame(b'D', length, b"")).expect_err("refused");
                assert!(
                    matches!(refused, ProtocolError::MessageLength { length: l, .. } if l == length),
                    "{length}: {refused}"
                );
            }
            let mut walker = FrameWalker::new(direction);
            assert_eq!(walker.skim(&frame(b'D', direction.max_length(), b"")), Ok(()));
            assert!(!walker.at_boundary());
        }
    }

    #[test]
    fn after_an_error_nothing_is_read_as_a_message_again() {
        let mut walker = FrameWalker::new(Direction::Backend);
        let error = walker.skim(&frame(b'D', 3, b"")).expect_err("too short");
        assert_eq!(walker.skim(&frame(b'Z', 5, b"I")), Err(error));
        assert_eq!(walker.last_ready_status(), None);
    }

    #[test]
    fn the_status_of_ready_for_query_and_a_final_error_response_are_noticed() {
        let mut walker = FrameWalker::new(Direction::Backend);
        walker.skim(&frame(b'Z', 5, b"T")).expect("sound");
        assert_eq!(walker.last_ready_status(), Some(b'T'));
        assert!(!walker.ended_with_error());
        let error = frame(b'E', 7, b"SX\0");
        walker.skim(&error[..7]).expect("sound");
        assert!(!walker.at_boundary());
        assert_eq!((walker.message_type(), walker.left()), (Some(b'E'), 1));
        assert!(!walker.ended_with_error(), "it is not whole yet");
        walker.skim(&error[7..]).expect("sound");
        assert!(walker.at_boundary() && walker.ended_with_error());
        assert!(walker.skim(&frame(b'Z', 5, b"?")).is_err());
    }

    #[test]
    fn a_ready_for_query_of_another_length_is_refused() {
        for (length, body) in [(4, &b""[..]), (6, b"II")] {
            let mut walker = FrameWalker::new(Direction::Backend);
            assert!(walker.skim(&frame(b'Z', length, body)).is_err());
        }
    }

    #[test]
    fn an_execute_of_the_client_is_not_taken_for_an_error() {
        let mut walker = FrameWalker::new(Direction::Frontend);
        walker.skim(&frame(b'E', 9, b"\0\0\0\0\0")).expect("sound");
        assert!(!walker.ended_with_error());
    }

    #[test]
    fn a_message_without_a_body_is_one_piece() {
        let mut pieces = Vec::new();
        let bytes = frame(b'S', 4, b"");
        FrameWalker::new(Direction::Frontend)
            .walk(&bytes, |piece| {
                pieces.push((piece.first, piece.last(), piece.body.len()))
            })
            .expect("sound");
        assert_eq!(pieces, [(true, true, 0)]);
    }
}
