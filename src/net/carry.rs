//! A copy both ways of what is nobody's session: the connections of nodes and of people to auth that a proxy carries. An agent's
//! whole audit trail comes this way.

use super::direction::{Broken, Direction, NoTap};
use super::stall::Stall;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// Copies until either side has ended, which is the end of both; what it had sent has reached the other by then, or the other takes
/// nothing any more.
///
/// # Errors
/// The end was no end of file.
pub async fn carry(
    mut one: impl AsyncRead + AsyncWrite + Unpin,
    mut other: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut there, mut back) = (Way::new(), Way::new());
    poll_fn(|cx| {
        for ended in [
            there.poll(cx, &mut one, &mut other),
            back.poll(cx, &mut other, &mut one),
        ] {
            if ended.is_ready() {
                return ended;
            }
        }
        match there.direction.done && back.direction.done {
            true => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            false => Poll::Pending,
        }
    })
    .await
}

struct Way {
    direction: Direction<NoTap>,
    stall: Stall,
}

impl Way {
    fn new() -> Self {
        Self {
            direction: Direction::new(NoTap, false),
            stall: Stall::default(),
        }
    }

    /// Ready when who is read has ended. One that takes no more may still have its reason to tell, so the other way goes on; it
    /// ends with it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.direction.done {
            return Poll::Pending;
        }
        match self.direction.advance(cx, from, to) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::Read(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Err(Broken::Tap(refusal))) => Poll::Ready(Err(io::Error::other(refusal))),
            Poll::Ready(Err(Broken::Write(_))) => {
                self.direction.end();
                Poll::Pending
            }
            Poll::Pending if self.direction.has_read_all() => self.stall.poll(self.direction.total, cx).map(Err),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::counted_writes::Counted;
    use super::super::stall::HALF_CLOSED_STALL;
    use super::super::test_thread::{block_on, paused};
    use super::*;
    use std::pin::Pin;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, duplex};

    const BYTES: usize = 1 << 20;

    #[test]
    fn what_is_carried_goes_on_in_large_pieces_and_is_flushed_when_there_is_no_more() {
        block_on(async {
            let ((mut node, near_node), (auth, near_auth)) = (duplex(BYTES), duplex(BYTES));
            let ((near_node, _), (near_auth, writes)) =
                (Counted::new(near_node, 16 * 1024), Counted::new(near_auth, usize::MAX));
            let (mut from_auth, mut auth) = (vec![0; BYTES], auth);
            let talk = async {
                node.write_all(&vec![1; BYTES]).await.unwrap();
                auth.read_exact(&mut from_auth).await.unwrap();
                auth.write_all(b"stored").await.unwrap();
                let mut answer = [0; 6];
                node.read_exact(&mut answer).await.unwrap();
                answer
            };
            tokio::select! {
                answer = talk => assert_eq!(&answer, b"stored"),
                ended = carry(near_node, near_auth) => panic!("{ended:?}"),
            }
            let (bytes, count, flushes) = writes.take();
            assert_eq!(bytes, BYTES);
            assert!(
                count <= 20 && (1..=count).contains(&flushes),
                "{count} writes, {flushes} flushes"
            );
        });
    }

    /// Takes nothing any more, as a socket whose other end is closed.
    struct Deaf<T>(T);

    impl<T: AsyncRead + Unpin> AsyncRead for Deaf<T> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, out)
        }
    }

    impl<T: Unpin> AsyncWrite for Deaf<T> {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn one_that_takes_no_more_is_heard_to_its_end() {
        block_on(async {
            let ((mut node, near_node), (mut auth, near_auth)) = (duplex(64), duplex(64));
            node.write_all(b"more").await.unwrap();
            auth.write_all(b"no, because").await.unwrap();
            drop(auth);
            carry(near_node, Deaf(near_auth)).await.unwrap();
            let mut heard = Vec::new();
            node.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"no, because");
        });
    }

    #[test]
    fn two_that_take_no_more_are_both_gone() {
        block_on(async {
            let ((mut node, near_node), (mut auth, near_auth)) = (duplex(64), duplex(64));
            node.write_all(b"more").await.unwrap();
            auth.write_all(b"more").await.unwrap();
            carry(Deaf(near_node), Deaf(near_auth))
                .await
                .expect_err("they are gone");
        });
    }

    #[test]
    fn one_that_takes_nothing_does_not_hold_a_connection_whose_other_side_has_ended() {
        paused().block_on(async {
            let ((_node, near_node), (mut auth, near_auth)) = (duplex(8), duplex(64));
            auth.write_all(b"more than the other's pipe has room for")
                .await
                .unwrap();
            drop(auth);
            let carried = tokio::time::timeout(2 * HALF_CLOSED_STALL, carry(near_node, near_auth)).await;
            let error = carried.expect("it ends").expect_err("not all has arrived");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn either_side_ends_both_and_what_it_said_before_has_arrived() {
        for closes_first in [0, 1] {
            block_on(async {
                let ((left, near_left), (right, near_right)) = (duplex(64), duplex(64));
                let mut ends = [left, right];
                ends[closes_first].write_all(b"goodbye").await.unwrap();
                ends[closes_first].shutdown().await.unwrap();
                carry(near_left, near_right).await.unwrap();
                let mut heard = Vec::new();
                ends[1 - closes_first].read_to_end(&mut heard).await.unwrap();
                assert_eq!(heard, b"goodbye");
            });
        }
    }
}
