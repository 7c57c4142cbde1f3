//! The fields inside a message: integers in network order, strings that end with a NUL byte, counted bytes.

use super::error::ProtocolError;
use std::ffi::CStr;

/// Reads the fields of one message body, in order. Never looks past the end of the body.
#[derive(Debug, Clone)]
pub struct FieldReader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// `message` names the message in errors.
    pub fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self { message, rest: body }
    }

    pub fn message(&self) -> &'static str {
        self.message
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        match self.rest.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.rest = rest;
                Ok(*field)
            }
            None => Err(self.truncated()),
        }
    }

    pub fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Counts and format codes are unsigned, as PostgreSQL reads them (`pq_getmsgint`): up to 65535 parameters.
    pub fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, ProtocolError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], ProtocolError> {
        match self.rest.split_at_checked(count) {
            Some((field, rest)) => {
                self.rest = rest;
                Ok(field)
            }
            None => Err(self.truncated()),
        }
    }

    /// A string without its NUL byte.
    pub fn string(&mut self) -> Result<&'a [u8], ProtocolError> {
        match split_at_nul(self.rest) {
            Some((text, rest)) => {
                self.rest = rest;
                Ok(text)
            }
            None => Err(ProtocolError::Unterminated { message: self.message }),
        }
    }

    /// Everything that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The message must end here.
    pub fn finish(self) -> Result<(), ProtocolError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(ProtocolError::TrailingBytes {
                message: self.message,
                count,
            }),
        }
    }

    pub fn truncated(&self) -> ProtocolError {
        ProtocolError::Truncated { message: self.message }
    }
}

/// What is before the first NUL byte and what is after it.
pub fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // CStr searches a machine word at a time; `position` would look at each byte of a long statement.
    let text = CStr::from_bytes_until_nul(bytes).ok()?.to_bytes();
    Some((text, bytes.get(text.len() + 1..)?))
}

/// Writes one message: the type byte, the length, then what `body` appends.
pub(super) fn message(message_type: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![message_type, 0, 0, 0, 0];
    body(&mut out);
    set_length(&mut out, 1);
    out
}

/// Writes the length of everything from `at` into the four bytes at `at`.
pub(super) fn set_length(out: &mut [u8], at: usize) {
    let length = u32::try_from(out.len().saturating_sub(at)).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a string and its NUL byte. A NUL byte inside would end it early and let the rest be read as the next field:
/// it is replaced.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    for (at, piece) in text.split('\0').enumerate() {
        if at > 0 {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
        out.extend_from_slice(piece.as_bytes());
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_there_is_an_error_and_not_a_panic() {
        let mut reader = FieldReader::new("Bind", &[0, 1, 2]);
        assert_eq!(reader.u16(), Ok(1));
        assert_eq!(reader.u32(), Err(ProtocolError::Truncated { message: "Bind" }));
        assert_eq!(
            reader.bytes(usize::MAX),
            Err(ProtocolError::Truncated { message: "Bind" })
        );
        assert_eq!(
            reader.clone().finish(),
            Err(ProtocolError::TrailingBytes {
                message: "Bind",
                count: 1
            })
        );
        assert_eq!(reader.u8(), Ok(2));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_string_ends_at_its_nul_byte() {
        assert_eq!(split_at_nul(b"a\0b\0"), Some((&b"a"[..], &b"b\0"[..])));
        assert_eq!(split_at_nul(b"\0"), Some((&b""[..], &b""[..])));
        assert_eq!(split_at_nul(b"ab"), None);
    }

    #[test]
    fn a_nul_byte_in_a_string_that_we_write_cannot_end_it() {
        let mut out = Vec::new();
        put_string(&mut out, "a\0b");
        assert_eq!(out, "a\u{fffd}b\0".as_bytes());
    }
}
