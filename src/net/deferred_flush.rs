//! Below yamux: a write buffer that leaves the flush to the driver, once per turn.
//!
//! yamux writes a frame's header and body apart and flushes after each frame; through TLS that is two records and a system
//! call each. Here frames of several streams gather and leave in one record.

use super::buffers::{COPY_BYTES, Pooled};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered at most; a frame beyond it waits until the buffer has been written. The same as rustls' own send buffer.
const GATHER_BYTES: usize = COPY_BYTES;

/// Set by the driver at the end of its turn, when flushing is wanted.
#[derive(Debug, Clone, Default)]
pub struct FlushGate(Arc<AtomicBool>);

impl FlushGate {
    pub fn set(&self, open: bool) {
        self.0.store(open, Ordering::Relaxed);
    }

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
}

impl<T: AsyncWrite + Unpin> DeferredFlush<T> {
    pub fn new(io: T, gate: FlushGate) -> Self {
        Self {
            io,
            gathered: Pooled::default(),
            written: 0,
            end: 0,
            gate,
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
        Pin::new(&mut self.io).poll_read(cx, out)
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
        Pin::new(&mut me.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(me.poll_drain(cx))?;
        Pin::new(&mut me.io).poll_shutdown(cx)
    }
}
