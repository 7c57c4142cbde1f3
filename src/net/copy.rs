//! The relay of one connection: two directions, each with its own progress and back-pressure, polled by one task.
//!
//! Nothing here goes through a mailbox. Each direction fills its buffer until the reader has no more, writes once, and
//! flushes only when there is nothing left to write; while it waits for bytes it holds no buffer. A [`Tap`] sees every
//! chunk before it is passed on and may hold it back.

use super::buffers::{Pooled, TURN_BYTES};
use super::rare::Rare;
use super::turns::Turn;
use crate::model::Refusal;
use crate::telemetry::relays::{Gauge, WaitsFor, Way};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;

/// How long a client may take to accept the last words: its current message to the end, then the error. A client that
/// does not read is cut off after it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A client that has closed its side and takes nothing for so long is gone. Without it a client that died in the middle of a
/// result would hold PostgreSQL's session: a stream that is closed by halves is not reset by yamux when it is dropped.
const HALF_CLOSED_STALL: Duration = Duration::from_secs(10);

/// Watches one direction.
pub trait Tap {
    /// Called once for each chunk, before it is passed on.
    fn observe(&mut self, chunk: &[u8]) -> Result<(), Refusal>;

    /// Ready when all that was observed may be passed on.
    fn poll_admit(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    /// What whoever waits for `poll_admit` waits for.
    fn held_by(&self) -> WaitsFor {
        WaitsFor::Audit
    }

    /// How many bytes are still missing to the end of the message that the last chunk ended in; zero between messages.
    /// A part of a header counts the missing part of the header.
    fn missing_to_boundary(&self) -> usize {
        0
    }

    /// How much of the message that the last chunk ended in is still to come and goes on whatever is held back; `None` where that cannot
    /// be told, or where it is itself what has to be agreed to.
    fn owed(&self) -> Option<usize> {
        Some(self.missing_to_boundary())
    }

    /// Nothing is under way in this direction, as far as it knows; a relay is idle when both say so.
    fn is_idle(&self) -> bool {
        false
    }
}

/// What whoever holds the session tells its relay.
#[derive(Debug, Clone)]
pub enum End {
    /// Wherever it is.
    Now(Refusal),
    /// At the first moment at which nothing is under way; `Now` may follow.
    WhenIdle(Refusal),
}

/// Room for one of each: nothing more is ever told.
pub const ENDS: usize = 2;

/// How a relay is told. Boxed: a channel sets aside room for 32 messages, and nearly every session ends without one.
pub type EndSignal = mpsc::Receiver<Box<End>>;

/// Sees nothing.
#[derive(Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn observe(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
}

/// How a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// The upstream closed. Nothing is owed to it; what is owed to the client, the caller decides.
    Finished,
    /// A tap, or whoever holds the session, ended it; the client is still to be told.
    Refused(Refusal),
    /// Whoever could end it is gone.
    Unwatched,
    /// The client's connection broke.
    ClientLost(io::Error),
    /// The other side's connection broke. The caller knows what that is and words it for the client.
    UpstreamLost(io::Error),
}

/// What passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub to_upstream: u64,
    pub to_client: u64,
}

/// Why one direction cannot go on.
enum Broken {
    Read(io::Error),
    Write(io::Error),
    Tap(Refusal),
}

struct Direction<T> {
    tap: T,
    buffer: Pooled,
    start: usize,
    end: usize,
    observed: usize,
    /// The tap has agreed to everything before this. It is not asked again: what it agreed to counts as passed on with it.
    admitted: usize,
    /// What the tap says is owed to the message that `admitted` is in.
    owed: Option<usize>,
    eof: bool,
    unflushed: bool,
    done: bool,
    /// What was read before it is passed on first.
    read_error: Option<io::Error>,
    /// At the end of the reader the writer is closed. Not so towards the client, who may be owed last words.
    half_closes: bool,
    total: u64,
    turn: Turn,
    /// Where the last turn got to.
    waits_for: WaitsFor,
    /// What everybody was shown last.
    shown: (u64, WaitsFor),
}

impl<T: Tap> Direction<T> {
    fn new(tap: T, half_closes: bool) -> Self {
        Self {
            tap,
            half_closes,
            buffer: Pooled::default(),
            start: 0,
            end: 0,
            observed: 0,
            admitted: 0,
            owed: Some(0),
            eof: false,
            unflushed: false,
            done: false,
            read_error: None,
            total: 0,
            turn: Turn::default(),
            waits_for: WaitsFor::default(),
            shown: <(u64, WaitsFor)>::default(),
        }
    }

    /// One turn. What it came to is shown where it changed anything.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        way: &Way,
    ) -> Poll<Result<(), Broken>> {
        let turn = self.advance(cx, from, to);
        let stands = (self.total, self.waits_for);
        if stands != self.shown {
            self.shown = stands;
            way.stands(self.total, self.waits_for);
        }
        turn
    }

    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.turn.poll(cx));
            let idle = self.fill(cx, from)?;
            let is_held = self.poll_admit(cx)?.is_pending();
            self.waits_for = WaitsFor::Sink;
            ready!(self.poll_drain(cx, to))?;
            if (is_held || idle || self.eof || self.read_error.is_some()) && self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::Write)?;
                self.unflushed = false;
            }
            if is_held {
                self.waits_for = self.tap.held_by();
                return Poll::Pending;
            }
            if let Some(error) = self.read_error.take() {
                return Poll::Ready(Err(Broken::Read(error)));
            }
            if self.eof {
                if self.half_closes {
                    // A peer that is gone cannot be told that there is no more; that is no fault of this direction.
                    let _gone = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                }
                self.end();
                return Poll::Ready(Ok(()));
            }
            self.waits_for = WaitsFor::Source;
            if idle {
                self.buffer = Pooled::default();
                return Poll::Pending;
            }
        }
    }

    /// Asks the tap about what it has not agreed to yet.
    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        if self.admitted < self.observed {
            let Poll::Ready(admitted) = self.tap.poll_admit(cx) else {
                return Ok(Poll::Pending);
            };
            admitted.map_err(Broken::Tap)?;
            self.admitted = self.observed;
            self.owed = self.tap.owed();
        }
        Ok(Poll::Ready(()))
    }

    /// Nothing more is passed on.
    fn end(&mut self) {
        self.done = true;
        self.waits_for = WaitsFor::Done;
        self.unflushed = false;
        self.emptied();
        self.buffer = Pooled::default();
    }

    /// The writer does not take what there is for it.
    fn is_held_up(&self) -> bool {
        self.start < self.admitted || self.unflushed
    }

    /// All that was read has reached the writer, and nothing is under way.
    fn is_idle(&self) -> bool {
        self.start == self.end && !self.unflushed && self.tap.is_idle()
    }

    /// Reads until nothing is there or the buffer is full. True when nothing is there.
    fn fill(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, Broken> {
        if self.buffer.is_none() && !self.eof {
            self.buffer = Pooled::copy_size();
        }
        let mut idle = false;
        while !self.eof && self.read_error.is_none() && self.end < TURN_BYTES {
            let mut read = ReadBuf::new(&mut self.buffer[self.end..TURN_BYTES]);
            match Pin::new(&mut *from).poll_read(cx, &mut read) {
                Poll::Pending => {
                    idle = true;
                    break;
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    // TLS without close_notify: clients that just go away do this all the time.
                    self.eof = true;
                }
                Poll::Ready(Err(error)) => {
                    self.read_error = Some(error);
                    break;
                }
                Poll::Ready(Ok(())) => match read.filled().len() {
                    0 => self.eof = true,
                    count => self.end += count,
                },
            }
        }
        if self.observed < self.end {
            let chunk = &self.buffer[self.observed..self.end];
            self.tap.observe(chunk).map_err(Broken::Tap)?;
            self.observed = self.end;
        }
        Ok(idle)
    }

    fn emptied(&mut self) {
        (self.start, self.end, self.observed, self.admitted) = (0, 0, 0, 0);
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) -> Poll<Result<(), Broken>> {
        while self.start < self.admitted {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.admitted]));
            match written {
                Ok(0) => return Poll::Ready(Err(Broken::Write(io::ErrorKind::WriteZero.into()))),
                Ok(count) => {
                    self.start += count;
                    self.total += count as u64;
                    self.turn.passes(count);
                    self.unflushed = true;
                }
                Err(error) => return Poll::Ready(Err(Broken::Write(error))),
            }
        }
        if self.start == self.end {
            self.emptied();
        }
        Poll::Ready(Ok(()))
    }
}

/// Measures how long nothing has moved.
#[derive(Default)]
struct Stall {
    since: Option<(u64, Pin<Box<tokio::time::Sleep>>)>,
}

impl Stall {
    fn poll(&mut self, total: u64, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if self.since.as_ref().is_none_or(|(then, _)| *then != total) {
            self.since = Some((total, Box::pin(tokio::time::sleep(HALF_CLOSED_STALL))));
        }
        let Some((_, sleep)) = &mut self.since else {
            return Poll::Pending;
        };
        ready!(sleep.as_mut().poll(cx));
        let why = format!("it closed its side and took nothing for {HALF_CLOSED_STALL:?}");
        Poll::Ready(RelayEnd::ClientLost(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

/// The two ends of a connection and what watches it.
pub struct Relay<C, U, TU, TC> {
    client: C,
    upstream: U,
    up: Direction<TU>,
    down: Direction<TC>,
    gauge: Arc<Gauge>,
}

impl<C, U, TU, TC> Relay<C, U, TU, TC>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    TU: Tap,
    TC: Tap,
{
    pub fn new(client: C, upstream: U, to_upstream: TU, to_client: TC, gauge: Arc<Gauge>) -> Self {
        Self {
            client,
            upstream,
            up: Direction::new(to_upstream, true),
            down: Direction::new(to_client, false),
            gauge,
        }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            to_upstream: self.up.total,
            to_client: self.down.total,
        }
    }

    pub fn client(&mut self) -> &mut C {
        &mut self.client
    }

    /// The client has closed its side.
    pub fn client_closed(&self) -> bool {
        self.up.eof
    }

    /// Closes the client's side in an orderly way.
    pub async fn close(&mut self) {
        self.gauge.is_closing();
        let _too_slow = tokio::time::timeout(LAST_WORDS, self.client.shutdown()).await;
    }

    pub fn to_upstream_tap(&self) -> &TU {
        &self.up.tap
    }

    pub fn to_client_tap(&self) -> &TC {
        &self.down.tap
    }

    /// Copies until the upstream is done, something breaks, or `ends` says that the session is over.
    pub async fn run(&mut self, ends: EndSignal) -> RelayEnd {
        let mut ends = Rare::new(ends);
        let mut stall = Stall::default();
        let mut when_idle = None;
        poll_fn(|cx| {
            loop {
                match ends.poll_recv(cx).map(|end| end.map(|end| *end)) {
                    Poll::Ready(Some(End::Now(refusal))) => return Poll::Ready(RelayEnd::Refused(refusal)),
                    Poll::Ready(Some(End::WhenIdle(refusal))) => when_idle = Some(refusal),
                    Poll::Ready(None) => return Poll::Ready(RelayEnd::Unwatched),
                    Poll::Pending => break,
                }
            }
            // Before more is read: what the client sends from now on is not passed on. And after: this turn may have brought the
            // answer that was waited for.
            if let Some(end) = self.end_if_idle(&mut when_idle) {
                return Poll::Ready(end);
            }
            let copied = self.poll_copy(&mut stall, cx);
            match self.end_if_idle(&mut when_idle) {
                Some(end) if copied.is_pending() => Poll::Ready(end),
                _ => copied,
            }
        })
        .await
    }

    fn end_if_idle(&self, when_idle: &mut Option<Refusal>) -> Option<RelayEnd> {
        if when_idle.is_some() && self.up.is_idle() && self.down.is_idle() {
            when_idle.take().map(RelayEnd::Refused)
        } else {
            None
        }
    }

    fn poll_copy(&mut self, stall: &mut Stall, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let Self {
            client,
            upstream,
            up,
            down,
            gauge,
        } = self;
        match up.poll(cx, client, upstream, &gauge.to_upstream) {
            Poll::Ready(Err(Broken::Read(error))) => {
                return Poll::Ready(RelayEnd::ClientLost(error));
            }
            Poll::Ready(Err(Broken::Tap(refusal))) => {
                return Poll::Ready(RelayEnd::Refused(refusal));
            }
            // An upstream that no longer takes bytes may still have its reason to tell; the other direction ends it.
            Poll::Ready(Err(Broken::Write(_))) => {
                up.end();
                gauge.to_upstream.stands(up.total, WaitsFor::Done);
            }
            _ => {}
        }
        match down.poll(cx, upstream, client, &gauge.to_client) {
            Poll::Ready(Err(Broken::Read(error))) => Poll::Ready(RelayEnd::UpstreamLost(error)),
            Poll::Ready(Err(Broken::Write(error))) => Poll::Ready(RelayEnd::ClientLost(error)),
            Poll::Ready(Err(Broken::Tap(refusal))) => Poll::Ready(RelayEnd::Refused(refusal)),
            // When the upstream has ended, nobody is left for whom the client could send more.
            Poll::Ready(Ok(())) => Poll::Ready(RelayEnd::Finished),
            Poll::Pending if up.eof && down.is_held_up() => stall.poll(down.total, cx),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Says the last words to the client: finishes the message that it is in the middle of, then sends `last` (an encoded
    /// ErrorResponse) and closes. What a tap holds back stays unsaid.
    pub async fn last_words(&mut self, last: &[u8]) {
        self.gauge.is_closing();
        let _too_slow = tokio::time::timeout(LAST_WORDS, async {
            self.finish_message().await?;
            self.client.write_all(last).await?;
            self.client.flush().await?;
            self.client.shutdown().await
        })
        .await;
    }

    async fn finish_message(&mut self) -> io::Result<()> {
        let Self {
            client, upstream, down, ..
        } = self;
        client.write_all(&down.buffer[down.start..down.admitted]).await?;
        if down.admitted < down.end {
            let held_back = &down.buffer[down.admitted..down.end];
            let Some(owed) = down.owed.and_then(|owed| held_back.get(..owed)) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            return client.write_all(owed).await;
        }
        down.emptied();
        if down.tap.missing_to_boundary() == 0 {
            return Ok(());
        }
        let mut buffer = Pooled::copy_size();
        loop {
            let missing = down.tap.missing_to_boundary().min(TURN_BYTES);
            if missing == 0 {
                return Ok(());
            }
            let count = upstream.read(&mut buffer[..missing]).await?;
            if count == 0 {
                // The rest never comes; whatever is said now would be read as part of that message.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if down.tap.observe(&buffer[..count]).is_err() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let admitted = poll_fn(|cx| down.tap.poll_admit(cx)).await;
            if admitted.is_err() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            client.write_all(&buffer[..count]).await?;
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "copy_end_tests.rs"]
mod end_tests;
