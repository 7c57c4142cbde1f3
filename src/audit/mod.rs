//! What happened, written down so that nothing is lost in silence.
//!
//! ```text
//!  agent, proxy                                          auth
//!  relay ──▶ EventBuilder ──▶ Spool ─────── ship ───────▶ AuditLog ──────────▶ index.sqlite ◀── Query
//!            one JSON line    memory (8 MiB)  batches     00000001.jsonl       (derived, can be
//!                             → segment files  ◀─────────  append + fsync      made anew)
//!                               + fsync      acknowledged
//! ```
//!
//! The spool takes an event before the bytes that it describes go on, has it on disk within a second (or at once, for
//! whoever waits), numbers it and keeps it until the log has confirmed it. Shipping is at least once; the log knows the last
//! number of every spool and so stores each event once. Only what is fsynced is shipped: a number that a crash could give to
//! another event never leaves the node. A spool that was set back all the same is found out before it ships (`Spool::meet`).

mod ages;
mod disk;
mod error;
mod event;
mod event_kind;
mod facts;
mod index;
mod json_text;
mod log;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
pub mod memory_spool;
mod query;
mod recent;
mod segment;
mod spool;
mod spool_shared;
#[cfg(test)]
mod spool_tests;
mod spool_writer;

pub use error::AuditError;
pub use event::{EventBuilder, EventContext, FieldValue, Parameter, SessionFields, SessionIdentity};
pub use event_kind::EventKind;
pub use log::AuditLog;
pub use query::{MAX_QUERY_EVENTS, Query};
pub use spool::{Batch, Full, Recovered, Spool, SpoolLimits, SpoolState, WRITER_THREAD};

/// Where random bytes come from: `pki::entropy::fill`.
pub type Entropy = fn(&mut [u8]);

/// One event. A part of a text has at most 64 KiB and every byte of it may be a control character, which JSON writes in six;
/// with the envelope that stays below this. A line of a log must fit into memory many times over.
pub const MAX_LINE_BYTES: usize = 512 * 1024;

/// The last number of an event that is taken: the largest integer of the log's index. No spool reaches it; a node that
/// claims more would leave the log with a line that cannot be indexed.
const MAX_NUMBER: u64 = i64::MAX as u64;
