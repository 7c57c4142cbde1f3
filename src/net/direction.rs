//! One direction of a copy, with its own progress and back-pressure.
//!
//! It fills its buffer until the reader has no more, writes once, and flushes only when there is nothing left to write; while it
//! waits for bytes it holds no buffer. A [`Tap`] sees every chunk before it is passed on and may hold it back.

use super::buffers::{Pooled, TURN_BYTES};
use super::turns::Turn;
use crate::model::Refusal;
use crate::telemetry::relays::{WaitsFor, Way};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

/// Sees nothing.
#[derive(Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn observe(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Why one direction cannot go on.
pub(super) enum Broken {
    Read(io::Error),
    Write(io::Error),
    Tap(Refusal),
}

pub(super) struct Direction<T> {
    pub(super) tap: T,
    pub(super) buffer: Pooled,
    pub(super) start: usize,
    pub(super) end: usize,
    observed: usize,
    /// The tap has agreed to everything before this. It is not asked again: what it agreed to counts as passed on with it.
    pub(super) admitted: usize,
    /// What the tap says is owed to the message that `admitted` is in.
    pub(super) owed: Option<usize>,
    pub(super) eof: bool,
    unflushed: bool,
    pub(super) done: bool,
    /// What was read before it is passed on first.
    read_error: Option<io::Error>,
    /// At the end of the reader the writer is closed. Not so towards the client of a session, who may be owed last words, nor where the
    /// end of one side is the end of both.
    half_closes: bool,
    pub(super) total: u64,
    turn: Turn,
    /// It has passed on all that there was, and its next turn is when there is more to read.
    pub(super) rests: bool,
    /// Where the last turn got to.
    waits_for: WaitsFor,
    /// What everybody was shown last.
    shown: (u64, WaitsFor),
}

impl<T: Tap> Direction<T> {
    pub(super) fn new(tap: T, half_closes: bool) -> Self {
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
            rests: false,
            waits_for: WaitsFor::default(),
            shown: <(u64, WaitsFor)>::default(),
        }
    }

    /// One turn. What it came to is shown where it changed anything.
    pub(super) fn poll(
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

    /// The same, shown to nobody.
    pub(super) fn advance(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        self.rests = false;
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
                self.rests = true;
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
    pub(super) fn end(&mut self) {
        self.done = true;
        self.waits_for = WaitsFor::Done;
        self.unflushed = false;
        self.emptied();
        self.buffer = Pooled::default();
    }

    /// The reader has ended; what it said last may be on its way yet.
    pub(super) fn has_read_all(&self) -> bool {
        self.eof || self.read_error.is_some()
    }

    /// The writer does not take what there is for it.
    pub(super) fn is_held_up(&self) -> bool {
        self.start < self.admitted || self.unflushed
    }

    /// All that was read has reached the writer, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
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

    pub(super) fn emptied(&mut self) {
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
