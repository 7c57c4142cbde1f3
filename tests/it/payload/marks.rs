//! What must not be found, in all the forms in which a program writes bytes down.

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, Encoding};
use regex::bytes::Regex;
use std::collections::HashMap;

/// Where a mark may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Nowhere,
    /// In the audit log and in the spools, whose purpose it is.
    InTheTrail,
}

/// Something that somebody typed or sent, and that can be nothing else where it is found.
#[derive(Debug)]
pub struct Mark {
    pub what: String,
    pub allowed: Allowed,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Mark {
    /// Of letters and digits, so that it is the same in a URL, in JSON and in a quoted text.
    pub fn text(what: &str, allowed: Allowed, text: &str) -> Self {
        assert!(
            text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{what}"
        );
        let mut mark = Self::bytes(what, allowed, text.as_bytes());
        mark.forms.push(("lower case", text.to_ascii_lowercase().into_bytes()));
        mark.forms.push(("upper case", text.to_ascii_uppercase().into_bytes()));
        mark
    }

    pub fn bytes(what: &str, allowed: Allowed, bytes: &[u8]) -> Self {
        let each = |write: &dyn Fn(&u8) -> String, between: &str| -> Vec<u8> {
            bytes.iter().map(write).collect::<Vec<_>>().join(between).into_bytes()
        };
        let mut forms = vec![
            ("raw", bytes.to_vec()),
            ("reversed", bytes.iter().rev().copied().collect()),
            ("hex", each(&|byte| format!("{byte:02x}"), "")),
            ("HEX", each(&|byte| format!("{byte:02X}"), "")),
            ("URL", each(&|byte| format!("%{byte:02X}"), "")),
            ("JSON", each(&|byte| format!("\\u{byte:04x}"), "")),
            ("escaped", each(&|byte| format!("\\x{byte:02x}"), "")),
            ("a list", each(&u8::to_string, ", ")),
            ("a JSON list", each(&u8::to_string, ",")),
        ];
        for before in 0..5 {
            forms.push(("base64", inside(&BASE64_NOPAD, before, bytes, (3, 4))));
            forms.push(("base64url", inside(&BASE64URL_NOPAD, before, bytes, (3, 4))));
            forms.push(("base32", inside(&BASE32_NOPAD, before, bytes, (5, 8))));
        }
        Self {
            what: what.to_owned(),
            allowed,
            forms,
        }
    }

    /// A number that is sent in eight bytes.
    pub fn number(what: &str, allowed: Allowed, number: i64) -> Self {
        let mut mark = Self::bytes(what, allowed, &number.to_be_bytes());
        mark.forms.push(("decimal", number.to_string().into_bytes()));
        mark
    }

    /// Six digits: other numbers have as many, so only what has them as a text or by a name counts.
    pub fn code(what: &str, code: &str) -> Self {
        let forms = [
            "\"CODE\"",
            "'CODE'",
            "\\\"CODE\\\"",
            "otp=CODE",
            "code=CODE",
            "code: CODE",
            "otp\":CODE",
            "code\":CODE",
        ];
        Self {
            what: what.to_owned(),
            allowed: Allowed::Nowhere,
            forms: forms
                .map(|form| ("written", form.replace("CODE", code).into_bytes()))
                .to_vec(),
        }
    }
}

/// The letters that these bytes alone decide, where so many others are before them and any after them.
fn inside(encoding: &Encoding, before: usize, bytes: &[u8], (bytes_in, letters_out): (usize, usize)) -> Vec<u8> {
    let whole = [&vec![0; before][..], bytes].concat();
    let letters = encoding.encode(&whole).into_bytes();
    let first = (before * letters_out).div_ceil(bytes_in);
    let end = whole.len() * letters_out / bytes_in;
    letters[first..end].to_vec()
}

/// Looks for all forms of all marks in one pass.
pub struct Search<'a> {
    pattern: Regex,
    whose: HashMap<&'a [u8], (&'a Mark, &'static str)>,
}

impl<'a> Search<'a> {
    pub fn of(marks: &'a [Mark]) -> Self {
        let all = || {
            marks
                .iter()
                .flat_map(|mark| mark.forms.iter().map(move |form| (mark, form)))
        };
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let pattern: Vec<String> = all().map(|(_, (_, form))| escaped(form)).collect();
        Self {
            pattern: Regex::new(&format!("(?-u){}", pattern.join("|"))).expect("a pattern"),
            whose: all()
                .map(|(mark, (how, form))| (form.as_slice(), (mark, *how)))
                .collect(),
        }
    }

    /// The marks that are there, each with the form, and some of what is before it.
    pub fn find(&self, bytes: &[u8]) -> Vec<(&'a Mark, &'static str, String)> {
        self.pattern
            .find_iter(bytes)
            .map(|found| {
                let (mark, how) = self.whose[found.as_bytes()];
                let around = &bytes[found.start().saturating_sub(200)..found.end()];
                (mark, how, String::from_utf8_lossy(around).into_owned())
            })
            .collect()
    }
}

#[test]
fn a_mark_is_found_in_whatever_form_it_was_written() {
    let marks = [
        Mark::text("a text", Allowed::Nowhere, "Qz7aTextOfItsOwnKx3"),
        Mark::number("a number", Allowed::Nowhere, 7_310_027_182_818_284),
        Mark::code("a code", "027182"),
    ];
    let search = Search::of(&marks);
    let names = |bytes: &[u8]| -> Vec<String> { search.find(bytes).iter().map(|found| found.0.what.clone()).collect() };
    let text = b"{\"password\":\"\\\" Qz7aTextOfItsOwnKx3 \\n";
    for before in 0..8 {
        let text = [&text[..before], text].concat();
        let backwards: Vec<u8> = text.iter().rev().copied().collect();
        let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        for written in [
            text.clone(),
            backwards,
            hex.clone().into_bytes(),
            hex.to_uppercase().into_bytes(),
            data_encoding::BASE64.encode(&text).into_bytes(),
            data_encoding::BASE64URL_NOPAD.encode(&text).into_bytes(),
            data_encoding::BASE32.encode(&text).into_bytes(),
            format!("{text:?}").into_bytes(),
            serde_json::to_vec(&text).expect("JSON"),
            String::from_utf8_lossy(&text).to_lowercase().into_bytes(),
        ] {
            assert_eq!(names(&written), ["a text"], "{}", String::from_utf8_lossy(&written));
        }
    }
    assert_eq!(
        names(&[b"x", &7_310_027_182_818_284_i64.to_le_bytes()[..]].concat()),
        ["a number"]
    );
    assert_eq!(names(b"at 7310027182818284."), ["a number"]);
    assert_eq!(names(b"{\"otp\":\"027182\"} 027182 1027182"), ["a code"]);
    assert!(names(b"Qz7aTextOfItsOwnKx").is_empty());
}
