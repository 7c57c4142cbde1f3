//! The first packet of a client.

use super::is_a_sentence;
use postern::model::{DbName, DbUser};
use postern::protocol::carried::{CLIENT_BYTES, read_client, write_client};
use postern::protocol::postgres::startup::{
    MAX_STARTUP_BYTES, MAX_STARTUP_PARAMETERS, StartupMessage, encode_cancel, encode_startup, packet_length, parse,
};
use postern::protocol::postgres::{CancelRequest, FirstPacket};

/// The bytes are the packet after its length field. What is read is written back as it came, so nothing of it was passed over.
pub fn startup(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk() {
        match packet_length(*header) {
            Ok(length) => assert!((4..=MAX_STARTUP_BYTES - 4).contains(&length)),
            Err(error) => is_a_sentence(&error),
        }
    }
    if let Some(carried) = bytes.first_chunk::<CLIENT_BYTES>() {
        let client = read_client(*carried);
        assert_eq!(read_client(write_client(client)), client);
    }
    match parse(bytes) {
        Ok(FirstPacket::SslRequest | FirstPacket::GssEncRequest) => assert_eq!(bytes.len(), 4),
        Ok(FirstPacket::Cancel(cancel)) => cancelled(&cancel, bytes),
        Ok(FirstPacket::Startup(message)) => started(&message, bytes),
        Err(error) => {
            is_a_sentence(&error);
            is_a_sentence(&error.refusal().message);
        }
    }
}

fn cancelled(cancel: &CancelRequest, bytes: &[u8]) {
    let written = encode_cancel(cancel.process_id, &cancel.secret);
    assert_eq!(written.get(4..), Some(bytes));
    assert!(!format!("{cancel:?}").contains(&format!("{:?}", cancel.secret.expose())));
}

fn started(message: &StartupMessage, bytes: &[u8]) {
    assert!(!message.user().is_empty() && message.parameters.len() <= MAX_STARTUP_PARAMETERS);
    let mut written = vec![0, 3];
    written.extend_from_slice(&message.minor.to_be_bytes());
    for (name, value) in &message.parameters {
        written.extend_from_slice(name.as_bytes());
        written.push(0);
        written.extend_from_slice(value.as_bytes());
        written.push(0);
    }
    written.push(0);
    assert_eq!(written, bytes);
    let passed = match message.passed_parameters() {
        Ok(passed) => passed,
        Err(refusal) => return is_a_sentence(&refusal.message),
    };
    let database = message.database().unwrap_or(message.user());
    let (Ok(user), Ok(database)) = (DbUser::new(message.user()), DbName::new(database)) else {
        return;
    };
    // Long names in place of a missing one may make the packet too long.
    let replication = message.replication();
    let Ok(forwarded) = encode_startup(&user, &database, replication, &passed) else {
        return;
    };
    let Ok(FirstPacket::Startup(read)) = parse(&forwarded[4..]) else {
        panic!("what is sent to PostgreSQL is not a start-up message");
    };
    assert_eq!((read.user(), read.database()), (user.as_str(), Some(database.as_str())));
    assert_eq!(read.passed_parameters().as_ref(), Ok(&passed));
    assert_eq!(read.replication(), replication);
    let asked = 2 + usize::from(replication.is_some());
    assert_eq!(read.parameters.len(), passed.len() + asked, "nothing else came in");
}
