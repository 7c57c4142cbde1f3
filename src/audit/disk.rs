//! What the spool has on disk: its id, its segments, and how far auth has confirmed them.

use super::ages::Ages;
use super::segment::{Lines, first_of_name, segment_path};
use super::{AuditError, Entropy, MAX_NUMBER};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const ID_FILE: &str = "spool.id";
const ACKNOWLEDGED_FILE: &str = "acknowledged";

#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub first: u64,
    /// The last fsynced number; `first - 1` when there is none.
    pub last: u64,
    /// The fsynced bytes.
    pub bytes: u64,
    pub path: PathBuf,
}

/// Numbers count from 1.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// In the order of their numbers, without a gap between them.
    pub segments: VecDeque<Segment>,
    /// The sum of the segments' bytes.
    pub bytes: u64,
    /// As auth has said; what is written down can be behind, see `Spool::acknowledge`.
    pub acknowledged: u64,
    /// The writer appends to the last segment.
    pub last_is_active: bool,
    pub ages: Ages,
}

/// What `open_dir` found.
pub(super) struct Opened {
    pub id: String,
    pub disk: Disk,
    pub torn_bytes: u64,
}

impl Disk {
    /// The last number that is on disk or was once.
    pub fn last(&self) -> u64 {
        self.segments
            .back()
            .map_or(0, |segment| segment.last)
            .max(self.acknowledged)
    }

    /// Whether the first segment has nothing beyond `number` and gets nothing any more.
    pub fn is_first_done(&self, number: u64) -> bool {
        let active = self.last_is_active && self.segments.len() == 1;
        !active && self.segments.front().is_some_and(|segment| segment.last <= number)
    }

    /// Takes out the segments that nobody needs any more, where everything up to `number` is confirmed.
    pub fn take_done(&mut self, number: u64) -> Vec<PathBuf> {
        let mut done = Vec::new();
        while self.is_first_done(number) {
            let Some(segment) = self.segments.pop_front() else {
                break;
            };
            self.bytes -= segment.bytes;
            done.push(segment.path);
        }
        done
    }
}

/// Opens the directory, or makes it (mode 0700) with an id of 16 random bytes in hex; cuts the torn tail of the last segment.
pub(super) fn open_dir(dir: &Path, entropy: Entropy) -> Result<Opened, AuditError> {
    make_private_dir(dir)?;
    let acknowledged = read_acknowledged(dir)?;
    let firsts = list_segments(dir)?;
    let id = read_or_make_id(dir, entropy, firsts.is_empty() && acknowledged == 0)?;
    let mut disk = Disk {
        acknowledged,
        ..Disk::default()
    };
    let mut torn_bytes = 0;
    for (at, &first) in firsts.iter().enumerate() {
        let path = segment_path(dir, first);
        let (last, bytes) = match firsts.get(at + 1) {
            // Only the last can be torn: a segment is fsynced before the next is begun.
            Some(next) => (next - 1, file_bytes(&path)?),
            None => {
                let (last, bytes, torn) = cut_torn_tail(&path, first)?;
                torn_bytes = torn;
                (last, bytes)
            }
        };
        disk.bytes += bytes;
        disk.segments.push_back(Segment {
            first,
            last,
            bytes,
            path,
        });
    }
    for path in disk.take_done(acknowledged) {
        remove(&path)?;
    }
    match disk.segments.front() {
        Some(segment) if segment.first > acknowledged + 1 => Err(AuditError::corrupt(
            &segment.path,
            0,
            format!(
                "it begins at event {}, but event {} is the next to ship",
                segment.first,
                acknowledged + 1
            ),
        )),
        _ => Ok(Opened { id, disk, torn_bytes }),
    }
}

fn list_segments(dir: &Path) -> Result<Vec<u64>, AuditError> {
    let failed = AuditError::io(dir, "listing the audit spool");
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        firsts.extend(name.to_str().and_then(first_of_name));
    }
    firsts.sort_unstable();
    match firsts.iter().find(|first| !(1..=MAX_NUMBER).contains(*first)) {
        Some(&first) => Err(AuditError::corrupt(
            &segment_path(dir, first),
            0,
            "its name does not say the number of an event",
        )),
        None => Ok(firsts),
    }
}

fn cut_torn_tail(path: &Path, first: u64) -> Result<(u64, u64, u64), AuditError> {
    let mut lines = Lines::open(path, 0, first)?;
    while lines
        .next_event()
        .map_err(AuditError::io(path, "reading a spool segment"))?
        .is_some()
    {}
    let torn = file_bytes(path)?.saturating_sub(lines.offset);
    if torn > 0 {
        let failed = AuditError::io(path, "cutting the torn end of a spool segment");
        let file = OpenOptions::new().write(true).open(path).map_err(&failed)?;
        file.set_len(lines.offset).map_err(&failed)?;
        file.sync_all().map_err(&failed)?;
    }
    Ok((lines.number - 1, lines.offset, torn))
}

fn file_bytes(path: &Path) -> Result<u64, AuditError> {
    let meta = std::fs::metadata(path).map_err(AuditError::io(path, "reading its size"))?;
    Ok(meta.len())
}

fn read_or_make_id(dir: &Path, entropy: Entropy, fresh: bool) -> Result<String, AuditError> {
    let path = dir.join(ID_FILE);
    if fresh && !path.exists() {
        return write_new_id(dir, entropy);
    }
    let id = std::fs::read_to_string(&path).map_err(AuditError::io(&path, "reading the spool's id"))?;
    let id = id.trim_end();
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(AuditError::corrupt(&path, 0, "the spool's id is not 32 hex digits"));
    }
    Ok(id.to_owned())
}

pub(super) fn write_new_id(dir: &Path, entropy: Entropy) -> Result<String, AuditError> {
    let mut random = [0; 16];
    entropy(&mut random);
    let id = data_encoding::HEXLOWER.encode(&random);
    replace_file(&dir.join(ID_FILE), &id)?;
    Ok(id)
}

fn read_acknowledged(dir: &Path) -> Result<u64, AuditError> {
    let path = dir.join(ACKNOWLEDGED_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .trim_end()
            .parse::<u64>()
            .ok()
            .filter(|number| *number <= MAX_NUMBER)
            .ok_or_else(|| AuditError::corrupt(&path, 0, "it is not the number of an event")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(AuditError::io(&path, "reading what auth has confirmed")(e)),
    }
}

pub(super) fn write_acknowledged(dir: &Path, number: u64) -> Result<(), AuditError> {
    debug_assert!(!dir.as_os_str().is_empty(), "a spool in memory has no directory");
    replace_file(&dir.join(ACKNOWLEDGED_FILE), &number.to_string())
}

/// Deletes a segment; one that is gone already is as good.
pub(super) fn remove(path: &Path) -> Result<(), AuditError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(AuditError::io(path, "deleting a confirmed spool segment")(e))
        }
        _ => Ok(()),
    }
}

/// Writes a small file so that a crash leaves the old one or the new one.
fn replace_file(path: &Path, text: &str) -> Result<(), AuditError> {
    let failed = AuditError::io(path, "writing");
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(&failed)?;
    file.write_all(format!("{text}\n").as_bytes()).map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    std::fs::rename(&temporary, path).map_err(&failed)?;
    sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(&failed)
}

pub(super) fn make_private_dir(dir: &Path) -> Result<(), AuditError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(AuditError::io(dir, "making the audit directory"))
}

/// A new segment: the name, too, is on disk before anything relies on it.
pub(super) fn create_private(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
