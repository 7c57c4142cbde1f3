//! What a node does for ever beside its actors, as an actor: where it fails it is begun again.
//!
//! **Owns** one piece of work that has no end while those live for whom it is done.
//! **Hears** nothing.
//! **Tells** what its work tells, each time the whole of it, so that to begin again is harmless.
//! **Never** keeps anything.
//! **Ends** when its work does, or with the node. Permanent.

use crate::actors::address::Origin;
use crate::actors::host::{Behavior, Ctx};
use futures::future::LocalBoxFuture;
use std::sync::Arc;

/// Begins the work.
pub(super) type Work = Arc<dyn Fn(Origin) -> LocalBoxFuture<'static, ()> + Send + Sync>;

pub(super) struct Follower(pub Work);

impl Behavior for Follower {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        ctx.run((self.0)(ctx.origin()), |_, (), ctx| ctx.stop());
    }
}
