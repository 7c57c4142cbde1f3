//! A PostgreSQL client of a few lines, for what psql does not show: SQLSTATE and hint of a refused connection, and what an
//! idle session is told. The protocol is that of PostgreSQL's chapter "Frontend/Backend Protocol".

use super::Client;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// SSLRequest: length 8 and its code.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// GSSENCRequest: length 8 and its code.
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// The beginning of a CancelRequest with a key of protocol 3.0: length 16 and its code.
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];
const PROTOCOL_3_0: u32 = 196_608;

/// The fields of an ErrorResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub hint: String,
}

impl ServerError {
    fn read(body: &[u8]) -> Self {
        let mut error = Self {
            severity: String::new(),
            code: String::new(),
            message: String::new(),
            hint: String::new(),
        };
        for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            let text = String::from_utf8_lossy(&field[1..]).into_owned();
            match field[0] {
                b'V' => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'H' => error.hint = text,
                _ => {}
            }
        }
        error
    }

    /// Message and hint, as a person reads them.
    pub fn words(&self) -> String {
        format!("{}\n{}", self.message, self.hint)
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection that is ready for queries.
pub struct Wire {
    stream: Tls,
    /// Process id and secret, as a CancelRequest has them.
    pub cancel_key: Vec<u8>,
    /// The body of NegotiateProtocolVersion, if the server sent one.
    pub negotiated: Option<Vec<u8>>,
}

/// How a session ended that was in the middle of an answer.
#[derive(Debug)]
pub enum Ending {
    Said(ServerError),
    /// The rest of the message cannot come any more, so that nothing can be said.
    WithinAMessage,
}

impl Wire {
    /// Connects as libpq does with `sslmode=verify-full`.
    ///
    /// # Errors
    /// The ErrorResponse with which the server ended the start-up.
    #[track_caller]
    pub fn connect(client: &Client) -> Result<Self, ServerError> {
        Self::connect_speaking(client, 0, &[])
    }

    /// The same with more start-up parameters, their names and values in turn.
    #[track_caller]
    pub fn connect_with(client: &Client, more: &[&str]) -> Result<Self, ServerError> {
        Self::connect_speaking(client, 0, more)
    }

    /// As [`Wire::connect_with`], asking for protocol 3.`minor`.
    ///
    /// # Errors
    /// The ErrorResponse with which the server ended the start-up.
    #[track_caller]
    pub fn connect_speaking(client: &Client, minor: u16, more: &[&str]) -> Result<Self, ServerError> {
        let mut wire = Self {
            stream: handshake(client).unwrap_or_else(|error| panic!("TLS: {error}")),
            cancel_key: Vec::new(),
            negotiated: None,
        };
        wire.stream
            .write_all(&startup_speaking(&client.db_user, &client.db_name, minor, more))
            .expect("the server listens");
        loop {
            match wire.message().expect("an answer to the start-up") {
                (b'Z', _) => return Ok(wire),
                (b'E', body) => return Err(ServerError::read(&body)),
                (b'K', body) => wire.cancel_key = body,
                (b'v', body) => wire.negotiated = Some(body),
                _ => {}
            }
        }
    }

    /// Where the proxy sees it.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.sock.local_addr().expect("connected")
    }

    /// Runs a simple query; the rows' values joined with `|`.
    ///
    /// # Errors
    /// The ErrorResponse; after one that is FATAL nothing more comes.
    pub fn query(&mut self, sql: &str) -> Result<Vec<String>, ServerError> {
        self.begin_query(sql);
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            match self.message() {
                Ok((b'D', body)) => rows.push(data_row(&body)),
                Ok((b'E', body)) => {
                    let read = ServerError::read(&body);
                    if read.severity != "ERROR" {
                        return Err(read);
                    }
                    error = Some(read);
                }
                Ok((b'Z', _)) => return error.map_or(Ok(rows), Err),
                Ok(_) => {}
                Err(end) => panic!("the connection ended without an error message: {end}"),
            }
        }
    }

    /// Sends a simple query and reads nothing.
    pub fn begin_query(&mut self, sql: &str) {
        let mut query = vec![b'Q'];
        query.extend(u32::try_from(sql.len() + 5).expect("short").to_be_bytes());
        query.extend(sql.as_bytes());
        query.push(0);
        // Where the server has gone, what it said before is still to be read.
        drop(self.stream.write_all(&query));
    }

    /// Sends a CancelRequest for what this session does, on a connection of its own without TLS, and waits until it is
    /// carried out.
    pub fn cancel(&self, port: u16) {
        let mut socket = dial(port);
        let request = [&CANCEL_REQUEST[..], &self.cancel_key].concat();
        socket.write_all(&request).expect("the proxy listens");
        drop(socket.read_to_end(&mut Vec::new()));
    }

    /// Sends messages, their types and bodies, in one write, as drivers do.
    pub fn send(&mut self, messages: &[(u8, &[u8])]) {
        let mut bytes = Vec::new();
        for (message_type, body) in messages {
            bytes.push(*message_type);
            bytes.extend(u32::try_from(body.len() + 4).expect("short").to_be_bytes());
            bytes.extend(*body);
        }
        self.stream.write_all(&bytes).expect("the server listens");
    }

    /// Waits for a message of this type.
    #[track_caller]
    pub fn hears(&mut self, message_type: u8) {
        while self.message().expect("a message").0 != message_type {}
    }

    /// The types of the messages up to the next one of `last`, with it.
    #[track_caller]
    pub fn types_to(&mut self, last: u8) -> String {
        let mut types = String::new();
        loop {
            let (message_type, _) = self.message().expect("a message");
            types.push(message_type.into());
            if message_type == last {
                return types;
            }
        }
    }

    /// Waits for the ErrorResponse that ends the session.
    #[track_caller]
    pub fn ended_with(&mut self, limit: Duration) -> ServerError {
        match self.ending(limit) {
            Ending::Said(error) => error,
            Ending::WithinAMessage => panic!("the connection was closed within a message"),
        }
    }

    /// Waits for the end of a session that may be in the middle of an answer. One that is closed between two messages without an
    /// ErrorResponse, or not at all, fails the test.
    #[track_caller]
    pub fn ending(&mut self, limit: Duration) -> Ending {
        self.stream.sock.set_read_timeout(Some(limit)).expect("a socket");
        loop {
            let mut message_type = [0];
            if let Err(error) = self.stream.read_exact(&mut message_type) {
                panic!("no error message within {} s: {error}", limit.as_secs());
            }
            match (message_type, read_body(&mut self.stream)) {
                ([b'E'], Ok(body)) => return Ending::Said(ServerError::read(&body)),
                (_, Ok(_)) => {}
                (_, Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ending::WithinAMessage,
                (_, Err(error)) => panic!("no end within {} s: {error}", limit.as_secs()),
            }
        }
    }

    /// Says Terminate, waits for the other side to close, and tells what it said before that.
    #[track_caller]
    pub fn goodbye(&mut self, limit: Duration) -> Vec<u8> {
        self.send(&[(b'X', b"")]);
        self.stream.sock.set_read_timeout(Some(limit)).expect("a socket");
        let mut heard = Vec::new();
        match self.stream.read_to_end(&mut heard) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => panic!("it is not closed: {error}"),
            _ => heard,
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        read_message(&mut self.stream)
    }
}

/// Reads one message of the backend: its type and its body.
pub fn read_message(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut message_type = [0];
    from.read_exact(&mut message_type)?;
    Ok((message_type[0], read_body(from)?))
}

/// What follows a message's type: its length and its body.
fn read_body(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(length.len())];
    from.read_exact(&mut body)?;
    Ok(body)
}

/// Everything until the end of the connection, which has to come.
#[track_caller]
pub fn until_the_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the proxy keeps the connection open: {error}"),
    }
    bytes
}

/// The ErrorResponse that comes next.
#[track_caller]
pub fn read_error(from: &mut impl Read) -> ServerError {
    match read_message(from) {
        Ok((b'E', body)) => ServerError::read(&body),
        other => panic!("an ErrorResponse was expected, not {other:?}"),
    }
}

/// A StartupMessage.
pub fn startup(db_user: &str, db_name: &str) -> Vec<u8> {
    startup_speaking(db_user, db_name, 0, &[])
}

fn startup_speaking(db_user: &str, db_name: &str, minor: u16, more: &[&str]) -> Vec<u8> {
    let mut body = (PROTOCOL_3_0 | u32::from(minor)).to_be_bytes().to_vec();
    let usual = ["user", db_user, "database", db_name, "application_name", "postern-it"];
    for text in usual.iter().chain(more) {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut message = u32::try_from(body.len() + 4).expect("short").to_be_bytes().to_vec();
    message.extend(body);
    message
}

/// Sends a CancelRequest with this key, without TLS, and waits for its connection's end.
///
/// # Panics
/// Where the server says anything.
#[track_caller]
pub fn cancel_plain(port: u16, key: &[u8]) {
    cancel_through(dial(port), key);
}

/// The same under TLS.
#[track_caller]
pub fn cancel_encrypted(client: &Client, key: &[u8]) {
    cancel_through(handshake(client).unwrap_or_else(|error| panic!("TLS: {error}")), key);
}

#[track_caller]
fn cancel_through(mut stream: impl Read + Write, key: &[u8]) {
    let length = u32::try_from(8 + key.len()).expect("short");
    let request = [&length.to_be_bytes()[..], &[0x04, 0xd2, 0x16, 0x2e], key].concat();
    stream.write_all(&request).expect("the proxy listens");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("the connection is closed in order");
    assert!(answer.is_empty(), "a cancel request is never answered");
}

/// A plain connection whose reads give up after a while.
pub fn dial(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the proxy listens");
    socket.set_read_timeout(Some(super::PATIENCE)).expect("a socket");
    socket
}

/// The beginning of a connection up to its TLS, of which the first bytes are sent with what is written then.
fn handshake(client: &Client) -> io::Result<Tls> {
    let mut socket = dial(client.port);
    socket.write_all(&SSL_REQUEST)?;
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    assert_eq!(answer, *b"S", "the server speaks TLS");
    Ok(StreamOwned::new(tls(client)?, socket))
}

/// A TLS client with the certificate of `client`, if it has one.
pub fn tls(client: &Client) -> io::Result<ClientConnection> {
    let file = |suffix| client.prefix.with_extension(suffix);
    let certificates = |suffix| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(file(suffix))
            .expect("PEM")
            .map(|one| one.expect("PEM"))
            .collect()
    };
    let mut roots = RootCertStore::empty();
    for root in certificates("cas") {
        roots.add(root).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let config = if client.with_certificate {
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("PEM");
        builder
            .with_client_auth_cert(certificates("crt"), key)
            .expect("the key fits")
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

fn data_row(body: &[u8]) -> String {
    let mut values = Vec::new();
    let mut rest = &body[2..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, after) = after.split_at(length);
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = after;
    }
    values.join("|")
}
