//! The root of the actor tree: starts the node's actors in order, hears when one is exhausted, ends them in reverse.

use crate::actors::host::{ActorRef, Behavior, Child, Runtime, Spec, start_on};
use crate::actors::supervisor::{ChildExited, ExitReason};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) struct Roots {
    runtime: Runtime,
    children: Vec<Child>,
    exits: mpsc::UnboundedReceiver<ChildExited>,
    /// Unbounded, and still bounded: there is one exit for each actor of the root.
    exit_sender: mpsc::UnboundedSender<ChildExited>,
}

impl Roots {
    pub fn new(runtime: Runtime) -> Self {
        let (exit_sender, exits) = mpsc::unbounded_channel();
        Self {
            runtime,
            children: Vec::new(),
            exits,
            exit_sender,
        }
    }

    pub fn start<B: Behavior>(&mut self, spec: Spec, factory: impl FnMut() -> B + Send + 'static) -> ActorRef<B> {
        let runtime = self.runtime.clone();
        self.start_on(&runtime, spec, factory)
    }

    pub fn start_on<B: Behavior>(
        &mut self,
        runtime: &Runtime,
        spec: Spec,
        factory: impl FnMut() -> B + Send + 'static,
    ) -> ActorRef<B> {
        let exits = self.exit_sender.clone();
        let tell = Arc::new(move |exit| drop(exits.send(exit)));
        let actor = start_on(runtime, spec, tell, factory);
        self.children.push(actor.child());
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

    pub async fn stop_all(&mut self, within: Duration) {
        while let Some(child) = self.children.pop() {
            if !child.stop(within).await {
                tracing::warn!(actor = %child.name, at_most = ?within, "actor did not end in time");
            }
        }
    }
}
