//! A node from its start to its end: what it is told while it runs, how it drains, and how it stops.

use super::{EndSessions, Node};
use crate::actors::address::{Address, AskError, Message, Origin};
use crate::actors::sessions::{Drain, EndAll, LAST_WORDS_DEADLINE};
use crate::config::Config;
use crate::model::{Refusal, RefusalKind};
use crate::telemetry::panics;
use futures::future::join_all;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A node that drains without being in a hurry waits no longer than this for its sessions; the reference's.
pub const DRAIN_MAX: Duration = Duration::from_secs(30 * 3600);
/// How long an actor has for its orderly end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long all of them have, however many are late: what supervises the process kills it at some time, too.
const STOP_ALL_DEADLINE: Duration = Duration::from_secs(30);
/// From the end of the drain to the end of the process, everything included: last words, actors, the spool, the threads.
pub const END_DEADLINE: Duration = Duration::from_secs(45);
/// Between two times that the actor of the sessions is asked; it is rebuilt meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What a node is told while it runs.
#[derive(Debug)]
pub enum Order {
    /// Let the open sessions finish, and stop then; at the latest after `DRAIN_MAX`.
    Drain,
    /// As `Drain`, but at the latest after `shutdown_grace`; told again, at once.
    Stop,
    /// The configuration was read again.
    Reload(Box<Config>),
}

/// How a node's life ended.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeEnd {
    /// It was told to.
    Stopped,
    /// Auth has said that it must not go on.
    Condemned(String),
    /// An actor or a thread that the node cannot do without is exhausted.
    Exhausted(String),
}

/// Asks again when the actor has failed over it: what is asked here is harmless to repeat, and sessions would be cut otherwise.
async fn surely_ask<M: Message>(
    address: &Address<M>,
    origin: &Origin,
    message: impl Fn() -> M,
    within: Duration,
) -> Result<M::Reply, AskError> {
    loop {
        match address.ask(origin, message(), within).await {
            Err(AskError::Failed { .. }) => tokio::time::sleep(ASK_AGAIN).await,
            answer => return answer,
        }
    }
}

async fn condemned(mut sentence: watch::Receiver<Option<String>>) -> String {
    match sentence.wait_for(Option::is_some).await.map(|why| why.clone()) {
        Ok(Some(why)) => why,
        _ => std::future::pending().await,
    }
}

impl Node {
    /// Writes `listening.json` when the node is ready, then waits until it is told to stop and has drained, or cannot go on. The
    /// orders are closed when this returns: from there on nothing can be hurried.
    pub async fn run(&mut self, mut orders: mpsc::Receiver<Order>) -> NodeEnd {
        let mut phase = self.phase.view();
        let mut announced = false;
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Reload(config)) => self.reload(&config),
                    Some(Order::Drain) => return self.drain(DRAIN_MAX, orders).await,
                    Some(Order::Stop) | None => {
                        let grace = self.common.config.shutdown_grace;
                        return self.drain(grace, orders).await;
                    }
                },
                exhausted = self.roots.exhausted() => return NodeEnd::Exhausted(exhausted),
                lost = self.threads.lost() => return NodeEnd::Exhausted(lost),
                why = condemned(self.common.condemned.subscribe()) => return NodeEnd::Condemned(why),
                () = phase.ready(), if !announced => {
                    announced = true;
                    let diag = self.diag.as_ref().map(|diag| diag.listening);
                    self.data_dir.announce_listening(self.auth_address, self.proxy_address, diag);
                    tracing::info!("node is ready");
                }
            }
        }
    }

    /// Nothing new begins, and each session ends when it is idle. Returns when the last one has ended, when time is over, or when
    /// it was told to hurry twice.
    async fn drain(&mut self, within: Duration, mut orders: mpsc::Receiver<Order>) -> NodeEnd {
        tracing::info!(at_most = ?within, "node drains: no new connections; sessions end when they are idle");
        self.phase.drain();
        let asked = Self::ask_to_drain(&self.sessions, self.going_down());
        tokio::pin!(asked);
        let grace = self.common.config.shutdown_grace;
        let mut hurried = within <= grace;
        let mut deadline = Instant::now() + within;
        loop {
            tokio::select! {
                biased;
                exhausted = self.roots.exhausted() => return NodeEnd::Exhausted(exhausted),
                lost = self.threads.lost() => return NodeEnd::Exhausted(lost),
                () = &mut asked => {
                    tracing::info!("node has drained");
                    return NodeEnd::Stopped;
                }
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!("not all sessions are idle in time; those that are left are ended now");
                    return NodeEnd::Stopped;
                }
                order = orders.recv() => match order {
                    Some(Order::Reload(_)) => tracing::info!("the node drains: the configuration is not looked at any more"),
                    Some(Order::Drain | Order::Stop) if !hurried => {
                        hurried = true;
                        deadline = deadline.min(Instant::now() + grace);
                        tracing::info!(at_most = ?grace, "told again: the sessions that are left have less time");
                    }
                    Some(Order::Drain | Order::Stop) | None => {
                        tracing::warn!("told again: the sessions that are left are ended now");
                        return NodeEnd::Stopped;
                    }
                },
            }
        }
    }

    async fn ask_to_drain(sessions: &[EndSessions], going_down: Refusal) {
        let origin = Origin::outside("stop");
        let asks = sessions
            .iter()
            .map(|sessions| surely_ask(&sessions.drain, &origin, || Drain(going_down.clone()), DRAIN_MAX));
        for error in join_all(asks).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "not all sessions were waited for");
        }
    }

    /// What of a configuration that was read again differs from the one in use. Nothing of it is taken over while the node runs.
    fn reload(&self, config: &Config) {
        let changed = self.common.config.changed_keys(config);
        let keypairs = super::proxy::keypairs(&self.common.config);
        // This is no actor, and a fault over a file is not to end the node.
        match catch_unwind(AssertUnwindSafe(|| self.common.web.load(keypairs))) {
            Ok(Ok(())) if keypairs.is_empty() => {}
            Ok(Ok(())) => tracing::info!("the files of proxy_service.https_keypairs were read again"),
            Ok(Err(error)) => {
                tracing::error!(%error, "proxy_service.https_keypairs: those read before are still presented")
            }
            Err(panic) => {
                let why = panics::text(panic.as_ref());
                tracing::error!(
                    reason = why,
                    "proxy_service.https_keypairs: those read before are still presented"
                );
            }
        }
        if changed.is_empty() {
            tracing::info!("configuration read again: nothing has changed");
        }
        for key in changed {
            tracing::warn!(
                setting = key,
                "configuration read again: this setting has changed, and needs a restart of the node"
            );
        }
    }

    /// Ends the sessions with a reason that their clients read, the actors in the reverse order of their start, and then what
    /// they wrote to.
    pub async fn stop(mut self) {
        tracing::info!("node stops");
        self.phase.drain();
        self.end_sessions().await;
        self.roots.stop_all(STOP_DEADLINE, STOP_ALL_DEADLINE).await;
        let spool = self.spool.clone();
        match tokio::task::spawn_blocking(move || spool.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the audit spool was not closed cleanly"),
            Err(error) => tracing::error!(error = panics::of_task(error), "the audit spool was not closed"),
        }
        drop(self.debug);
        self.data_dir.close();
    }

    async fn end_sessions(&self) {
        let origin = Origin::outside("stop");
        for sessions in &self.sessions {
            // One second more than the sessions have for their last words.
            let within = LAST_WORDS_DEADLINE + Duration::from_secs(1);
            let told = surely_ask(&sessions.end_all, &origin, || EndAll(self.going_down()), within).await;
            if let Err(error) = told {
                tracing::warn!(%error, "not all sessions were told that the node goes down");
            }
        }
    }

    fn going_down(&self) -> Refusal {
        Refusal::new(
            RefusalKind::ShuttingDown,
            format!("this session is over: node {} is going down", self.identity.name),
        )
        .hint("connect again; another node may serve you, or this one when it is back")
    }
}
