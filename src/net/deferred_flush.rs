//! Below yamux: a write buffer that leaves the flush to the driver, once per turn.
//!
//! yamux writes a frame's header and body apart and flushes after each frame; through TLS that is two records and a system
//! call each. Here frames of several streams gather and leave in one record.
//!
//! yamux owns what it writes to and polls everything that it has to get at it. So the driver holds the same stream beside it, and a
//! flush is not one more round through all of yamux.

use super::buffers::{COPY_BYTES, Pooled};
use super::turns::Turn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered at most; a frame beyond it waits until the buffer has been written. The same as rustls' own send buffer.
const GATHER_BYTES: usize = COPY_BYTES;

/// One stream, whichever of the two handles is used. Both are polled by one task, so the lock is never waited for.
#[derive(Debug)]
pub struct DeferredFlush<T>(Arc<Mutex<Gathering<T>>>);

#[derive(Debug)]
struct Gathering<T> {
    io: T,
    /// Of the pool, and only while there is something in it. One that grew and shrank with each turn cost a tenth of the CPU of a
    /// download in pages that were given back and faulted in again.
    gathered: Pooled,
    written: usize,
    end: usize,
    unflushed: bool,
    reads: Turn,
}

impl<T> DeferredFlush<T> {
    /// One handle for yamux, and one for its driver.
    pub fn new(io: T) -> (Self, Self) {
        let gathering = Arc::new(Mutex::new(Gathering {
            io,
            gathered: Pooled::default(),
            written: 0,
            end: 0,
            unflushed: false,
            reads: Turn::default(),
        }));
        (Self(gathering.clone()), Self(gathering))
    }

    /// A panic below is the end of the connection, whatever is left here.
    fn lock(&self) -> MutexGuard<'_, Gathering<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsyncWrite + Unpin> DeferredFlush<T> {
    /// The driver's turn is over: what was gathered in it leaves, in one flush.
    pub fn poll_flush_turn(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut me = self.lock();
        if me.unflushed {
            ready!(me.poll_drain(cx))?;
            ready!(Pin::new(&mut me.io).poll_flush(cx))?;
            me.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self.lock();
        // The relays of this thread have a turn before more is read for them.
        ready!(me.reads.poll(cx));
        let before = out.filled().len();
        ready!(Pin::new(&mut me.io).poll_read(cx, out))?;
        me.reads.passes(out.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for DeferredFlush<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self.lock();
        if me.written > 0 || me.end + bytes.len() > GATHER_BYTES {
            ready!(me.poll_drain(cx))?;
        }
        if me.gathered.is_none() {
            me.gathered = Pooled::copy_size();
        }
        me.unflushed = true;
        let count = bytes.len().min(GATHER_BYTES);
        me.gathered[me.end..me.end + count].copy_from_slice(&bytes[..count]);
        me.end += count;
        Poll::Ready(Ok(count))
    }

    /// Of each frame: not now.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self.lock();
        ready!(me.poll_drain(cx))?;
        Pin::new(&mut me.io).poll_shutdown(cx)
    }
}
