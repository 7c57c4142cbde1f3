use super::*;
use crate::actors::address::{AskError, TellError, message};
use crate::actors::supervisor::ExitReason;
use crate::telemetry::record::{Record, RecordKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SOON: Duration = Duration::from_secs(5);

struct Add(u64);
struct Boom;
struct BoomInFuture;
struct Slow(Duration);
struct EndOf(&'static str);
message!(Add => u64, Boom => (), BoomInFuture => (), Slow => u64, EndOf => ());

/// Adds up; fails when told to.
struct Sum(u64);

impl Behavior for Sum {
    const MAILBOX: usize = 4;
}

impl Handle<Add> for Sum {
    fn handle(&mut self, Add(n): Add, _: &mut Ctx<'_, Self>) -> Reply<u64> {
        self.0 += n;
        Reply::Now(self.0)
    }
}

impl Handle<Boom> for Sum {
    fn handle(&mut self, _: Boom, _: &mut Ctx<'_, Self>) -> Reply<()> {
        panic!("told to")
    }
}

impl Handle<BoomInFuture> for Sum {
    fn handle(&mut self, _: BoomInFuture, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let (reply, promise) = Reply::later();
        ctx.run(async { panic!("in a future") }, move |_, (), _| promise.keep(()));
        reply
    }
}

impl Handle<EndOf> for Sum {
    fn handle(&mut self, EndOf(why): EndOf, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        ctx.stop_because(why);
        Reply::Now(())
    }
}

impl Handle<Slow> for Sum {
    fn handle(&mut self, Slow(wait): Slow, ctx: &mut Ctx<'_, Self>) -> Reply<u64> {
        let (reply, promise) = Reply::later();
        ctx.run(tokio::time::sleep(wait), move |sum, (), _| promise.keep(sum.0));
        reply
    }
}

type Exits = Arc<Mutex<Vec<ChildExited>>>;

fn start_sum(runtimes: &Runtimes, spec: Spec) -> (ActorRef<Sum>, Exits) {
    let exits: Exits = Exits::default();
    let heard = exits.clone();
    let sum = start_on(
        &runtimes.workers[0],
        spec,
        Arc::new(move |exit| heard.lock().unwrap().push(exit)),
        || Sum(0),
    );
    (sum, exits)
}

fn outside() -> Origin {
    Origin::outside("test")
}

#[test]
fn an_ask_is_answered_by_the_actor_on_its_runtime() {
    run_system(1, |runtimes| async move {
        let (sum, _) = start_sum(&runtimes, Spec::permanent("sum"));
        let add = sum.address::<Add>();
        assert_eq!(add.ask(&outside(), Add(2), SOON).await, Ok(2));
        assert_eq!(add.ask(&outside(), Add(3), SOON).await, Ok(5));
    });
}

#[test]
fn after_a_panic_the_same_address_leads_to_a_rebuilt_state_and_the_asker_reads_an_error() {
    run_system(1, |runtimes| async move {
        let (sum, _) = start_sum(&runtimes, Spec::permanent("sum"));
        let add = sum.address::<Add>();
        add.ask(&outside(), Add(7), SOON).await.unwrap();
        let failed = sum.address::<Boom>().ask(&outside(), Boom, SOON).await;
        assert!(matches!(failed, Err(AskError::Failed { .. })), "{failed:?}");
        assert_eq!(add.ask(&outside(), Add(1), SOON).await, Ok(1));
        let failed = sum.address::<BoomInFuture>().ask(&outside(), BoomInFuture, SOON).await;
        assert!(matches!(failed, Err(AskError::Failed { .. })), "{failed:?}");
        assert_eq!(add.ask(&outside(), Add(1), SOON).await, Ok(1));
    });
}

#[test]
fn messages_that_waited_behind_a_panic_are_handled_by_the_rebuilt_state() {
    run_system(1, |runtimes| async move {
        let (sum, _) = start_sum(&runtimes, Spec::permanent("sum"));
        let add = sum.address::<Add>();
        let boom = sum.address::<Boom>();
        boom.tell(&outside(), Boom).unwrap();
        add.tell(&outside(), Add(4)).unwrap();
        assert_eq!(add.ask(&outside(), Add(1), SOON).await, Ok(5));
    });
}

#[test]
fn the_sixth_panic_ends_a_permanent_actor_and_its_parent_hears_it() {
    run_system(1, |runtimes| async move {
        let (sum, exits) = start_sum(&runtimes, Spec::permanent("sum"));
        let boom = sum.address::<Boom>();
        for _ in 0..6 {
            let _failed = boom.ask(&outside(), Boom, SOON).await;
        }
        tokio::time::timeout(SOON, sum.ended.wait()).await.unwrap();
        let exits = exits.lock().unwrap();
        assert!(matches!(exits[0].reason, ExitReason::Exhausted(_)), "{exits:?}");
    });
}

#[test]
fn tell_fails_when_the_mailbox_is_full_and_when_the_actor_has_ended() {
    run_system(1, |runtimes| async move {
        let (sum, _) = start_sum(&runtimes, Spec::permanent("sum"));
        // The actor's runtime is held by this task, so nothing is taken out of the mailbox meanwhile.
        let (hold, release) = std::sync::mpsc::channel::<()>();
        let (held, is_held) = tokio::sync::oneshot::channel();
        runtimes.workers[0].spawn(async move {
            held.send(()).unwrap();
            let _released = release.recv();
        });
        is_held.await.unwrap();
        let add = sum.address::<Add>();
        let sent = (0..50).filter(|_| add.tell(&outside(), Add(1)).is_ok()).count();
        assert_eq!(sent, 4, "accepted by a mailbox of 4");
        let ask = add.ask(&outside(), Add(1), Duration::from_millis(20)).await;
        assert!(
            matches!(ask, Err(AskError::NotSent { .. })),
            "an ask waits for room, and no longer: {ask:?}"
        );
        assert_eq!(add.tell(&outside(), Add(1)), Err(TellError::Full));
        drop(hold);
        assert!(sum.clone().stop(SOON).await);
        // actix closes the mailbox a moment after the actor's last turn.
        let closed = async {
            while add.tell(&outside(), Add(1)) != Err(TellError::Closed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, closed).await.unwrap();
    });
}

#[test]
fn an_ask_ends_at_its_deadline_and_says_that_the_outcome_is_unknown() {
    run_system(1, |runtimes| async move {
        let (sum, _) = start_sum(&runtimes, Spec::permanent("sum"));
        let slow = sum.address::<Slow>();
        let late = slow
            .ask(&outside(), Slow(Duration::from_secs(60)), Duration::from_millis(20))
            .await;
        assert!(matches!(late, Err(AskError::Unknown { .. })), "{late:?}");
    });
}

struct SpawnTwo;
struct FailOnce;
message!(SpawnTwo => (), FailOnce => ());

struct Parent {
    runtime: Runtime,
    order: Arc<Mutex<Vec<String>>>,
}

struct Leaf {
    name: &'static str,
    order: Arc<Mutex<Vec<String>>>,
}

impl Behavior for Leaf {
    const MAILBOX: usize = 1;
    fn stopping(&mut self, _: &mut Ctx<'_, Self>) -> Option<LocalBoxFuture<'static, ()>> {
        let (name, order) = (self.name, self.order.clone());
        Some(async move { order.lock().unwrap().push(name.to_owned()) }.boxed_local())
    }
}

impl Behavior for Parent {
    const MAILBOX: usize = 4;
}

impl Handle<SpawnTwo> for Parent {
    fn handle(&mut self, _: SpawnTwo, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        for name in ["first", "second"] {
            let order = self.order.clone();
            ctx.spawn_child(&self.runtime, Spec::permanent(name), move || Leaf {
                name,
                order: order.clone(),
            });
        }
        Reply::Now(())
    }
}

#[test]
fn children_are_stopped_before_their_parent_and_the_newest_first() {
    run_system(1, |runtimes| async move {
        let order = Arc::new(Mutex::new(Vec::new()));
        let (runtime, seen) = (runtimes.workers[0].clone(), order.clone());
        let parent = start_on(
            &runtimes.control,
            Spec::permanent("parent"),
            Arc::new(|_| {}),
            move || Parent {
                runtime: runtime.clone(),
                order: seen.clone(),
            },
        );
        parent
            .address::<SpawnTwo>()
            .ask(&outside(), SpawnTwo, SOON)
            .await
            .unwrap();
        assert!(parent.stop(SOON).await);
        assert_eq!(*order.lock().unwrap(), ["second", "first"]);
    });
}

static BUILT: AtomicUsize = AtomicUsize::new(0);

struct FailsAtStart;

impl Behavior for FailsAtStart {
    const MAILBOX: usize = 1;
    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        if BUILT.fetch_add(1, Ordering::SeqCst) < 2 {
            ctx.fail("not yet");
        }
    }
}

impl Handle<FailOnce> for FailsAtStart {
    fn handle(&mut self, _: FailOnce, _: &mut Ctx<'_, Self>) -> Reply<()> {
        Reply::Now(())
    }
}

#[test]
fn an_actor_that_fails_at_its_start_is_built_again() {
    run_system(1, |runtimes| async move {
        let actor = start_on(&runtimes.control, Spec::permanent("starter"), Arc::new(|_| {}), || {
            FailsAtStart
        });
        actor
            .address::<FailOnce>()
            .ask(&outside(), FailOnce, SOON)
            .await
            .unwrap();
        assert_eq!(BUILT.load(Ordering::SeqCst), 3);
    });
}

fn records_of(connection: ConnectionId) -> Vec<(RecordKind, String, String)> {
    let of = |record: &Record| record.connection == Some(connection);
    let told = |record: Record| (record.kind, record.what.to_string(), record.to.to_string());
    crate::telemetry::record::find(of).into_iter().map(told).collect()
}

#[test]
fn every_message_of_a_connection_is_recorded() {
    const MINE: ConnectionId = ConnectionId::from_random(*b"hosttest");
    run_system(1, |runtimes| async move {
        let (sum, _) = start_sum(&runtimes, Spec::permanent("recorded-sum"));
        let origin = outside().for_connection(MINE);
        let add = sum.address::<Add>();
        add.ask(&origin, Add(2), SOON).await.unwrap();
        assert!(sum.clone().stop(SOON).await);
        let _closed = add.ask(&origin, Add(3), Duration::from_millis(20)).await;
        let to = |kind, what: &str| (kind, what.to_owned(), "recorded-sum".to_owned());
        let records = records_of(MINE);
        let first = [
            to(RecordKind::Sent, "Add"),
            to(RecordKind::Handled, "Add"),
            to(RecordKind::Answered, "Add"),
        ];
        assert_eq!(records[..3], first);
        assert!(records.contains(&to(RecordKind::Dropped, "Add")), "{records:?}");
    });
}

#[test]
fn a_child_says_which_message_it_was_started_by() {
    const MINE: ConnectionId = ConnectionId::from_random(*b"hostborn");
    run_system(1, |runtimes| async move {
        let (runtime, order) = (runtimes.workers[0].clone(), Arc::new(Mutex::new(Vec::new())));
        let parent = start_on(
            &runtimes.control,
            Spec::permanent("bearing"),
            Arc::new(|_| {}),
            move || Parent {
                runtime: runtime.clone(),
                order: order.clone(),
            },
        );
        let origin = outside().for_connection(MINE);
        let spawn = parent.address::<SpawnTwo>();
        spawn.ask(&origin, SpawnTwo, SOON).await.unwrap();
        // Once more: an answer says that those before it have begun.
        spawn.ask(&outside(), SpawnTwo, SOON).await.unwrap();
        assert!(parent.stop(SOON).await);
        let all = crate::telemetry::record::find(|record| record.connection == Some(MINE));
        let sent = all.iter().find(|record| record.kind == RecordKind::Sent).unwrap();
        let born = all.iter().filter(|record| record.kind == RecordKind::Started);
        let born: Vec<_> = born.map(|record| (record.cause, record.to.to_string())).collect();
        let child = |name: &str| (Some(sent.id), format!("bearing/{name}"));
        assert_eq!(born, [child("first"), child("second")]);
    });
}

#[test]
fn an_actor_takes_as_many_messages_before_it_has_begun_as_later() {
    struct Patient;
    impl Behavior for Patient {
        const MAILBOX: usize = 200;
    }
    impl Handle<FailOnce> for Patient {
        fn handle(&mut self, _: FailOnce, _: &mut Ctx<'_, Self>) -> Reply<()> {
            Reply::Now(())
        }
    }
    run_system(1, |runtimes| async move {
        // On the runtime of this test, which does not turn before the end of the loop.
        let patient = start_on(&runtimes.control, Spec::permanent("patient"), Arc::new(|_| {}), || {
            Patient
        });
        let tell = patient.address::<FailOnce>();
        let taken = (0..300).filter(|_| tell.tell(&outside(), FailOnce).is_ok()).count();
        assert_eq!(taken, 200);
        tell.ask(&outside(), FailOnce, SOON).await.unwrap();
    });
}

#[test]
fn an_actor_says_how_it_ended_and_its_end_is_no_failure() {
    run_system(1, |runtimes| async move {
        let (sum, exits) = start_sum(&runtimes, Spec::temporary("told-end"));
        let end = EndOf("agent lost: 08006");
        sum.address::<EndOf>().ask(&outside(), end, SOON).await.unwrap();
        sum.ended.wait().await;
        let all = crate::telemetry::registry::exits();
        let exit = all.iter().find(|exit| &*exit.path == "told-end").unwrap();
        assert_eq!((&*exit.why, exit.failed), ("agent lost: 08006", false));
        assert_eq!(exits.lock().unwrap()[0].reason, ExitReason::Finished);
    });
}
