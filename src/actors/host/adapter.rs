//! Our own actix actor around a behaviour: its state, its failures, its messages and its end.

use super::{Behavior, CHILDREN_STOP_DEADLINE, Child, Ctx, Handle, LAST_WORK_DEADLINE, Spec, TellParent, schedule};
use crate::actors::address::{Deliver, Envelope, Message, Origin, TellError, nanos};
use crate::actors::supervisor::{ChildExited, ExitReason, RestartHistory, Verdict};
use crate::model::{ConnectionId, MessageId, Moment};
use crate::telemetry::label::Label;
use crate::telemetry::panics;
use crate::telemetry::record::{self, Record, RecordKind};
use crate::telemetry::registry::Seat;
use actix::{ActorContext as _, ActorFutureExt as _, AsyncContext as _, WrapFuture as _};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The actix actor around a behaviour.
pub(super) struct Adapter<B: Behavior> {
    pub name: Arc<str>,
    /// Where everybody sees how it stands; its places are those of the mailbox (see [`Door`]).
    pub seat: Arc<Seat>,
    /// What was in hand when its parent started it.
    parent: Option<Origin>,
    factory: Box<dyn FnMut() -> B>,
    /// `None` while a handler runs (it has the value) and between a failure and the rebuild.
    behavior: Option<B>,
    /// Futures of this state, ended with it.
    pub futures: HashMap<u64, actix::SpawnHandle>,
    pub next_future: u64,
    history: RestartHistory,
    /// In the order of their start.
    pub children: Vec<Child>,
    tell_parent: TellParent,
    ended: Ending,
    exit: ExitReason,
    /// What it has said of its own end.
    pub end: Option<Arc<str>>,
    #[cfg(feature = "fault-points")]
    pub failing_builds: u32,
    #[cfg(feature = "fault-points")]
    pub failing_message: Option<Label>,
    #[cfg(feature = "fault-points")]
    registration: Option<crate::telemetry::fault::Registration>,
}

/// What an actor has in hand while the result of a future of its own is used.
pub(super) static CONTINUATION: LazyLock<Label> = LazyLock::new(|| Label::of("(continuation)"));

/// Tells all who wait for an actor's end of it, also when the actor is dropped without one. A semaphore that is closed: a tenth
/// of a watch channel, and there is one for each connection.
pub(super) struct Ending(Arc<Semaphore>);

/// Whoever has it can wait for the end.
#[derive(Clone)]
pub(super) struct Ended(Arc<Semaphore>);

pub(super) fn ending() -> (Ending, Ended) {
    let closes = Arc::new(Semaphore::new(0));
    (Ending(closes.clone()), Ended(closes))
}

impl Ending {
    fn is_now(&self) {
        self.0.close();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.is_now();
    }
}

impl Ended {
    pub async fn wait(&self) {
        // There is never a permit; what ends the waiting is that it is closed.
        let _closed = self.0.acquire().await;
    }
}

impl<B: Behavior> actix::Actor for Adapter<B> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        #[cfg(feature = "fault-points")]
        {
            self.registration = Some(super::faults::register(self.seat.path(), ctx.address()));
        }
        self.seat.sits_here();
        self.build(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.record_life(RecordKind::Exited, None);
        match (&self.exit, self.end.take()) {
            (ExitReason::Finished, Some(why)) => self.seat.ends(&why, false),
            (exit, _) => self.seat.ends(&exit.to_string(), exit.is_failure()),
        }
        self.stop_children();
        (self.tell_parent)(ChildExited {
            name: self.name.clone(),
            rule: self.history.rule(),
            reason: self.exit.clone(),
        });
        self.ended.is_now();
    }
}

impl<B: Behavior> Adapter<B> {
    pub fn new(
        spec: Spec,
        seat: Arc<Seat>,
        parent: Option<Origin>,
        tell_parent: TellParent,
        factory: Box<dyn FnMut() -> B>,
        ended: Ending,
    ) -> Self {
        Self {
            name: spec.name,
            seat,
            parent,
            factory,
            behavior: None,
            futures: HashMap::new(),
            next_future: 0,
            history: RestartHistory::new(spec.rule),
            children: Vec::new(),
            tell_parent,
            ended,
            exit: ExitReason::Finished,
            end: None,
            #[cfg(feature = "fault-points")]
            failing_builds: 0,
            #[cfg(feature = "fault-points")]
            failing_message: None,
            #[cfg(feature = "fault-points")]
            registration: None,
        }
    }

    fn build(&mut self, ctx: &mut actix::Context<Self>) {
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| {
            #[cfg(feature = "fault-points")]
            self.build_may_fail();
            (self.factory)()
        }));
        match built {
            Ok(behavior) => {
                self.behavior = Some(behavior);
                // A rebuild has another cause.
                let cause = self.parent.as_mut().and_then(|parent| parent.cause.take());
                let id = self.record_life(RecordKind::Started, cause);
                self.seat.enter(Label::of("running"), Some(id), self.connection());
                let origin = Origin {
                    cause: Some(id),
                    ..self.origin()
                };
                self.with_behavior(ctx, origin, |behavior, ctx| behavior.started(ctx));
            }
            Err(panic) => self.failed(&panics::text(panic.as_ref()), ctx),
        }
    }

    /// What this actor's own doings carry: they begin a chain of their own.
    fn origin(&self) -> Origin {
        Origin {
            from: self.seat.clone(),
            cause: None,
            connection: self.seat.connection(),
        }
    }

    /// The one that it works for, or was started for: a tunnel begins as somebody's connection.
    fn connection(&self) -> Option<ConnectionId> {
        let started_for = || self.parent.as_ref().and_then(|parent| parent.connection);
        self.seat.connection().or_else(started_for)
    }

    /// Records its beginning or its end.
    fn record_life(&self, kind: RecordKind, cause: Option<MessageId>) -> MessageId {
        let id = MessageId::next();
        let what = match &self.exit {
            _ if kind == RecordKind::Started => Label::of("started"),
            ExitReason::Finished => Label::of("finished"),
            ExitReason::Stopped => Label::of("stopped"),
            ExitReason::Failed(_) => Label::of("failed"),
            ExitReason::Exhausted(_) => Label::of("exhausted"),
        };
        let parent = self.parent.as_ref();
        record::write(Record {
            at: Moment::now(),
            kind,
            what,
            id,
            cause,
            connection: self.connection(),
            from: parent.map(|parent| parent.from.path().clone()),
            to: self.seat.path().clone(),
            queued_ns: 0,
            busy_ns: 0,
        });
        id
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
                    Err(panic) => panics::text(panic.as_ref()),
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
                // Its children serve connections of their own and go on; the rebuilt behaviour finds them with `Ctx::children`.
                tracing::error!(actor = %self.name, error = why, retry_in = ?wait, "actor failed and is rebuilt");
                self.seat.restarts_after(why);
                self.seat.enter(Label::of("rebuilding"), None, self.connection());
                let pause = tokio::time::sleep(wait).into_actor(self);
                ctx.wait(pause.map(|(), adapter, ctx| adapter.build(ctx)));
            }
            Verdict::GiveUp(reason) => {
                tracing::error!(actor = %self.name, error = why, ?reason, "actor failed and is not rebuilt");
                self.exit = reason;
                ctx.stop();
            }
        }
    }

    fn stop_children(&mut self) {
        let children = std::mem::take(&mut self.children);
        actix::spawn(end_children(self.name.clone(), children));
    }
}

/// Ends the newest first. Those for which no time is left are told, and not waited for.
async fn end_children(parent: Arc<str>, mut children: Vec<Child>) {
    let deadline = tokio::time::Instant::now() + CHILDREN_STOP_DEADLINE;
    let mut late: Vec<Arc<str>> = Vec::new();
    while let Some(child) = children.pop() {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if !child.stop(left).await {
            late.push(child.name);
        }
    }
    if let Some(first) = late.first() {
        tracing::warn!(
            actor = %first, %parent, others = late.len() - 1, at_most = ?CHILDREN_STOP_DEADLINE, "actors did not end in time"
        );
    }
}

fn drop_contained<T>(value: T) {
    let _panic = std::panic::catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// The envelope as actix carries it, with the place that it takes in the mailbox. One that is dropped unopened, because its
/// actor has ended, says so.
struct Delivery<M: Message> {
    envelope: Option<Envelope<M>>,
    to: Arc<Seat>,
    _place: OwnedSemaphorePermit,
}

impl<M: Message> actix::Message for Delivery<M> {
    type Result = ();
}

impl<M: Message> Drop for Delivery<M> {
    fn drop(&mut self) {
        if let Some(Envelope { meta, .. }) = &self.envelope {
            record::write(meta.record(RecordKind::Dropped, Moment::now(), M::label(), self.to.path()));
        }
    }
}

/// The way into an actor's mailbox. actix' own bound counts each sender apart (a clone may always put in one more, and every
/// ask is a clone), so the places are counted here.
pub(super) struct Door<B: Behavior> {
    addr: actix::Addr<Adapter<B>>,
    seat: Arc<Seat>,
}

impl<B: Behavior> Door<B> {
    pub fn new(addr: actix::Addr<Adapter<B>>, seat: Arc<Seat>) -> Self {
        Self { addr, seat }
    }
}

fn put_in<B: Handle<M>, M: Message>(
    addr: &actix::Addr<Adapter<B>>,
    to: &Arc<Seat>,
    envelope: Envelope<M>,
    place: OwnedSemaphorePermit,
) -> Result<(), TellError> {
    let delivery = Delivery {
        envelope: Some(envelope),
        to: to.clone(),
        _place: place,
    };
    addr.try_send(delivery).map_err(|error| {
        let (mut refused, why) = match error {
            actix::dev::SendError::Full(refused) => (refused, TellError::Full),
            actix::dev::SendError::Closed(refused) => (refused, TellError::Closed),
        };
        // The sender is told, and records it.
        refused.envelope = None;
        why
    })
}

impl<B: Handle<M>, M: Message> actix::Handler<Delivery<M>> for Adapter<B> {
    type Result = ();

    fn handle(&mut self, mut delivery: Delivery<M>, ctx: &mut Self::Context) {
        let Some(envelope) = delivery.envelope.take() else {
            return;
        };
        // It is out of the mailbox.
        drop(delivery);
        let Envelope {
            message,
            meta,
            reply_to,
        } = envelope;
        let begin = Moment::now();
        let here = Origin {
            from: self.seat.clone(),
            cause: Some(meta.id),
            connection: meta.origin.connection,
        };
        self.seat.takes(M::label(), meta.origin.connection, begin);
        let reply = self.with_behavior(ctx, here, |behavior, ctx| {
            #[cfg(feature = "fault-points")]
            ctx.adapter.message_may_fail(M::label());
            behavior.handle(message, ctx)
        });
        let end = Moment::now();
        self.seat.is_done(end.since(begin));
        let mut handled = meta.record(RecordKind::Handled, end, M::label(), self.seat.path());
        handled.queued_ns = nanos(begin.since(meta.sent));
        handled.busy_ns = nanos(end.since(begin));
        record::write(handled);
        if let (Some(reply), Some(reply_to)) = (reply, reply_to) {
            // The asker may have given up; that is its affair.
            let _gave_up = reply_to.send(reply);
        }
        schedule::after_message(self, ctx);
    }
}

impl<B: Handle<M>, M: Message> Deliver<M> for Door<B> {
    fn offer(&self, envelope: Envelope<M>) -> Result<(), TellError> {
        let Ok(place) = self.seat.room().clone().try_acquire_owned() else {
            return Err(if self.addr.connected() {
                TellError::Full
            } else {
                TellError::Closed
            });
        };
        put_in(&self.addr, &self.seat, envelope, place)
    }

    fn deliver(&self, envelope: Envelope<M>) -> BoxFuture<'static, Result<(), TellError>> {
        let (addr, seat) = (self.addr.clone(), self.seat.clone());
        async move {
            // Never closed; the messages of an actor that ends are dropped, and their places with them.
            let place = seat
                .room()
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| TellError::Closed)?;
            put_in(&addr, &seat, envelope, place)
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
        let (name, children) = (self.name.clone(), std::mem::take(&mut self.children));
        self.seat.enter(Label::of("stopping"), None, self.connection());
        let origin = self.origin();
        let last_work = self
            .with_behavior(ctx, origin, |behavior, ctx| behavior.stopping(ctx))
            .flatten();
        let end = async move {
            end_children(name.clone(), children).await;
            if let Some(work) = last_work {
                let done = tokio::time::timeout(LAST_WORK_DEADLINE, AssertUnwindSafe(work).catch_unwind());
                match done.await {
                    Ok(Ok(())) => {}
                    Ok(Err(panic)) => {
                        tracing::error!(actor = %name, error = panics::text(panic.as_ref()), "the last work of an actor failed");
                    }
                    Err(_) => {
                        tracing::warn!(actor = %name, at_most = ?LAST_WORK_DEADLINE, "the last work of an actor was not done in time");
                    }
                }
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
        self.children.retain(|child| child.name != exit.name);
        let escalates = matches!(exit.reason, ExitReason::Exhausted(_));
        let origin = self.origin();
        let child = exit.name.clone();
        self.with_behavior(ctx, origin, |behavior, ctx| behavior.child_exited(exit, ctx));
        if escalates {
            self.failed(&format!("child {child} is exhausted"), ctx);
        }
    }
}
