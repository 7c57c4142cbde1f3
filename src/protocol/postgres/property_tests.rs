//! What holds for every stream: the cuts of the network change nothing, and no bytes make a reader panic or hoard.

use super::backend::{AuthenticationRequest, BackendKeyData, ErrorFields, error_response_with};
use super::bind::{Bind, FunctionCall};
use super::frames::{Direction, FrameWalker};
use super::startup::{self, FirstPacket};
use super::statement_tests::frame;
use super::statements::{Asked, MAX_NAME_BYTES, PART_BYTES, StatementTap};
use crate::model::{DbName, DbUser, Secret};
use proptest::collection::vec;
use proptest::prelude::*;

/// One message: mostly sound ones, some with a body that means nothing, now and then one longer than a part.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let short = vec(any::<u8>(), 0..40);
    let text = "[a-zé€😀 ]{0,40}";
    prop_oneof![
        4 => text.prop_map(|t| frame(b'Q', format!("{t}\0").as_bytes())),
        4 => (text, 0..4_u16).prop_map(|(t, types)| {
            let mut body = format!("name\0{t}\0").into_bytes();
            body.extend_from_slice(&types.to_be_bytes());
            body.resize(body.len() + 4 * usize::from(types), 1);
            frame(b'P', &body)
        }),
        2 => Just(frame(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x0242\0\0")),
        2 => Just(frame(b'E', b"p\0\0\0\0\x05")),
        2 => Just(frame(b'S', b"")),
        2 => short.clone().prop_map(|body| frame(b'd', &body)),
        1 => (PART_BYTES - 4..2 * PART_BYTES + 4).prop_map(|n| {
            let text: String = "é€x😀".chars().cycle().take(n / 2).collect();
            frame(b'Q', format!("{text}\0").as_bytes())
        }),
        1 => (PART_BYTES - 4..PART_BYTES + 4).prop_map(|n| frame(b'B', &vec![0; n])),
        1 => (0..8_usize, short).prop_map(|(at, body)| frame(b"QPBECDFf"[at], &body)),
    ]
}

/// Cuts `bytes` after each of `sizes`, over and over.
fn cut<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*size).min(rest.len()));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

fn tap_chunks(chunks: &[&[u8]]) -> (Vec<Asked>, Option<String>, bool, u64) {
    let mut tap = StatementTap::new();
    let mut records = Vec::new();
    let mut error = None;
    for chunk in chunks {
        if let Err(refused) = tap.feed(chunk, &mut |record| records.push(record)) {
            error = Some(refused.to_string());
            break;
        }
        assert!(tap.retained_bytes() <= PART_BYTES + 4 * MAX_NAME_BYTES);
    }
    let boundary = error.is_none() && tap.at_boundary();
    (records, error, boundary, tap.copy_bytes())
}

/// Each message with what came of its body, how it ended, and the state after it.
type Walked = (Vec<(u8, Vec<u8>)>, Option<String>, [bool; 2], [Option<u8>; 2], u32);

fn walk_chunks(direction: Direction, chunks: &[&[u8]]) -> Walked {
    let mut walker = FrameWalker::new(direction);
    let mut messages: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut error = None;
    for chunk in chunks {
        let walked = walker.walk(chunk, |piece| {
            if piece.first {
                messages.push((piece.message_type, Vec::new()));
            }
            if let Some((_, body)) = messages.last_mut() {
                body.extend_from_slice(piece.body);
            }
        });
        if let Err(refused) = walked {
            error = Some(refused.to_string());
            // Of a ReadyForQuery with a wrong body, a first piece is seen where the cut is behind its header.
            messages.retain(|(message_type, body)| *message_type != b'Z' || !body.is_empty());
            break;
        }
    }
    let state = [walker.at_boundary(), walker.ended_with_error()];
    (
        messages,
        error,
        state,
        [walker.last_complete(), walker.last_ready_status()],
        walker.left(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_records_and_the_same_end(
        messages in vec(message(), 0..8),
        sizes in vec(1..200_usize, 1..6),
        missing in 0..6_usize,
    ) {
        let mut stream = messages.concat();
        stream.truncate(stream.len().saturating_sub(missing));
        let whole = tap_chunks(&[&stream]);
        prop_assert_eq!(&tap_chunks(&cut(&stream, &sizes)), &whole);
        prop_assert_eq!(&tap_chunks(&cut(&stream, &[4_096])), &whole);
        let mut walker = FrameWalker::new(Direction::Frontend);
        for chunk in cut(&stream, &sizes) {
            walker.skim(chunk).expect("frames are sound");
        }
        let mut at_once = FrameWalker::new(Direction::Frontend);
        at_once.skim(&stream).expect("frames are sound");
        prop_assert_eq!(walker.at_boundary(), at_once.at_boundary());
        prop_assert_eq!(walker.last_complete(), at_once.last_complete());
        prop_assert_eq!(walker.left(), at_once.left());
    }

    #[test]
    fn nothing_of_a_body_is_lost_by_the_walker(
        bodies in vec(vec(any::<u8>(), 0..60), 0..8),
        sizes in vec(1..20_usize, 1..6),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(b'D', body)).collect();
        let mut walker = FrameWalker::new(Direction::Backend);
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for chunk in cut(&stream, &sizes) {
            walker.walk(chunk, |piece| {
                if piece.first {
                    seen.push(Vec::new());
                }
                if let Some(body) = seen.last_mut() {
                    body.extend_from_slice(piece.body);
                }
            }).expect("sound");
        }
        prop_assert_eq!(seen, bodies);
        prop_assert!(walker.at_boundary());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_hoard(
        bytes in vec(any::<u8>(), 0..600),
        sizes in vec(1..50_usize, 1..6),
        message_type in prop::sample::select(b"BCcdEfFDHpPQSXZ".to_vec()),
    ) {
        tap_chunks(&cut(&bytes, &sizes));
        let claimed = [&[message_type, 0, 0][..], &bytes].concat();
        tap_chunks(&cut(&claimed, &sizes));
        for direction in [Direction::Frontend, Direction::Backend] {
            let mut walker = FrameWalker::new(direction);
            let _ = walker.skim(&bytes);
            let _ = walker.skim(&claimed);
        }
        let _ = startup::parse(&bytes);
        let _ = startup::parse(&[&[0, 3, 0, 0][..], &bytes].concat());
        let _ = ErrorFields::parse(&bytes);
        let _ = AuthenticationRequest::parse(&bytes);
        let _ = AuthenticationRequest::parse(&[&[0, 0, 0, 10][..], &bytes].concat());
        let _ = BackendKeyData::parse(&bytes);
        let _ = Bind::parse(&bytes);
        let _ = Bind::parse(&[&[0, 0][..], &bytes].concat());
        let _ = FunctionCall::parse(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_read_the_same_however_they_are_cut(
        messages in vec(message(), 0..3),
        bytes in vec(any::<u8>(), 0..300),
        sizes in vec(1..50_usize, 1..6),
        backend_type in prop::sample::select(b"ZEDR".to_vec()),
        length in 0..8_u8,
    ) {
        let stream = [messages.concat(), bytes].concat();
        prop_assert_eq!(tap_chunks(&cut(&stream, &sizes)), tap_chunks(&[&stream]));
        let claimed = [&frame(b'Z', b"I")[..], &[backend_type, 0, 0, 0, length], &stream].concat();
        for direction in [Direction::Frontend, Direction::Backend] {
            for stream in [&stream, &claimed] {
                prop_assert_eq!(walk_chunks(direction, &cut(stream, &sizes)), walk_chunks(direction, &[stream]));
            }
        }
    }

    #[test]
    fn a_startup_message_is_read_as_it_was_written(
        user in "[^\\p{C}]{1,15}",
        database in "[^\\p{C}]{1,15}",
        zone in "[^\\x00]{0,30}",
    ) {
        let (user, database) = (DbUser::new(user).expect("a name"), DbName::new(database).expect("a name"));
        let params = vec![(String::from("TimeZone"), zone)];
        let packet = startup::encode_startup(&user, &database, None, &params).expect("encodable");
        let Ok(FirstPacket::Startup(message)) = startup::parse(&packet[4..]) else {
            panic!("not a start-up message");
        };
        prop_assert_eq!(message.user(), user.as_str());
        prop_assert_eq!(message.database(), Some(database.as_str()));
        prop_assert_eq!(message.passed_parameters(), Ok(params));
    }

    #[test]
    fn a_cancel_request_is_read_as_it_was_written(process_id: u32, secret in vec(any::<u8>(), 4..=256)) {
        let packet = startup::encode_cancel(process_id, &Secret::new(secret.clone()));
        let header = packet[..4].try_into().expect("4 bytes");
        prop_assert_eq!(startup::packet_length(header), Ok(packet.len() - 4));
        let Ok(FirstPacket::Cancel(cancel)) = startup::parse(&packet[4..]) else {
            panic!("not a cancel request");
        };
        prop_assert_eq!(cancel.process_id, process_id);
        prop_assert_eq!(cancel.secret.expose(), &secret);
    }

    #[test]
    fn an_error_response_is_one_frame_and_is_read_as_it_was_written(
        text in any::<String>(),
        hint in prop::option::of("[^\\x00]{0,40}"),
    ) {
        let written = error_response_with("ERROR", "08P01", &text, None, hint.as_deref());
        let mut walker = FrameWalker::new(Direction::Backend);
        walker.skim(&written).expect("sound");
        prop_assert!(walker.at_boundary() && walker.ended_with_error());
        let fields = ErrorFields::parse(&written[5..]).expect("sound");
        prop_assert_eq!(fields.severity.as_deref(), Some("ERROR"));
        prop_assert_eq!(fields.sqlstate.as_deref(), Some("08P01"));
        prop_assert_eq!(fields.message, Some(text.replace('\0', "\u{fffd}")));
        prop_assert_eq!(fields.hint, hint);
    }
}
