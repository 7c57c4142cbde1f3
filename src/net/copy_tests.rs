use super::super::direction::NoTap;
use super::super::stall::HALF_CLOSED_STALL;
use super::*;
use crate::model::ConnectionId;
use crate::net::counted_writes::{Counted, Writes};
use crate::net::test_thread::{block_on, paused};
use crate::telemetry::relays::RelaySpec;
use std::cell::Cell;
use std::future::Future as _;
use std::pin::Pin;
use tokio::io::{DuplexStream, ReadBuf, duplex};

pub(super) fn gauge() -> Arc<Gauge> {
    Gauge::begin(RelaySpec::of_a_test(ConnectionId::from_random(*b"copytest")))
}

/// Nobody ends the relay.
pub(super) fn unending() -> EndSignal {
    let (sender, receiver) = mpsc::channel(ENDS);
    std::mem::forget(sender);
    receiver
}

/// A relay in memory: the far ends of client and upstream, and the relay between them.
pub(super) fn relay<T: Tap>(
    pipe: usize,
    to_upstream: T,
) -> (
    DuplexStream,
    DuplexStream,
    Relay<DuplexStream, DuplexStream, T, Counting>,
) {
    let (client, near_client) = duplex(pipe);
    let (upstream, near_upstream) = duplex(pipe);
    (
        client,
        upstream,
        Relay::new(near_client, near_upstream, to_upstream, Counting::default(), gauge()),
    )
}

/// Messages of ten bytes each.
#[derive(Default)]
pub(super) struct Counting {
    seen: usize,
}

impl Tap for Counting {
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        self.seen += chunk.len();
        Ok(())
    }

    fn missing_to_boundary(&self) -> usize {
        (10 - self.seen % 10) % 10
    }
}

#[test]
fn both_directions_progress_although_neither_end_reads_before_it_has_written() {
    block_on(async {
        let (mut client, mut upstream, mut relay) = relay(1024, NoTap);
        let up = vec![1_u8; 3_000_000];
        let down = vec![2_u8; 3_000_000];
        let client_side = async {
            let (mut read, mut write) = tokio::io::split(&mut client);
            let mut got = vec![0; 3_000_000];
            let (wrote, got_all) = tokio::join!(write.write_all(&up), read.read_exact(&mut got));
            wrote.and(got_all.map(drop)).unwrap();
            got
        };
        let upstream_side = async {
            let mut got = vec![0; 3_000_000];
            upstream.write_all(&down).await.unwrap();
            upstream.read_exact(&mut got).await.unwrap();
            upstream.shutdown().await.unwrap();
            got
        };
        let (got_down, got_up, end) = tokio::join!(client_side, upstream_side, relay.run(unending()));
        assert!(got_down == down && got_up == up);
        assert!(matches!(end, RelayEnd::Finished), "{end:?}");
        assert_eq!(
            relay.counts(),
            Counts {
                to_upstream: 3_000_000,
                to_client: 3_000_000
            }
        );
    });
}

#[test]
fn a_client_that_closes_its_side_still_gets_what_the_upstream_sends() {
    block_on(async {
        let (mut client, mut upstream, mut relay) = relay(64, NoTap);
        let talk = async {
            client.write_all(b"bye").await.unwrap();
            client.shutdown().await.unwrap();
            let mut heard = Vec::new();
            upstream.read_to_end(&mut heard).await.unwrap();
            upstream.write_all(b"farewell").await.unwrap();
            upstream.shutdown().await.unwrap();
            let mut answer = [0; 8];
            client.read_exact(&mut answer).await.unwrap();
            (heard, answer)
        };
        let ((heard, answer), end) = tokio::join!(talk, relay.run(unending()));
        assert_eq!((heard.as_slice(), &answer), (b"bye".as_slice(), b"farewell"));
        assert!(matches!(end, RelayEnd::Finished) && relay.client_closed(), "{end:?}");
    });
}

/// Agrees to what it is shown first, and to nothing after that.
#[derive(Default)]
struct AgreesOnce {
    asked: bool,
}

impl Tap for AgreesOnce {
    fn observe(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn poll_admit(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        match std::mem::replace(&mut self.asked, true) {
            false => Poll::Ready(Ok(())),
            true => Poll::Pending,
        }
    }
}

/// Else a tap that waits for PostgreSQL's answers would wait for answers to what PostgreSQL has not been sent.
#[test]
fn what_a_tap_has_agreed_to_goes_on_although_it_holds_back_what_came_later() {
    block_on(async {
        let (mut client, near_client) = duplex(8192);
        // It takes little at a time, so that the rest waits in the relay.
        let (mut upstream, near_upstream) = duplex(16);
        let taps = (AgreesOnce::default(), Counting::default());
        let mut relay = Relay::new(near_client, near_upstream, taps.0, taps.1, gauge());
        let talk = async {
            client.write_all(&[1; 3000]).await.unwrap();
            let mut agreed = vec![0; 3000];
            upstream.read_exact(&mut agreed[..16]).await.unwrap();
            client.write_all(&[2; 10]).await.unwrap();
            upstream.read_exact(&mut agreed[16..]).await.unwrap();
            assert!(agreed.iter().all(|byte| *byte == 1));
            let more = upstream.read_u8();
            let later = tokio::time::timeout(Duration::from_millis(50), more).await;
            assert!(later.is_err(), "what came later is held back");
        };
        tokio::select! {
            () = talk => {}
            end = relay.run(unending()) => panic!("{end:?}"),
        }
    });
}

/// Lets nothing through until it is told to.
struct Gate(tokio::sync::watch::Receiver<bool>);

impl Tap for Gate {
    fn observe(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        let open = self.0.wait_for(|open| *open);
        tokio::pin!(open);
        open.poll(cx).map(|_| Ok(()))
    }
}

#[test]
fn what_a_tap_holds_back_is_not_passed_on_and_the_other_direction_goes_on() {
    block_on(async {
        let (open, gate) = tokio::sync::watch::channel(false);
        let (mut client, mut upstream, mut relay) = relay(4096, Gate(gate));
        client.write_all(b"select").await.unwrap();
        upstream.write_all(b"notice").await.unwrap();
        let talk = async {
            let mut heard = [0; 6];
            client.read_exact(&mut heard).await.unwrap();
            let early = tokio::time::timeout(Duration::from_millis(50), upstream.read_u8()).await;
            assert!(early.is_err(), "a byte passed the gate");
            open.send(true).unwrap();
            // A pending gate is asked again when the task is polled; its waker here is the one of the last poll.
            client.write_all(b";").await.unwrap();
            let mut passed = [0; 7];
            upstream.read_exact(&mut passed).await.unwrap();
            drop(upstream);
            passed
        };
        let (passed, _end) = tokio::join!(talk, relay.run(unending()));
        assert_eq!(&passed, b"select;");
    });
}

#[test]
fn a_client_that_closed_its_side_and_takes_nothing_does_not_hold_the_upstream_for_ever() {
    paused().block_on(async {
        let (mut client, mut upstream, mut relay) = relay(64, NoTap);
        client.shutdown().await.unwrap();
        // More than the pipe takes; nobody reads at the other end.
        let sends = tokio::spawn(async move { upstream.write_all(&[7; 1_000_000]).await });
        let end = relay.run(unending()).await;
        assert!(matches!(end, RelayEnd::ClientLost(_)), "{end:?}");
        drop(relay);
        assert!(sends.await.unwrap().is_err(), "the upstream is let go");
        drop(client);
    });
}

/// Takes all that is written, as TLS does, and never gets rid of it.
struct Stuffed(DuplexStream);

impl AsyncRead for Stuffed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl AsyncWrite for Stuffed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[test]
fn nor_does_one_whose_tls_has_taken_everything_and_cannot_send_it() {
    paused().block_on(async {
        let (mut client, near_client) = duplex(64);
        let (mut upstream, near_upstream) = duplex(64);
        let mut relay = Relay::new(Stuffed(near_client), near_upstream, NoTap, NoTap, gauge());
        client.shutdown().await.unwrap();
        upstream.write_all(b"the end").await.unwrap();
        let end = tokio::time::timeout(2 * HALF_CLOSED_STALL, relay.run(unending())).await;
        assert!(matches!(end, Ok(RelayEnd::ClientLost(_))), "{end:?}");
    });
}

#[test]
fn a_client_that_closed_its_side_is_not_lost_for_what_a_tap_holds_back() {
    paused().block_on(async {
        let (mut client, near_client) = duplex(64);
        let (mut upstream, near_upstream) = duplex(64);
        let (_open, gate) = tokio::sync::watch::channel(false);
        let mut relay = Relay::new(near_client, near_upstream, NoTap, Gate(gate), gauge());
        client.shutdown().await.unwrap();
        upstream.write_all(b"the end").await.unwrap();
        let end = tokio::time::timeout(2 * HALF_CLOSED_STALL, relay.run(unending())).await;
        assert!(end.is_err(), "{end:?}");
    });
}

#[test]
fn what_was_read_before_a_loss_is_passed_on_first() {
    block_on(async {
        let (mut client, near_client) = duplex(64);
        let lost = Breaking { bytes: b"last message" };
        let mut relay = Relay::new(near_client, lost, NoTap, Counting::default(), gauge());
        let end = relay.run(unending()).await;
        assert!(matches!(end, RelayEnd::UpstreamLost(_)), "{end:?}");
        assert_eq!(relay.to_client_tap().seen, 12);
        drop(relay);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last message");
    });
}

/// Gives some bytes and then breaks, in one turn of its reader.
struct Breaking {
    bytes: &'static [u8],
}

impl AsyncRead for Breaking {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        out.put_slice(self.bytes);
        self.bytes = &[];
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Relays until the gauge shows this.
pub(super) async fn run_until<S: AsyncRead + AsyncWrite + Unpin, TU: Tap, TC: Tap>(
    relay: &mut Relay<S, S, TU, TC>,
    shows: impl Fn(&Gauge) -> bool,
) -> RelayEnd {
    let gauge = relay.gauge.clone();
    let shown = async {
        while !shows(&gauge) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        end = relay.run(unending()) => end,
        () = shown => RelayEnd::Unwatched,
    }
}

#[test]
fn a_client_that_does_not_read_is_what_the_way_to_it_waits_for() {
    block_on(async {
        let (mut client, mut upstream, mut relay) = relay(64, NoTap);
        let gauge = relay.gauge.clone();
        assert_eq!(gauge.to_client.waits_for(), WaitsFor::Source);
        upstream.write_all(&[7; 60]).await.unwrap();
        run_until(&mut relay, |gauge| gauge.to_client.bytes() == 60).await;
        assert_eq!(
            gauge.to_client.waits_for(),
            WaitsFor::Source,
            "all of it has found room"
        );
        upstream.write_all(&[7; 60]).await.unwrap();
        run_until(&mut relay, |gauge| gauge.to_client.waits_for() == WaitsFor::Sink).await;
        assert_eq!((gauge.to_client.bytes(), gauge.to_upstream.bytes()), (64, 0));
        assert_eq!(gauge.to_upstream.waits_for(), WaitsFor::Source);
        client.read_exact(&mut [0; 120][..64]).await.unwrap();
        run_until(&mut relay, |gauge| gauge.to_client.waits_for() == WaitsFor::Source).await;
        assert_eq!(gauge.to_client.bytes(), 120);
    });
}

#[test]
fn a_relay_that_is_open_by_half_shows_which_half_is_done() {
    block_on(async {
        let (mut client, mut upstream, mut relay) = relay(64, NoTap);
        let gauge = relay.gauge.clone();
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        run_until(&mut relay, |gauge| gauge.to_upstream.waits_for() == WaitsFor::Done).await;
        assert_eq!(
            (gauge.to_upstream.bytes(), gauge.to_client.waits_for()),
            (3, WaitsFor::Source)
        );
        upstream.shutdown().await.unwrap();
        let end = relay.run(unending()).await;
        assert!(matches!(end, RelayEnd::Finished), "{end:?}");
        assert_eq!(gauge.to_client.waits_for(), WaitsFor::Done);
        relay.close().await;
        assert_eq!(gauge.state(), "closing");
    });
}

/// Lets nothing pass before it is told to.
#[derive(Clone, Default)]
struct Held(std::rc::Rc<Cell<bool>>);

impl Tap for Held {
    fn observe(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        if self.0.get() {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[test]
fn what_the_audit_trail_holds_back_is_not_said_to_wait_for_anybody_else() {
    block_on(async {
        let tap = Held::default();
        let (mut client, mut upstream, mut relay) = relay(64, tap.clone());
        let gauge = relay.gauge.clone();
        client.write_all(b"select").await.unwrap();
        run_until(&mut relay, |gauge| gauge.to_upstream.waits_for() == WaitsFor::Audit).await;
        assert_eq!(gauge.to_upstream.bytes(), 0);
        tap.0.set(true);
        run_until(&mut relay, |gauge| gauge.to_upstream.waits_for() == WaitsFor::Source).await;
        upstream.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(gauge.to_upstream.bytes(), 6);
    });
}

/// Less than a buffer takes, as from a socket.
const BITE: usize = 4096;

type CountedStream = Counted<DuplexStream>;

/// A relay in memory as [`relay`], and what it writes to its upstream and to its client.
fn counted_relay() -> (
    [DuplexStream; 2],
    [Writes; 2],
    Relay<CountedStream, CountedStream, NoTap, Counting>,
) {
    let (client, near_client) = duplex(1024 * 1024);
    let (upstream, near_upstream) = duplex(1024 * 1024);
    let (near_client, to_client) = Counted::new(near_client, BITE);
    let (near_upstream, to_upstream) = Counted::new(near_upstream, BITE);
    let relay = Relay::new(near_client, near_upstream, NoTap, Counting::default(), gauge());
    ([client, upstream], [to_upstream, to_client], relay)
}

#[test]
fn what_comes_in_one_turn_is_one_write_and_one_flush_although_it_is_read_in_bites() {
    block_on(async {
        let ([mut client, mut upstream], [to_upstream, to_client], mut relay) = counted_relay();
        let (mut asked, mut answered) = (0, 0);
        for (question, answer) in [(20, 60), (3 * BITE, TURN_BYTES), (TURN_BYTES, 1)] {
            client.write_all(&vec![1; question]).await.unwrap();
            asked += question as u64;
            run_until(&mut relay, |gauge| gauge.to_upstream.bytes() == asked).await;
            assert_eq!((to_upstream.take(), to_client.take()), ((question, 1, 1), (0, 0, 0)));
            upstream.write_all(&vec![2; answer]).await.unwrap();
            answered += answer as u64;
            run_until(&mut relay, |gauge| gauge.to_client.bytes() == answered).await;
            assert_eq!((to_upstream.take(), to_client.take()), ((0, 0, 0), (answer, 1, 1)));
        }
    });
}

#[test]
fn a_side_that_says_nothing_is_not_read_again_for_each_word_of_the_other() {
    block_on(async {
        let ([_client, mut upstream], [_, at_client], mut relay) = counted_relay();
        for said in 1..=100 {
            upstream.write_all(b"ten bytes.").await.unwrap();
            run_until(&mut relay, |gauge| gauge.to_client.bytes() == 10 * said).await;
        }
        assert_eq!(at_client.reads(), 1);
    });
}

#[test]
fn more_than_a_buffer_is_a_write_for_each_and_one_flush_when_nothing_is_left() {
    const BUFFERS: usize = 5;
    block_on(async {
        let ([_client, mut upstream], [_, to_client], mut relay) = counted_relay();
        let bytes = (BUFFERS - 1) * TURN_BYTES + 1;
        upstream.write_all(&vec![2; bytes]).await.unwrap();
        run_until(&mut relay, |gauge| gauge.to_client.bytes() == bytes as u64).await;
        assert_eq!(to_client.take(), (bytes, BUFFERS, 1));
    });
}

#[test]
fn a_relay_that_waits_holds_no_buffer_and_makes_no_calls() {
    block_on(async {
        let ([mut client, mut upstream], [to_upstream, to_client], mut relay) = counted_relay();
        client.write_all(&[1; 100]).await.unwrap();
        upstream.write_all(&[2; 100]).await.unwrap();
        run_until(&mut relay, |gauge| {
            (gauge.to_client.bytes(), gauge.to_upstream.bytes()) == (100, 100)
        })
        .await;
        assert!(relay.up.buffer.is_none() && relay.down.buffer.is_none());
        to_upstream.take();
        to_client.take();
        // Polled again, as it is where a waker was meant for something else.
        for _ in 0..10 {
            run_until(&mut relay, |_| true).await;
        }
        assert!(relay.up.buffer.is_none() && relay.down.buffer.is_none());
        assert_eq!((to_upstream.take(), to_client.take()), ((0, 0, 0), (0, 0, 0)));
    });
}
