//! For tests: a peer that hangs after so many bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket of which only so many bytes get out; after them its owner hangs.
pub struct Stops<T> {
    pub io: T,
    pub left: usize,
    pub written: usize,
}

impl<T> Stops<T> {
    pub fn after(left: usize, io: T) -> Self {
        Self { io, left, written: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stops<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, out)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stops<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = bytes.len().min(self.left);
        if most == 0 {
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &bytes[..most]))?;
        self.left -= written;
        self.written += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
