//! Our own actix actor around a behaviour: its state, its failures, its messages and its end.

use super::{Behavior, CHILD_STOP_DEADLINE, Child, Ctx, Handle, Spec, TellParent, schedule};
use crate::actors::address::{Deliver, Envelope, Message, Meta, Origin, TellError};
use crate::actors::supervisor::{ChildExited, ExitReason, Restart, RestartHistory, Verdict};
use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, WrapFuture as _};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The actix actor around a behaviour.
pub(super) struct Adapter<B: Behavior> {
    pub name: Arc<str>,
    factory: Box<dyn FnMut() -> B>,
    /// `None` while a handler runs (it has the value) and between a failure and the rebuild.
    behavior: Option<B>,
    /// Futures of this state, ended with it.
    pub futures: HashMap<u64, actix::SpawnHandle>,
    pub next_future: u64,
    history: RestartHistory,
    /// In the order of their start.
    pub children: Vec<(Child, Restart)>,
    tell_parent: TellParent,
    /// The places of the mailbox; see [`Door`].
    pub room: Arc<Semaphore>,
    ended: watch::Sender<bool>,
    exit: ExitReason,
}

impl<B: Behavior> actix::Actor for Adapter<B> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Our own bound is in front of it.
        ctx.set_mailbox_capacity(0);
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
    pub fn new(
        spec: Spec,
        tell_parent: TellParent,
        factory: Box<dyn FnMut() -> B>,
        room: Arc<Semaphore>,
        ended: watch::Sender<bool>,
    ) -> Self {
        Self {
            name: spec.name,
            factory,
            behavior: None,
            futures: HashMap::new(),
            next_future: 0,
            history: RestartHistory::new(spec.rule),
            children: Vec::new(),
            tell_parent,
            room,
            ended,
            exit: ExitReason::Finished,
        }
    }

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
    pub fn with_behavior<T>(
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
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            schedule::begin(&ctx.adapter.name);
            work(&mut behavior, &mut ctx)
        }));
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
    pub fn failed(&mut self, why: &str, ctx: &mut actix::Context<Self>) {
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

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("(no text)"))
}

/// The envelope as actix carries it, with the place that it takes in the mailbox.
struct Delivery<M: Message>(Envelope<M>, OwnedSemaphorePermit);

impl<M: Message> actix::Message for Delivery<M> {
    type Result = ();
}

/// The way into an actor's mailbox. actix' own bound counts each sender apart (a clone may always put in one more, and every
/// ask is a clone), so the places are counted here.
pub(super) struct Door<B: Behavior> {
    addr: actix::Addr<Adapter<B>>,
    room: Arc<Semaphore>,
}

impl<B: Behavior> Door<B> {
    pub fn new(addr: actix::Addr<Adapter<B>>, room: Arc<Semaphore>) -> Self {
        Self { addr, room }
    }
}

fn put_in<B: Handle<M>, M: Message>(
    addr: &actix::Addr<Adapter<B>>,
    envelope: Envelope<M>,
    place: OwnedSemaphorePermit,
) -> Result<(), TellError> {
    addr.try_send(Delivery(envelope, place)).map_err(|error| match error {
        actix::dev::SendError::Full(_) => TellError::Full,
        actix::dev::SendError::Closed(_) => TellError::Closed,
    })
}

impl<B: Handle<M>, M: Message> actix::Handler<Delivery<M>> for Adapter<B> {
    type Result = ();

    fn handle(&mut self, Delivery(envelope, place): Delivery<M>, ctx: &mut Self::Context) {
        // It is out of the mailbox.
        drop(place);
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
        schedule::after_message(self, ctx);
    }
}

impl<B: Handle<M>, M: Message> Deliver<M> for Door<B> {
    fn offer(&self, envelope: Envelope<M>) -> Result<(), TellError> {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            return Err(if self.addr.connected() {
                TellError::Full
            } else {
                TellError::Closed
            });
        };
        put_in(&self.addr, envelope, place)
    }

    fn deliver(&self, envelope: Envelope<M>) -> BoxFuture<'static, Result<(), TellError>> {
        let (addr, room) = (self.addr.clone(), self.room.clone());
        async move {
            // Never closed; the messages of an actor that ends are dropped, and their places with them.
            let place = room.acquire_owned().await.map_err(|_| TellError::Closed)?;
            put_in(&addr, envelope, place)
        }
        .boxed()
    }
}

pub(super) struct Stop;

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

pub(super) struct ChildNotice(pub ChildExited);

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
