//! What PostgreSQL sends, and who of the two owes the other an answer.

use super::frontend::framed;
use super::{expanded, is_a_sentence, splits};
use postern::protocol::postgres::backend::{
    AuthenticationRequest, BackendKeyData, ErrorFields, MAX_ERROR_FIELD_BYTES, backend_key_data, error_response_with,
};
use postern::protocol::postgres::{
    Answer, AnswerReader, Asked, Direction, Exchange, FrameWalker, Outcome, Results, StatementTap,
};

/// However a stream is cut, the same messages are seen in it, and its end is the same.
pub fn backend(bytes: &[u8]) {
    let stream = expanded(bytes);
    let (messages, end) = framed(Direction::Backend, &[&stream]);
    let state = state_after(&[&stream]);
    let answered = answers(&[&stream]);
    for split in splits(&stream) {
        assert_eq!(framed(Direction::Backend, &split), (messages.clone(), end.clone()));
        assert_eq!(state_after(&split), state);
        assert_eq!(answers(&split), answered);
    }
    let mut results = Results::default();
    for (answer, copied) in &answered {
        results.answered(answer, *copied, 0);
    }
    assert_eq!(results.batch(), None, "nothing was asked");
    for (message_type, body, _) in messages.iter().filter(|(_, _, whole)| *whole) {
        match message_type {
            b'E' | b'N' => error_fields(body),
            b'R' => authentication(body),
            b'K' => key(body),
            _ => {}
        }
    }
    error_fields(bytes);
    authentication(bytes);
    key(bytes);
}

/// What is answered, with the COPY data before it.
fn answers(chunks: &[&[u8]]) -> Vec<(Answer, u64)> {
    let (mut walker, mut reader) = (FrameWalker::new(Direction::Backend), AnswerReader::default());
    let mut answers = Vec::new();
    for chunk in chunks {
        let walked = walker.walk(chunk, |piece| {
            if let Some(answer) = reader.read(&piece) {
                answers.push((answer, reader.take_copied()));
            }
        });
        if walked.is_err() {
            // Of a ReadyForQuery with a wrong body, a first piece is seen where the cut is behind its header; it is no answer.
            break;
        }
    }
    answers
}

fn state_after(chunks: &[&[u8]]) -> (bool, bool, u32, Option<u8>, Option<u8>) {
    let mut walker = FrameWalker::new(Direction::Backend);
    for chunk in chunks {
        if walker.skim(chunk).is_err() {
            break;
        }
    }
    (
        walker.at_boundary(),
        walker.ended_with_error(),
        walker.left(),
        walker.last_complete(),
        walker.last_ready_status(),
    )
}

fn error_fields(body: &[u8]) {
    let fields = match ErrorFields::parse(body) {
        Ok(fields) => fields,
        Err(error) => return is_a_sentence(&error),
    };
    let texts = [&fields.severity, &fields.message, &fields.detail, &fields.hint];
    for text in texts.into_iter().flatten() {
        // A byte that is not UTF-8 becomes a character of three.
        assert!(text.len() <= 3 * MAX_ERROR_FIELD_BYTES);
    }
    let (Some(severity), Some(code), Some(text)) = (&fields.severity, &fields.sqlstate, &fields.message) else {
        return;
    };
    let texts = [Some(text), fields.detail.as_ref(), fields.hint.as_ref()];
    if texts
        .into_iter()
        .flatten()
        .any(|text| text.len() > MAX_ERROR_FIELD_BYTES)
        || severity.len() > 100
    {
        return;
    }
    let written = error_response_with(severity, code, text, fields.detail.as_deref(), fields.hint.as_deref());
    assert_eq!(ErrorFields::parse(&written[5..]).as_ref(), Ok(&fields));
}

fn authentication(body: &[u8]) {
    match AuthenticationRequest::parse(body) {
        Ok(request) => assert!(!request.label().is_empty()),
        Err(error) => is_a_sentence(&error),
    }
}

fn key(body: &[u8]) {
    match BackendKeyData::parse(body) {
        Ok(key) => assert_eq!(backend_key_data(key.process_id, &key.secret)[5..], *body),
        Err(error) => is_a_sentence(&error),
    }
}

/// The bytes are message types: below 128 the client's, from 128 PostgreSQL's. Without COPY, a session is answered exactly when as
/// many ReadyForQuery came as were asked for and a Sync followed what needs one; a doubt is never taken back.
pub fn exchange(bytes: &[u8]) {
    matched(bytes);
    let mut exchange = Exchange::default();
    let (mut owed, mut unsynced, mut runs, mut plain, mut status) = (1_u64, false, 1, true, b'I');
    let mut last = b'Q';
    for byte in bytes {
        let message_type = byte & 0x7f;
        if *byte < 0x80 {
            exchange.sent(message_type);
            match message_type {
                b'Q' | b'F' | b'S' => {
                    let kind = if message_type == b'S' { b'S' } else { b'Q' };
                    runs += u32::from(kind != last || owed == 0);
                    last = kind;
                    owed += 1;
                    unsynced = false;
                }
                b'P' | b'B' | b'D' | b'E' | b'C' => unsynced = true,
                b'c' | b'f' => plain = false,
                _ => {}
            }
        } else {
            match message_type {
                b'Z' | b'z' | b'y' => {
                    status = match message_type {
                        b'Z' => b'I',
                        b'z' => b'T',
                        _ => b'E',
                    };
                    exchange.ready(status);
                    plain &= owed > 0;
                    owed = owed.saturating_sub(1);
                }
                _ => {
                    exchange.received(message_type);
                    plain &= !matches!(message_type, b'G' | b'W');
                }
            }
        }
        // Beyond 256 changes between kinds the session counts as busy.
        plain &= runs <= 256;
        if plain {
            assert_eq!(exchange.is_answered(), owed == 0 && !unsynced, "{bytes:?}");
            assert_eq!(exchange.is_idle(), owed == 0 && !unsynced && status == b'I');
            assert!(!exchange.takes_data() && !exchange.streams());
        }
        assert!(!exchange.is_idle() || exchange.is_answered());
        let said = [exchange.is_answered(), exchange.takes_data(), exchange.streams()];
        assert!(said.iter().filter(|is_so| **is_so).count() <= 1);
        assert!(!(exchange.is_answered() && exchange.owes_answer()));
    }
    exchange.lose();
    for _ in 0..4 {
        exchange.ready(b'I');
        assert!(!exchange.is_idle() && exchange.owes_answer());
    }
}

/// The same bytes as requests and answers: every result is of a request that was sent, and little is held.
fn matched(bytes: &[u8]) {
    let (mut tap, mut results, mut number) = (StatementTap::new(), Results::default(), 0);
    for byte in bytes {
        let message_type = byte & 0x7f;
        if *byte < 0x80 {
            let body: &[u8] = match message_type {
                b'Q' => b"a\0",
                b'P' => b"s\0a\0\0\0",
                b'B' => b"p\0s\0\0\0\0\0\0\0",
                b'E' => b"p\0\0\0\0\0",
                b'D' | b'C' => b"Pp\0",
                b'F' => &[0; 10],
                b'd' => b"data",
                b'f' => b"\0",
                b'c' | b'S' | b'H' => b"",
                _ => continue,
            };
            let frame = [&[message_type][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
            let fed = tap.feed(&frame, &mut |asked| {
                number += u64::from(matches!(asked, Asked::Statement(_)));
                results.asked(number, &asked);
            });
            assert_eq!(fed, Ok(()));
            results.passed();
            continue;
        }
        let body: &[u8] = match message_type {
            b'C' => b"SELECT 1\0",
            b'E' => b"SERROR\0C42P01\0\0",
            b'Z' => b"I",
            _ => b"",
        };
        let frame = [&[message_type][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
        for (answer, copied) in answers(&[&frame]) {
            let due = results.answered(&answer, copied, tap.copied());
            let outcomes = results.batch().map_or(&[][..], |batch| batch.outcomes);
            assert!(
                outcomes
                    .iter()
                    .all(|outcome| outcome.request.is_none_or(|request| request <= number))
            );
            if due {
                results.noted();
            }
        }
    }
    // An answer of one byte here makes an outcome, in a list that doubles.
    assert!(results.retained_bytes() < 4096 + 2 * size_of::<Outcome>() * bytes.len());
}
