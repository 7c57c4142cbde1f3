//! Audit events of a relay on their way into the spool: at once where there is room, else in their order as soon as there is, and
//! where the rules ask for it on to the disk. What causes them is not passed on before.

use super::trail::not_written;
use crate::audit::{AuditError, Spool};
use crate::model::Refusal;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

pub struct AuditEntry {
    spool: Spool,
    /// Events that have not entered. The relay reads no more meanwhile, so they are those of one buffer.
    waiting: VecDeque<String>,
    /// They are to be on disk, and not only in the spool.
    synced: bool,
    entering: Option<Entering>,
}

enum Entering {
    /// The first of those that wait.
    First(BoxFuture<'static, Result<(), AuditError>>),
    /// Those that waited, on to the disk.
    Synced(BoxFuture<'static, Result<(), AuditError>>),
}

impl AuditEntry {
    pub fn new(spool: Spool) -> Self {
        Self {
            spool,
            waiting: VecDeque::new(),
            synced: false,
            entering: None,
        }
    }

    /// It is in, or waits to be.
    pub fn enter(&mut self, line: String) {
        if !self.waiting.is_empty() || self.entering.is_some() {
            return self.waiting.push_back(line);
        }
        // Whatever kept it out: whoever waits for it below hears of it.
        if let Err((line, _)) = self.spool.try_enter(line) {
            self.waiting.push_back(line);
        }
    }

    /// It waits to be in and on disk, with those that wait already.
    pub fn enter_synced(&mut self, line: String) {
        self.synced = true;
        self.waiting.push_back(line);
    }

    /// Ready when nothing waits any more.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        loop {
            let entered = match &mut self.entering {
                None => Ok(()),
                Some(Entering::Synced(entering)) => ready!(entering.poll_unpin(cx)),
                Some(Entering::First(entering)) => {
                    let entered = ready!(entering.poll_unpin(cx));
                    // One that did not enter is tried for a last time at the end.
                    if entered.is_ok() {
                        self.waiting.pop_front();
                    }
                    entered
                }
            };
            self.entering = None;
            if let Err(error) = entered {
                return Poll::Ready(Err(not_written(&error)));
            }
            let Some(first) = self.waiting.front() else {
                return Poll::Ready(Ok(()));
            };
            let spool = self.spool.clone();
            self.entering = Some(if std::mem::take(&mut self.synced) {
                let lines = std::mem::take(&mut self.waiting);
                Entering::Synced(enter_all_synced(spool, lines).boxed())
            } else {
                let line = first.clone();
                Entering::First(async move { spool.enter(line).await }.boxed())
            });
        }
    }

    /// Tries for a last time, when the relay is over: for what has happened, and not only been asked for.
    pub fn enter_rest(&mut self) {
        // What is under way is the first that waits, and was never there if it has to be given up.
        self.entering = None;
        for line in std::mem::take(&mut self.waiting) {
            if let Err((_, full)) = self.spool.try_enter(line) {
                tracing::error!(error = ?full, "an audit event did not enter the spool");
            }
        }
    }
}

/// One fsync for all: that of the last.
async fn enter_all_synced(spool: Spool, mut lines: VecDeque<String>) -> Result<(), AuditError> {
    let last = lines.pop_back();
    for line in lines {
        spool.enter(line).await?;
    }
    match last {
        Some(line) => spool.enter_synced(line).await,
        None => Ok(()),
    }
}
