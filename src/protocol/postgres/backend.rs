//! Messages of PostgreSQL's direction: those that we write to a client ourselves, and those that we read from PostgreSQL
//! while a session starts.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>,
//! <https://www.postgresql.org/docs/current/protocol-error-fields.html>.

use super::error::ProtocolError;
use super::fields::{FieldReader, message, put_string};
use super::startup::cancel_key;
use crate::model::{Refusal, Secret};

/// Of each field of an ErrorResponse so much is kept. PostgreSQL's own texts are shorter; a hostile server's need not be.
pub const MAX_ERROR_FIELD_BYTES: usize = 8 * 1024;
/// libpq's own limit for an authentication request (2000 with the length field; src/interfaces/libpq/fe-connect.c).
pub const MAX_AUTHENTICATION_BODY: usize = 2000 - 4;

const PROTOCOL_3: u32 = 3 << 16;

/// A FATAL ErrorResponse, which goes before every close that we cause.
pub fn error_response(refusal: &Refusal) -> Vec<u8> {
    error_response_with(
        "FATAL",
        refusal.kind.sqlstate(),
        &refusal.message,
        None,
        refusal.hint.as_deref(),
    )
}

/// An ErrorResponse with the fields S, V, C, M and, where given, D and H.
pub fn error_response_with(
    severity: &str,
    sqlstate: &str,
    text: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) -> Vec<u8> {
    let fields = [
        (b'S', Some(severity)),
        (b'V', Some(severity)),
        (b'C', Some(sqlstate)),
        (b'M', Some(text)),
        (b'D', detail),
        (b'H', hint),
    ];
    message(b'E', |out| {
        for (field, value) in fields {
            if let Some(value) = value {
                out.push(field);
                put_string(out, value);
            }
        }
        out.push(0);
    })
}

/// AuthenticationOk.
pub fn authentication_ok() -> Vec<u8> {
    message(b'R', |out| out.extend_from_slice(&0_u32.to_be_bytes()))
}

/// BackendKeyData. A client of protocol 3.0 understands a secret of exactly 4 bytes only.
pub fn backend_key_data(process_id: u32, secret: &Secret<Vec<u8>>) -> Vec<u8> {
    message(b'K', |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret.expose());
    })
}

/// NegotiateProtocolVersion: 3.`minor` is what we go on with, never more than the client asked for, and of its options we do
/// not know `options`.
///
/// The documentation calls the field the minor version; PostgreSQL sends, and libpq expects, the whole version.
pub fn negotiate_protocol_version(minor: u16, options: &[&str]) -> Vec<u8> {
    message(b'v', |out| {
        out.extend_from_slice(&(PROTOCOL_3 | u32::from(minor)).to_be_bytes());
        let count = u32::try_from(options.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        options.iter().for_each(|option| put_string(out, option));
    })
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
    message(b'S', |out| {
        put_string(out, name);
        put_string(out, value);
    })
}

/// What an ErrorResponse or NoticeResponse of PostgreSQL says. Texts are made UTF-8 (before `client_encoding` is agreed
/// they are in the server's own encoding) and cut at [`MAX_ERROR_FIELD_BYTES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFields {
    /// Not translated where the server sends it so (field V, since PostgreSQL 9.6).
    pub severity: Option<String>,
    /// Five digits and upper-case letters, or none: a server that sends something else has sent none.
    pub sqlstate: Option<String>,
    pub message: Option<String>,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ErrorFields {
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = FieldReader::new("ErrorResponse", body);
        let mut fields = Self::default();
        let mut translated = None;
        loop {
            let field = match reader.u8()? {
                0 => break,
                b'S' => &mut translated,
                b'V' => &mut fields.severity,
                b'C' => &mut fields.sqlstate,
                b'M' => &mut fields.message,
                b'D' => &mut fields.detail,
                b'H' => &mut fields.hint,
                _ => {
                    reader.string()?;
                    continue;
                }
            };
            let value = reader.string()?;
            if field.is_none() {
                *field = Some(text(value));
            }
        }
        reader.finish()?;
        fields.severity = fields.severity.or(translated);
        fields.sqlstate = fields.sqlstate.filter(|code| is_sqlstate(code));
        Ok(fields)
    }
}

fn is_sqlstate(code: &str) -> bool {
    code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

fn text(bytes: &[u8]) -> String {
    let kept = bytes.get(..MAX_ERROR_FIELD_BYTES).unwrap_or(bytes);
    String::from_utf8_lossy(kept).into_owned()
}

/// How PostgreSQL wants to know who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationRequest {
    /// It does: by our certificate, or by trust.
    Ok,
    KerberosV5,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    Gss,
    GssContinue,
    Sspi,
    Sasl {
        mechanisms: Vec<String>,
    },
    SaslContinue,
    SaslFinal,
    Other(u32),
}

impl AuthenticationRequest {
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        const NAME: &str = "Authentication";
        if body.len() > MAX_AUTHENTICATION_BODY {
            return Err(ProtocolError::BodyTooLong {
                message: NAME,
                length: body.len(),
                most: MAX_AUTHENTICATION_BODY,
            });
        }
        let mut reader = FieldReader::new(NAME, body);
        let request = match reader.u32()? {
            0 => Self::Ok,
            2 => Self::KerberosV5,
            3 => Self::CleartextPassword,
            5 => {
                let salt = reader.u32()?.to_be_bytes();
                Self::Md5Password { salt }
            }
            7 => Self::Gss,
            8 => Self::GssContinue,
            9 => Self::Sspi,
            10 => Self::Sasl {
                mechanisms: mechanisms(&mut reader)?,
            },
            11 => Self::SaslContinue,
            12 => Self::SaslFinal,
            other => Self::Other(other),
        };
        if matches!(
            request,
            Self::GssContinue | Self::SaslContinue | Self::SaslFinal | Self::Other(_)
        ) {
            reader.take_rest();
        }
        reader.finish()?;
        Ok(request)
    }

    /// The method as pg_hba.conf or the protocol calls it, for an error message.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Ok => "none",
            Self::KerberosV5 => "krb5",
            Self::CleartextPassword => "password",
            Self::Md5Password { .. } => "md5",
            Self::Gss | Self::GssContinue => "gss",
            Self::Sspi => "sspi",
            Self::Sasl { .. } | Self::SaslContinue | Self::SaslFinal => "scram-sha-256",
            Self::Other(_) => "unknown",
        }
    }
}

fn mechanisms(reader: &mut FieldReader<'_>) -> Result<Vec<String>, ProtocolError> {
    let mut mechanisms = Vec::new();
    loop {
        match reader.string()? {
            b"" => return Ok(mechanisms),
            name => mechanisms.push(text(name)),
        }
    }
}

/// The key that cancels what this backend is doing.
#[derive(Debug, Clone)]
pub struct BackendKeyData {
    pub process_id: u32,
    /// 4 to 256 bytes.
    pub secret: Secret<Vec<u8>>,
}

impl BackendKeyData {
    pub fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = FieldReader::new("BackendKeyData", body);
        Ok(Self {
            process_id: reader.u32()?,
            secret: cancel_key(&mut reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RefusalKind;

    #[test]
    fn a_refusal_is_a_fatal_error_with_sqlstate_message_and_hint() {
        let refusal = Refusal::new(RefusalKind::AccessDenied, "no").hint("ask");
        assert_eq!(
            error_response(&refusal),
            b"E\0\0\0\x23SFATAL\0VFATAL\0C42501\0Mno\0Hask\0\0"
        );
    }

    #[test]
    fn the_messages_of_a_session_start_are_as_postgresql_sends_them() {
        assert_eq!(authentication_ok(), b"R\0\0\0\x08\0\0\0\0");
        assert_eq!(
            backend_key_data(7, &Secret::new(vec![1, 2, 3, 4])),
            b"K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04"
        );
        assert_eq!(
            negotiate_protocol_version(2, &["_pq_.x"]),
            b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
        );
        assert_eq!(parameter_status("a", "b"), b"S\0\0\0\x08a\0b\0");
    }

    #[test]
    fn an_error_response_without_sqlstate_or_with_a_wrong_one_has_none() {
        let fields = ErrorFields::parse(b"SFATAL\0Mno\0\0").expect("sound");
        assert_eq!((fields.sqlstate, fields.severity.as_deref()), (None, Some("FATAL")));
        for wrong in ["", "2800", "28000x", "28\x1b00", "28p01"] {
            let body = format!("C{wrong}\0\0");
            let fields = ErrorFields::parse(body.as_bytes()).expect("sound");
            assert_eq!(fields.sqlstate, None, "{wrong:?}");
        }
    }

    #[test]
    fn an_error_response_of_a_hostile_server_is_cut_or_refused() {
        let mut long = vec![b'M'];
        long.resize(100_000, 0xff);
        long.extend_from_slice(b"\0\0");
        let fields = ErrorFields::parse(&long).expect("sound");
        let cut = fields.message.expect("a message").chars().count();
        assert_eq!(cut, MAX_ERROR_FIELD_BYTES);
        for body in [&b""[..], b"M", b"Mno", b"Mno\0", b"\0x", b"Mno\0\0junk"] {
            assert!(ErrorFields::parse(body).is_err(), "{body:?}");
        }
        let twice = ErrorFields::parse(b"Mone\0Mtwo\0Xskipped\0\0").expect("sound");
        assert_eq!(twice.message.as_deref(), Some("one"));
    }

    #[test]
    fn authentication_requests_are_told_apart_and_hostile_ones_refused() {
        let parse = |body: &[u8]| AuthenticationRequest::parse(body);
        assert_eq!(parse(b"\0\0\0\0"), Ok(AuthenticationRequest::Ok));
        assert_eq!(
            parse(b"\0\0\0\x05salt"),
            Ok(AuthenticationRequest::Md5Password { salt: *b"salt" })
        );
        let mechanisms = vec!["SCRAM-SHA-256-PLUS".into(), "SCRAM-SHA-256".into()];
        assert_eq!(
            parse(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
            Ok(AuthenticationRequest::Sasl { mechanisms })
        );
        assert_eq!(parse(b"\0\0\0\x0bnonce"), Ok(AuthenticationRequest::SaslContinue));
        assert_eq!(parse(b"\0\0\0\x63x"), Ok(AuthenticationRequest::Other(99)));
        for body in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\0x",
            b"\0\0\0\x03x",
            b"\0\0\0\x05sal",
            b"\0\0\0\x0aSCRAM",
            b"\0\0\0\x0aSCRAM\0",
            b"\0\0\0\x0aSCRAM\0\0x",
            &[1; MAX_AUTHENTICATION_BODY + 1],
        ] {
            assert!(parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_cancel_key_has_4_to_256_bytes_and_is_never_printed() {
        for (length, sound) in [(0, false), (3, false), (4, true), (256, true), (257, false)] {
            let body: Vec<u8> = [0, 0, 0, 9].into_iter().chain(vec![b'k'; length]).collect();
            assert_eq!(BackendKeyData::parse(&body).is_ok(), sound, "{length}");
        }
        let key = BackendKeyData::parse(b"\0\0\0\x09kkkk").expect("sound");
        assert_eq!(
            format!("{key:?}"),
            "BackendKeyData { process_id: 9, secret: [redacted] }"
        );
        assert!(BackendKeyData::parse(b"\0\0").is_err());
    }
}
