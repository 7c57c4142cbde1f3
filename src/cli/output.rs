//! What commands print. Whoever reads it may stop (`postern ctl get all | head -1`), and a disk may be full: std's macros panic
//! then. Those of this file take their names in `cli`; what cannot be written is remembered, and said once by `main`.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::sync::{Mutex, PoisonError};

/// What a shell says of a program that nobody reads any more: 128 and the number of SIGPIPE.
pub const NOBODY_READS: u8 = 141;

/// The first error of standard output. The command goes on without it: what it does must not depend on who reads.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

macro_rules! print {
    ($($words:tt)*) => { $crate::cli::output::write(format_args!($($words)*)) };
}

macro_rules! println {
    ($($words:tt)*) => { $crate::cli::output::write(format_args!("{}\n", format_args!($($words)*))) };
}

macro_rules! eprintln {
    ($($words:tt)*) => { $crate::cli::output::write_error(format_args!("{}\n", format_args!($($words)*))) };
}

pub fn write(text: fmt::Arguments<'_>) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        *failed = io::stdout().write_fmt(text).err();
    }
}

/// Whether what is printed still reaches somebody, as far as is known.
pub fn is_open() -> bool {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).is_none()
}

/// To standard error. Where that cannot be written there is nobody to tell.
pub fn write_error(text: fmt::Arguments<'_>) {
    let _nobody_reads = io::stderr().write_fmt(text);
}

/// How a command that is done otherwise ends.
pub enum Ended {
    /// Everything is written.
    Written,
    /// Whoever read has stopped: nothing is to be said.
    NobodyReads,
    Failed(io::Error),
}

/// Writes out what is left.
pub fn end() -> Ended {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let error = failed.take().or_else(|| io::stdout().flush().err());
    match error {
        None => Ended::Written,
        Some(error) if error.kind() == ErrorKind::BrokenPipe => Ended::NobodyReads,
        Some(error) => Ended::Failed(error),
    }
}
