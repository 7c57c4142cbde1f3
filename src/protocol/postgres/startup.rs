//! The first packet of a connection, the only one without a type byte: a request for TLS or GSSAPI encryption, a cancel
//! request, or the start-up message. Read before anybody is known, so it is read strictly.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>, and
//! `ProcessStartupPacket` in PostgreSQL's src/backend/tcop/backend_startup.c.

use super::error::{ProtocolError, quoted};
use super::fields::{FieldReader, put_string, set_length};
use crate::model::{DbName, DbUser, Replication, Secret};

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH. PostgreSQL does not count the length field; we do, and are four bytes
/// stricter.
pub const MAX_STARTUP_BYTES: usize = 10_000;
/// Clients send about ten. Each is compared with each, before anybody is known.
pub const MAX_STARTUP_PARAMETERS: usize = 64;
/// Since protocol 3.2 a cancel key may have up to 256 bytes; before, it has 4.
pub const CANCEL_KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;
/// The newest minor version spoken here; a client that asks for a newer one is sent NegotiateProtocolVersion.
pub const NEWEST_MINOR: u16 = 2;
/// The first with cancel keys of more than 4 bytes. There never was a 3.1 that anybody spoke; a client that asks for it is served
/// as one of 3.0.
const LONG_KEYS_SINCE: u16 = 2;
/// The secret of a cancel key that is given to a client of 3.0, which reads exactly so much.
pub const SHORT_CANCEL_KEY_BYTES: usize = 4;
/// The same since 3.2: what nobody guesses, and as much as PostgreSQL 18 gives out itself (MAX_CANCEL_KEY_LENGTH in its
/// src/include/miscadmin.h), so that clients have met it.
pub const LONG_CANCEL_KEY_BYTES: usize = 32;

const LENGTH_BYTES: usize = 4;
const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSS_ENC_CODE: u32 = 80_877_104;
const MAJOR: u16 = 3;

pub(super) const USER: &str = "user";
pub(super) const DATABASE: &str = "database";
pub const REPLICATION: &str = "replication";
/// Options of the protocol itself are named so; a server answers for those that it does not know.
pub(super) const PROTOCOL_OPTION_PREFIX: &str = "_pq_.";

/// SSLRequest, whole: what a client sends before TLS.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[derive(Debug, Clone)]
pub enum FirstPacket {
    SslRequest,
    GssEncRequest,
    Cancel(CancelRequest),
    Startup(StartupMessage),
}

/// Asks to cancel what the session of this key is doing.
#[derive(Debug, Clone)]
pub struct CancelRequest {
    pub process_id: u32,
    /// 4 to 256 bytes.
    pub secret: Secret<Vec<u8>>,
}

/// Protocol 3's start-up message. `parameters` are in the client's order, each name once, `user` among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    pub minor: u16,
    pub parameters: Vec<(String, String)>,
}

/// How many bytes follow the length field of the first packet: 4 to 9996.
pub fn packet_length(header: [u8; 4]) -> Result<usize, ProtocolError> {
    let length = i32::from_be_bytes(header);
    match usize::try_from(length) {
        Ok(whole) if (2 * LENGTH_BYTES..=MAX_STARTUP_BYTES).contains(&whole) => Ok(whole - LENGTH_BYTES),
        _ => Err(ProtocolError::StartupLength {
            length,
            max: MAX_STARTUP_BYTES,
        }),
    }
}

/// Reads the first packet; `body` is everything after the length field.
pub fn parse(body: &[u8]) -> Result<FirstPacket, ProtocolError> {
    if body.len() > MAX_STARTUP_BYTES - LENGTH_BYTES {
        return Err(ProtocolError::StartupLength {
            length: i32::try_from(body.len()).unwrap_or(i32::MAX),
            max: MAX_STARTUP_BYTES,
        });
    }
    let mut reader = FieldReader::new("startup", body);
    let code = reader.u32()?;
    match code {
        SSL_CODE => without_body("SSLRequest", &reader, FirstPacket::SslRequest),
        GSS_ENC_CODE => without_body("GSSENCRequest", &reader, FirstPacket::GssEncRequest),
        CANCEL_CODE => {
            let process_id = reader.u32()?;
            Ok(FirstPacket::Cancel(CancelRequest {
                process_id,
                secret: cancel_key(&mut reader)?,
            }))
        }
        _ => {
            let [major, minor] = [(code >> 16) as u16, code as u16];
            if major != MAJOR {
                return Err(ProtocolError::UnsupportedVersion {
                    major,
                    minor,
                    newest: NEWEST_MINOR,
                });
            }
            let parameters = parameters(reader.take_rest())?;
            let message = StartupMessage { minor, parameters };
            match message.user() {
                "" => Err(ProtocolError::NoUser),
                _ => Ok(FirstPacket::Startup(message)),
            }
        }
    }
}

fn without_body(
    request: &'static str,
    reader: &FieldReader<'_>,
    packet: FirstPacket,
) -> Result<FirstPacket, ProtocolError> {
    match reader.remaining() {
        0 => Ok(packet),
        length => Err(ProtocolError::RequestWithBody { request, length }),
    }
}

/// The rest of a message as a cancel key.
pub(super) fn cancel_key(reader: &mut FieldReader<'_>) -> Result<Secret<Vec<u8>>, ProtocolError> {
    let key = reader.take_rest();
    match CANCEL_KEY_BYTES.contains(&key.len()) {
        true => Ok(Secret::new(key.to_vec())),
        false => Err(ProtocolError::CancelKeyLength { length: key.len() }),
    }
}

fn parameters(bytes: &[u8]) -> Result<Vec<(String, String)>, ProtocolError> {
    let layout = |rule| ProtocolError::StartupLayout { rule };
    // An empty name ends the list, and it must be the last byte: nothing may hide behind it.
    let Some((0, pairs)) = bytes.split_last() else {
        return Err(layout("expected terminator as last byte"));
    };
    let mut reader = FieldReader::new("startup", pairs);
    let mut parameters: Vec<(String, String)> = Vec::new();
    while reader.remaining() > 0 {
        let mut string = |rule| reader.string().map_err(|_| layout(rule));
        let name = utf8(
            "a startup parameter's name",
            string("a name does not end with a NUL byte")?,
        )?;
        if name.is_empty() {
            return Err(layout("expected terminator as last byte"));
        }
        let value = utf8("a startup parameter's value", string("a name has no value")?)?;
        if parameters.len() == MAX_STARTUP_PARAMETERS {
            return Err(ProtocolError::TooManyParameters {
                max: MAX_STARTUP_PARAMETERS,
            });
        }
        // Of two, PostgreSQL takes the last, and another reader perhaps the first.
        if parameters.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name)) {
            return Err(ProtocolError::DuplicateParameter { name: quoted(&name) });
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

fn utf8(what: &'static str, bytes: &[u8]) -> Result<String, ProtocolError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(ProtocolError::NotUtf8 { what }),
    }
}

impl StartupMessage {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The database user that the client asks for; never empty in a message that was parsed.
    pub fn user(&self) -> &str {
        self.parameter(USER).unwrap_or_default()
    }

    /// The database that the client named, if it named one. PostgreSQL takes the user's name where none is named: decide on
    /// `policy::effective_db_name`.
    pub fn database(&self) -> Option<&str> {
        self.parameter(DATABASE).filter(|name| !name.is_empty())
    }

    pub fn application_name(&self) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("application_name"))
            .map(|(_, value)| value.as_str())
    }

    /// Names of the protocol options (`_pq_.…`) that were asked for. None is known here, so all belong into
    /// NegotiateProtocolVersion.
    pub fn unknown_protocol_options(&self) -> Vec<&str> {
        self.parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with(PROTOCOL_OPTION_PREFIX))
            .collect()
    }

    /// The minor version that the two sides speak.
    pub fn spoken_minor(&self) -> u16 {
        self.minor.min(NEWEST_MINOR)
    }

    /// Whether this client understands cancel keys of more than 4 bytes.
    pub fn has_long_cancel_keys(&self) -> bool {
        self.spoken_minor() >= LONG_KEYS_SINCE
    }

    /// The client asked for something newer than is spoken here: answer with NegotiateProtocolVersion.
    pub fn needs_negotiation(&self) -> bool {
        self.minor > NEWEST_MINOR || !self.unknown_protocol_options().is_empty()
    }
}

/// The start-up message (protocol 3.0) for PostgreSQL. `params` are those that [`StartupMessage::passed_parameters`]
/// gave, without `user`, `database` and `replication`.
///
/// Fails where a name or value holds a NUL byte (the rest would be read as a further parameter), where a name is empty
/// (it would end the list), and where PostgreSQL would not read so long a packet.
pub fn encode_startup(
    user: &DbUser,
    database: &DbName,
    replication: Option<Replication>,
    params: &[(String, String)],
) -> Result<Vec<u8>, ProtocolError> {
    let mut out = vec![0; LENGTH_BYTES];
    out.extend_from_slice(&(u32::from(MAJOR) << 16).to_be_bytes());
    let named = [(USER, user.as_str()), (DATABASE, database.as_str())];
    let params = params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let replication = replication.map(|mode| (REPLICATION, mode.parameter()));
    let decided = |name: &str| {
        [USER, DATABASE, REPLICATION]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
    };
    // PostgreSQL takes the last of two: one among the parameters would win over what was decided.
    if params.clone().any(|(name, _)| decided(name)) {
        return Err(ProtocolError::NotEncodable {
            what: "a startup parameter that is named like user, database or replication",
        });
    }
    for (name, value) in named.into_iter().chain(replication).chain(params) {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return Err(ProtocolError::NotEncodable {
                what: "a startup parameter",
            });
        }
        put_string(&mut out, name);
        put_string(&mut out, value);
        if out.len() >= MAX_STARTUP_BYTES {
            return Err(ProtocolError::StartupLength {
                length: i32::try_from(out.len()).unwrap_or(i32::MAX),
                max: MAX_STARTUP_BYTES,
            });
        }
    }
    out.push(0);
    set_length(&mut out, 0);
    Ok(out)
}

/// CancelRequest, whole. The answer holds the key: it goes onto the wire and nowhere else.
pub fn encode_cancel(process_id: u32, secret: &Secret<Vec<u8>>) -> Vec<u8> {
    let mut out = vec![0; LENGTH_BYTES];
    out.extend_from_slice(&CANCEL_CODE.to_be_bytes());
    out.extend_from_slice(&process_id.to_be_bytes());
    out.extend_from_slice(secret.expose());
    set_length(&mut out, 0);
    out
}
