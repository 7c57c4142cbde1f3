//! The audit log on auth: segments `00000001.jsonl`, … of pure JSON lines, the truth, and an index beside them.
//!
//! A line is the event as it was entered, with two members added at its end: `"src"`, the spool that it came from, and `"seq"`, its
//! number there. So the log alone tells which events of which spool it has, for any reader and without a second file that could
//! disagree, and the event's own text comes back by taking them off.

use super::disk::make_private_dir;
use super::facts::Facts;
use super::index::{Blocks, Index, Position};
use super::query::{self, Query};
use super::{AuditError, MAX_LINE_BYTES, MAX_NUMBER};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Large enough that a year of a busy cluster is a directory that can be listed, small enough to copy and to search as one.
const SEGMENT_BYTES: u64 = 64 << 20;
/// What one `append` holds in memory; twice the size of a spool's segment.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Lines per transaction while the index is made anew.
const CATCH_UP_LINES: usize = 2000;
/// A spool's id has 32 bytes; room for the names of other sources.
const MAX_SOURCE_BYTES: usize = 128;
/// The two added members: `,"src":"…","seq":…}` with a source and a number of the largest size.
const SUFFIX_BYTES: usize = 18 + MAX_SOURCE_BYTES + 20;
/// A line of the log, with its line feed.
pub(super) const MAX_STORED_BYTES: usize = MAX_LINE_BYTES + SUFFIX_BYTES + 1;

/// The one writer of the log. Its methods block; it belongs on a thread of its own.
pub struct AuditLog {
    dir: PathBuf,
    pub(super) index: Index,
    segment_bytes: u64,
    /// Where the next line goes; everything before is fsynced.
    end: Position,
    /// The segment at `end`; `None` before its first use and after a failure.
    file: Option<File>,
    index_is_behind: bool,
}

impl AuditLog {
    /// Opens the directory, or makes it (mode 0700); cuts the torn end that a crash left in the last segment, and indexes what is
    /// not indexed yet.
    ///
    /// # Errors
    /// `Io` where the directory cannot be used, `Corrupt` for a damaged line elsewhere than at the end, `Index`.
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        Self::open_with(dir, SEGMENT_BYTES)
    }

    pub(super) fn open_with(dir: &Path, segment_bytes: u64) -> Result<Self, AuditError> {
        make_private_dir(dir)?;
        let mut log = Self {
            dir: dir.to_owned(),
            index: Index::open(dir)?,
            segment_bytes,
            end: Position { segment: 1, offset: 0 },
            file: None,
            index_is_behind: false,
        };
        log.recover()?;
        Ok(log)
    }

    /// Appends events of a source, the first of which has the number `first_seq` (from 1), and answers the last number of this source
    /// that is durable. Events that are there already are skipped, so that a batch can be sent again.
    ///
    /// # Errors
    /// `Gap` when events are missing in between; `NumberTooLarge`, `NotAnEvent`, `LineTooLong`, `BatchTooLarge`; `Io` and `Index`, after which
    /// the same batch can be appended again.
    pub fn append(&mut self, source: &str, first_seq: u64, lines: &[String]) -> Result<u64, AuditError> {
        check_source(source)?;
        check_numbers(source, first_seq, lines)?;
        if self.index_is_behind {
            self.index_from(self.index.position()?, false)?;
            self.index_is_behind = false;
        }
        let last = self.index.last_of(source)?;
        // A source that is new here may have shipped to another log before, or under another name of its node.
        let expected = if last == 0 { first_seq.max(1) } else { last + 1 };
        let stored = match expected.checked_sub(first_seq) {
            Some(stored) if first_seq > 0 => usize::try_from(stored).unwrap_or(usize::MAX),
            _ => {
                return Err(AuditError::Gap {
                    source_id: source.to_owned(),
                    expected,
                    got: first_seq,
                });
            }
        };
        let Some(new) = lines.get(stored..).filter(|new| !new.is_empty()) else {
            return Ok(last);
        };
        self.store(source, expected, new)?;
        Ok(expected + new.len() as u64 - 1)
    }

    /// The last number of a source that is durable; 0 for an unknown one. A shipper that begins can ask.
    pub fn last_of(&self, source: &str) -> Result<u64, AuditError> {
        self.index.last_of(source)
    }

    /// The newest events that match, oldest first.
    pub fn query(&self, query: &Query) -> Result<Vec<String>, AuditError> {
        query::run(self.index.connection(), &self.dir, query)
    }

    fn store(&mut self, source: &str, first: u64, events: &[String]) -> Result<(), AuditError> {
        let bytes = events.iter().map(|event| event.len() + SUFFIX_BYTES).sum::<usize>();
        if bytes > MAX_BATCH_BYTES {
            return Err(AuditError::BatchTooLarge {
                bytes,
                max: MAX_BATCH_BYTES,
            });
        }
        if self.end.offset > 0 && self.end.offset + bytes as u64 > self.segment_bytes {
            self.file = None;
            self.end = Position {
                segment: self.end.segment + 1,
                offset: 0,
            };
        }
        let (mut text, mut blocks) = (String::with_capacity(bytes), Blocks::default());
        for (seq, event) in (first..).zip(events) {
            check_event(event)?;
            let begin = text.len();
            push_stored(&mut text, event, source, seq);
            text.push('\n');
            let at = Position {
                segment: self.end.segment,
                offset: self.end.offset + begin as u64,
            };
            blocks.add(&Facts::of(event)?, (at, text.len() - begin), (source, seq));
        }
        self.write_synced(text.as_bytes())?;
        let indexed = self.index.add(&blocks, self.end);
        self.index_is_behind = indexed.is_err();
        indexed
    }

    fn write_synced(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let path = segment_path(&self.dir, self.end.segment);
        let failed = AuditError::io(&path, "appending to the audit log");
        // Taken, and put back only after success: after a failure the segment is opened anew and cut to what is good.
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open_end(&path).map_err(&failed)?,
        };
        file.write_all_at(bytes, self.end.offset).map_err(&failed)?;
        file.sync_data().map_err(&failed)?;
        self.end.offset += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    fn open_end(&self, path: &Path) -> std::io::Result<File> {
        if self.end.offset == 0 {
            return super::disk::create_private(path);
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        file.set_len(self.end.offset)?;
        Ok(file)
    }

    fn recover(&mut self) -> Result<(), AuditError> {
        let segments = list_segments(&self.dir)?;
        let position = self.index.position()?;
        let (Some(&first), Some(&last)) = (segments.first(), segments.last()) else {
            return self.index.clear();
        };
        self.end = Position {
            segment: last,
            offset: segment_bytes(&self.dir, last)?,
        };
        let is_ahead = position > self.end
            || (segments.contains(&position.segment) && position.offset > segment_bytes(&self.dir, position.segment)?);
        let from = if is_ahead {
            self.index.clear()?;
            Position {
                segment: first,
                offset: 0,
            }
        } else {
            position.max(Position {
                segment: first,
                offset: 0,
            })
        };
        self.index_from(from, true)
    }

    /// Indexes the lines from a place to `end`. With `cut`, a bad line of the last segment is where the log ends.
    fn index_from(&mut self, from: Position, cut: bool) -> Result<(), AuditError> {
        let last = self.end.segment;
        let mut at = from;
        for segment in list_segments(&self.dir)?
            .into_iter()
            .filter(|s| (from.segment..=last).contains(s))
        {
            if segment != at.segment {
                at = Position { segment, offset: 0 };
            }
            at = self.index_segment(at)?;
            let bytes = if segment == last {
                self.end.offset
            } else {
                segment_bytes(&self.dir, segment)?
            };
            if at.offset == bytes {
                continue;
            }
            let path = segment_path(&self.dir, segment);
            if segment != last || !cut {
                return Err(AuditError::corrupt(
                    &path,
                    at.offset,
                    "a line is not an event of a spool",
                ));
            }
            let failed = AuditError::io(&path, "cutting the torn end of the audit log");
            let file = OpenOptions::new().write(true).open(&path).map_err(&failed)?;
            file.set_len(at.offset).map_err(&failed)?;
            file.sync_all().map_err(&failed)?;
            self.end = at;
        }
        Ok(())
    }

    /// Indexes one segment from a place on, up to its end or to the first bad line.
    fn index_segment(&mut self, from: Position) -> Result<Position, AuditError> {
        let path = segment_path(&self.dir, from.segment);
        let failed = AuditError::io(&path, "reading the audit log");
        let mut file = File::open(&path).map_err(&failed)?;
        file.seek(SeekFrom::Start(from.offset)).map_err(&failed)?;
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        let (mut at, mut blocks, mut line) = (from, Blocks::default(), Vec::new());
        loop {
            line.clear();
            let mut bounded = (&mut reader).take(MAX_STORED_BYTES as u64);
            bounded.read_until(b'\n', &mut line).map_err(&failed)?;
            let is_end = !add_line(&mut blocks, &line, at);
            if !is_end {
                at.offset += line.len() as u64;
            }
            if is_end || blocks.lines() == CATCH_UP_LINES {
                self.index.add(&blocks, at)?;
                blocks = Blocks::default();
            }
            if is_end {
                return Ok(at);
            }
        }
    }
}

/// False where the line is no event of a spool.
fn add_line(blocks: &mut Blocks, line: &[u8], at: Position) -> bool {
    let stored = line.strip_suffix(b"\n").and_then(|text| str::from_utf8(text).ok());
    let Some((event, source, seq)) = stored.and_then(split_stored) else {
        return false;
    };
    let Ok(facts) = Facts::of(&event) else {
        return false;
    };
    blocks.add(&facts, (at, line.len()), (source, seq));
    true
}

fn push_stored(out: &mut String, event: &str, source: &str, seq: u64) {
    out.push_str(event.strip_suffix('}').unwrap_or(event));
    out.push_str(",\"src\":\"");
    out.push_str(source);
    out.push_str("\",\"seq\":");
    out.push_str(&seq.to_string());
    out.push('}');
}

/// The event, its source and its number. The last `"src"` is ours, whatever the event holds: nothing of it comes after.
pub(super) fn split_stored(line: &str) -> Option<(String, &str, u64)> {
    let (head, tail) = line.strip_suffix('}')?.rsplit_once(",\"src\":\"")?;
    let (source, seq) = tail.split_once("\",\"seq\":")?;
    let seq = seq.parse::<u64>().ok().filter(|seq| *seq <= MAX_NUMBER)?;
    Some((format!("{head}}}"), source, seq))
}

fn check_source(source: &str) -> Result<(), AuditError> {
    let plain = source.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if source.is_empty() || source.len() > MAX_SOURCE_BYTES || !plain {
        return Err(AuditError::NotAnEvent {
            why: "its source is not the id of a spool".into(),
        });
    }
    Ok(())
}

/// Before anything is written: a line that the index cannot take would stand in its way for good.
fn check_numbers(source: &str, first: u64, lines: &[String]) -> Result<(), AuditError> {
    let after = first.checked_add(lines.len() as u64);
    match after.is_some_and(|after| after <= MAX_NUMBER) {
        true => Ok(()),
        false => Err(AuditError::NumberTooLarge {
            source_id: source.to_owned(),
            first,
        }),
    }
}

fn check_event(event: &str) -> Result<(), AuditError> {
    if event.len() > MAX_LINE_BYTES {
        return Err(AuditError::LineTooLong { bytes: event.len() });
    }
    if memchr::memchr(b'\n', event.as_bytes()).is_some() || !event.starts_with("{\"") || !event.ends_with('}') {
        return Err(AuditError::NotAnEvent {
            why: "a line feed inside, or no object".into(),
        });
    }
    Ok(())
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:08}.jsonl"))
}

fn segment_bytes(dir: &Path, segment: u64) -> Result<u64, AuditError> {
    let path = segment_path(dir, segment);
    let meta = std::fs::metadata(&path).map_err(AuditError::io(&path, "reading its size"))?;
    Ok(meta.len())
}

fn list_segments(dir: &Path) -> Result<Vec<u64>, AuditError> {
    let failed = AuditError::io(dir, "listing the audit log");
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        let number = digits.filter(|d| d.len() >= 8 && d.bytes().all(|b| b.is_ascii_digit()));
        segments.extend(number.and_then(|d| d.parse::<u64>().ok()));
    }
    segments.sort_unstable();
    Ok(segments)
}
