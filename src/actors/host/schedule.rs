//! Who comes next, in a test that a seed decides: the host asks here before and after what an actor does. In a program
//! nothing of this is there; actors take their turns as the runtime gives them.
//!
//! The order inside of one mailbox is never touched, and neither is that of an actor's own steps; what a seed changes is how the
//! turns of different actors fall between each other, which is what no actor may rely on.

#[cfg(not(test))]
pub(super) use program::{after_message, begin, shuffled};
#[cfg(test)]
pub(super) use seeded::{after_message, begin, shuffled};
#[cfg(test)]
pub use seeded::{fail_at, run_seeded};

#[cfg(not(test))]
mod program {
    use crate::actors::host::Behavior;
    use crate::actors::host::adapter::Adapter;
    use std::future::Future;

    pub fn begin(_name: &str) {}

    pub fn after_message<B: Behavior>(_adapter: &Adapter<B>, _ctx: &mut actix::Context<Adapter<B>>) {}

    pub fn shuffled<F: Future>(future: F) -> F {
        future
    }
}

#[cfg(test)]
mod seeded {
    use crate::actors::host::adapter::Adapter;
    use crate::actors::host::{Behavior, Runtime, Runtimes};
    use crate::pki::entropy::seeded::{Draws, draw_from};
    use actix::{AsyncContext as _, WrapFuture as _};
    use std::cell::RefCell;
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    /// More turns than the longest way of a message through the runtime.
    const TURNS_MAX: u64 = 6;

    /// What a seed's draws are for; each purpose has its own, so that one more of these moves none of those.
    const ORDER: u64 = 1;
    const IDS: u64 = 2;

    struct Schedule {
        draws: Draws,
        /// Who fails: the beginning of its name, and how many steps of such actors go well before.
        faults: Vec<(String, u32)>,
    }

    thread_local! {
        static SCHEDULE: RefCell<Option<Schedule>> = const { RefCell::new(None) };
    }

    /// Runs `main` on one thread, whose time stands still while anybody has something to do, in the order of this seed. Ids and
    /// secrets are the seed's, too. All runtimes are this thread.
    ///
    /// The same seed takes the same turns, as long as nothing waits for another thread.
    pub fn run_seeded<T, F: Future<Output = T>>(seed: u64, main: impl FnOnce(Runtimes) -> F) -> T {
        let system = actix::System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap()
        });
        let _installed = Installed::new(seed);
        system.block_on(async move {
            let here = Runtime::current();
            main(Runtimes {
                control: here.clone(),
                workers: vec![here],
            })
            .await
        })
    }

    /// The schedule of this thread, for the length of a run.
    struct Installed;

    impl Installed {
        fn new(seed: u64) -> Self {
            draw_from(Some(Draws::new(seed, IDS)));
            SCHEDULE.with(|here| {
                *here.borrow_mut() = Some(Schedule {
                    draws: Draws::new(seed, ORDER),
                    faults: Vec::new(),
                });
            });
            Self
        }
    }

    impl Drop for Installed {
        fn drop(&mut self) {
            draw_from(None);
            SCHEDULE.with(|here| *here.borrow_mut() = None);
        }
    }

    /// An actor whose name begins so panics when such actors have taken `after` more steps.
    pub fn fail_at(name: &str, after: u32) {
        SCHEDULE.with(|here| {
            if let Some(schedule) = here.borrow_mut().as_mut() {
                schedule.faults.push((name.to_owned(), after));
            }
        });
    }

    /// At the beginning of each step: of a message, a continuation, the start.
    pub fn begin(name: &str) {
        let fails = SCHEDULE.with(|here| {
            let mut here = here.borrow_mut();
            let Some(schedule) = here.as_mut() else { return false };
            let Some(at) = schedule.faults.iter().position(|(start, _)| name.starts_with(start)) else {
                return false;
            };
            match &mut schedule.faults[at].1 {
                0 => {
                    schedule.faults.remove(at);
                    true
                }
                left => {
                    *left -= 1;
                    false
                }
            }
        });
        if fails {
            // As a panic, but for the report on stderr: thousands of them are meant.
            std::panic::resume_unwind(Box::new("a fault of the seed"));
        }
    }

    /// After each message: others may come before the next one.
    pub fn after_message<B: Behavior>(adapter: &Adapter<B>, ctx: &mut actix::Context<Adapter<B>>) {
        match turns() {
            0 => {}
            left => ctx.wait(pass(left).into_actor(adapter)),
        }
    }

    /// A future that others may come before, and before whose end they may come again.
    pub async fn shuffled<F: Future>(future: F) -> F::Output {
        pass(turns()).await;
        let result = future.await;
        pass(turns()).await;
        result
    }

    fn turns() -> u64 {
        SCHEDULE.with(|here| {
            let mut here = here.borrow_mut();
            here.as_mut().map_or(0, |schedule| schedule.draws.below(TURNS_MAX))
        })
    }

    /// Goes to the end of the runtime's queue so many times.
    async fn pass(mut turns: u64) {
        poll_fn(|cx| {
            if turns == 0 {
                return Poll::Ready(());
            }
            turns -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
