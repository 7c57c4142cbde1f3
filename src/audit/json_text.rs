//! Text of strangers as JSON strings that a terminal and a line reader can be shown: every control character is escaped (also
//! DEL and C1, which some terminals obey), and so are the line separators and the marks that reorder what a person reads.

use std::fmt::Write;

/// A longer text is split into parts of this size, never cut. Small enough for the line readers of log shippers.
pub const MAX_PART_BYTES: usize = 64 * 1024;

/// Appends `text` as a JSON string (RFC 8259, section 7), with the quotes.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut clean = 0;
    for (at, c) in text.char_indices() {
        if !must_escape(c) {
            continue;
        }
        out.push_str(&text[clean..at]);
        clean = at + c.len_utf8();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail. All of these are in the basic plane: four digits.
            c => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
    out.push_str(&text[clean..]);
    out.push('"');
}

fn must_escape(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, '"' | '\\' | '\0'..='\x1f' | '\x7f');
    }
    matches!(c, '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One part of a long text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// From 0.
    pub number: u64,
    pub last: bool,
    pub bytes: &'a [u8],
}

/// Splits a text into parts of at most `MAX_PART_BYTES`, between characters where it is UTF-8. An empty text is one part.
pub fn parts(text: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = Some(text);
    let mut number = 0;
    std::iter::from_fn(move || {
        let text = rest?;
        let (bytes, after) = text.split_at(split_point(text));
        rest = (!after.is_empty()).then_some(after);
        number += 1;
        Some(Part {
            number: number - 1,
            last: after.is_empty(),
            bytes,
        })
    })
}

fn split_point(text: &[u8]) -> usize {
    if text.len() <= MAX_PART_BYTES {
        return text.len();
    }
    // A character has at most four bytes; where there is no beginning of one, this is not UTF-8.
    let begins = |at: &usize| text[*at] & 0xC0 != 0x80;
    (MAX_PART_BYTES - 3..=MAX_PART_BYTES)
        .rev()
        .find(begins)
        .unwrap_or(MAX_PART_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_reads_back_the_same() {
        let text = "a\"\\\n\r\t\0\u{1b}[31m\u{7f}\u{9b}é\u{2028}\u{202e}漢🐘";
        let mut json = String::new();
        push_string(&mut json, text);
        assert!(json.chars().all(|c| !must_escape(c) || matches!(c, '"' | '\\')));
        assert!(json.contains("\\u001b[31m\\u007f\\u009bé"));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn a_long_text_is_split_between_characters_and_loses_nothing() {
        let text = "x".to_owned() + &"漢".repeat(MAX_PART_BYTES);
        let all: Vec<_> = parts(text.as_bytes()).collect();
        assert!(
            all.iter()
                .all(|p| p.bytes.len() <= MAX_PART_BYTES && str::from_utf8(p.bytes).is_ok())
        );
        assert!(
            all.iter()
                .enumerate()
                .all(|(n, p)| p.number == n as u64 && p.last == (n + 1 == all.len()))
        );
        assert_eq!(
            all.iter().flat_map(|p| p.bytes).copied().collect::<Vec<_>>(),
            text.as_bytes()
        );
        assert_eq!(parts(b"").count(), 1);
        assert_eq!(parts(&[0x80; MAX_PART_BYTES + 1]).count(), 2);
    }
}
