//! Below yamux: a write buffer that leaves the flush to the driver, once per turn.
//!
//! yamux writes a frame's header and body apart and flushes after each frame; through TLS that is two records and a system
//! call each. Here frames of several streams gather and leave in one record.

use super::buffers::{COPY_BYTES, Pooled};
use super::turns::Turn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered at most; a frame beyond it waits until the buffer has been written. The same as rustls' own send buffer.
const GATHER_BYTES: usize = COPY_BYTES;

/// What the driver and the buffer below yamux tell each other. Both are polled by one task.
#[derive(Debug, Clone, Default)]
pub struct FlushGate(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_open: AtomicBool,
    is_awaited: AtomicBool,
}

impl FlushGate {
    /// The driver's turn begins.
    pub fn begin(&self) {
        self.0.is_open.store(false, Ordering::Relaxed);
    }

    /// The driver has done all work of its turn.
    pub fn open(&self) {
        self.0.is_open.store(true, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::Relaxed)
    }

    /// Something has been written and not been flushed.
    pub fn is_awaited(&self) -> bool {
        self.0.is_awaited.load(Ordering::Relaxed)
    }

    fn awaits(&self, flush: bool) {
        self.0.is_awaited.store(flush, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct DeferredFlush<T> {
    io: T,
    /// Of the pool, and only while there is something in it. One that grew and shrank with each turn cost a tenth of the CPU of a
    /// download in pages that were given back and faulted in again.
    gathered: Pooled,
    written: usize,
    end: usize,
    gate: FlushGate,
    reads: Turn,
}

impl<T: AsyncWrite + Unpin> DeferredFlush<T> {
    pub fn new(io: T, gate: FlushGate) -> Self {
        Self {
            io,
            gathered: Pooled::default(),
            written: 0,
            end: 0,
            gate,
            reads: Turn::default(),
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.end {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.written..self.end]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.gathered = Pooled::default();
        (self.written, self.end) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for DeferredFlush<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The relays of this thread have a turn before more is read for them.
        ready!(self.reads.poll(cx));
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        self.reads.passes(out.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for DeferredFlush<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.written > 0 || me.end + bytes.len() > GATHER_BYTES {
            ready!(me.poll_drain(cx))?;
        }
        if me.gathered.is_none() {
            me.gathered = Pooled::copy_size();
        }
        me.gate.awaits(true);
        let count = bytes.len().min(GATHER_BYTES);
        me.gathered[me.end..me.end + count].copy_from_slice(&bytes[..count]);
        me.end += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if !me.gate.is_open() {
            return Poll::Ready(Ok(()));
        }
        ready!(me.poll_drain(cx))?;
        ready!(Pin::new(&mut me.io).poll_flush(cx))?;
        me.gate.awaits(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(me.poll_drain(cx))?;
        Pin::new(&mut me.io).poll_shutdown(cx)
    }
}
