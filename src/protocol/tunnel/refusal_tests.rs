//! What a hostile or a newer peer sends: refused by its id, never misread, never more memory than it sent.

use super::frame::{dialect_of, header_of};
use super::*;
use proptest::prelude::*;

fn ask<B: Wire>(body: B) -> Vec<u8> {
    let header = Header {
        id: 42,
        kind: FrameKind::Ask { deadline_ms: 1 },
        cause: None,
        connection: None,
    };
    Frame::new(header, body).encode().unwrap()[PREFIX_BYTES..].to_vec()
}

#[test]
fn a_message_of_another_peers_enum_is_refused_by_its_id() {
    let bytes = ask(DbToAuth::WatchPolicy { have: None });
    let refused = Frame::<ProxyToAuth>::decode(&bytes).expect_err("another enum");
    assert_eq!(refused.header.map(|header| header.id), Some(42));
    assert_eq!(
        refused.error,
        FrameError::OtherDialect {
            found: Dialect::DbToAuth as u8,
            expected: Dialect::ProxyToAuth,
        }
    );
    assert_eq!(
        (dialect_of(&bytes), header_of(&bytes).map(|header| header.id)),
        (Some(Dialect::DbToAuth as u8), Some(42))
    );
}

#[test]
fn a_message_that_is_not_known_is_refused_by_its_id() {
    let mut bytes = ask(AuthToNode::Heard { proxies: Vec::new() });
    let variant = bytes.len() - 2;
    bytes[variant] = 200;
    let refused = Frame::<AuthToNode>::decode(&bytes).expect_err("no such message");
    assert_eq!(refused.header.as_ref().map(|header| header.id), Some(42));
    assert!(matches!(refused.error, FrameError::Body { .. }), "{refused:?}");
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut bytes = ask(AuthToNode::Heard { proxies: Vec::new() });
    bytes.push(0);
    let refused = Frame::<AuthToNode>::decode(&bytes).expect_err("one byte too many");
    assert!(
        matches!(refused.error, FrameError::Trailing { bytes: 1, .. }),
        "{refused:?}"
    );
}

#[test]
fn another_version_is_refused() {
    let mut bytes = ask(AuthToNode::Heard { proxies: Vec::new() });
    bytes[0] = 2;
    let refused = Frame::<AuthToNode>::decode(&bytes).expect_err("version 2");
    assert_eq!(refused.error, FrameError::Version { found: 2 });
}

#[test]
fn a_message_beyond_its_dialects_limit_is_not_sent() {
    let too_long = AuthToNode::Declined {
        why: "x".repeat(AuthToNode::MAX_BYTES + MAX_HEADER_BYTES),
    };
    let header = Header {
        id: 1,
        kind: FrameKind::Answer,
        cause: None,
        connection: None,
    };
    let refused = Frame::new(header, too_long).encode().expect_err("too long");
    assert!(matches!(refused, FrameError::TooLong { .. }), "{refused}");
}

#[test]
fn a_reason_is_cut_between_characters() {
    let refused = Frame::<AuthToNode>::refused(1, &"é".repeat(400));
    let FrameKind::Refused { why } = refused.header.kind else {
        panic!("a refusal")
    };
    assert!(why.len() <= 300 && why.chars().all(|c| c == 'é'));
}

#[test]
fn what_comes_back_from_a_question_is_told_from_a_question() {
    let header = |kind| Header {
        id: 1,
        kind,
        cause: None,
        connection: None,
    };
    assert!(header(FrameKind::Answer).comes_back());
    assert!(header(FrameKind::Refused { why: String::new() }).comes_back());
    assert!(!header(FrameKind::Tell).comes_back());
    assert!(!header(FrameKind::Ask { deadline_ms: 1 }).comes_back());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _refused = Frame::<DbToAuth>::decode(&bytes);
        let _refused = Frame::<ProxyToDb>::decode(&bytes);
        let _refused = Frame::<JoinToAuth>::decode(&bytes);
        let _unknown = header_of(&bytes);
    }

    #[test]
    fn a_flipped_bit_is_another_message_or_an_error(at in 0_usize..60, bit in 0_u8..8) {
        let mut bytes = ask(ProxyToDb::CancelQuery {
            connection: crate::model::ConnectionId::from_random([9; 8]),
        });
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _either = Frame::<ProxyToDb>::decode(&bytes);
    }
}
