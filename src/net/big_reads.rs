//! Under rustls: one large read of the socket, of which rustls takes its 4 KiB bites from memory.

use super::buffers::{Pooled, READ_BYTES};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug)]
pub struct BigReads<T> {
    io: T,
    buffer: Pooled,
    start: usize,
    end: usize,
    /// What the TLS handshake over it took, once it is done.
    handshake: Duration,
}

impl<T> BigReads<T> {
    pub fn new(io: T) -> Self {
        Self {
            handshake: Duration::ZERO,
            io,
            buffer: Pooled::default(),
            start: 0,
            end: 0,
        }
    }

    pub fn get_ref(&self) -> &T {
        &self.io
    }

    pub fn handshake_took(&mut self, time: Duration) {
        self.handshake = time;
    }

    /// A round trip, and what both sides have computed for it.
    pub fn handshake(&self) -> Duration {
        self.handshake
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for BigReads<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.start == me.end {
            if out.remaining() >= READ_BYTES {
                return Pin::new(&mut me.io).poll_read(cx, out);
            }
            let mut buffer = Pooled::read_size();
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut me.io).poll_read(cx, &mut read))?;
            me.end = read.filled().len();
            me.start = 0;
            me.buffer = buffer;
        }
        let count = out.remaining().min(me.end - me.start);
        out.put_slice(&me.buffer[me.start..me.start + count]);
        me.start += count;
        if me.start == me.end {
            me.buffer = Pooled::default();
            (me.start, me.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for BigReads<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
