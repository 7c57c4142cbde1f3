//! Faults that tests do to an actor, whatever it hears: a message of the host's own, as `Stop` is one.

use super::adapter::Adapter;
use super::{Behavior, Origin};
use crate::model::Moment;
use crate::telemetry::fault::{self, Fault, Registration};
use crate::telemetry::label::Label;
use actix::{AsyncContext as _, WrapFuture as _};
use std::sync::Arc;

struct Injected(Fault);

impl actix::Message for Injected {
    type Result = ();
}

/// Puts the actor into the table of those to which faults can be done.
pub(super) fn register<B: Behavior>(path: &Arc<str>, actor: actix::Addr<Adapter<B>>) -> Registration {
    fault::register(path, move |fault| actor.try_send(Injected(fault)).is_ok())
}

impl<B: Behavior> actix::Handler<Injected> for Adapter<B> {
    type Result = ();

    fn handle(&mut self, Injected(fault): Injected, ctx: &mut Self::Context) {
        let origin = Origin::outside("fault");
        match fault {
            Fault::Handler => _ = self.with_behavior(ctx, origin, |_, _| panic!("fault point: in a handler")),
            Fault::Message(kind) => self.failing_message = Some(kind),
            Fault::Start { builds } => {
                self.failing_builds = builds;
                _ = self.with_behavior(ctx, origin, |_, _| panic!("fault point: before a start"));
            }
            Fault::Future => {
                self.with_behavior(ctx, origin, |_, ctx| {
                    ctx.run(async { panic!("fault point: in a future") }, |_, (), _| {});
                });
            }
            Fault::Block(time) => {
                // As a message whose handler does not come back.
                let begin = Moment::now();
                self.seat.takes(Label::of("Injected"), None, begin);
                std::thread::sleep(time);
                self.seat.is_done(Moment::now().since(begin));
            }
            Fault::Hold(time) => ctx.wait(tokio::time::sleep(time).into_actor(self)),
        }
    }
}

impl<B: Behavior> Adapter<B> {
    /// In front of each message's handler.
    pub(super) fn message_may_fail(&mut self, kind: Label) {
        if self.failing_message == Some(kind) {
            self.failing_message = None;
            panic!("fault point: in the handler of a message");
        }
    }

    /// In front of each build.
    pub(super) fn build_may_fail(&mut self) {
        if let Some(left) = self.failing_builds.checked_sub(1) {
            self.failing_builds = left;
            panic!("fault point: at a start");
        }
    }
}
