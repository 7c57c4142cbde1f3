//! The root of the actor tree: starts the node's actors in order, hears when one is exhausted, ends them in reverse.

use super::follower::{Follower, Work};
use crate::actors::address::Origin;
use crate::actors::host::{ActorRef, Behavior, Child, Runtime, Runtimes, Spec, start_on};
use crate::actors::supervisor::{ChildExited, ExitReason};
use futures::future::LocalBoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) struct Roots {
    runtimes: Runtimes,
    children: Vec<Root>,
    exits: mpsc::UnboundedReceiver<ChildExited>,
    /// Unbounded, and still bounded: there is one exit for each actor of the root.
    exit_sender: mpsc::UnboundedSender<ChildExited>,
}

struct Root {
    child: Child,
    /// By [`Roots::start_beside_connections`].
    is_beside_connections: bool,
}

impl Roots {
    pub fn new(runtimes: Runtimes) -> Self {
        let (exit_sender, exits) = mpsc::unbounded_channel();
        Self {
            runtimes,
            children: Vec::new(),
            exits,
            exit_sender,
        }
    }

    pub fn start<B: Behavior>(&mut self, spec: Spec, factory: impl FnMut() -> B + Send + 'static) -> ActorRef<B> {
        let runtime = self.runtimes.control.clone();
        self.start_on(&runtime, false, spec, factory)
    }

    /// As [`Roots::start`], for what every connection asks: on [`Runtimes::beside_connections`].
    pub fn start_beside_connections<B: Behavior>(
        &mut self,
        spec: Spec,
        factory: impl FnMut() -> B + Send + 'static,
    ) -> ActorRef<B> {
        let runtime = self.runtimes.beside_connections().clone();
        self.start_on(&runtime, true, spec, factory)
    }

    /// Does `work` for as long as the node lives; see [`Follower`].
    pub fn follow(&mut self, name: &str, work: impl Fn(Origin) -> LocalBoxFuture<'static, ()> + Send + Sync + 'static) {
        let work: Work = Arc::new(work);
        self.start(Spec::permanent(name), move || Follower(work.clone()));
    }

    fn start_on<B: Behavior>(
        &mut self,
        runtime: &Runtime,
        is_beside_connections: bool,
        spec: Spec,
        factory: impl FnMut() -> B + Send + 'static,
    ) -> ActorRef<B> {
        let exits = self.exit_sender.clone();
        let tell = Arc::new(move |exit| drop(exits.send(exit)));
        let actor = start_on(runtime, spec, tell, factory);
        self.children.push(Root {
            child: actor.child(),
            is_beside_connections,
        });
        actor
    }

    /// Resolves when an actor of the root has given up.
    pub async fn exhausted(&mut self) -> String {
        loop {
            match self.exits.recv().await {
                Some(ChildExited {
                    name,
                    reason: ExitReason::Exhausted(why) | ExitReason::Failed(why),
                    ..
                }) => return format!("actor {name} is exhausted: {why}"),
                Some(_) => {}
                // It holds a sender itself.
                None => std::future::pending().await,
            }
        }
    }

    /// Ends the newest first, each within `each`, and all of them within `altogether`: those for which no time is left are told
    /// and not waited for. So are the others beside connections once one of them was late, as their thread is blocked: the time is for
    /// those of other threads, the audit trail's last of all.
    pub async fn stop_all(&mut self, each: Duration, altogether: Duration) {
        let deadline = Instant::now() + altogether;
        let mut is_blocked = false;
        while let Some(Root {
            child,
            is_beside_connections,
        }) = self.children.pop()
        {
            let within = match is_beside_connections && is_blocked {
                true => Duration::ZERO,
                false => each.min(deadline.saturating_duration_since(Instant::now())),
            };
            if !child.stop(within).await {
                is_blocked |= is_beside_connections;
                tracing::warn!(actor = %child.name, at_most = ?within, "actor did not end in time");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::host::{Ctx, run_system};
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Waits;

    impl Behavior for Waits {
        const MAILBOX: usize = 1;
    }

    struct Ships(Arc<AtomicBool>);

    impl Behavior for Ships {
        const MAILBOX: usize = 1;

        fn stopping(&mut self, _: &mut Ctx<'_, Self>) -> Option<LocalBoxFuture<'static, ()>> {
            let shipped = self.0.clone();
            Some(Box::pin(async move {
                // As long as a question to auth takes; somebody who is told only does not get so far.
                tokio::time::sleep(Duration::from_millis(100)).await;
                shipped.store(true, Ordering::SeqCst);
            }))
        }
    }

    #[test]
    fn a_blocked_thread_of_connections_leaves_time_for_the_end_of_the_others() {
        run_system(1, |runtimes| async move {
            let (say, blocked) = tokio::sync::oneshot::channel();
            let shipped = Arc::new(AtomicBool::new(false));
            let mut roots = Roots::new(runtimes.clone());
            let by_ships = shipped.clone();
            roots.start(Spec::permanent("audit"), move || Ships(by_ships.clone()));
            for name in ["cancels", "sessions", "listener"] {
                roots.start_beside_connections(Spec::permanent(name), || Waits);
            }
            runtimes.workers[0].spawn(async move {
                let _told = say.send(());
                std::thread::sleep(Duration::from_secs(2));
            });
            blocked.await.unwrap();
            // One of the three may take the second that it has; two of them would take all of the time.
            roots
                .stop_all(Duration::from_secs(1), Duration::from_millis(1500))
                .await;
            assert!(shipped.load(Ordering::SeqCst), "the last work was waited for");
        });
    }
}
