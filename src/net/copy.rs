//! The relay of one connection: two directions, each with its own progress and back-pressure, polled by one task.
//!
//! Nothing here goes through a mailbox.

use super::buffers::{Pooled, TURN_BYTES};
use super::direction::{Broken, Direction, Tap};
use super::halves::{Half, Whole};
use super::stall::Stall;
use crate::model::Refusal;
use crate::telemetry::relays::{Gauge, WaitsFor};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// How long a client may take to accept the last words: its current message to the end, then the error. A client that
/// does not read is cut off after it.
const LAST_WORDS: Duration = Duration::from_secs(2);

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

/// The two ends of a connection and what watches it.
pub struct Relay<C, U, TU, TC> {
    client: C,
    upstream: U,
    up: Direction<TU>,
    down: Direction<TC>,
    task: Whole,
    wakes_up: Half,
    wakes_down: Half,
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
        let task = Whole::default();
        Self {
            client,
            upstream,
            up: Direction::new(to_upstream, true),
            down: Direction::new(to_client, false),
            wakes_up: task.half(),
            wakes_down: task.half(),
            task,
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
    pub async fn run(&mut self, mut ends: EndSignal) -> RelayEnd {
        let (mut stall, mut when_idle) = (Stall::default(), None);
        let wakes_end = self.task.half();
        poll_fn(|cx| {
            self.task.polled(cx);
            if wakes_end.was_woken() {
                loop {
                    match ends.poll_recv(&mut wakes_end.context()).map(|end| end.map(|end| *end)) {
                        Poll::Ready(Some(End::Now(refusal))) => return Poll::Ready(RelayEnd::Refused(refusal)),
                        Poll::Ready(Some(End::WhenIdle(refusal))) => when_idle = Some(refusal),
                        Poll::Ready(None) => return Poll::Ready(RelayEnd::Unwatched),
                        Poll::Pending => break,
                    }
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
            wakes_up,
            wakes_down,
            gauge,
            ..
        } = self;
        // A direction that rests waits for nothing but its own reader. One that does not is always polled: both write and both read, and
        // TLS may write where it is read, so whom a stream wakes for its writer is whoever came last.
        let turn = match wakes_up.was_woken() || !up.rests {
            true => up.poll(&mut wakes_up.context(), client, upstream, &gauge.to_upstream),
            false => Poll::Pending,
        };
        match turn {
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
        let turn = match wakes_down.was_woken() || !down.rests {
            true => down.poll(&mut wakes_down.context(), upstream, client, &gauge.to_client),
            false => Poll::Pending,
        };
        match turn {
            Poll::Ready(Err(Broken::Read(error))) => Poll::Ready(RelayEnd::UpstreamLost(error)),
            Poll::Ready(Err(Broken::Write(error))) => Poll::Ready(RelayEnd::ClientLost(error)),
            Poll::Ready(Err(Broken::Tap(refusal))) => Poll::Ready(RelayEnd::Refused(refusal)),
            // When the upstream has ended, nobody is left for whom the client could send more.
            Poll::Ready(Ok(())) => Poll::Ready(RelayEnd::Finished),
            Poll::Pending if up.eof && down.is_held_up() => stall.poll(down.total, cx).map(RelayEnd::ClientLost),
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
