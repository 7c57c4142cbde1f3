//! The tap against the ways to hide a statement, and against messages that are not what they claim.

use super::bind::{ObjectKind, Value};
use super::error::ProtocolError;
use super::statements::*;

pub(super) fn frame(message_type: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![message_type];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn feed(tap: &mut StatementTap, bytes: &[u8]) -> (Vec<Statement>, Result<(), ProtocolError>) {
    let mut records = Vec::new();
    let fed = tap.feed(bytes, &mut |asked| {
        if let Asked::Statement(record) = asked {
            records.push(record);
        }
    });
    (records, fed)
}

fn records(bytes: &[u8]) -> Vec<Statement> {
    let (records, fed) = feed(&mut StatementTap::new(), bytes);
    fed.expect("sound");
    records
}

fn error(bytes: &[u8]) -> ProtocolError {
    feed(&mut StatementTap::new(), bytes).1.expect_err("broken")
}

fn whole(text: &[u8]) -> Part {
    Part {
        part: 1,
        last: true,
        bytes: text.to_vec(),
    }
}

fn query(text: &[u8]) -> Statement {
    Statement::Query { text: whole(text) }
}

#[test]
fn a_pipeline_of_every_kind_of_statement_is_recorded_in_order() {
    let stream = [
        frame(b'Q', b"select 1\0"),
        frame(b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
        frame(b'D', b"Ss\0"),
        frame(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x0242\0\0"),
        frame(b'E', b"p\0\0\0\0\x05"),
        frame(b'H', b""),
        frame(b'C', b"Pp\0"),
        frame(b'S', b""),
        frame(b'F', b"\0\0\0\x07\0\0\0\0\0\0"),
        frame(b'd', b"1\t2\n"),
        frame(b'd', b""),
        frame(b'c', b""),
        frame(b'f', b"no\0"),
        frame(b'p', b"secret\0"),
        frame(b'X', b""),
    ]
    .concat();
    let mut tap = StatementTap::new();
    let (records, fed) = feed(&mut tap, &stream);
    fed.expect("sound");
    assert!(tap.at_boundary());
    assert_eq!((tap.copy_bytes(), tap.sound_bytes()), (4, stream.len()));
    assert_eq!(tap.retained_bytes(), 0);
    let [q, p, b, e, c, f] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(q, &query(b"select 1"));
    let text = whole(b"select $1");
    let name = b"s".to_vec();
    assert_eq!(p, &Statement::Parse { name, text });
    let Statement::Bind(bind) = b else {
        panic!("{b:?}");
    };
    assert_eq!((&bind.portal[..], &bind.statement[..]), (&b"p"[..], &b"s"[..]));
    assert_eq!(bind.parameters, [Value::Text(b"42".to_vec())]);
    let portal = b"p".to_vec();
    assert_eq!(e, &Statement::Execute { portal, max_rows: 5 });
    let (kind, name) = (ObjectKind::Portal, b"p".to_vec());
    assert_eq!(c, &Statement::Close { kind, name });
    assert!(matches!(f, Statement::FunctionCall(call) if call.oid == 7));
}

#[test]
fn a_statement_split_across_segments_is_recorded_with_its_last_byte_and_not_before() {
    let message = frame(b'Q', b"drop table x\0");
    let mut tap = StatementTap::new();
    let (last, head) = message.split_last().expect("not empty");
    for byte in head {
        assert_eq!(feed(&mut tap, &[*byte]), (Vec::new(), Ok(())));
    }
    assert!(!tap.at_boundary());
    assert_eq!(feed(&mut tap, &[*last]).0, [query(b"drop table x")]);
    assert!(tap.at_boundary());
}

#[test]
fn a_query_that_is_not_utf8_is_recorded_byte_for_byte() {
    assert_eq!(
        records(&frame(b'Q', b"select '\xff\xfe'\0")),
        [query(b"select '\xff\xfe'")]
    );
    assert_eq!(records(&frame(b'Q', b"\0")), [query(b"")]);
}

#[test]
fn a_text_of_exactly_one_part_is_one_part() {
    let text = vec![b'x'; PART_BYTES];
    assert_eq!(records(&frame(b'Q', &[&text[..], b"\0"].concat())), [query(&text)]);
}

#[test]
fn a_long_query_comes_in_numbered_parts_that_cut_no_character() {
    let text = format!("a{}", "é€😀".repeat(40_000));
    let records = records(&frame(b'Q', format!("{text}\0").as_bytes()));
    let mut joined = String::new();
    for (at, record) in records.iter().enumerate() {
        let Statement::Query { text } = record else {
            panic!("{record:?}");
        };
        assert_eq!(text.part as usize, at + 1);
        assert_eq!(text.last, at + 1 == records.len());
        assert!(text.bytes.len() <= PART_BYTES);
        joined.push_str(std::str::from_utf8(&text.bytes).expect("cut between characters"));
    }
    assert_eq!(joined, text);
    assert!(records.len() >= 6);
}

#[test]
fn a_query_of_100_mb_never_holds_more_than_a_part() {
    let mut tap = StatementTap::new();
    let chunk = vec![b'x'; 1 << 20];
    let (mut bytes, mut parts) = (0, 0);
    let mut count = |asked: Asked| {
        if let Asked::Statement(Statement::Query { text }) = asked {
            bytes += text.bytes.len();
            parts += 1;
        }
    };
    let mut header = vec![b'Q'];
    header.extend_from_slice(&(4 + (100_u32 << 20) + 1).to_be_bytes());
    tap.feed(&header, &mut count).expect("sound");
    for _ in 0..100 {
        tap.feed(&chunk, &mut count).expect("sound");
        assert!(tap.retained_bytes() <= PART_BYTES);
    }
    tap.feed(b"\0", &mut count).expect("sound");
    assert_eq!((bytes, parts), (100 << 20, 1600));
    assert_eq!(tap.retained_bytes(), 0);
}

#[test]
fn a_bind_of_65535_parameters_is_recorded_whole_in_raw_parts() {
    let mut body = b"portal\0statement\0\0\0\xff\xff".to_vec();
    (0..65_535).for_each(|_| body.extend_from_slice(b"\0\0\0\x01x"));
    body.extend_from_slice(b"\0\0");
    let mut joined = Vec::new();
    let records = records(&frame(b'B', &body));
    for (at, record) in records.iter().enumerate() {
        let Statement::LongBind { portal, statement, raw } = record else {
            panic!("{record:?}");
        };
        assert_eq!((&portal[..], &statement[..]), (&b"portal"[..], &b"statement"[..]));
        assert_eq!((raw.part as usize, raw.last), (at + 1, at + 1 == records.len()));
        joined.extend_from_slice(&raw.bytes);
    }
    assert_eq!(joined, body);
}

#[test]
fn a_long_function_call_is_recorded_in_raw_parts() {
    let body = vec![7; PART_BYTES + 1];
    let records = records(&frame(b'F', &body));
    assert!(matches!(
        &records[..],
        [Statement::LongFunctionCall { raw: one }, Statement::LongFunctionCall { raw: two }]
            if one.bytes.len() == PART_BYTES && !one.last && two.bytes.len() == 1 && two.last
    ));
}

#[test]
fn a_long_bind_must_begin_with_its_names() {
    let body = vec![b'x'; PART_BYTES + 1];
    assert!(matches!(error(&frame(b'B', &body)), ProtocolError::Unterminated { .. }));
    let mut body = vec![b'x'; MAX_NAME_BYTES + 1];
    body.resize(PART_BYTES + 1, 0);
    assert!(matches!(error(&frame(b'B', &body)), ProtocolError::NameTooLong { .. }));
}

#[test]
fn an_inner_string_without_nul_never_reads_the_next_message() {
    let next = frame(b'Q', b"select 2\0");
    for broken in [
        frame(b'Q', b"select 1"),
        frame(b'P', b"name"),
        frame(b'P', b"name\0select"),
        frame(b'B', b"portal  "),
        frame(b'E', b"portal"),
        frame(b'C', b"Sx"),
        frame(b'D', b"Sx"),
        frame(b'f', b"x"),
    ] {
        let refused = error(&[&broken[..], &next].concat());
        assert!(matches!(refused, ProtocolError::Unterminated { .. }), "{refused}");
    }
}

#[test]
fn trailing_junk_inside_a_message_is_an_error() {
    for broken in [
        frame(b'Q', b"select 1\0drop table x\0"),
        frame(b'Q', b"select 1\0\0"),
        frame(b'P', b"\0select 1\0\0\0x"),
        frame(b'P', b"\0select 1\0\0\x01\0\0\0\x17x"),
        frame(b'B', b"\0\0\0\0\0\0\0\0x"),
        frame(b'E', b"\0\0\0\0\0x"),
        frame(b'C', b"S\0x"),
        frame(b'D', b"S\0x"),
        frame(b'F', b"\0\0\0\x07\0\0\0\0\0\0x"),
        frame(b'f', b"\0x"),
    ] {
        let refused = error(&broken);
        assert!(matches!(refused, ProtocolError::TrailingBytes { .. }), "{refused}");
    }
    for empty in *b"cHSX" {
        let refused = error(&frame(empty, b"x"));
        assert!(
            matches!(refused, ProtocolError::BodyTooLong { most: 0, .. }),
            "{refused}"
        );
    }
}

#[test]
fn parameter_types_of_a_parse_must_fill_it_exactly() {
    for broken in [&b"\0x\0\0"[..], b"\0x\0\0\x01\0\0\0", b"\0x\0\xff\xff\0\0\0\x17"] {
        let refused = error(&frame(b'P', broken));
        assert!(matches!(refused, ProtocolError::Truncated { .. }), "{refused}");
    }
}

#[test]
fn a_message_that_needs_a_body_is_refused_without_one() {
    for message_type in *b"QPBECDFfp" {
        let refused = error(&frame(message_type, b""));
        assert!(matches!(refused, ProtocolError::BodyTooShort { .. }), "{refused}");
    }
}

#[test]
fn a_small_message_with_a_large_length_is_refused_before_its_body() {
    for message_type in *b"ECDf" {
        let mut header = vec![message_type];
        header.extend_from_slice(&10_001_u32.to_be_bytes());
        assert!(matches!(error(&header), ProtocolError::BodyTooLong { .. }));
    }
}

#[test]
fn a_statement_name_has_a_bound() {
    let body = [&[b'n'; MAX_NAME_BYTES][..], b"\0x\0\0\0"].concat();
    assert_eq!(records(&frame(b'P', &body)).len(), 1);
    let body = [&[b'n'; MAX_NAME_BYTES + 1][..], b"\0x\0\0\0"].concat();
    assert!(matches!(error(&frame(b'P', &body)), ProtocolError::NameTooLong { .. }));
}

#[test]
fn a_message_type_that_no_client_sends_ends_the_stream_and_is_named() {
    let known = b"BCcdEfFDHpPQSX";
    for message_type in (0..=255_u8).filter(|t| !known.contains(t)) {
        let refused = error(&frame(message_type, b"abcdefgh\0"));
        assert_eq!(refused, ProtocolError::UnknownMessageType { message_type });
        assert!(refused.to_string().contains(&format!("type {message_type} ")));
        assert_eq!(refused.refusal().kind.sqlstate(), "08P01");
    }
}

#[test]
fn what_came_before_a_malformed_packet_is_recorded_and_nothing_after_it() {
    let sound = frame(b'Q', b"select 1\0");
    let stream = [&sound[..], &frame(b'!', b""), &frame(b'Q', b"select 2\0")].concat();
    let mut tap = StatementTap::new();
    let (records, fed) = feed(&mut tap, &stream);
    assert_eq!(records, [query(b"select 1")]);
    assert_eq!(tap.sound_bytes(), sound.len());
    assert_eq!(feed(&mut tap, &sound), (Vec::new(), fed));
}

#[test]
fn a_statement_after_terminate_is_recorded_all_the_same() {
    let stream = [frame(b'X', b""), frame(b'Q', b"select 1\0")].concat();
    assert_eq!(records(&stream), [query(b"select 1")]);
}

#[test]
fn what_hides_a_statement_or_changes_who_acts_is_recorded_like_every_other() {
    for text in [
        "set role postgres",
        "set session authorization postgres",
        "prepare p as drop table x",
        "execute p",
        "do $$ begin execute 'drop table x'; end $$",
        "select 1; drop table x; commit",
        "copy x to program 'id'",
        "/* select 1 */ drop\n\r\ttable x -- \u{1b}[2K",
    ] {
        let simple = [text.as_bytes(), b"\0"].concat();
        assert_eq!(records(&frame(b'Q', &simple)), [query(text.as_bytes())], "{text}");
        // Unnamed, as drivers send it.
        let prepared = [b"\0", text.as_bytes(), b"\0\0\0"].concat();
        let name = Vec::new();
        let parse = Statement::Parse {
            name,
            text: whole(text.as_bytes()),
        };
        assert_eq!(records(&frame(b'P', &prepared)), [parse], "{text}");
    }
}
