//! The actor host: everything of actix is behind this folder.
//!
//! An actor is a [`Behavior`] with one [`Handle<M>`] per message. A handler is never async; work that takes time is
//! [`Ctx::run`] with a continuation, so that what may interleave is visible in the source. Around every behaviour stands
//! our own actix actor, the `Adapter`, which gives without the author's doing:
//!
//! - a bounded mailbox ([`Behavior::MAILBOX`]);
//! - the causal chain: whatever is sent while a message is handled names it as its cause ([`Ctx::origin`]);
//! - containment: a panic in a handler, a future or a continuation drops the state and the futures, and the behaviour is
//!   rebuilt from its factory in place. Queue and address stay; the asker in hand reads `AskError::Failed`. (actix's own
//!   `Supervisor` neither catches a panic nor re-creates an actor.)
//! - restart rules with escalation, and an orderly end: children first, newest first.

mod adapter;
#[cfg(test)]
#[cfg(feature = "fault-points")]
mod fault_tests;
#[cfg(feature = "fault-points")]
mod faults;
#[cfg(test)]
mod rest_tests;
mod runtime;
mod schedule;
#[cfg(test)]
mod tests;

pub use runtime::{Runtime, Runtimes, TaskGuard, run_system, spawn_detached, spawn_here};
#[cfg(test)]
pub use schedule::{fail_at, run_seeded};

use super::address::{Address, Message, Origin, Reply};
use super::supervisor::{ChildExited, Restart};
use crate::model::{ConnectionId, MessageId, Moment};
use crate::telemetry::label::Label;
use crate::telemetry::panics;
use crate::telemetry::registry::{Seat, SeatSpec};
use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, WrapFuture as _};
use adapter::{Adapter, CONTINUATION, ChildNotice, Door, Ended, Stop};
use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// What an actor does. Its header says: Owns, Hears, Tells, Never, Ends.
pub trait Behavior: Sized + Unpin + 'static {
    /// How many messages may wait. Each actor gives its reason beside the number.
    const MAILBOX: usize;

    fn started(&mut self, _ctx: &mut Ctx<'_, Self>) {}

    fn child_exited(&mut self, _exit: ChildExited, _ctx: &mut Ctx<'_, Self>) {}

    /// What is still to be done before the end. The host waits for it, but no longer than `LAST_WORK_DEADLINE`.
    fn stopping(&mut self, _ctx: &mut Ctx<'_, Self>) -> Option<LocalBoxFuture<'static, ()>> {
        None
    }
}

pub trait Handle<M: Message>: Behavior {
    fn handle(&mut self, message: M, ctx: &mut Ctx<'_, Self>) -> Reply<M::Reply>;
}

/// The name and the restart rule of an actor about to be started.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: Arc<str>,
    pub rule: Restart,
}

impl Spec {
    pub fn permanent(name: &str) -> Self {
        Self::new(name, Restart::Permanent)
    }

    pub fn transient(name: &str) -> Self {
        Self::new(name, Restart::Transient)
    }

    pub fn temporary(name: &str) -> Self {
        Self::new(name, Restart::Temporary)
    }

    fn new(name: &str, rule: Restart) -> Self {
        Self {
            name: name.into(),
            rule,
        }
    }
}

type TellParent = Arc<dyn Fn(ChildExited) + Send + Sync>;

/// A started actor: where its addresses come from, and how it is stopped.
pub struct ActorRef<B: Behavior> {
    name: Arc<str>,
    seat: Arc<Seat>,
    addr: actix::Addr<Adapter<B>>,
    ended: Ended,
}

impl<B: Behavior> Clone for ActorRef<B> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            seat: self.seat.clone(),
            addr: self.addr.clone(),
            ended: self.ended.clone(),
        }
    }
}

impl<B: Behavior> ActorRef<B> {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn address<M: Message>(&self) -> Address<M>
    where
        B: Handle<M>,
    {
        let door = Door::new(self.addr.clone(), self.seat.clone());
        Address::new(self.seat.path().clone(), Arc::new(door))
    }

    pub fn child(&self) -> Child {
        let me = self.clone();
        Child {
            name: self.name.clone(),
            stop: Arc::new(move |within| me.clone().stop(within).boxed()),
        }
    }

    /// Ends the actor: its children newest first, then its own `stopping`. True when that was done within the deadline.
    pub async fn stop(self, within: Duration) -> bool {
        let done = async {
            // Told rather than asked: actix does not deliver what nobody waits for any more, and an actor that is late is to end
            // all the same.
            if self.addr.try_send(Stop).is_err() {
                return;
            }
            self.ended.wait().await;
        };
        tokio::time::timeout(within, done).await.is_ok()
    }
}

/// A child as its parent holds it.
#[derive(Clone)]
pub struct Child {
    pub name: Arc<str>,
    stop: Arc<dyn Fn(Duration) -> BoxFuture<'static, bool> + Send + Sync>,
}

impl Child {
    pub async fn stop(&self, within: Duration) -> bool {
        (self.stop)(within).await
    }
}

/// How long the children of an actor have for their end, all together: those of a port may be thousands, and on a thread that
/// is blocked none of them ends.
const CHILDREN_STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long the last work of an actor may take. With its children's end it stays within what the root gives each actor.
const LAST_WORK_DEADLINE: Duration = Duration::from_secs(4);

/// Starts an actor of the root on a runtime. The factory runs there, now and after every failure.
pub fn start_on<B: Behavior>(
    runtime: &Runtime,
    spec: Spec,
    tell_parent: TellParent,
    factory: impl FnMut() -> B + Send + 'static,
) -> ActorRef<B> {
    let path = spec.name.clone();
    start_at(runtime, path, spec, None, tell_parent, factory)
}

/// What actix takes for a channel without a bound.
const UNBOUNDED: usize = 0;

/// Starts an actor at a path of the tree; `parent` is what was in hand when its parent did so.
fn start_at<B: Behavior>(
    runtime: &Runtime,
    path: Arc<str>,
    spec: Spec,
    parent: Option<Origin>,
    tell_parent: TellParent,
    factory: impl FnMut() -> B + Send + 'static,
) -> ActorRef<B> {
    let (ending, ended) = adapter::ending();
    let name = spec.name.clone();
    let seat = Seat::take(SeatSpec {
        path,
        rule: spec.rule.label(),
        bound: u32::try_from(B::MAILBOX).unwrap_or(u32::MAX),
    });
    let inside = seat.clone();
    // `Actor::start_in_arbiter` would give it actix' own bound until it has begun; ours is in front of the channel.
    let (sender, receiver) = actix::dev::channel::channel(UNBOUNDED);
    runtime.arbiter.spawn_fn(move || {
        let adapter = Adapter::new(spec, inside, parent, tell_parent, Box::new(factory), ending);
        actix::spawn(actix::Context::with_receiver(receiver).into_future(adapter));
    });
    let addr = actix::Addr::new(sender);
    ActorRef {
        name,
        seat,
        addr,
        ended,
    }
}

/// What a behaviour can do while it handles something.
pub struct Ctx<'a, B: Behavior> {
    adapter: &'a mut Adapter<B>,
    actix: &'a mut actix::Context<Adapter<B>>,
    origin: Origin,
    fault: Option<String>,
}

impl<B: Behavior> Ctx<'_, B> {
    /// What messages sent from here carry: this actor, the message in hand as the cause, its connection.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// From here on, what is done is done for this connection.
    pub fn serve(&mut self, connection: ConnectionId) {
        self.origin.connection = Some(connection);
    }

    /// This actor works for one connection only, and that is it.
    pub fn serve_only(&mut self, connection: ConnectionId) {
        self.serve(connection);
        self.adapter.seat.serves(connection);
    }

    /// What came from another process is the cause of what is done from here on: `sent` is its message there.
    pub fn arrived(&mut self, what: Label, from: Arc<str>, sent: Option<MessageId>) {
        self.origin.arrived(what, from, sent);
    }

    /// The actor goes into another state, which the record and the views show.
    pub fn state(&mut self, state: &'static str) {
        if self.adapter.seat.state().0.name() != state {
            self.origin.enters(state);
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.adapter.name
    }

    pub fn address<M: Message>(&self) -> Address<M>
    where
        B: Handle<M>,
    {
        let door = Door::new(self.actix.address(), self.adapter.seat.clone());
        Address::new(self.adapter.seat.path().clone(), Arc::new(door))
    }

    /// Runs `future` beside the handlers; `continuation` gets its result with the state, as a turn of its own. Both end
    /// with the state. A panic in the future is the actor's.
    pub fn run<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        continuation: impl FnOnce(&mut B, T, &mut Ctx<'_, B>) + 'static,
    ) {
        self.spawn(future, continuation, Adapter::failed);
    }

    /// As [`Ctx::run`], for work that one asker waits for and that does not touch the state: a panic in it costs its answer and
    /// nothing else. The continuation is dropped then, and with it the promise that it holds.
    pub fn run_for_asker<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        continuation: impl FnOnce(&mut B, T, &mut Ctx<'_, B>) + 'static,
    ) {
        self.spawn(future, continuation, |adapter, why, _| {
            tracing::error!(actor = %adapter.name, reason = why, "work for one asker failed; it reads so, and the actor goes on");
        });
    }

    fn spawn<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        continuation: impl FnOnce(&mut B, T, &mut Ctx<'_, B>) + 'static,
        failed: impl FnOnce(&mut Adapter<B>, &str, &mut actix::Context<Adapter<B>>) + 'static,
    ) {
        let number = self.adapter.next_future;
        self.adapter.next_future += 1;
        let origin = self.origin.clone();
        let contained = AssertUnwindSafe(schedule::shuffled(future))
            .catch_unwind()
            .into_actor(&*self.adapter)
            .map(move |result, adapter, actix| {
                adapter.futures.remove(&number);
                match result {
                    Ok(value) => {
                        let (seat, begin) = (adapter.seat.clone(), Moment::now());
                        seat.takes(*CONTINUATION, origin.connection, begin);
                        adapter.with_behavior(actix, origin, |b, ctx| continuation(b, value, ctx));
                        seat.sets_down(Moment::now().since(begin));
                    }
                    Err(panic) => failed(adapter, &panics::text(panic.as_ref()), actix),
                }
            });
        let handle = self.actix.spawn(contained);
        self.adapter.futures.insert(number, handle);
    }

    pub fn after(&mut self, wait: Duration, then: impl FnOnce(&mut B, &mut Ctx<'_, B>) + 'static) {
        self.run(tokio::time::sleep(wait), move |b, (), ctx| then(b, ctx));
    }

    /// Starts a child on `runtime`. This actor hears of its end in `child_exited`.
    pub fn spawn_child<C: Behavior>(
        &mut self,
        runtime: &Runtime,
        spec: Spec,
        factory: impl FnMut() -> C + Send + 'static,
    ) -> ActorRef<C> {
        let parent = self.actix.address();
        let tell_parent: TellParent = Arc::new(move |exit| notify(&parent, exit));
        let path = format!("{}/{}", self.adapter.seat.path(), spec.name).into();
        let child = start_at(runtime, path, spec, Some(self.origin()), tell_parent, factory);
        self.adapter.children.push(child.child());
        child
    }

    /// The names of the children that live: after a rebuild, those that the state before it has started.
    pub fn children(&self) -> impl Iterator<Item = &Arc<str>> {
        self.adapter.children.iter().map(|child| &child.name)
    }

    /// Ends this actor: its work is done.
    pub fn stop(&mut self) {
        self.actix.stop();
    }

    /// As [`Ctx::stop`], for an end that the views tell as more than `finished`.
    pub fn stop_because(&mut self, why: impl Into<Arc<str>>) {
        self.adapter.end = Some(why.into());
        self.stop();
    }

    /// Gives up this state as a panic would: for faults that a rebuild may cure.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.fault = Some(why.into());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the news of a child's end must not be lost, and there are no more of them than children"
)]
fn notify<B: Behavior>(parent: &actix::Addr<Adapter<B>>, exit: ChildExited) {
    parent.do_send(ChildNotice(exit));
}
