//! The message types that a client may send, and how long each may be.

use super::bind;
use super::error::ProtocolError;
use super::frames::Direction;

/// PostgreSQL's PQ_SMALL_MESSAGE_LIMIT (src/include/libpq/libpq.h): the longest frame of a message that is not long by
/// nature. The length counts itself.
pub const SMALL_LENGTH: u32 = 10_000;
/// PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH (src/include/libpq/auth.h), for `p`.
pub const AUTHENTICATION_LENGTH: u32 = 65_535;

/// How the body under way is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nothing in it is recorded.
    Ignored,
    /// It has no body, and its place in the stream counts.
    Noted,
    CopyData,
    /// Gathered, then parsed at once.
    Whole,
    /// Longer than a part: recorded as it is.
    Raw,
    Query,
    ParseName,
    ParseText,
    /// After the text of a Parse: how many parameter types, then those types.
    ParseTypes {
        length: u32,
        seen: u32,
        count: u16,
    },
}

/// What is known of a message type before its body comes.
pub(super) struct Shape {
    message: &'static str,
    pub(super) reading: Reading,
    /// Bytes of the body.
    least: u32,
    most: u32,
}

impl Shape {
    pub(super) fn of(message_type: u8) -> Result<Self, ProtocolError> {
        use Reading::{CopyData, Ignored, Noted, ParseName, Query, Whole};
        let small = SMALL_LENGTH - 4;
        let large = Direction::Frontend.max_length() - 4;
        let (message, reading, least, most) = match message_type {
            b'Q' => ("Query", Query, 1, large),
            b'P' => ("Parse", ParseName, 4, large),
            b'B' => (bind::BIND, Whole, 8, large),
            b'E' => ("Execute", Whole, 5, small),
            b'C' => ("Close", Whole, 2, small),
            b'D' => ("Describe", Whole, 2, small),
            b'F' => (bind::FUNCTION_CALL, Whole, 10, large),
            b'd' => ("CopyData", CopyData, 0, large),
            b'f' => ("CopyFail", Whole, 1, small),
            b'c' => ("CopyDone", Noted, 0, 0),
            b'H' => ("Flush", Ignored, 0, 0),
            b'S' => ("Sync", Noted, 0, 0),
            b'X' => ("Terminate", Ignored, 0, 0),
            b'p' => ("password", Ignored, 1, AUTHENTICATION_LENGTH - 4),
            _ => return Err(ProtocolError::UnknownMessageType { message_type }),
        };
        Ok(Self {
            message,
            reading,
            least,
            most,
        })
    }

    pub(super) fn check(&self, length: u32) -> Result<(), ProtocolError> {
        let message = self.message;
        if length < self.least {
            let least = self.least;
            return Err(ProtocolError::BodyTooShort { message, length, least });
        }
        if length > self.most {
            return Err(ProtocolError::BodyTooLong {
                message,
                length: length as usize,
                most: self.most as usize,
            });
        }
        Ok(())
    }
}
