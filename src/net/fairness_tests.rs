//! What has no end leaves its thread to the others.

use super::buffers::FAIR_BYTES;
use super::copy::{ENDS, NoTap, Relay};
use super::deferred_flush::{DeferredFlush, FlushGate};
use super::socket::{self, Listener};
use super::test_thread::block_on;
use crate::model::ConnectionId;
use crate::telemetry::relays::{Gauge, RelaySpec};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, duplex, join, repeat, sink};
use tokio::sync::mpsc;

#[test]
fn a_copy_without_end_leaves_its_thread_to_the_sockets_of_others() {
    const QUESTIONS: u64 = 20;
    block_on(async {
        let gauge = Gauge::begin(RelaySpec::of_a_test(ConnectionId::from_random(*b"fairness")));
        let (nothing, _keep) = duplex(1);
        let (endless, drain) = (join(repeat(b'x'), sink()), join(nothing, sink()));
        let mut relay = Relay::new(endless, drain, NoTap, NoTap, gauge.clone());
        let (_keep_signal, ends) = mpsc::channel(ENDS);
        let copy = tokio::task::spawn_local(async move { relay.run(ends).await });

        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut near = socket::connect("127.0.0.1", port).await.unwrap();
        let mut far = socket::adopt(listener.accept().await.unwrap().0).unwrap();
        let before = gauge.to_upstream.bytes();
        for _ in 0..QUESTIONS {
            near.write_all(b"?").await.unwrap();
            far.read_exact(&mut [0]).await.unwrap();
        }
        let meanwhile = gauge.to_upstream.bytes() - before;
        assert!(meanwhile > 0, "the copy goes on");
        // A byte over loopback is there when the sockets are looked at next, or once more.
        let most = QUESTIONS * 4 * FAIR_BYTES as u64;
        assert!(meanwhile <= most, "{meanwhile} bytes were copied meanwhile");
        copy.abort();
    });
}

#[test]
fn a_driver_reads_so_much_in_a_turn_and_goes_on_in_the_next() {
    block_on(async {
        let gate = FlushGate::default();
        let mut io = DeferredFlush::new(join(repeat(b'x'), sink()), gate.clone());
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
        gate.begin();
        assert_eq!(turn(&mut io).await, FAIR_BYTES);
        assert_eq!(turn(&mut io).await, 0);
        gate.begin();
        assert_eq!(turn(&mut io).await, FAIR_BYTES);
    });
}
