//! The first packet against everything that a hostile client may put into it.

use super::error::ProtocolError;
use super::startup::*;
use crate::model::{DbName, DbUser, Secret};

fn startup_packet(version: u32, rest: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), rest].concat()
}

fn parse_30(rest: &[u8]) -> Result<StartupMessage, ProtocolError> {
    match parse(&startup_packet(0x0003_0000, rest))? {
        FirstPacket::Startup(message) => Ok(message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_startup_length_outside_8_to_10000_is_refused_before_anything_is_read() {
    for length in [0, 4, 7, 10_001, i32::MAX, -1, i32::MIN] {
        let refused = packet_length(length.to_be_bytes()).expect_err("refused");
        let expected = format!("{length}; 8 to 10000 bytes");
        assert!(refused.to_string().contains(&expected), "{refused}");
        assert_eq!(refused.refusal().kind.sqlstate(), "08P01");
    }
    assert_eq!(packet_length(8_i32.to_be_bytes()), Ok(4));
    assert_eq!(packet_length(10_000_i32.to_be_bytes()), Ok(9_996));
    assert!(parse(&vec![0; 9_997]).is_err());
}

#[test]
fn a_packet_too_short_for_its_code_is_refused() {
    for body in [&b""[..], &[0, 3, 0]] {
        assert!(parse(body).is_err());
    }
    assert!(parse_30(b"").is_err(), "length 8: not even the terminator");
}

#[test]
fn a_startup_message_gives_its_parameters_in_order() {
    let message = parse_30(b"user\0alice\0database\0app\0application_name\0psql\0\0").expect("sound");
    assert_eq!(message.minor, 0);
    assert_eq!((message.user(), message.database()), ("alice", Some("app")));
    assert_eq!(message.application_name(), Some("psql"));
    assert_eq!(message.parameters[2].0, "application_name");
    assert!(!message.needs_negotiation());
}

#[test]
fn an_empty_database_is_as_good_as_none() {
    for rest in [&b"user\0alice\0\0"[..], b"user\0alice\0database\0\0\0"] {
        let message = parse_30(rest).expect("sound");
        assert_eq!((message.database(), message.user()), (None, "alice"));
    }
}

#[test]
fn a_layout_other_than_pairs_and_one_terminator_is_refused() {
    for (case, rest) in [
        ("no trailing NUL", &b"user\0alice\0database\0app"[..]),
        ("no terminator", b"user\0alice\0"),
        ("odd number of strings", b"user\0alice\0database\0\0"),
        ("a name alone", b"user\0\0"),
        ("bytes behind the terminator", b"user\0alice\0\0database\0postgres\0\0"),
        ("two terminators", b"user\0alice\0\0\0"),
        ("embedded NUL", b"user\0al\0ice\0\0"),
        ("empty name", b"\0x\0user\0alice\0\0"),
    ] {
        let refused = parse_30(rest).expect_err(case);
        assert!(
            matches!(refused, ProtocolError::StartupLayout { .. }),
            "{case}: {refused}"
        );
    }
}

#[test]
fn an_empty_or_missing_user_is_refused() {
    for rest in [&b"\0"[..], b"user\0\0\0", b"database\0app\0\0"] {
        assert_eq!(parse_30(rest), Err(ProtocolError::NoUser));
    }
}

#[test]
fn a_parameter_sent_twice_is_refused_whatever_its_case() {
    for rest in [
        &b"user\0alice\0user\0postgres\0\0"[..],
        b"user\0alice\0database\0a\0database\0b\0\0",
        b"user\0alice\0TimeZone\0UTC\0timezone\0CET\0\0",
        b"user\0alice\0User\0postgres\0\0",
    ] {
        let refused = parse_30(rest).expect_err("twice");
        assert!(matches!(refused, ProtocolError::DuplicateParameter { .. }), "{refused}");
    }
}

#[test]
fn names_and_values_that_are_not_utf8_are_refused() {
    for rest in [
        &b"user\0al\xffce\0\0"[..],
        b"us\xc3\0alice\0\0",
        b"user\0\xed\xa0\x80\0\0",
    ] {
        let refused = parse_30(rest).expect_err("not UTF-8");
        assert!(matches!(refused, ProtocolError::NotUtf8 { .. }), "{refused}");
    }
}

#[test]
fn more_parameters_than_a_client_has_use_for_are_refused() {
    let mut rest = b"user\0alice\0".to_vec();
    for n in 0..MAX_STARTUP_PARAMETERS {
        rest.extend_from_slice(format!("p{n}\0\0").as_bytes());
    }
    rest.push(0);
    assert!(matches!(parse_30(&rest), Err(ProtocolError::TooManyParameters { .. })));
}

#[test]
fn versions_2_0_and_4_0_are_refused_as_postgresql_does() {
    for (version, text) in [(0x0002_0000, "2.0"), (0x0004_0000, "4.0"), (80_877_105, "1234.5681")] {
        let refused = parse(&startup_packet(version, b"user\0alice\0\0")).expect_err(text);
        assert_eq!(refused.refusal().kind.sqlstate(), "0A000");
        assert_eq!(
            refused.to_string(),
            format!("unsupported frontend protocol {text}: server supports 3.0 to 3.2")
        );
    }
}

#[test]
fn a_client_speaks_the_version_that_it_asks_for_up_to_3_2_and_what_is_newer_is_negotiated() {
    // Asked for, spoken, NegotiateProtocolVersion, long keys: as PostgreSQL 18 has it.
    for (minor, spoken, negotiated, long_keys) in [
        (0, 0, false, false),
        (1, 1, false, false),
        (2, 2, false, true),
        (3, 2, true, true),
        (9_999, 2, true, true),
    ] {
        let packet = startup_packet(0x0003_0000 | minor, b"user\0alice\0\0");
        let FirstPacket::Startup(message) = parse(&packet).expect("sound") else {
            panic!("a start-up message");
        };
        assert_eq!(u32::from(message.minor), minor);
        assert_eq!(
            (
                message.spoken_minor(),
                message.needs_negotiation(),
                message.has_long_cancel_keys()
            ),
            (spoken, negotiated, long_keys),
            "3.{minor}"
        );
    }
}

#[test]
fn protocol_options_that_are_not_known_are_negotiated_in_the_version_of_the_client() {
    for minor in [0, 2] {
        let packet = startup_packet(
            0x0003_0000 | minor,
            b"user\0alice\0_pq_.test_protocol_negotiation\0\0\0",
        );
        let FirstPacket::Startup(message) = parse(&packet).expect("sound") else {
            panic!("a start-up message");
        };
        assert_eq!(message.unknown_protocol_options(), ["_pq_.test_protocol_negotiation"]);
        assert!(message.needs_negotiation());
        assert_eq!(u32::from(message.spoken_minor()), minor);
        assert_eq!(message.passed_parameters(), Ok(Vec::new()));
    }
}

#[test]
fn requests_for_encryption_have_no_body() {
    let ssl = SSL_REQUEST[4..].to_vec();
    let gss = 80_877_104_u32.to_be_bytes().to_vec();
    assert!(matches!(parse(&ssl), Ok(FirstPacket::SslRequest)));
    assert!(matches!(parse(&gss), Ok(FirstPacket::GssEncRequest)));
    for request in [ssl, gss] {
        let refused = parse(&[&request[..], b"x"].concat()).expect_err("a body");
        assert!(matches!(refused, ProtocolError::RequestWithBody { length: 1, .. }));
    }
}

#[test]
fn a_cancel_request_has_a_key_of_4_to_256_bytes_that_is_never_printed() {
    for (length, sound) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
        let packet = encode_cancel(7, &Secret::new(vec![b'k'; length]));
        let parsed = parse(&packet[4..]);
        assert_eq!(parsed.is_ok(), sound, "{length}");
    }
    assert!(parse(&[0x04, 0xd2, 0x16, 0x2e, 0, 0]).is_err(), "no process id");
    let FirstPacket::Cancel(cancel) = parse(&encode_cancel(7, &Secret::new(b"kkkk".to_vec()))[4..]).expect("sound")
    else {
        panic!("a cancel request");
    };
    assert_eq!((cancel.process_id, &cancel.secret.expose()[..]), (7, &b"kkkk"[..]));
    assert!(format!("{cancel:?}").contains("[redacted]"));
}

#[test]
fn the_startup_message_for_postgresql_is_read_back_as_it_was_meant() {
    let user = DbUser::new("o'brien =x").expect("a name");
    let database = DbName::new("app user=postgres").expect("a name");
    let params = vec![(String::from("TimeZone"), String::from("UTC"))];
    let packet = encode_startup(&user, &database, None, &params).expect("encodable");
    let header = packet[..4].try_into().expect("4 bytes");
    assert_eq!(packet_length(header), Ok(packet.len() - 4));
    let FirstPacket::Startup(message) = parse(&packet[4..]).expect("sound") else {
        panic!("a start-up message");
    };
    assert_eq!(message.user(), "o'brien =x");
    assert_eq!(message.database(), Some("app user=postgres"));
    assert_eq!(message.passed_parameters(), Ok(params));
}

#[test]
fn a_parameter_cannot_smuggle_another_one_to_postgresql() {
    let user = DbUser::new("alice").expect("a name");
    let database = DbName::new("app").expect("a name");
    for (name, value) in [
        ("TimeZone", "UTC\0role\0postgres"),
        ("TimeZone\0UTC\0role", "postgres"),
        ("", "x"),
    ] {
        let params = [(name.to_owned(), value.to_owned())];
        assert!(encode_startup(&user, &database, None, &params).is_err(), "{name:?}");
    }
    let long = [(String::from("TimeZone"), "x".repeat(MAX_STARTUP_BYTES))];
    assert!(encode_startup(&user, &database, None, &long).is_err());
}
