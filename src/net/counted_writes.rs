//! For tests: how often the layer above writes, flushes and tries to read, and bites of what it reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a test keeps of a stream that it has given away.
#[derive(Debug, Clone, Default)]
pub struct Writes(Arc<[AtomicUsize; 4]>);

impl Writes {
    fn add(&self, place: usize, count: usize) {
        self.0[place].fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes, writes and flushes since it was asked last.
    pub fn take(&self) -> (usize, usize, usize) {
        let [bytes, writes, flushes, _] = &*self.0;
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(bytes), take(writes), take(flushes))
    }

    /// How often somebody has tried to read, in all.
    pub fn reads(&self) -> usize {
        self.0[3].load(Ordering::Relaxed)
    }
}

/// A stream that counts. A read gives `bite` bytes at most.
pub struct Counted<T> {
    io: T,
    bite: usize,
    writes: Writes,
}

impl<T> Counted<T> {
    pub fn new(io: T, bite: usize) -> (Self, Writes) {
        let writes = Writes::default();
        let counted = Self {
            io,
            bite,
            writes: writes.clone(),
        };
        (counted, writes)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.writes.add(3, 1);
        let mut bite = ReadBuf::new(out.initialize_unfilled_to(self.bite.min(out.remaining())));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut bite))?;
        let count = bite.filled().len();
        out.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // One that cannot be taken counts as well: it is a system call all the same.
        self.writes.add(1, 1);
        let count = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.writes.add(0, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.add(2, 1);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
