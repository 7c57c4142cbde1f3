//! A pool of buffers per thread, so that an idle connection holds none.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// One read of a socket under TLS: larger than rustls' own 4 KiB bites, two full TLS records.
pub const READ_BYTES: usize = 32 * 1024;
/// What is gathered before it is written. Larger ones gained nothing in measurement.
pub const COPY_BYTES: usize = 64 * 1024;
/// The body of a frame of yamux that is, with its header, one full record of TLS (RFC 8446, 5.1).
pub const FRAME_BODY_BYTES: usize = 16 * 1024 - YAMUX_HEADER_BYTES;
const YAMUX_HEADER_BYTES: usize = 12;
/// One turn of a copy: in a tunnel, frames that fill what is gathered below yamux.
pub const TURN_BYTES: usize = COPY_BYTES / (16 * 1024) * FRAME_BODY_BYTES;
/// What a copy passes on in one direction, and a tunnel's driver reads, before the others of its thread, and their sockets, have a turn: a third of a millisecond's work, and one look at
/// the sockets more.
pub const FAIR_BYTES: usize = 2 * COPY_BYTES;
/// Buffers kept per thread and size; beyond it they are freed. 64 of each size are at most 6 MiB per thread.
const KEPT: usize = 64;

thread_local! {
    static READS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static COPIES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to the pool of the thread it is dropped on. Always initialised, so no byte of it is undefined;
/// what an earlier user left in it is overwritten before it is read.
#[derive(Debug, Default)]
pub struct Pooled(Box<[u8]>);

impl Pooled {
    pub fn read_size() -> Self {
        Self::take(&READS, READ_BYTES)
    }

    pub fn copy_size() -> Self {
        Self::take(&COPIES, COPY_BYTES)
    }

    fn take(pool: &'static std::thread::LocalKey<RefCell<Vec<Box<[u8]>>>>, bytes: usize) -> Self {
        let kept = pool.with(|pool| pool.borrow_mut().pop());
        Self(kept.unwrap_or_else(|| vec![0; bytes].into_boxed_slice()))
    }

    /// True of the value that `default` gives, which holds no memory.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let pool = match self.0.len() {
            READ_BYTES => &READS,
            COPY_BYTES => &COPIES,
            _ => return,
        };
        let buffer = std::mem::take(&mut self.0);
        // While a thread ends its pool may be gone already; the buffer is then simply freed.
        let _gone = pool.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(buffer);
            }
        });
    }
}

impl Deref for Pooled {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
