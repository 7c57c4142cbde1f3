//! Many streams on one connection: yamux behind our own type.
//!
//! What yamux leaves to its user is done here (see docs/decisions/0004-yamux.md):
//!
//! - **Streams are counted** below yamux' own limit, because exceeding that limit does not fail the open but kills the
//!   connection with every session on it.
//! - **One driver** polls the connection, always: a connection moves only while somebody does. It flushes once per turn.
//! - **A lost connection is an error** on its streams, not an end of file, so that a reader can tell a peer that was done
//!   from a peer that is gone.

use super::Stream;
use super::buffers::FRAME_BODY_BYTES;
use super::deferred_flush::DeferredFlush;
use super::mux_end::{End, OverAtTheEnd, Waits};
use super::rare::Rare;
use crate::telemetry::tunnels::{Gauge, OpenStream};
use futures::AsyncWrite as _;
use futures::future::{AbortHandle, Aborted, abortable};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// Streams that one side opens on one connection. A stream is a client connection. An agent on two cores has one tunnel to a proxy, and this
/// many sessions through it: more than half of what a proxy's port takes.
pub const STREAMS_MAX: usize = 8192;
/// yamux' own limit counts the streams of both sides, and those whose end has not been seen by both.
const YAMUX_STREAMS_MAX: usize = 4 * STREAMS_MAX;
/// Opens that wait for the driver. They are taken on its next turn.
const OPENS_QUEUED: usize = 64;
/// Inbound streams that wait to be taken. Beyond it a stream is reset: its opener reads an error and can go elsewhere.
pub const INBOUND_QUEUED: usize = 256;

/// What a COPY should reach over a distance: a gigabit a second.
const BULK_BYTES_A_SECOND: u128 = 128 << 20;
/// What both sides compute in a handshake, with room for machines that are busy. A network with a shorter round trip does not need more than
/// the 256 KiB that a stream has anyhow: they are 50 MB/s at 5 ms.
const HANDSHAKE_WORK: Duration = Duration::from_millis(5);
/// A gigabit a second over 125 ms, which is from one continent to the next; and what a tunnel may hold in memory for clients that stop
/// reading.
const GROWTH_MAX: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    #[error("all {STREAMS_MAX} streams of the tunnel are in use")]
    TooManyStreams,
    #[error("the tunnel is down")]
    Down,
}

/// Which side of the connection this is. yamux numbers the streams of the two sides apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MuxSide {
    Dialled,
    Accepted,
}

/// How far what is on its way to this side may grow beyond the 256 KiB that yamux gives each stream, over all streams of the connection.
///
/// yamux doubles a stream's window as long as it binds within two round trips, and measures those with whatever waits before its ping: what
/// is on its way makes the round trip longer, which makes it more. Without a bound a COPY over a fast network has megabytes before every
/// small statement of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    growth: usize,
}

impl Window {
    /// Does not grow.
    pub const FIXED: Self = Self { growth: 0 };

    /// What fills a link of `BULK_BYTES_A_SECOND` whose round trip is that of a TLS handshake.
    pub fn after(handshake: Duration) -> Self {
        let round_trip = handshake.saturating_sub(HANDSHAKE_WORK).as_millis();
        let growth = round_trip.saturating_mul(BULK_BYTES_A_SECOND / 1000);
        Self {
            growth: usize::try_from(growth).map_or(GROWTH_MAX, |growth| growth.min(GROWTH_MAX)),
        }
    }
}

/// Opens streams; ends with the connection.
#[derive(Debug, Clone)]
pub struct Mux {
    opens: mpsc::Sender<oneshot::Sender<Result<yamux::Stream, MuxError>>>,
    permits: Arc<Semaphore>,
    end: Arc<End>,
    kill: AbortHandle,
    gauge: Arc<Gauge>,
}

/// Streams that the peer opened.
pub type Inbound = mpsc::Receiver<MuxStream>;

/// Puts a multiplexer on `io`. The returned future drives it and has to be spawned; it ends with the connection and says
/// why.
pub fn start(io: impl Stream, side: MuxSide, window: Window) -> (Mux, Inbound, impl Future<Output = String>) {
    let (opens, open_requests) = mpsc::channel(OPENS_QUEUED);
    let (inbound_sender, inbound) = mpsc::channel(INBOUND_QUEUED);
    let end = Arc::new(End::default());
    let mode = match side {
        MuxSide::Dialled => yamux::Mode::Client,
        MuxSide::Accepted => yamux::Mode::Server,
    };
    let (io, below) = DeferredFlush::new(io);
    let queue = inbound_sender.downgrade();
    let gauge = Gauge::begin(move || {
        let queue = queue.upgrade()?;
        u32::try_from(queue.max_capacity() - queue.capacity()).ok()
    });
    let mut driver = Driver {
        connection: yamux::Connection::new(io.compat(), yamux_config(window), mode),
        below,
        open_requests: Rare::new(open_requests),
        waiting_open: None,
        inbound: inbound_sender,
        end: end.clone(),
        gauge: gauge.clone(),
    };
    let (run, kill) = abortable(poll_fn(move |cx| driver.poll(cx)));
    let mux = Mux {
        opens,
        permits: Arc::new(Semaphore::new(STREAMS_MAX)),
        end: end.clone(),
        kill,
        gauge,
    };
    // Also where the driver fails.
    let over_at_the_end = OverAtTheEnd(end);
    let run = async move {
        let _dropped_last = over_at_the_end;
        run.await.unwrap_or_else(|Aborted| "ended by this side".to_owned())
    };
    (mux, inbound, run)
}

/// The setters assert relations between the values, so they are called in this order and under test.
fn yamux_config(window: Window) -> yamux::Config {
    let mut config = yamux::Config::default();
    let at_first = YAMUX_STREAMS_MAX * yamux::DEFAULT_CREDIT as usize;
    config.set_max_connection_receive_window(Some(at_first + window.growth));
    config.set_max_num_streams(YAMUX_STREAMS_MAX);
    config.set_split_send_size(FRAME_BODY_BYTES);
    config
}

impl Mux {
    pub async fn open(&self) -> Result<MuxStream, MuxError> {
        let permit = self
            .permits
            .clone()
            .try_acquire_owned()
            .map_err(|_| MuxError::TooManyStreams)?;
        let (sender, receiver) = oneshot::channel();
        self.opens.send(sender).await.map_err(|_| MuxError::Down)?;
        let stream = receiver.await.map_err(|_| MuxError::Down)??;
        Ok(MuxStream::new(stream, Some(permit), &self.end, &self.gauge))
    }

    /// Where everybody sees how the connection stands, once it belongs to somebody.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    pub fn is_down(&self) -> bool {
        self.end.is_over()
    }

    /// Ends the connection and every stream on it, for a peer that no longer answers.
    pub fn kill(&self) {
        self.kill.abort();
    }
}

struct Driver<T> {
    connection: yamux::Connection<tokio_util::compat::Compat<DeferredFlush<T>>>,
    /// What the connection writes to.
    below: DeferredFlush<T>,
    open_requests: Rare<oneshot::Sender<Result<yamux::Stream, MuxError>>>,
    waiting_open: Option<oneshot::Sender<Result<yamux::Stream, MuxError>>>,
    inbound: mpsc::Sender<MuxStream>,
    end: Arc<End>,
    gauge: Arc<Gauge>,
}

impl<T: Stream> Driver<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if let Some(why) = self.poll_once(cx) {
            return Poll::Ready(why);
        }
        match self.below.poll_flush_turn(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error.to_string()),
            _ => Poll::Pending,
        }
    }

    fn poll_once(&mut self, cx: &mut Context<'_>) -> Option<String> {
        loop {
            if self.waiting_open.is_none()
                && let Poll::Ready(Some(request)) = self.open_requests.poll_recv(cx)
            {
                self.waiting_open = Some(request);
            }
            if let Some(request) = self.waiting_open.take() {
                match self.connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        let _gave_up = request.send(Ok(stream));
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        let _gave_up = request.send(Err(MuxError::Down));
                        return Some(error.to_string());
                    }
                    Poll::Pending => self.waiting_open = Some(request),
                }
            }
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    let stream = MuxStream::new(stream, None, &self.end, &self.gauge);
                    if self.inbound.try_send(stream).is_err() {
                        tracing::warn!("inbound stream reset: {INBOUND_QUEUED} are waiting to be taken");
                    }
                }
                Poll::Ready(Some(Err(error))) => return Some(error.to_string()),
                Poll::Ready(None) => return Some("closed by the peer".to_owned()),
                Poll::Pending => return None,
            }
        }
    }
}

/// One stream. Reads fail with `ConnectionReset` when the connection is lost, and end when the peer closed the stream.
#[derive(Debug)]
pub struct MuxStream {
    inner: yamux::Stream,
    /// Held for streams that this side opened; gives the place back when the stream is dropped.
    _permit: Option<OwnedSemaphorePermit>,
    _open: OpenStream,
    reads: Waits,
    writes: Waits,
    closed_here: bool,
}

impl MuxStream {
    fn new(inner: yamux::Stream, permit: Option<OwnedSemaphorePermit>, end: &Arc<End>, gauge: &Arc<Gauge>) -> Self {
        Self {
            inner,
            _permit: permit,
            _open: OpenStream::of(gauge),
            reads: Waits::on(end),
            writes: Waits::on(end),
            closed_here: false,
        }
    }

    /// After an end of file: was it the peer's word, or the connection's loss (or a reset)?
    fn is_lost(&self) -> bool {
        // yamux says `Closed` when both sides have closed or the stream was cut; if we have not closed, it was cut.
        self.reads.is_over() || (self.inner.is_closed() && !self.closed_here)
    }

    /// What yamux says of a write, and the end of the connection where it says nothing.
    fn written<T>(&mut self, result: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        or_over(result, &mut self.writes, cx)
    }
}

fn or_over<T>(result: Poll<io::Result<T>>, waits: &mut Waits, cx: &Context<'_>) -> Poll<io::Result<T>> {
    if result.is_pending() && !waits.wait(cx) {
        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
    }
    result
}

impl AsyncRead for MuxStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let me = &mut *self;
        let read = futures::AsyncRead::poll_read(Pin::new(&mut me.inner), cx, out.initialize_unfilled());
        let count = ready!(or_over(read, &mut me.reads, cx))?;
        out.advance(count);
        if count == 0 && self.is_lost() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed_here = true;
        let closed = Pin::new(&mut self.inner).poll_close(cx);
        self.written(closed, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_thread::block_on;
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair() -> (Mux, Inbound, Mux, Inbound) {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let (dialled, dialled_inbound, drive_a) = start(a, MuxSide::Dialled, Window::FIXED);
        let (accepted, accepted_inbound, drive_b) = start(b, MuxSide::Accepted, Window::FIXED);
        tokio::spawn(drive_a);
        tokio::spawn(drive_b);
        (dialled, dialled_inbound, accepted, accepted_inbound)
    }

    #[test]
    fn bytes_pass_both_ways_and_an_orderly_close_is_an_end_of_file() {
        block_on(async {
            let (dialled, _keep, _accepted, mut inbound) = pair();
            let mut near = dialled.open().await.unwrap();
            near.write_all(b"hello").await.unwrap();
            let mut far = inbound.recv().await.unwrap();
            let mut buffer = [0; 5];
            far.read_exact(&mut buffer).await.unwrap();
            far.write_all(b"world").await.unwrap();
            far.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            assert_eq!((&buffer, answer.as_slice()), (b"hello", b"world".as_slice()));
        });
    }

    #[test]
    fn a_lost_connection_is_an_error_and_not_an_end_of_file() {
        block_on(async {
            let (dialled, _keep, accepted, mut inbound) = pair();
            let mut near = dialled.open().await.unwrap();
            near.write_all(b"x").await.unwrap();
            let _far = inbound.recv().await.unwrap();
            accepted.kill();
            let lost = near.read(&mut [0; 1]).await.expect_err("the connection is gone");
            assert_eq!(lost.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    /// A connection whose next read after it was told to is a panic, as a fault in the multiplexer is.
    struct Faulty(tokio::io::DuplexStream, Arc<std::sync::atomic::AtomicBool>);

    impl AsyncRead for Faulty {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            assert!(
                !self.1.load(std::sync::atomic::Ordering::SeqCst),
                "a fault in the driver"
            );
            Pin::new(&mut self.0).poll_read(cx, out)
        }
    }

    impl AsyncWrite for Faulty {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[test]
    fn a_panic_of_the_driver_is_an_error_on_its_streams_on_both_sides_and_on_no_other_connection() {
        block_on(async {
            let fault = Arc::new(std::sync::atomic::AtomicBool::default());
            let (a, b) = tokio::io::duplex(64 * 1024);
            let (dialled, _keep, drive) = start(Faulty(a, fault.clone()), MuxSide::Dialled, Window::FIXED);
            let driver = tokio::spawn(drive);
            let (_accepted, mut inbound, drive) = start(b, MuxSide::Accepted, Window::FIXED);
            tokio::spawn(drive);
            let (other, _keep_other, _other_accepted, mut other_inbound) = pair();
            let mut near = dialled.open().await.unwrap();
            let mut other_near = other.open().await.unwrap();
            near.write_all(b"x").await.unwrap();
            other_near.write_all(b"x").await.unwrap();
            let (mut far, mut other_far) = (inbound.recv().await.unwrap(), other_inbound.recv().await.unwrap());
            far.read_exact(&mut [0; 1]).await.unwrap();
            other_far.read_exact(&mut [0; 1]).await.unwrap();

            // One that waits already, and is woken by nobody else.
            let waits = tokio::spawn(async move { near.read(&mut [0; 1]).await });
            tokio::task::yield_now().await;
            fault.store(true, std::sync::atomic::Ordering::SeqCst);
            let _lost = far.write_all(b"y").await;
            assert!(driver.await.expect_err("it panics").is_panic());
            let woken = tokio::time::timeout(Duration::from_secs(10), waits)
                .await
                .expect("it is woken");
            woken.unwrap().expect_err("the connection is gone");
            far.read(&mut [0; 1]).await.expect_err("the connection is gone");
            assert!(dialled.is_down() && dialled.open().await.is_err());
            other_far.write_all(b"y").await.unwrap();
            other_near.read_exact(&mut [0; 1]).await.expect("the other lives");
        });
    }

    #[test]
    fn a_stream_that_its_holder_dropped_is_an_error_for_the_other_side() {
        block_on(async {
            let (dialled, _keep, _accepted, mut inbound) = pair();
            let mut near = dialled.open().await.unwrap();
            near.write_all(b"x").await.unwrap();
            drop(inbound.recv().await.unwrap());
            assert!(near.read(&mut [0; 1]).await.is_err());
        });
    }

    #[test]
    fn the_gauge_of_a_connection_counts_its_streams_and_those_that_nobody_takes() {
        block_on(async {
            let (dialled, _keep, accepted, mut inbound) = pair();
            let is_listed = || {
                let all = crate::telemetry::tunnels::all();
                let path = |gauge: &Arc<Gauge>| gauge.spec().is_some_and(|spec| &*spec.path == "mux-tests/tunnel");
                all.iter().any(path)
            };
            accepted
                .gauge()
                .belongs_to("mux-tests/tunnel".into(), "agent db-1".into());
            assert!(is_listed());
            let mut near = dialled.open().await.unwrap();
            near.write_all(b"x").await.unwrap();
            while accepted.gauge().waiting() != Some(1) {
                tokio::task::yield_now().await;
            }
            assert_eq!((dialled.gauge().streams(), accepted.gauge().streams()), (1, 1));
            let far = inbound.recv().await.unwrap();
            assert_eq!(accepted.gauge().waiting(), Some(0));
            drop((near, far));
            assert_eq!((dialled.gauge().streams(), accepted.gauge().streams()), (0, 0));
            let before = accepted.gauge().heard();
            accepted.gauge().hears();
            assert!(accepted.gauge().heard() >= before);
            accepted.kill();
            while is_listed() {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn one_stream_too_many_is_refused_and_the_others_live() {
        block_on(async {
            let (dialled, _keep, _accepted, mut inbound) = pair();
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Some(mut stream) = inbound.recv().await {
                    stream.write_all(&[1]).await.unwrap();
                    held.push(stream);
                }
            });
            let mut streams = Vec::new();
            for _ in 0..STREAMS_MAX {
                let mut stream = dialled.open().await.unwrap();
                stream.write_all(b"x").await.unwrap();
                stream.read_exact(&mut [0; 1]).await.unwrap();
                streams.push(stream);
            }
            assert_eq!(dialled.open().await.expect_err("full"), MuxError::TooManyStreams);
            drop(streams.pop());
            let mut again = dialled.open().await.unwrap();
            again.write_all(b"x").await.unwrap();
            again.read_exact(&mut [0; 1]).await.unwrap();
        });
    }

    #[test]
    fn a_stream_that_nobody_reads_holds_up_no_other_and_little_memory() {
        // What yamux gives a stream before its reader has taken anything, and a stream's queue on either side.
        const HELD_MAX: usize = 1024 * 1024;
        block_on(async {
            let (dialled, _keep, _accepted, mut inbound) = pair();
            let mut unread = dialled.open().await.unwrap();
            unread.write_all(b"x").await.unwrap();
            let _held = inbound.recv().await.unwrap();
            let (mut sent, piece) = (0, [b'x'; 16 * 1024]);
            while let Ok(written) = tokio::time::timeout(Duration::from_millis(200), unread.write(&piece)).await {
                sent += written.unwrap();
                assert!(sent < HELD_MAX, "nobody reads, and {sent} bytes were taken");
            }
            let mut other = dialled.open().await.unwrap();
            other.write_all(b"y").await.unwrap();
            let mut far = inbound.recv().await.unwrap();
            far.read_exact(&mut [0; 1]).await.unwrap();
            far.write_all(b"z").await.unwrap();
            other.read_exact(&mut [0; 1]).await.unwrap();
        });
    }

    #[test]
    fn a_window_grows_with_the_distance_and_not_beyond_its_bound() {
        let after = |millis| Window::after(Duration::from_millis(millis));
        assert_eq!(after(4), Window::FIXED, "a machine that is busy is not far away");
        assert_eq!(after(35).growth, 30 * ((128 << 20) / 1000));
        assert_eq!(after(60_000).growth, GROWTH_MAX);
        for window in [Window::FIXED, after(35), after(60_000)] {
            // Its setters assert.
            yamux_config(window);
        }
    }

    #[test]
    fn arbitrary_frames_of_a_peer_end_its_connection_at_most() {
        // A linear congruence, the same in every run.
        let mut state: u64 = 17;
        let mut draw = move |below: u32| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(state >> 33).unwrap() % below
        };
        block_on(async {
            for _ in 0..300 {
                let (mut peer, ours) = tokio::io::duplex(64 * 1024);
                let (_mux, mut inbound, drive) = start(ours, MuxSide::Accepted, Window::FIXED);
                // A panic of the driver would be one of this task.
                let driven = tokio::spawn(drive);
                let mut bytes = Vec::new();
                for _ in 0..20 {
                    // Version 0, a type, flags, a stream, a length: sharp values at each place.
                    let sharp = [0, 1, 2, 3, 255, 256 * 1024, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                    let mut value = || sharp[draw(9) as usize];
                    let (stream, length) = (value(), value());
                    bytes.extend([u8::from(draw(50) == 0), u8::try_from(draw(5)).unwrap(), 0]);
                    bytes.push(u8::try_from(draw(16)).unwrap());
                    bytes.extend(stream.to_be_bytes());
                    bytes.extend(length.to_be_bytes());
                }
                drop(peer.write_all(&bytes).await);
                drop(peer.shutdown().await);
                let mut unread = Vec::new();
                drop(peer.read_to_end(&mut unread).await);
                driven.await.expect("it does not panic");
                while inbound.recv().await.is_some() {}
            }
        });
    }
}
