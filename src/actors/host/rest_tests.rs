//! What an actor at rest takes: 2 KiB at most, as thousands of connections are thousands of actors.

use super::*;
use crate::actors::address::message;
use std::process::Command;

/// Of one actor at rest, with its place in the registry, its mailbox and its task.
const AT_REST_MAX_BYTES: usize = 2048;
/// Fault points give each actor a place in one more table.
const FAULT_POINT_BYTES: usize = if cfg!(feature = "fault-points") { 512 } else { 0 };
/// Of the structures below; the rest of the bound is for what is behind their pointers.
const PARTS_MAX_BYTES: usize = 1024;
const ACTORS: usize = 5000;
const SOON: Duration = Duration::from_secs(30);
/// Set in the process that measures.
const MEASURES: &str = "POSTERN_TEST_MEASURES_ACTORS";

struct Touch;
message!(Touch => ());

struct Quiet;

impl Behavior for Quiet {
    const MAILBOX: usize = 1024;
}

impl Handle<Touch> for Quiet {
    fn handle(&mut self, _: Touch, _: &mut Ctx<'_, Self>) -> Reply<()> {
        Reply::Now(())
    }
}

#[test]
fn the_parts_of_an_actor_at_rest_are_within_their_bound() {
    let parts = [
        ("seat", size_of::<Seat>()),
        ("adapter", size_of::<Adapter<Quiet>>()),
        ("context", size_of::<actix::Context<Adapter<Quiet>>>()),
        ("door", size_of::<Door<Quiet>>()),
        ("reference", size_of::<ActorRef<Quiet>>()),
    ];
    let whole: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    assert!(whole <= PARTS_MAX_BYTES, "{whole}: {parts:?}");
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn started(runtimes: &Runtimes, count: usize) -> Vec<ActorRef<Quiet>> {
    let start = |number| {
        let spec = Spec::temporary(&format!("quiet#{number}"));
        start_on(&runtimes.control, spec, Arc::new(|_| {}), || Quiet)
    };
    let actors: Vec<_> = (0..count).map(start).collect();
    for actor in &actors {
        let (touch, origin) = (actor.address::<Touch>(), Origin::outside("test"));
        touch.ask(&origin, Touch, SOON).await.unwrap();
    }
    actors
}

/// In a process of its own: what other tests take at the same time would count.
#[test]
fn thousands_of_actors_at_rest_take_two_kib_each_at_most() {
    if std::env::var_os(MEASURES).is_some() {
        return run_system(1, |runtimes| async move {
            // With these the rings of the record, which have a bound of their own, are full.
            let _first = started(&runtimes, ACTORS).await;
            let before = resident_bytes();
            let _more = started(&runtimes, ACTORS).await;
            println!("bytes each: {}.", (resident_bytes() - before) / ACTORS);
        });
    }
    let name = "actors::host::rest_tests::thousands_of_actors_at_rest_take_two_kib_each_at_most";
    let measured = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MEASURES, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&measured.stdout);
    let each = said
        .split_once("bytes each: ")
        .and_then(|(_, rest)| rest.split_once('.'));
    let (each, _) = each.unwrap_or_else(|| panic!("it says how many: {measured:?}"));
    let each: usize = each.parse().unwrap();
    assert!(each <= AT_REST_MAX_BYTES + FAULT_POINT_BYTES, "{each} bytes each");
}
