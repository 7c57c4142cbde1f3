//! What a client sends after its start-up: frames, and the statements that are recorded of them.

use super::{expanded, is_a_sentence, splits};
use postern::protocol::postgres::bind::{Bind, Format, FunctionCall, ObjectKind, Value};
use postern::protocol::postgres::statements::{MAX_NAME_BYTES, PART_BYTES};
use postern::protocol::postgres::{Asked, Direction, FrameWalker, Part, Statement, StatementTap};

/// However a stream is cut, the same is recorded, it fails at the same message with the same words, and little is held. What is
/// recorded of the messages that are whole is every byte of those that ask for something.
pub fn frontend(bytes: &[u8]) {
    let stream = expanded(bytes);
    let whole = tapped(&[&stream]);
    for split in splits(&stream) {
        assert_eq!(tapped(&split), whole);
    }
    let (messages, failed) = framed(Direction::Frontend, &[&stream]);
    for split in splits(&stream) {
        assert_eq!(framed(Direction::Frontend, &split), (messages.clone(), failed.clone()));
    }
    recorded(&messages, &whole.records, whole.error.is_none());
}

#[derive(Debug, PartialEq)]
struct Tapped {
    records: Vec<Asked>,
    error: Option<String>,
    /// Where the last message that is sound ends.
    sound: usize,
    copy_bytes: Option<u64>,
    at_boundary: Option<bool>,
}

fn tapped(chunks: &[&[u8]]) -> Tapped {
    let mut tap = StatementTap::new();
    let (mut records, mut error, mut sound, mut offset) = (Vec::new(), None, 0, 0);
    for chunk in chunks {
        let fed = tap.feed(chunk, &mut |record| records.push(record));
        assert!(tap.retained_bytes() <= PART_BYTES + 4 * MAX_NAME_BYTES);
        if tap.sound_bytes() > 0 {
            sound = offset + tap.sound_bytes();
        }
        offset += chunk.len();
        if let Err(refused) = fed {
            is_a_sentence(&refused);
            assert_eq!(
                tap.feed(b"Q\0\0\0\x05\0", &mut |_| panic!("after an error")),
                Err(refused.clone())
            );
            error = Some(refused.to_string());
            break;
        }
    }
    let sound_so_far = error.is_none();
    Tapped {
        records,
        error,
        sound,
        copy_bytes: sound_so_far.then(|| tap.copy_bytes()),
        at_boundary: sound_so_far.then(|| tap.at_boundary()),
    }
}

/// The messages, type and body, and why it ended. The last may lack its end, but not before an error: of a message that breaks the
/// protocol by its body, a first piece is seen where the cut is behind its header.
type Framed = (Vec<(u8, Vec<u8>, bool)>, Result<(), String>);

/// Walks over frames.
pub(super) fn framed(direction: Direction, chunks: &[&[u8]]) -> Framed {
    let mut walker = FrameWalker::new(direction);
    let mut messages: Vec<(u8, Vec<u8>, bool)> = Vec::new();
    for chunk in chunks {
        let walked = walker.walk(chunk, |piece| {
            if piece.first {
                messages.push((piece.message_type, Vec::new(), false));
            }
            let (_, body, whole) = messages.last_mut().expect("a first piece came before");
            body.extend_from_slice(piece.body);
            *whole = piece.last();
            assert_eq!(body.len() as u64 + u64::from(piece.left), u64::from(piece.body_length));
        });
        if let Err(error) = walked {
            is_a_sentence(&error);
            messages.retain(|(_, _, whole)| *whole);
            assert_eq!(walker.skim(b"Z\0\0\0\x05I"), Err(error.clone()), "an error stays");
            return (messages, Err(error.to_string()));
        }
        let under_way = messages.last().is_some_and(|(_, _, whole)| !whole);
        assert!(!(under_way && walker.at_boundary()));
        let complete = messages.iter().rev().find(|(_, _, whole)| *whole);
        assert_eq!(
            walker.last_complete(),
            complete.map(|(message_type, _, _)| *message_type)
        );
    }
    (messages, Ok(()))
}

/// A record as the message that it is of.
fn message(record: &Statement) -> (u8, Vec<u8>, bool) {
    let long = |message_type, part: &Part| (message_type, part.bytes.clone(), part.last);
    match record {
        Statement::Query { text } => long(b'Q', text),
        Statement::Parse { text, .. } => long(b'P', text),
        Statement::LongBind { raw, .. } => long(b'B', raw),
        Statement::LongFunctionCall { raw } => long(b'F', raw),
        Statement::Bind(bind) => (b'B', written_bind(bind), true),
        Statement::FunctionCall(call) => (b'F', written_call(call), true),
        Statement::Execute { portal, max_rows } => (b'E', [portal, &b"\0"[..], &max_rows.to_be_bytes()].concat(), true),
        Statement::Close { kind, name } => {
            let kind = match kind {
                ObjectKind::Statement => b'S',
                ObjectKind::Portal => b'P',
            };
            (b'C', [&[kind], &name[..], &b"\0"[..]].concat(), true)
        }
    }
}

fn recorded(messages: &[(u8, Vec<u8>, bool)], records: &[Asked], sound: bool) {
    let mut joined: Vec<(u8, Vec<u8>, bool)> = Vec::new();
    let statements = records.iter().filter_map(|asked| match asked {
        Asked::Statement(statement) => Some(statement),
        Asked::Describe | Asked::Sync | Asked::CopyEnd { .. } => None,
    });
    for record in statements {
        let (message_type, bytes, last) = message(record);
        assert!(
            bytes.len() <= PART_BYTES + 16 * 1024,
            "a record of {} bytes",
            bytes.len()
        );
        match joined.last_mut() {
            Some((before, gathered, whole)) if !*whole => {
                assert_eq!(*before, message_type, "parts of one message follow each other");
                gathered.extend_from_slice(&bytes);
                *whole = last;
            }
            _ => joined.push((message_type, bytes, last)),
        }
    }
    let asks = |message: &&(u8, Vec<u8>, bool)| b"QPBECF".contains(&message.0) && message.2;
    let wholes: Vec<_> = joined.iter().filter(|(_, _, whole)| *whole).collect();
    let asked: Vec<_> = messages.iter().filter(asks).collect();
    assert!(wholes.len() <= asked.len());
    // A message that breaks the protocol is the last, and is not recorded.
    assert!(!sound || wholes.len() == asked.len());
    for ((message_type, text, _), (asked_type, body, _)) in wholes.iter().zip(asked) {
        assert_eq!(message_type, asked_type);
        match message_type {
            b'Q' => assert_eq!(body.strip_suffix(b"\0"), Some(&text[..])),
            b'P' => {
                let name_end = body.iter().position(|byte| *byte == 0).expect("a name ends");
                assert!(body[name_end + 1..].starts_with(text) && body[name_end + 1 + text.len()] == 0);
            }
            _ => assert_eq!(text, body),
        }
    }
}

fn put_formats(out: &mut Vec<u8>, formats: &[Format]) {
    out.extend_from_slice(&(formats.len() as u16).to_be_bytes());
    for format in formats {
        out.extend_from_slice(&[0, u8::from(*format == Format::Binary)]);
    }
}

fn put_values(out: &mut Vec<u8>, values: &[Value]) {
    out.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Value::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            Value::Text(bytes) | Value::Binary(bytes) => {
                out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
}

fn written_bind(bind: &Bind) -> Vec<u8> {
    let mut out = [&bind.portal[..], b"\0", &bind.statement, b"\0"].concat();
    put_formats(&mut out, &bind.formats);
    put_values(&mut out, &bind.parameters);
    put_formats(&mut out, &bind.result_formats);
    out
}

fn written_call(call: &FunctionCall) -> Vec<u8> {
    let mut out = call.oid.to_be_bytes().to_vec();
    put_formats(&mut out, &call.formats);
    put_values(&mut out, &call.arguments);
    out.extend_from_slice(&[0, u8::from(call.result_format == Format::Binary)]);
    out
}
