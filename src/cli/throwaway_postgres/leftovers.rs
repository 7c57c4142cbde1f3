//! What a `kill -9` leaves: a PostgreSQL without a parent, and its directory. The record says which; the next start removes them.

use super::directory::{DIRECTORY_PREFIX, file_error};
use super::{FAST_STOP_POLLS, PostgresError, QUIT_POLLS, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A record is two short lines.
const MAX_RECORD_BYTES: u64 = 8192;
/// Command lines are of any length; the three arguments that count are at its beginning.
const MAX_COMMAND_LINE_BYTES: u64 = 8192;
/// The kernel ends a process that was killed within milliseconds, unless the disk hangs.
const KILL_POLLS: u32 = 40;

/// Removes what the file `record` names, and the record: ends the process if it is still a `postgres` on that data
/// directory, then removes the directory. Returns the directory that was removed; `None` where there is nothing to do.
///
/// The caller makes sure that the PostgreSQL of the record is not in use, by the lock of its own data directory.
///
/// # Errors
/// The record cannot be read, or the directory cannot be removed; the record is kept then.
pub fn sweep_leftovers(record: &Path) -> Result<Option<PathBuf>, PostgresError> {
    let mut text = String::new();
    match File::open(record).and_then(|file| file.take(MAX_RECORD_BYTES).read_to_string(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(file_error("read", record))?,
    };
    let mut lines = text.lines();
    let directory = lines.next().map(PathBuf::from).filter(|path| is_ours(path));
    if let Some(directory) = &directory {
        let recorded = lines.next().and_then(|line| line.parse().ok());
        end_server(directory, recorded);
        std::fs::remove_dir_all(directory).map_err(file_error("remove", directory))?;
    }
    std::fs::remove_file(record).map_err(file_error("remove", record))?;
    Ok(directory)
}

/// Whether `path` is a directory as `prepare` makes them: a record that was tampered with removes nothing else.
fn is_ours(path: &Path) -> bool {
    let named = path
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(DIRECTORY_PREFIX.as_bytes()));
    let plain = path
        .components()
        .all(|part| !matches!(part, std::path::Component::ParentDir));
    named && plain && path.is_absolute() && std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// Ends the server of `directory`: the recorded process, or the one that PostgreSQL itself wrote down, where we were killed
/// between starting it and recording it.
fn end_server(directory: &Path, recorded: Option<i32>) {
    let data = directory.join("data");
    let written = std::fs::read_to_string(data.join("postmaster.pid"))
        .ok()
        .and_then(|text| text.lines().next()?.trim().parse().ok());
    let Some(pid) = [recorded, written]
        .into_iter()
        .flatten()
        .find(|pid| is_server(*pid, &data))
    else {
        return;
    };
    let steps = [
        (Signal::SIGINT, FAST_STOP_POLLS),
        (Signal::SIGQUIT, QUIT_POLLS),
        (Signal::SIGKILL, KILL_POLLS),
    ];
    for (signal, polls) in steps {
        // It fails where the process has ended in the meantime, which the next line sees.
        let _ = kill(Pid::from_raw(pid), signal);
        if poll(polls, || !is_server(pid, &data)) {
            return;
        }
    }
}

/// Whether process `pid` is `…/postgres -D data`: process ids are used again, and another program must not be hit.
fn is_server(pid: i32, data: &Path) -> bool {
    if pid <= 1 {
        return false;
    }
    let mut line = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND_LINE_BYTES).read_to_end(&mut line));
    let mut arguments = line.split(|byte| *byte == 0);
    read.is_ok()
        && arguments.next().is_some_and(|program| program.ends_with(b"/postgres"))
        && arguments.next() == Some(b"-D")
        && arguments.next() == Some(data.as_os_str().as_bytes())
}
