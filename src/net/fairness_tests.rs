//! What has no end leaves its thread to the others.

use super::buffers::FAIR_BYTES;
use super::copy::{ENDS, Relay};
use super::deferred_flush::DeferredFlush;
use super::direction::NoTap;
use super::socket::{self, Listener};
use super::test_thread::block_on;
use crate::model::ConnectionId;
use crate::telemetry::relays::{Gauge, RelaySpec};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, duplex, join, repeat, sink};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Asks over loopback, and how much is copied meanwhile is what a few turns of one task pass on for each question.
async fn sockets_are_looked_at(copied: impl Fn() -> u64) {
    const QUESTIONS: u64 = 20;
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut near = socket::connect("127.0.0.1", port).await.unwrap();
    let mut far = socket::adopt(listener.accept().await.unwrap().0).unwrap();
    let before = copied();
    for _ in 0..QUESTIONS {
        near.write_all(b"?").await.unwrap();
        // Less than there was room for: tokio reads from this socket again when it has been looked at, and not before.
        assert_eq!(far.read(&mut [0; 2]).await.unwrap(), 1);
    }
    let meanwhile = copied() - before;
    assert!(meanwhile > 0, "the copy goes on");
    // A byte over loopback is there when the sockets are looked at next, or once more.
    let most = QUESTIONS * 4 * FAIR_BYTES as u64;
    assert!(meanwhile <= most, "{meanwhile} bytes were copied meanwhile");
}

/// A relay of one direction on this thread, and how far it is.
fn copies(
    from: impl AsyncRead + Unpin + Send + 'static,
    to: impl AsyncWrite + Unpin + Send + 'static,
) -> (JoinHandle<()>, Arc<Gauge>) {
    let gauge = Gauge::begin(RelaySpec::of_a_test(ConnectionId::from_random(*b"fairness")));
    let shown = gauge.clone();
    let copy = tokio::task::spawn_local(async move {
        let (nothing, _keep) = duplex(1);
        let mut relay = Relay::new(join(from, sink()), join(nothing, to), NoTap, NoTap, shown);
        let (_keep_signal, ends) = mpsc::channel(ENDS);
        relay.run(ends).await;
    });
    (copy, gauge)
}

#[test]
fn a_copy_without_end_leaves_its_thread_to_the_sockets_of_others() {
    block_on(async {
        let (copy, gauge) = copies(repeat(b'x'), sink());
        sockets_are_looked_at(|| gauge.to_upstream.bytes()).await;
        copy.abort();
    });
}

#[test]
fn two_copies_without_end_that_wake_each_other_leave_their_thread_to_the_sockets_of_others() {
    block_on(async {
        let (near, far) = duplex(FAIR_BYTES / 2);
        let (first, gauge) = copies(repeat(b'x'), near);
        let (second, _) = copies(far, sink());
        sockets_are_looked_at(|| gauge.to_upstream.bytes()).await;
        first.abort();
        second.abort();
    });
}

#[test]
fn a_driver_reads_so_much_in_a_turn_and_goes_on_in_the_next() {
    block_on(async {
        let (mut io, _driver) = DeferredFlush::new(join(repeat(b'x'), sink()));
        let turn = async |io: &mut DeferredFlush<_>| {
            let (mut bytes, mut piece) = (0, vec![0; 16 * 1024]);
            poll_fn(|cx| {
                loop {
                    let mut read = ReadBuf::new(&mut piece);
                    match Pin::new(&mut *io).poll_read(cx, &mut read) {
                        Poll::Ready(read_it) => read_it.unwrap(),
                        Poll::Pending => return Poll::Ready(bytes),
                    }
                    bytes += read.filled().len();
                }
            })
            .await
        };
        assert_eq!(turn(&mut io).await, FAIR_BYTES);
        assert_eq!(
            turn(&mut io).await,
            0,
            "until the sockets have been looked at, whoever polls it"
        );
        tokio::task::yield_now().await;
        assert_eq!(turn(&mut io).await, FAIR_BYTES);
    });
}
