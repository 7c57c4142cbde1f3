use super::*;
use crate::actors::address::{AskError, message};
use crate::actors::supervisor::ExitReason;
use crate::telemetry::fault::{Fault, NoSuchActor, inject, paths};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SOON: Duration = Duration::from_secs(20);

struct Builds;
struct Never;
struct FailForOne;
message!(Builds => usize, Never => (), FailForOne => ());

/// Counts how often it is built; starts one child of each rule, unless they live.
struct Branch {
    built: usize,
    runtime: Runtime,
}

impl Behavior for Branch {
    const MAILBOX: usize = 2;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        let living: Vec<_> = ctx.children().cloned().collect();
        for spec in [Spec::permanent("one"), Spec::transient("two"), Spec::temporary("three")] {
            if !living.contains(&spec.name) {
                ctx.spawn_child(&self.runtime.clone(), spec, || Leaf);
            }
        }
    }
}

impl Handle<Builds> for Branch {
    fn handle(&mut self, _: Builds, _: &mut Ctx<'_, Self>) -> Reply<usize> {
        Reply::Now(self.built)
    }
}

impl Handle<Never> for Branch {
    fn handle(&mut self, _: Never, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let (reply, promise) = Reply::later();
        ctx.run(std::future::pending(), move |_, (), _| promise.keep(()));
        reply
    }
}

impl Handle<FailForOne> for Branch {
    fn handle(&mut self, _: FailForOne, ctx: &mut Ctx<'_, Self>) -> Reply<()> {
        let (reply, promise) = Reply::later();
        ctx.run_for_asker(async { panic!("for one asker") }, move |_, (), _| promise.keep(()));
        reply
    }
}

struct Leaf;

impl Behavior for Leaf {
    const MAILBOX: usize = 1;
}

type Exits = Arc<Mutex<Vec<ChildExited>>>;

fn start_branch(runtimes: &Runtimes, name: &str) -> (ActorRef<Branch>, Exits) {
    let (exits, built) = (Exits::default(), AtomicUsize::new(0));
    let (heard, runtime) = (exits.clone(), runtimes.workers[0].clone());
    let branch = start_on(
        &runtimes.workers[0],
        Spec::permanent(name),
        Arc::new(move |exit| heard.lock().unwrap().push(exit)),
        move || Branch {
            built: built.fetch_add(1, Ordering::Relaxed) + 1,
            runtime: runtime.clone(),
        },
    );
    (branch, exits)
}

async fn builds(branch: &ActorRef<Branch>) -> usize {
    let origin = Origin::outside("test");
    branch.address().ask(&origin, Builds, SOON).await.unwrap()
}

fn of(name: &str) -> Vec<Arc<str>> {
    let of_it = |path: &Arc<str>| path.split('/').next() == Some(name);
    paths().into_iter().filter(of_it).collect()
}

#[test]
fn a_fault_in_a_handler_a_future_or_at_a_start_has_the_actor_rebuilt_and_its_children_live_on() {
    run_system(1, |runtimes| async move {
        let (branch, exits) = start_branch(&runtimes, "branch-a");
        assert_eq!(builds(&branch).await, 1);
        let all = ["branch-a", "branch-a/one", "branch-a/three", "branch-a/two"];
        let listed = || of("branch-a").iter().map(|path| path.to_string()).collect::<Vec<_>>();
        while listed().len() < all.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(listed(), all);
        let children = paths();
        inject("branch-a", Fault::Handler).unwrap();
        assert_eq!(builds(&branch).await, 2);
        inject("branch-a", Fault::Future).unwrap();
        while builds(&branch).await < 3 {
            tokio::task::yield_now().await;
        }
        // The factory is not reached when the fault is in front of it.
        inject("branch-a", Fault::Start { builds: 2 }).unwrap();
        assert_eq!(builds(&branch).await, 4);
        assert_eq!(listed(), all);
        assert!(
            children.iter().filter(|path| path.starts_with("branch-a")).count() == 4
                && exits.lock().unwrap().is_empty()
        );
        assert!(branch.stop(SOON).await);
        while !listed().is_empty() {
            tokio::task::yield_now().await;
        }
        let gone = Err(NoSuchActor("branch-a".to_owned()));
        assert_eq!(inject("branch-a", Fault::Handler), gone);
    });
}

#[test]
fn an_asker_whose_work_failed_reads_so_and_nobody_else_notices() {
    run_system(1, |runtimes| async move {
        let (branch, _) = start_branch(&runtimes, "branch-b");
        let (origin, other) = (Origin::outside("test"), branch.address::<Never>());
        let waits = spawn_here(async move { other.ask(&Origin::outside("other"), Never, SOON).await });
        assert_eq!(builds(&branch).await, 1);
        let failed = branch.address().ask(&origin, FailForOne, SOON).await;
        assert!(matches!(failed, Err(AskError::Failed { .. })), "{failed:?}");
        assert_eq!(builds(&branch).await, 1, "it was not rebuilt");
        inject("branch-b", Fault::Handler).unwrap();
        let failed = waits.join().await;
        assert!(matches!(failed, Ok(Err(AskError::Failed { .. }))), "{failed:?}");
    });
}

#[test]
fn a_message_whose_handler_fails_costs_its_asker_the_answer_and_others_none() {
    run_system(1, |runtimes| async move {
        let (branch, _) = start_branch(&runtimes, "branch-e");
        assert_eq!(builds(&branch).await, 1);
        inject("branch-e", Fault::Message(Builds::label())).unwrap();
        let origin = Origin::outside("test");
        let other = branch.address().ask(&origin, FailForOne, SOON).await;
        assert!(
            matches!(&other, Err(AskError::Failed { .. })),
            "by its own fault: {other:?}"
        );
        let failed = branch.address().ask(&origin, Builds, SOON).await;
        assert!(matches!(failed, Err(AskError::Failed { .. })), "{failed:?}");
        assert_eq!(builds(&branch).await, 2, "only the one that was meant");
    });
}

#[test]
fn an_actor_that_is_held_takes_no_messages_and_then_all_that_waited() {
    run_system(1, |runtimes| async move {
        let (branch, _) = start_branch(&runtimes, "branch-c");
        assert_eq!(builds(&branch).await, 1);
        let hold = Duration::from_millis(200);
        inject("branch-c", Fault::Hold(hold)).unwrap();
        let since = tokio::time::Instant::now();
        let origin = Origin::outside("test");
        let short = branch.address().ask(&origin, Builds, Duration::from_millis(20)).await;
        assert!(matches!(short, Err(AskError::Unknown { .. })), "{short:?}");
        assert_eq!(builds(&branch).await, 1);
        assert!(since.elapsed() >= hold.mul_f64(0.9));
        let second = branch.clone();
        inject("branch-c", Fault::Block(Duration::from_millis(100))).unwrap();
        assert!(
            !second.clone().stop(Duration::from_millis(10)).await,
            "its thread does nothing else"
        );
        tokio::time::timeout(SOON, second.ended.wait()).await.unwrap();
    });
}

#[test]
fn six_failures_at_a_start_exhaust_the_actor() {
    run_system(1, |runtimes| async move {
        let (branch, exits) = start_branch(&runtimes, "branch-d");
        inject("branch-d", Fault::Start { builds: 5 }).ok();
        while exits.lock().unwrap().is_empty() {
            inject("branch-d", Fault::Start { builds: 5 }).ok();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let exits = exits.lock().unwrap();
        assert!(
            matches!(&exits[0].reason, ExitReason::Exhausted(why) if why.contains("at a start")),
            "{exits:?}"
        );
        drop(branch);
    });
}

#[test]
fn a_child_that_is_exhausted_has_its_parent_rebuilt_and_the_other_children_live_on() {
    run_system(1, |runtimes| async move {
        let (branch, exits) = start_branch(&runtimes, "branch-f");
        assert_eq!(builds(&branch).await, 1);
        while of("branch-f").len() < 4 {
            tokio::task::yield_now().await;
        }
        // A path is made for each actor: one that is the same is of the same actor.
        let before = of("branch-f");
        inject("branch-f/one", Fault::Start { builds: 5 }).unwrap();
        while builds(&branch).await < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while of("branch-f").len() < 4 {
            tokio::task::yield_now().await;
        }
        let after = of("branch-f");
        assert_eq!(before, after);
        let lives_on: Vec<_> = before.iter().zip(&after).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(
            lives_on,
            [true, false, true, true],
            "but `one`, which the rebuilt state started anew"
        );
        assert!(exits.lock().unwrap().is_empty(), "it goes no further up");
    });
}
