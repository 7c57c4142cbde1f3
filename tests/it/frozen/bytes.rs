//! The frames of version 1, as they were frozen, and the few bytes of them that a conversation has to replace.
//!
//! Nothing here knows today's encoder. Every sample of the file is an ask with the same header, so the places are fixed:
//!
//! ```text
//!  0..4   length, u32 big-endian          4  version 1          5  dialect
//!  6      id: 7                           7  kind: 1, an ask    8..11  its deadline: fb 983a, 15 000 ms
//! 11..15  cause: 01 fb 2c01, Some(300)   15..25  connection: 01 fd and eight bytes
//! 25      the body, beginning with the variant's number
//! ```

const FROZEN: &str = include_str!("../../golden/frozen/wire-v1.txt");

pub const PREFIX: usize = 4;
const DIALECT_AT: usize = 5;
const ID_AT: usize = 6;
const AFTER_ID: usize = 7;
const BODY_AT: usize = 25;
/// No enum of version 1 has so many variants, nor will one of its additions soon.
pub const UNKNOWN: u8 = 250;

/// Each line's name and frame.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let lines = FROZEN.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
            (name, (0..hex.len()).step_by(2).map(digits).collect())
        })
        .collect()
}

pub fn frame(name: &str) -> Vec<u8> {
    let found = all().into_iter().find(|(frozen, _)| *frozen == name);
    found.unwrap_or_else(|| panic!("{name} is not frozen")).1
}

fn body(name: &str) -> Vec<u8> {
    frame(name)[BODY_AT..].to_vec()
}

/// `rest` follows the id.
fn framed(dialect: u8, id: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 1, dialect];
    bytes.extend(varint(id));
    bytes.extend(rest);
    let length = u32::try_from(bytes.len() - PREFIX).expect("short");
    bytes[..PREFIX].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The frozen frame with another id.
pub fn ask(name: &str, id: u64) -> Vec<u8> {
    let frozen = frame(name);
    framed(frozen[DIALECT_AT], id, &frozen[AFTER_ID..])
}

/// The frozen header of that message with another id, and another body after its variant's number.
pub fn ask_with(name: &str, id: u64, fields: &[u8]) -> Vec<u8> {
    let frozen = frame(name);
    let rest = [&frozen[AFTER_ID..=BODY_AT], fields].concat();
    framed(frozen[DIALECT_AT], id, &rest)
}

/// An ask in the dialect of that message, of a variant that version 1 does not have.
pub fn unknown_ask(name: &str, id: u64) -> Vec<u8> {
    let frozen = frame(name);
    let rest = [&frozen[AFTER_ID..BODY_AT], &[UNKNOWN, 1, 2, 3][..]].concat();
    framed(frozen[DIALECT_AT], id, &rest)
}

/// Kind, cause and connection of the frozen samples of a tell or an answer; one byte of body's variant and one of its field follow.
fn kind_of(sample: &str) -> Vec<u8> {
    let frozen = frame(sample);
    frozen[AFTER_ID..frozen.len() - 2].to_vec()
}

/// The frozen message as the answer to `id`.
pub fn answer(name: &str, id: u64) -> Vec<u8> {
    framed(frame(name)[DIALECT_AT], id, &[kind_of("Answer"), body(name)].concat())
}

/// An answer in the dialect of that message, of a variant that version 1 does not have.
pub fn unknown_answer(name: &str, id: u64) -> Vec<u8> {
    framed(
        frame(name)[DIALECT_AT],
        id,
        &[kind_of("Answer"), vec![UNKNOWN, 1, 2, 3]].concat(),
    )
}

/// News in the dialect of that message, of a variant that version 1 does not have.
pub fn unknown_tell(name: &str) -> Vec<u8> {
    framed(
        frame(name)[DIALECT_AT],
        0,
        &[kind_of("Tell"), vec![UNKNOWN, 1, 2, 3]].concat(),
    )
}

/// The frozen message as news.
pub fn tell(name: &str) -> Vec<u8> {
    framed(frame(name)[DIALECT_AT], 0, &[kind_of("Tell"), body(name)].concat())
}

/// The frozen refusal, of the message with this id, in a dialect.
pub fn refused(dialect: u8, id: u64) -> Vec<u8> {
    framed(dialect, id, &frame("Refused")[AFTER_ID..])
}

/// The dialect of a frozen message.
pub fn dialect(name: &str) -> u8 {
    frame(name)[DIALECT_AT]
}

/// As docs/wire-protocol.md has it, little-endian after a mark of the width.
pub fn varint(value: u64) -> Vec<u8> {
    let wide = value.to_le_bytes();
    match value {
        0..=250 => vec![wide[0]],
        251..=0xffff => [&[0xfb], &wide[..2]].concat(),
        0x1_0000..=0xffff_ffff => [&[0xfc], &wide[..4]].concat(),
        _ => [&[0xfd], &wide[..]].concat(),
    }
}

/// Text and byte strings: their length, and they.
pub fn bytes(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(content.len() as u64), content.to_vec()].concat()
}

/// Of parts that are encoded already.
pub fn list(parts: &[Vec<u8>]) -> Vec<u8> {
    [varint(parts.len() as u64), parts.concat()].concat()
}

#[test]
fn the_places_in_frozen_frames_are_where_this_file_says() {
    for (name, frozen) in all().iter().filter(|(name, _)| name.contains("::")) {
        assert_eq!(&frozen[4..5], [1], "{name}");
        assert_eq!(ask(name, 7), *frozen, "{name}");
        assert_eq!(
            &frozen[ID_AT..BODY_AT],
            b"\x07\x01\xfb\x98\x3a\x01\xfb\x2c\x01\x01\xfd\xef\xcd\xab\x89\x67\x45\x23\x01"
        );
    }
    assert_eq!(refused(5, 7), frame("Refused"));
    assert_eq!(bytes("x".repeat(300))[..3], [0xfb, 0x2c, 1]);
}
