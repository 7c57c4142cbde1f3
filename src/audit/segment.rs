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
pub(super) const FRAME_BYTES: usize = 20 + 1 + 8 + 1 + 1;
pub(super) const MAX_FRAMED_BYTES: usize = MAX_LINE_BYTES + FRAME_BYTES;

pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("spool-{first:020}.jsonl"))
}

/// The first number of the segment with this file name.
pub(super) fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("spool-")?.strip_suffix(".jsonl")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Appends a line in its frame.
pub(super) fn push_framed(out: &mut Vec<u8>, number: u64, event: &str) {
    let head = format!("{number:020}\t");
    let crc = crc32(&[head.as_bytes(), event.as_bytes()]);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(format!("{crc:08x}\t").as_bytes());
    out.extend_from_slice(event.as_bytes());
    out.push(b'\n');
}

/// The event of a framed line (with its line feed), if it is whole and has this number.
fn unframe(line: &[u8], number: u64) -> Option<String> {
    let (head, rest) = line.strip_suffix(b"\n")?.split_at_checked(21)?;
    let (crc, event) = rest.split_at_checked(9)?;
    let whole =
        head == format!("{number:020}\t").as_bytes() && crc == format!("{:08x}\t", crc32(&[head, event])).as_bytes();
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

/// CRC-32 as in IEEE 802.3 and zlib (reflected, polynomial 0xEDB88320).
fn crc32(pieces: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| CRC_TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8);
    !pieces.iter().copied().flatten().fold(!0, step)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xCBF4_3926);
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
