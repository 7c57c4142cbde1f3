//! What can go wrong with the audit trail.

use super::{MAX_LINE_BYTES, MAX_NUMBER};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// From `enter_synced` it means: not known to be on disk; the event is kept in memory and may still be written.
    #[error("the audit spool is blocked: {why}; free the disk or bring auth back, it goes on by itself")]
    Blocked { why: String },
    #[error(
        "the thread that writes the audit spool failed, and this node ends: {why}; repeat on another node, or on this one when it was \
         started again"
    )]
    WriterFailed { why: String },
    #[error("the audit spool is closed, as the node is going down")]
    Closed,
    #[error(
        "an event of {bytes} bytes was refused; at most {MAX_LINE_BYTES} are stored, and a longer text has to come in parts"
    )]
    LineTooLong { bytes: usize },
    #[error("an event was refused, as it is not one line of JSON: {why}")]
    NotAnEvent { why: String },
    #[error(
        "the audit spool {source_id} continues at event {expected}, but sent {got}: events between them are missing; restore the log's segments from a backup, or save the agent's spool directory elsewhere and restart the agent, which begins a new spool"
    )]
    Gap { source_id: String, expected: u64, got: u64 },
    #[error(
        "events from number {first} on were refused; the spool {source_id} can have none beyond {MAX_NUMBER}: save the agent's spool directory elsewhere and restart the agent, which begins a new spool"
    )]
    NumberTooLarge { source_id: String, first: u64 },
    #[error(
        "event {claimed} was acknowledged, but the spool {} ends at {last}: it was restored from an old copy; save the directory elsewhere and restart, which begins a new spool",
        dir.display()
    )]
    AcknowledgedAhead { dir: PathBuf, claimed: u64, last: u64 },
    #[error("a batch of {bytes} bytes was refused; at most {max} are appended at once: send fewer events")]
    BatchTooLarge { bytes: usize, max: usize },
    #[error("{} is damaged at byte {offset}: {why}; save its directory elsewhere for examination, then restart", path.display())]
    Corrupt { path: PathBuf, offset: u64, why: String },
    #[error("the audit index {} failed: {detail}; it is derived: stop the node, delete it, and the next start makes it anew", path.display())]
    Index { path: PathBuf, detail: String },
    #[error("{}: {what}: {detail}; check the disk's space, its health and the directory's permissions", path.display())]
    Io {
        path: PathBuf,
        what: &'static str,
        detail: String,
    },
    #[error("a question for {asked} events was refused; at most {max} are answered at once: narrow the time")]
    QueryTooLarge { asked: usize, max: usize },
    #[error("the answer has {bytes} bytes; at most {max} are given at once: narrow the time or lower the limit")]
    AnswerTooLarge { bytes: u64, max: u64 },
}

impl AuditError {
    /// For `map_err`: what was being done to which file.
    pub(super) fn io(path: &Path, what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |e| Self::Io {
            path: path.to_owned(),
            what,
            detail: e.to_string(),
        }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, why: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            why: why.into(),
        }
    }
}
