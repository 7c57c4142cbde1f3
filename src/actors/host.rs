//! The actor host: everything of actix is behind this file.
//!
//! An actor is a [`Behavior`] with one [`Handle<M>`] per message. A handler is never async; work that takes time is
//! [`Ctx::run`] with a continuation, so that what may interleave is visible in the source. Around every behaviour stands
//! our own actix actor, the [`Adapter`], which gives without the author's doing:
//!
//! - a bounded mailbox ([`Behavior::MAILBOX`]);
//! - the causal chain: whatever is sent while a message is handled names it as its cause ([`Ctx::origin`]);
//! - containment: a panic in a handler, a future or a continuation drops the state and the futures, and the behaviour is
//!   rebuilt from its factory in place. Queue and address stay; the asker in hand reads `AskError::Failed`. (actix's own
//!   `Supervisor` neither catches a panic nor re-creates an actor.)
//! - restart rules with escalation, and an orderly end: children first, newest first.

use super::address::{Address, Deliver, Envelope, Message, Meta, Origin, Reply, TellError};
use super::supervisor::{ChildExited, ExitReason, Restart, RestartHistory, Verdict};
use crate::model::ConnectionId;
use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, WrapFuture as _};
use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture};
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What an actor does. Its header says: Owns, Hears, Tells, Never, Ends.
pub trait Behavior: Sized + Unpin + 'static {
    /// How many messages may wait. Each actor gives its reason beside the number.
    const MAILBOX: usize;

    fn started(&mut self, _ctx: &mut Ctx<'_, Self>) {}

    fn child_exited(&mut self, _exit: ChildExited, _ctx: &mut Ctx<'_, Self>) {}

    /// What is still to be done before the end. The host waits for it, within the deadline of the stop.
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
    addr: actix::Addr<Adapter<B>>,
    ended: watch::Receiver<bool>,
}

impl<B: Behavior> Clone for ActorRef<B> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
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
        Address::new(self.name.clone(), Arc::new(self.addr.clone()))
    }

    pub fn child(&self) -> Child {
        let me = self.clone();
        Child {
            name: self.name.clone(),
            stop: Arc::new(move |within| me.clone().stop(within).boxed()),
        }
    }

    /// Ends the actor: its children newest first, then its own `stopping`. True when that was done within the deadline.
    pub async fn stop(mut self, within: Duration) -> bool {
        let done = async {
            if self.addr.send(Stop).await.is_err() {
                return;
            }
            let _dropped = self.ended.wait_for(|ended| *ended).await;
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

/// How long each actor has for its end when its parent ends it.
const CHILD_STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Starts an actor on the runtime behind `arbiter`. The factory runs there, now and after every failure.
pub fn start_on<B: Behavior>(
    runtime: &Runtime,
    spec: Spec,
    tell_parent: TellParent,
    factory: impl FnMut() -> B + Send + 'static,
) -> ActorRef<B> {
    let (ended_sender, ended) = watch::channel(false);
    let name = spec.name.clone();
    let addr = <Adapter<B> as actix::Actor>::start_in_arbiter(&runtime.arbiter, move |_| Adapter {
        name: spec.name,
        factory: Box::new(factory),
        behavior: None,
        futures: HashMap::new(),
        next_future: 0,
        history: RestartHistory::new(spec.rule),
        children: Vec::new(),
        tell_parent,
        ended: ended_sender,
        exit: ExitReason::Finished,
    });
    ActorRef { name, addr, ended }
}

/// The actix actor around a behaviour.
struct Adapter<B: Behavior> {
    name: Arc<str>,
    factory: Box<dyn FnMut() -> B>,
    /// `None` while a handler runs (it has the value) and between a failure and the rebuild.
    behavior: Option<B>,
    /// Futures of this state, ended with it.
    futures: HashMap<u64, actix::SpawnHandle>,
    next_future: u64,
    history: RestartHistory,
    /// In the order of their start.
    children: Vec<(Child, Restart)>,
    tell_parent: TellParent,
    ended: watch::Sender<bool>,
    exit: ExitReason,
}

impl<B: Behavior> actix::Actor for Adapter<B> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(B::MAILBOX);
        self.build(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        tracing::trace!(actor = %self.name, reason = ?self.exit, "exited");
        self.stop_children(|_| true);
        (self.tell_parent)(ChildExited {
            name: self.name.clone(),
            rule: self.history.rule(),
            reason: self.exit.clone(),
        });
        self.ended.send_replace(true);
    }
}

impl<B: Behavior> Adapter<B> {
    fn build(&mut self, ctx: &mut actix::Context<Self>) {
        match std::panic::catch_unwind(AssertUnwindSafe(|| (self.factory)())) {
            Ok(behavior) => {
                self.behavior = Some(behavior);
                let origin = Origin::outside(&self.name);
                self.with_behavior(ctx, origin, |behavior, ctx| behavior.started(ctx));
            }
            Err(panic) => self.failed(&panic_text(panic.as_ref()), ctx),
        }
    }

    /// Runs `work` on the state; a panic in it is contained here.
    fn with_behavior<T>(
        &mut self,
        actix: &mut actix::Context<Self>,
        origin: Origin,
        work: impl FnOnce(&mut B, &mut Ctx<'_, B>) -> T,
    ) -> Option<T> {
        let mut behavior = self.behavior.take()?;
        let mut ctx = Ctx {
            adapter: self,
            actix,
            origin,
            fault: None,
        };
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| work(&mut behavior, &mut ctx)));
        let fault = ctx.fault.take();
        match (result, fault) {
            (Ok(value), None) => {
                self.behavior = Some(behavior);
                Some(value)
            }
            (result, fault) => {
                let why = match &result {
                    Err(panic) => panic_text(panic.as_ref()),
                    Ok(_) => fault.unwrap_or_default(),
                };
                drop_contained(behavior);
                self.failed(&why, actix);
                result.ok()
            }
        }
    }

    /// The state is gone: ends its futures, then rebuilds or gives up, by the rule.
    fn failed(&mut self, why: &str, ctx: &mut actix::Context<Self>) {
        for (_, handle) in self.futures.drain() {
            ctx.cancel_future(handle);
        }
        if let Some(behavior) = self.behavior.take() {
            drop_contained(behavior);
        }
        match self.history.failed(why, tokio::time::Instant::now()) {
            Verdict::RebuildAfter(wait) => {
                tracing::error!(actor = %self.name, why, ?wait, "actor failed and is rebuilt");
                // Temporary children serve connections of their own and go on; the others belong to the state that is
                // gone, and the rebuilt behaviour starts them again.
                self.stop_children(|rule| rule != Restart::Temporary);
                let pause = tokio::time::sleep(wait).into_actor(self);
                ctx.wait(pause.map(|(), adapter, ctx| adapter.build(ctx)));
            }
            Verdict::GiveUp(reason) => {
                tracing::error!(actor = %self.name, why, ?reason, "actor failed and is not rebuilt");
                self.exit = reason;
                ctx.stop();
            }
        }
    }

    fn stop_children(&mut self, which: impl Fn(Restart) -> bool) {
        let (stopped, kept) = std::mem::take(&mut self.children)
            .into_iter()
            .partition(|(_, rule)| which(*rule));
        self.children = kept;
        for (child, _) in stopped {
            actix::spawn(async move { child.stop(CHILD_STOP_DEADLINE).await });
        }
    }
}

fn drop_contained<T>(value: T) {
    let _panic = std::panic::catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("(no text)"))
}

/// The envelope as actix carries it.
struct Delivery<M: Message>(Envelope<M>);

impl<M: Message> actix::Message for Delivery<M> {
    type Result = ();
}

impl<B: Handle<M>, M: Message> actix::Handler<Delivery<M>> for Adapter<B> {
    type Result = ();

    fn handle(&mut self, Delivery(envelope): Delivery<M>, ctx: &mut Self::Context) {
        let Envelope {
            message,
            meta: Meta { id, origin },
            reply_to,
        } = envelope;
        tracing::trace!(
            target: "postern::message", %id, cause = ?origin.cause, connection = ?origin.connection,
            from = %origin.from, to = %self.name, message = M::NAME, "handle"
        );
        let here = Origin {
            from: self.name.clone(),
            cause: Some(id),
            connection: origin.connection,
        };
        let reply = self.with_behavior(ctx, here, |behavior, ctx| behavior.handle(message, ctx));
        if let (Some(reply), Some(reply_to)) = (reply, reply_to) {
            // The asker may have given up; that is its affair.
            let _gave_up = reply_to.send(reply);
        }
    }
}

impl<B: Handle<M>, M: Message> Deliver<M> for actix::Addr<Adapter<B>> {
    fn offer(&self, envelope: Envelope<M>) -> Result<(), TellError> {
        self.try_send(Delivery(envelope)).map_err(|error| match error {
            actix::dev::SendError::Full(_) => TellError::Full,
            actix::dev::SendError::Closed(_) => TellError::Closed,
        })
    }

    fn deliver(&self, envelope: Envelope<M>) -> BoxFuture<'static, Result<(), TellError>> {
        // actix resolves its request when the message has been handled; the answer travels on our own channel.
        let request = self.send(Delivery(envelope));
        async move { request.await.map_err(|_| TellError::Closed) }.boxed()
    }
}

struct Stop;

impl actix::Message for Stop {
    type Result = ();
}

impl<B: Behavior> actix::Handler<Stop> for Adapter<B> {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.exit = ExitReason::Stopped;
        let mut children: Vec<_> = self.children.drain(..).map(|(child, _)| child).collect();
        let origin = Origin::outside(&self.name);
        let last_work = self
            .with_behavior(ctx, origin, |behavior, ctx| behavior.stopping(ctx))
            .flatten();
        let end = async move {
            while let Some(child) = children.pop() {
                child.stop(CHILD_STOP_DEADLINE).await;
            }
            if let Some(work) = last_work {
                work.await;
            }
        };
        ctx.wait(end.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

struct ChildNotice(ChildExited);

impl actix::Message for ChildNotice {
    type Result = ();
}

impl<B: Behavior> actix::Handler<ChildNotice> for Adapter<B> {
    type Result = ();

    fn handle(&mut self, ChildNotice(exit): ChildNotice, ctx: &mut Self::Context) {
        self.children.retain(|(child, _)| child.name != exit.name);
        let escalates = matches!(exit.reason, ExitReason::Exhausted(_));
        let origin = Origin::outside(&exit.name);
        let child = exit.name.clone();
        self.with_behavior(ctx, origin, |behavior, ctx| behavior.child_exited(exit, ctx));
        if escalates {
            self.failed(&format!("child {child} is exhausted"), ctx);
        }
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

    pub fn name(&self) -> &Arc<str> {
        &self.adapter.name
    }

    pub fn address<M: Message>(&self) -> Address<M>
    where
        B: Handle<M>,
    {
        Address::new(self.adapter.name.clone(), Arc::new(self.actix.address()))
    }

    /// Runs `future` beside the handlers; `continuation` gets its result with the state, as a turn of its own. Both end
    /// with the state.
    pub fn run<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        continuation: impl FnOnce(&mut B, T, &mut Ctx<'_, B>) + 'static,
    ) {
        let number = self.adapter.next_future;
        self.adapter.next_future += 1;
        let origin = self.origin.clone();
        let contained =
            AssertUnwindSafe(future)
                .catch_unwind()
                .into_actor(&*self.adapter)
                .map(move |result, adapter, actix| {
                    adapter.futures.remove(&number);
                    match result {
                        Ok(value) => {
                            adapter.with_behavior(actix, origin, |b, ctx| continuation(b, value, ctx));
                        }
                        Err(panic) => adapter.failed(&panic_text(panic.as_ref()), actix),
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
        let rule = spec.rule;
        let tell_parent: TellParent = Arc::new(move |exit| notify(&parent, exit));
        let child = start_on(runtime, spec, tell_parent, factory);
        self.adapter.children.push((child.child(), rule));
        child
    }

    /// Ends this actor: its work is done.
    pub fn stop(&mut self) {
        self.actix.stop();
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

/// One single-threaded runtime: an arbiter and its thread.
#[derive(Debug, Clone)]
pub struct Runtime {
    arbiter: actix::ArbiterHandle,
}

impl Runtime {
    /// The runtime that the caller is on.
    pub fn current() -> Self {
        Self {
            arbiter: actix::Arbiter::current(),
        }
    }

    /// Runs a task on this runtime. False when the runtime is gone.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.arbiter.spawn(task)
    }
}

/// Spawns a task on the runtime that the caller is on; it ends when the guard is dropped.
pub fn spawn_here<T: 'static>(task: impl Future<Output = T> + 'static) -> TaskGuard<T> {
    TaskGuard(actix::spawn(task))
}

/// Spawns a task on the runtime that the caller is on; it ends by itself.
pub fn spawn_detached(task: impl Future<Output = ()> + 'static) {
    actix::spawn(task);
}

/// A task that ends with its owner. Awaiting it gives the result, or the text of its panic.
#[derive(Debug)]
pub struct TaskGuard<T>(tokio::task::JoinHandle<T>);

impl<T> TaskGuard<T> {
    pub async fn join(mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(|error| {
            if error.is_panic() {
                panic_text(error.into_panic().as_ref())
            } else {
                "the task was ended".to_owned()
            }
        })
    }
}

impl<T> Drop for TaskGuard<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The runtimes of a node: one for control on the calling thread, and one per core for connections.
#[derive(Debug, Clone)]
pub struct Runtimes {
    pub control: Runtime,
    pub workers: Vec<Runtime>,
}

/// Runs `main` on a new actix system; `main` gets its runtimes.
pub fn run_system<T, F: Future<Output = T>>(workers: usize, main: impl FnOnce(Runtimes) -> F) -> T {
    let system = actix::System::new();
    system.block_on(async move {
        let arbiters: Vec<_> = (0..workers.max(1)).map(|_| actix::Arbiter::new()).collect();
        let runtimes = Runtimes {
            control: Runtime::current(),
            workers: arbiters
                .iter()
                .map(|arbiter| Runtime {
                    arbiter: arbiter.handle(),
                })
                .collect(),
        };
        let result = main(runtimes).await;
        for arbiter in &arbiters {
            arbiter.stop();
        }
        for arbiter in arbiters {
            let _panicked = arbiter.join();
        }
        result
    })
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
