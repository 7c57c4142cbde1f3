//! Text of strangers as JSON strings that a terminal and a line reader can be shown: every control character is escaped (also
//! DEL and C1, which some terminals obey), and so are the line separators and the marks that reorder what a person reads.

use std::fmt::Write;

/// Appends `text` as a JSON string (RFC 8259, section 7), with the quotes.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    // Most texts need nothing, which is seen from their bytes: all that is escaped is in front of or behind plain ASCII.
    let plain = text.bytes().take_while(|byte| is_plain(*byte)).count();
    out.push_str(&text[..plain]);
    let text = &text[plain..];
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

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn must_escape(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, '"' | '\\' | '\0'..='\x1f' | '\x7f');
    }
    matches!(c, '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
}
