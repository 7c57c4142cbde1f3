//! Places where a test of real processes makes the program fail. Compiled to nothing without the feature `fault-points`, which
//! is off by default; a program built with it says so at its start and in `version`.

/// True of a program that can be made to fail.
pub const ENABLED: bool = cfg!(feature = "fault-points");

/// Panics when `POSTERN_FAULT` is `<place>:panic:<subject>`.
#[cfg(feature = "fault-points")]
pub fn point(place: &str, subject: &str) {
    let wanted = std::env::var("POSTERN_FAULT").unwrap_or_default();
    assert!(
        wanted != format!("{place}:panic:{subject}"),
        "fault point {place} for {subject}"
    );
}

#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn point(_place: &str, _subject: &str) {}

#[cfg(feature = "fault-points")]
pub use actors::{Fault, NoSuchActor, Registration, inject, paths, register};
#[cfg(feature = "fault-points")]
pub use trap::Trap;

/// Where a thread or a task that is no actor fails, when it was told to by its path.
#[cfg(not(feature = "fault-points"))]
#[derive(Debug)]
pub struct Trap;

#[cfg(not(feature = "fault-points"))]
impl Trap {
    pub fn at(_path: &str) -> Self {
        Self
    }

    #[inline]
    pub fn spring(&self) {}
}

/// Faults of the actors that live, whichever they are.
#[cfg(feature = "fault-points")]
mod actors {
    use crate::telemetry::label::Label;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    /// What is done to an actor.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Fault {
        /// A panic in a handler.
        Handler,
        /// A panic in the handler of the next message of this kind, whose asker reads of it.
        Message(Label),
        /// A panic in a future of `Ctx::run`.
        Future,
        /// As `Handler`, and a panic at each of the next builds, as many as are named.
        Start { builds: u32 },
        /// The thread of the actor does nothing else for so long.
        Block(Duration),
        /// The actor takes no messages for so long; its thread goes on.
        Hold(Duration),
    }

    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error("no actor {0} lives here, or it takes no messages any more")]
    pub struct NoSuchActor(pub String);

    /// Sends the fault to the actor. False when it is gone.
    type Inject = Arc<dyn Fn(Fault) -> bool + Send + Sync>;

    static ACTORS: Mutex<BTreeMap<(Arc<str>, u64), Inject>> = Mutex::new(BTreeMap::new());

    fn actors() -> MutexGuard<'static, BTreeMap<(Arc<str>, u64), Inject>> {
        // Each use leaves the map whole.
        ACTORS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The actor's place in the table, until it is dropped.
    #[derive(Debug)]
    pub struct Registration((Arc<str>, u64));

    impl Drop for Registration {
        fn drop(&mut self) {
            actors().remove(&self.0);
        }
    }

    /// Two actors may have the same path where nodes share a process; a fault is for the newest of them.
    pub fn register(path: &Arc<str>, inject: impl Fn(Fault) -> bool + Send + Sync + 'static) -> Registration {
        let mut actors = actors();
        let newest = actors.range((path.clone(), 0)..=(path.clone(), u64::MAX)).next_back();
        let key = (path.clone(), newest.map_or(0, |((_, number), _)| number + 1));
        actors.insert(key.clone(), Arc::new(inject));
        Registration(key)
    }

    /// The actors that live.
    pub fn paths() -> Vec<Arc<str>> {
        let mut paths: Vec<_> = actors().keys().map(|(path, _)| path.clone()).collect();
        paths.dedup();
        paths
    }

    /// Does `fault` to the actor of this path. It comes to pass when the actor's turn comes.
    pub fn inject(path: &str, fault: Fault) -> Result<(), NoSuchActor> {
        let found = {
            let actors = actors();
            let mut of_path = actors.range((path.into(), 0)..=(path.into(), u64::MAX));
            of_path.next_back().map(|(_, inject)| inject.clone())
        };
        match found {
            Some(inject) if inject(fault) => Ok(()),
            _ => Err(NoSuchActor(path.to_owned())),
        }
    }
}

/// Faults of threads and tasks that are no actors.
#[cfg(feature = "fault-points")]
mod trap {
    use super::actors::{Fault, Registration, register};
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Debug)]
    pub struct Trap {
        armed: Arc<Mutex<Option<Fault>>>,
        _registration: Registration,
    }

    impl Trap {
        /// A fault to this path is done to whoever springs the trap next.
        pub fn at(path: &str) -> Self {
            let armed = Arc::<Mutex<Option<Fault>>>::default();
            let arm = armed.clone();
            let registration = register(&path.into(), move |fault| {
                *arm.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                true
            });
            Self {
                armed,
                _registration: registration,
            }
        }

        /// Of `Start`, the number of builds is the number of panics.
        pub fn spring(&self) {
            let fault = {
                let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
                let fault = armed.take();
                if let Some(Fault::Start { builds: more @ 2.. }) = fault {
                    *armed = Some(Fault::Start { builds: more - 1 });
                }
                fault
            };
            match fault {
                None => {}
                Some(Fault::Block(time) | Fault::Hold(time)) => std::thread::sleep(time),
                Some(Fault::Handler | Fault::Message(_) | Fault::Future | Fault::Start { .. }) => {
                    panic!("fault point: in a thread")
                }
            }
        }
    }
}
