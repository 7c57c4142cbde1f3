//! The spool's files on disk. A segment `spool-<first number, 20 digits>.jsonl` holds lines
//!
//! ```text
//! <number, 20 digits> TAB <CRC-32 of number, TAB and event, 8 hex digits> TAB <event> LF
//! ```
//!
//! A crash leaves a beginning of what was written since the last fsync, or with the power gone any of its pages: the
//! checksum tells where what is whole ends. It is against accidents; against people there is the log on auth.

use super::{AuditError, MAX_LINE_BYTES, MAX_NUMBER};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Number, checksum, two tabs and the line feed.
pub(super) const FRAME_BYTES: usize = NUMBER_DIGITS + 1 + CHECKSUM_DIGITS + 1 + 1;
pub(super) const MAX_FRAMED_BYTES: usize = MAX_LINE_BYTES + FRAME_BYTES;

pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("spool-{first:020}.jsonl"))
}

/// The first number of the segment with this file name.
pub(super) fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("spool-")?.strip_suffix(".jsonl")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Digits of a number in its frame: those of the largest `u64`.
const NUMBER_DIGITS: usize = 20;
const CHECKSUM_DIGITS: usize = 8;

/// A number in decimal digits, with zeros in front, and a tab.
fn number_field(mut number: u64) -> [u8; NUMBER_DIGITS + 1] {
    let mut field = [b'0'; NUMBER_DIGITS + 1];
    field[NUMBER_DIGITS] = b'\t';
    for digit in field[..NUMBER_DIGITS].iter_mut().rev() {
        // A remainder of ten fits.
        *digit += (number % 10) as u8;
        number /= 10;
    }
    field
}

/// The CRC-32 of IEEE 802.3 and zlib in hexadecimal digits, and a tab.
fn checksum_field(number: &[u8], event: &[u8]) -> [u8; CHECKSUM_DIGITS + 1] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(number);
    hasher.update(event);
    let mut field = [b'\t'; CHECKSUM_DIGITS + 1];
    for (two, byte) in field.chunks_exact_mut(2).zip(hasher.finalize().to_be_bytes()) {
        two.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    field
}

/// Appends a line in its frame.
pub(super) fn push_framed(out: &mut Vec<u8>, number: u64, event: &str) {
    let number = number_field(number);
    out.extend_from_slice(&number);
    out.extend_from_slice(&checksum_field(&number, event.as_bytes()));
    out.extend_from_slice(event.as_bytes());
    out.push(b'\n');
}

/// The event of a framed line (with its line feed), if it is whole and has this number.
fn unframe(line: &[u8], number: u64) -> Option<String> {
    let (head, rest) = line.strip_suffix(b"\n")?.split_first_chunk::<{ NUMBER_DIGITS + 1 }>()?;
    let (checksum, event) = rest.split_first_chunk::<{ CHECKSUM_DIGITS + 1 }>()?;
    let whole = *head == number_field(number) && *checksum == checksum_field(head, event);
    whole.then(|| String::from_utf8(event.to_vec()).ok())?
}

/// Reads the whole lines of a segment from a place on.
pub(super) struct Lines {
    reader: BufReader<File>,
    /// Where the next line begins.
    pub offset: u64,
    /// Its number.
    pub number: u64,
    line: Vec<u8>,
}

impl Lines {
    pub fn open(path: &Path, offset: u64, number: u64) -> Result<Self, AuditError> {
        let mut file = File::open(path).map_err(AuditError::io(path, "opening a spool segment"))?;
        file.seek(SeekFrom::Start(offset))
            .map_err(AuditError::io(path, "seeking in a spool segment"))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 * 1024, file),
            offset,
            number,
            line: Vec::new(),
        })
    }

    /// The next event; `None` where no whole line is.
    pub fn next_event(&mut self) -> std::io::Result<Option<String>> {
        self.line.clear();
        let mut bounded = (&mut self.reader).take(MAX_FRAMED_BYTES as u64);
        bounded.read_until(b'\n', &mut self.line)?;
        let event = unframe(&self.line, self.number).filter(|_| self.number <= MAX_NUMBER);
        if event.is_some() {
            self.offset += self.line.len() as u64;
            self.number += 1;
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(&checksum_field(b"1234", b"56789"), b"cbf43926\t");
        assert_eq!(&number_field(u64::MAX), b"18446744073709551615\t");
        assert_eq!(&number_field(70), b"00000000000000000070\t");
    }

    #[test]
    fn a_line_with_any_byte_changed_is_not_whole() {
        let mut framed = Vec::new();
        push_framed(&mut framed, 7, "{\"a\":1}");
        assert_eq!(framed.len(), FRAME_BYTES + 7);
        assert_eq!(unframe(&framed, 7).as_deref(), Some("{\"a\":1}"));
        assert_eq!(unframe(&framed, 8), None);
        for at in 0..framed.len() {
            let mut damaged = framed.clone();
            damaged[at] ^= 1;
            assert_eq!(unframe(&damaged, 7), None, "byte {at}");
            assert_eq!(unframe(&framed[..at], 7), None, "{at} bytes");
        }
    }

    #[test]
    fn a_segment_is_found_by_its_name() {
        let path = segment_path(Path::new("/x"), 42);
        assert_eq!(path.to_str(), Some("/x/spool-00000000000000000042.jsonl"));
        assert_eq!(first_of_name("spool-00000000000000000042.jsonl"), Some(42));
        assert_eq!(first_of_name("spool-42.jsonl"), None);
    }
}
