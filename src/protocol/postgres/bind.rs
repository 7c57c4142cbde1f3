//! The bodies of the smaller frontend messages: Bind, FunctionCall, Execute, Close and Describe.
//!
//! Names, texts and values are bytes as they came, in the client's encoding.

use super::error::ProtocolError;
use super::fields::FieldReader;

pub(super) const BIND: &str = "Bind";
pub(super) const FUNCTION_CALL: &str = "FunctionCall";

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// One parameter or argument, by the format code that holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// Gives a prepared statement its parameters and makes a portal of it. An empty name is the unnamed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub portal: Vec<u8>,
    pub statement: Vec<u8>,
    /// As sent: none (all are text), one (for all), or one for each parameter.
    pub formats: Vec<Format>,
    pub parameters: Vec<Value>,
    /// As sent: none, one, or one for each column of the result.
    pub result_formats: Vec<Format>,
}

/// The "fast path" call of one function, without SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall {
    pub oid: u32,
    pub formats: Vec<Format>,
    pub arguments: Vec<Value>,
    pub result_format: Format,
}

/// What Close and Describe name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    Statement,
    Portal,
}

impl Bind {
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = FieldReader::new(BIND, body);
        let portal = reader.string()?.to_vec();
        let statement = reader.string()?.to_vec();
        let formats = formats(&mut reader)?;
        let parameters = values(&mut reader, &formats)?;
        let result_formats = self::formats(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            portal,
            statement,
            formats,
            parameters,
            result_formats,
        })
    }

    /// Portal and statement of a Bind whose body begins with `head`.
    pub(super) fn names(head: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ProtocolError> {
        let mut reader = FieldReader::new(BIND, head);
        Ok((reader.string()?.to_vec(), reader.string()?.to_vec()))
    }
}

impl FunctionCall {
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = FieldReader::new(FUNCTION_CALL, body);
        let oid = reader.u32()?;
        let formats = formats(&mut reader)?;
        let arguments = values(&mut reader, &formats)?;
        let result_format = format(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            oid,
            formats,
            arguments,
            result_format,
        })
    }
}

/// Execute: the portal, and the most rows to return (0 and below: all).
pub(super) fn execute(body: &[u8]) -> Result<(Vec<u8>, i32), ProtocolError> {
    let mut reader = FieldReader::new("Execute", body);
    let portal = reader.string()?.to_vec();
    let max_rows = reader.i32()?;
    reader.finish()?;
    Ok((portal, max_rows))
}

/// Close and Describe: a kind and a name.
pub(super) fn object(message: &'static str, body: &[u8]) -> Result<(ObjectKind, Vec<u8>), ProtocolError> {
    let mut reader = FieldReader::new(message, body);
    let kind = match reader.u8()? {
        b'S' => ObjectKind::Statement,
        b'P' => ObjectKind::Portal,
        byte => return Err(ProtocolError::ObjectKind { message, byte }),
    };
    let name = reader.string()?.to_vec();
    reader.finish()?;
    Ok((kind, name))
}

/// CopyFail: one string and nothing else.
pub(super) fn copy_fail(body: &[u8]) -> Result<(), ProtocolError> {
    let mut reader = FieldReader::new("CopyFail", body);
    reader.string()?;
    reader.finish()
}

fn format(reader: &mut FieldReader<'_>) -> Result<Format, ProtocolError> {
    match reader.u16()? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        code => Err(ProtocolError::FormatCode {
            message: reader.message(),
            code,
        }),
    }
}

fn formats(reader: &mut FieldReader<'_>) -> Result<Vec<Format>, ProtocolError> {
    const FORMAT_BYTES: usize = 2;
    let count = usize::from(reader.u16()?);
    if count > reader.remaining() / FORMAT_BYTES {
        return Err(reader.truncated());
    }
    (0..count).map(|_| format(reader)).collect()
}

fn values(reader: &mut FieldReader<'_>, formats: &[Format]) -> Result<Vec<Value>, ProtocolError> {
    const LENGTH_BYTES: usize = 4;
    let count = usize::from(reader.u16()?);
    if formats.len() > 1 && formats.len() != count {
        return Err(ProtocolError::FormatCount {
            message: reader.message(),
            formats: formats.len(),
            parameters: count,
        });
    }
    if count > reader.remaining() / LENGTH_BYTES {
        return Err(reader.truncated());
    }
    (0..count)
        .map(|at| {
            let own = formats.get(at).or(match formats {
                [all] => Some(all),
                _ => None,
            });
            value(reader, own.copied().unwrap_or(Format::Text))
        })
        .collect()
}

fn value(reader: &mut FieldReader<'_>, format: Format) -> Result<Value, ProtocolError> {
    let length = reader.i32()?;
    let bytes = match usize::try_from(length) {
        Ok(length) => reader.bytes(length)?.to_vec(),
        Err(_) if length == -1 => return Ok(Value::Null),
        Err(_) => {
            return Err(ProtocolError::ValueLength {
                message: reader.message(),
                length,
            });
        }
    };
    Ok(match format {
        Format::Text => Value::Text(bytes),
        Format::Binary => Value::Binary(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_PARAMETERS: &[u8] = b"\0\0\0\0\0\0\0\0";

    #[test]
    fn one_format_code_holds_for_all_parameters_and_none_means_text() {
        let one_binary = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\0";
        let bind = Bind::parse(one_binary).expect("sound");
        assert_eq!((&bind.portal[..], &bind.statement[..]), (&b"p"[..], &b"s"[..]));
        assert_eq!(bind.parameters, [Value::Binary(b"a".to_vec()), Value::Null]);
        let none = Bind::parse(b"\0\0\0\0\0\x01\0\0\0\x01a\0\x01\0\x01").expect("sound");
        assert_eq!(none.parameters, [Value::Text(b"a".to_vec())]);
        assert_eq!(none.result_formats, [Format::Binary]);
    }

    #[test]
    fn counts_and_lengths_that_do_not_fit_the_body_are_errors() {
        assert!(Bind::parse(NO_PARAMETERS).is_ok());
        for body in [
            &b"portal without end"[..],
            b"\0statement without end",
            b"\0\0",
            b"\0\0\xff\xff\0\0\0\0",
            b"\0\0\0\0\xff\xff\0\0",
            b"\0\0\0\0\0\x01\0\0\0\x09a\0\0",
            b"\0\0\0\0\0\x01\x7f\xff\xff\xffa\0\0",
            b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
            b"\0\0\0\x01\0\x02\0\0\0\0",
            b"\0\0\0\x02\0\0\0\0\0\x01\xff\xff\xff\xff\0\0",
            b"\0\0\0\0\0\0\0\0junk",
            b"\0\0\0\0\0\0\0\x01",
        ] {
            assert!(Bind::parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_function_call_is_read_with_its_arguments() {
        let call = FunctionCall::parse(b"\0\0\x04\xd2\0\0\0\x01\0\0\0\x02hi\0\x01").expect("sound");
        assert_eq!((call.oid, call.result_format), (1234, Format::Binary));
        assert_eq!(call.arguments, [Value::Text(b"hi".to_vec())]);
        assert!(FunctionCall::parse(b"\0\0\x04\xd2\0\0\0\x01\0\0\0\x02hi\0\x01x").is_err());
        assert!(FunctionCall::parse(b"\0\0\x04\xd2\0\0\0\x01\0\0\0\x02hi").is_err());
    }

    #[test]
    fn close_and_describe_name_a_statement_or_a_portal() {
        assert_eq!(object("Close", b"Sx\0"), Ok((ObjectKind::Statement, b"x".to_vec())));
        assert_eq!(object("Close", b"P\0"), Ok((ObjectKind::Portal, Vec::new())));
        assert!(object("Close", b"Xx\0").is_err());
        assert!(object("Close", b"Sx").is_err());
        assert!(object("Close", b"Sx\0y\0").is_err());
    }
}
