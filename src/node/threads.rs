//! The threads that a node cannot do without and that are no actors: what wrote or read for it, and cannot be trusted any more.

use crate::audit::{Spool, SpoolState};
use tokio::sync::watch;

/// Heard by the node's main loop, as the exhaustion of an actor of the root is.
pub(super) struct Threads {
    spool: watch::Receiver<SpoolState>,
    /// Of the store, where auth is.
    store: Option<watch::Receiver<Option<String>>>,
}

impl Threads {
    pub fn new(spool: &Spool, store: Option<watch::Receiver<Option<String>>>) -> Self {
        Self {
            spool: spool.watch_state(),
            store,
        }
    }

    /// Resolves with the reason when one of them is lost to the node.
    pub async fn lost(&mut self) -> String {
        tokio::select! {
            biased;
            why = spool_failed(&mut self.spool) => why,
            why = store_exhausted(self.store.as_mut()) => why,
        }
    }
}

async fn spool_failed(state: &mut watch::Receiver<SpoolState>) -> String {
    let failed = state.wait_for(|state| matches!(state, SpoolState::Failed { .. })).await;
    if let Ok(SpoolState::Failed { why }) = failed.as_deref() {
        return format!("the thread that writes the audit spool failed: {why}");
    }
    drop(failed);
    std::future::pending().await
}

async fn store_exhausted(exhausted: Option<&mut watch::Receiver<Option<String>>>) -> String {
    if let Some(exhausted) = exhausted
        && let Ok(why) = exhausted.wait_for(Option::is_some).await.map(|why| why.clone())
        && let Some(why) = why
    {
        return why;
    }
    std::future::pending().await
}
