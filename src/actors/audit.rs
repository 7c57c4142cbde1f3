//! Ships the audit trail of this node to auth.
//!
//! **Owns** the spool's way to auth: what has been sent and not yet confirmed.
//! **Hears** nothing; the rooms write to the spool themselves, so that an event is on its way to disk without a hop.
//! **Tells** the log on auth (`StoreLines`), one batch at a time, and the spool what the log has confirmed.
//! **Never** drops a line: what is not confirmed stays in the spool, also across restarts.
//! **Ends** last of all, when the other actors have written their ends; it ships what is left, as long as it may.

use super::address::{Address, AskError, Origin, message};
use super::host::{Behavior, Ctx, spawn_here};
use crate::audit::{AuditError, Batch, Spool};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use std::time::Duration;

/// One batch: below the limit of a node message, and few enough answers per second for a busy node.
const BATCH_LINES: usize = 4096;
const BATCH_BYTES: usize = 1024 * 1024;
/// Auth stores a batch with one fsync.
const STORE_DEADLINE: Duration = Duration::from_secs(20);
/// How long events gather before they are shipped. Each batch costs an fsync on auth, and three processes' attention: with
/// sessions that come and go, each of which waits for an fsync of its own, it would be a batch for each of their events.
const GATHER: Duration = Duration::from_millis(200);
/// After a failure, and while the log is away: events wait on this node's disk meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lines of one node's spool, in order. The answer is the sequence number up to which all are on the log's disk.
#[derive(Debug, Clone)]
pub struct StoreLines {
    pub spool: String,
    pub first_seq: u64,
    pub lines: Vec<String>,
}

message!(StoreLines => Result<u64, String>);

#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Spool(#[from] AuditError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the log did not take it: {0}")]
    Declined(String),
    #[error("the thread that reads the spool failed")]
    Thread,
    #[error("{0}")]
    Failed(String),
}

pub struct AuditShipper {
    spool: Spool,
    log: Address<StoreLines>,
}

impl AuditShipper {
    pub fn new(spool: Spool, log: Address<StoreLines>) -> Self {
        Self { spool, log }
    }

    fn ship_on(&self, ctx: &mut Ctx<'_, Self>) {
        let (spool, log, origin) = (self.spool.clone(), self.log.clone(), ctx.origin());
        // A task of its own: the events are safe on this node, and it is to go on.
        let shipped = spawn_here(async move {
            if !spool.wait_for_more().await {
                return Ok(false);
            }
            tokio::time::sleep(GATHER).await;
            ship_all(&spool, &log, &origin).await.map(|()| true)
        });
        ctx.run(shipped.join(), |shipper, shipped, ctx| {
            match shipped.unwrap_or_else(|panic| Err(ShipError::Failed(panic))) {
                Ok(true) => shipper.ship_on(ctx),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?RETRY_AFTER, "audit events wait on this node");
                    ctx.after(RETRY_AFTER, |shipper, ctx| shipper.ship_on(ctx));
                }
            }
        });
    }
}

/// Ships until nothing is left that is on disk and not confirmed.
async fn ship_all(spool: &Spool, log: &Address<StoreLines>, origin: &Origin) -> Result<(), ShipError> {
    if !spool.has_met_the_log() {
        let has = store(spool, log, origin, (1, Vec::new())).await?;
        on_spool(spool, move |spool| spool.meet(has)).await?;
    }
    while let Some(batch) = next_batch(spool).await? {
        let stored = store(spool, log, origin, (batch.first_seq, batch.lines)).await?;
        on_spool(spool, move |spool| spool.acknowledge(stored)).await?;
    }
    Ok(())
}

/// The answer is how far the log has this spool, also to a batch without lines.
async fn store(
    spool: &Spool,
    log: &Address<StoreLines>,
    origin: &Origin,
    (first_seq, lines): (u64, Vec<String>),
) -> Result<u64, ShipError> {
    let batch = StoreLines {
        spool: spool.id(),
        first_seq,
        lines,
    };
    let answer = log.ask(origin, batch, STORE_DEADLINE).await?;
    answer.map_err(ShipError::Declined)
}

async fn next_batch(spool: &Spool) -> Result<Option<Batch>, ShipError> {
    on_spool(spool, |spool| spool.next_batch(BATCH_LINES, BATCH_BYTES)).await
}

/// Work that blocks.
async fn on_spool<T: Send + 'static>(
    spool: &Spool,
    work: impl FnOnce(&Spool) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, ShipError> {
    let spool = spool.clone();
    let done = tokio::task::spawn_blocking(move || work(&spool)).await;
    Ok(done.map_err(|_| ShipError::Thread)??)
}

impl Behavior for AuditShipper {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.ship_on(ctx);
    }

    fn stopping(&mut self, ctx: &mut Ctx<'_, Self>) -> Option<LocalBoxFuture<'static, ()>> {
        let (spool, log, origin) = (self.spool.clone(), self.log.clone(), ctx.origin());
        let last = async move {
            if let Err(error) = ship_all(&spool, &log, &origin).await {
                tracing::info!(%error, "audit events stay on this node until it starts again");
            }
        };
        Some(last.boxed_local())
    }
}
