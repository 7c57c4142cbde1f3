//! The cluster's audit log, on auth.
//!
//! **Owns** the log's segments and index.
//! **Hears** `StoreLines` from every node's shipper, `QueryAudit` from administrators.
//! **Tells** nobody; it answers when the lines are on disk.
//! **Never** works on its own thread's time: files and the index are blocking, so they are used on the blocking pool, one
//! use at a time.
//! **Ends** after all shippers of this process.

use super::address::{Reply, message};
use super::audit::StoreLines;
use super::host::{Behavior, Ctx, Handle};
use crate::audit::{AuditLog, Query};
use std::sync::{Arc, Mutex, PoisonError};

pub struct QueryAudit(pub Query);
message!(QueryAudit => Result<Vec<String>, String>);

pub type SharedAuditLog = Arc<Mutex<AuditLog>>;

pub struct AuditLogKeeper {
    log: SharedAuditLog,
}

impl AuditLogKeeper {
    pub fn new(log: SharedAuditLog) -> Self {
        Self { log }
    }

    fn on_log<T: Send + 'static>(
        &self,
        ctx: &mut Ctx<'_, Self>,
        work: impl FnOnce(&mut AuditLog) -> Result<T, String> + Send + 'static,
    ) -> Reply<Result<T, String>> {
        let log = self.log.clone();
        let (reply, promise) = Reply::later();
        let done = tokio::task::spawn_blocking(move || {
            // The log repairs itself when it is opened and checks before it writes; a panic leaves nothing half done that
            // the next use could build on.
            work(&mut log.lock().unwrap_or_else(PoisonError::into_inner))
        });
        ctx.run_for_asker(done, move |_, done, _| {
            promise.keep(done.unwrap_or_else(|_| Err("the audit log's thread failed".to_owned())));
        });
        reply
    }
}

impl Behavior for AuditLogKeeper {
    /// Each shipper has one batch under way; this is room for as many nodes, each batch at most a megabyte.
    const MAILBOX: usize = 64;
}

impl Handle<StoreLines> for AuditLogKeeper {
    fn handle(&mut self, batch: StoreLines, ctx: &mut Ctx<'_, Self>) -> Reply<Result<u64, String>> {
        self.on_log(ctx, move |log| {
            log.append(&batch.spool, batch.first_seq, &batch.lines)
                .map_err(|error| error.to_string())
        })
    }
}

impl Handle<QueryAudit> for AuditLogKeeper {
    fn handle(&mut self, QueryAudit(query): QueryAudit, ctx: &mut Ctx<'_, Self>) -> Reply<Result<Vec<String>, String>> {
        self.on_log(ctx, move |log| log.query(&query).map_err(|error| error.to_string()))
    }
}
