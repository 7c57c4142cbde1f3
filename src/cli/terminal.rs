//! Text for a terminal. What others wrote (a query, a name) may hold control characters that move the cursor or rename the
//! window; they are shown, never sent.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

/// A terminal narrower than that is not one for tables.
const WIDTH_MIN: usize = 40;

/// The text with every control character but the line feed written out: `\u{1b}`.
pub fn printable(text: &str) -> String {
    escape(text, true)
}

/// As [`printable`], on one line.
pub fn one_line(text: &str) -> String {
    escape(text, false)
}

fn escape(text: &str, keep_line_feeds: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if keep_line_feeds => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_obeyed(c) => {
                let _cannot_fail = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_obeyed(c: char) -> bool {
    // Directional overrides make a text look like another one (CVE-2021-42574).
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with what a terminal obeys written as escapes, which mean the same there. All of them stand in strings: what is outside
/// of strings in JSON is ASCII, of whose control characters only line feeds are used.
pub fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_obeyed(c) {
            // Every one of them is in the basic plane: four digits. Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// `1 node`, `2 nodes`.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// `1,203`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A length of microseconds, with two units at most: `0.3ms`, `250ms`, `4.2s`, `1m05s`, `3h05m`, `2d03h`.
pub fn lasted(micros: u64) -> String {
    let (tenths, seconds) = (micros / 100_000, micros / 1_000_000);
    match seconds {
        0 if micros < 10_000 => {
            let tenths = micros.div_ceil(100);
            format!("{}.{}ms", tenths / 10, tenths % 10)
        }
        0 => format!("{}ms", micros / 1000),
        1..60 => format!("{seconds}.{}s", tenths % 10),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How many characters a line of standard output has; `None` where it goes to no terminal. What a person sets in COLUMNS holds.
pub fn width() -> Option<usize> {
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let of_terminal = || Some(usize::from(terminal_size::terminal_size_of(std::io::stdout())?.0.0));
    set.or_else(of_terminal).map(|width| width.max(WIDTH_MIN))
}

/// The line, cut to so many characters with an ellipsis.
pub fn fitted(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
            cut.push('…');
            cut
        }
        _ => line.to_owned(),
    }
}

/// The text behind `first`, in lines of at most so many characters, the others indented as the first; a word is never cut.
pub fn wrapped(first: &str, text: &str, width: Option<usize>) -> String {
    let indent = first.chars().count();
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent));
    let (mut out, mut used) = (first.to_owned(), 0);
    for word in text.split(' ') {
        let chars = word.chars().count();
        if used > 0 && used + 1 + chars > room {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += chars;
    }
    out.push('\n');
    out
}

/// The text with what is stuck in bold, where standard output is a terminal that may show it.
pub fn emphasised(text: &str) -> String {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_plain || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let bold = |line: &str| match line.strip_prefix("STUCK ") {
        Some(rest) => format!("\u{1b}[1;31mSTUCK\u{1b}[0m {rest}"),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(bold).collect()
}

/// Reads a duration as people write it: `12h`, `30m`, `2h30m`.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| std::time::Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{text:?} is not a duration; write for example 12h, 30m or 90s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(one_line("a\x1b[2Jb\nc\u{202e}"), "a\\u{1b}[2Jb\\nc\\u{202e}");
        assert_eq!(printable("a\nb\r"), "a\nb\\u{d}");
    }

    #[test]
    fn json_for_a_terminal_means_the_same() {
        let text = "a\u{1b}\u{9b}\u{202e}\u{7f}é\n";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let shown = printable_json(&json);
        assert!(shown.chars().all(|c| c == '\n' || !is_obeyed(c)), "{shown}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
        assert_eq!(
            (counted(1, "node"), counted(0, "node")),
            ("1 node".to_owned(), "0 nodes".to_owned())
        );
    }

    #[test]
    fn lengths_of_time_and_numbers_are_short_and_read_at_a_glance() {
        for (micros, shown) in [
            (0, "0.0ms"),
            (250, "0.3ms"),
            (9_999, "10.0ms"),
            (250_900, "250ms"),
            (4_290_000, "4.2s"),
            (65_000_000, "1m05s"),
            (11_100_000_000, "3h05m"),
            (184_000_000_000, "2d03h"),
        ] {
            assert_eq!(lasted(micros), shown);
        }
        assert_eq!(
            [0, 999, 1_203, 1_000_000].map(grouped),
            ["0", "999", "1,203", "1,000,000"]
        );
    }

    #[test]
    fn lines_are_cut_or_wrapped_to_the_width_of_the_terminal() {
        assert_eq!(fitted("äöü-abc", Some(5)), "äöü-…");
        assert_eq!(fitted("äöü", Some(3)), "äöü");
        assert_eq!(fitted(&"x".repeat(500), None).len(), 500);
        assert_eq!(wrapped("A  ", "one two three", Some(11)), "A  one two\n   three\n");
        assert_eq!(wrapped("A  ", "one two three", None), "A  one two three\n");
        assert_eq!(wrapped("A  ", "onetwothree", Some(5)), "A  onetwothree\n");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("2190h"), Ok(std::time::Duration::from_secs(2190 * 3600)));
        assert_eq!(parse_duration("1h30m"), Ok(std::time::Duration::from_secs(5400)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("-5m").is_err());
    }
}
