//! What a message between actors costs with the record on and off, and what an actor at rest takes. Every other message is for a
//! connection, as those are recorded apart. Exit code 1 where a figure is beyond its bound.
//!
//! - without arguments: interleaved rounds in one process; nanoseconds of a message in the fastest of each; memory over ten million
//!   messages from one thread to another; memory of an actor at rest
//! - `count on|off N`: sends N messages and ends, to be counted by callgrind (`make bench-messages` does)

use postern::actors::address::{Message, Origin, Reply};
use postern::actors::host::{ActorRef, Behavior, Ctx, Handle, Runtime, Runtimes, Spec, run_system, start_on};
use postern::model::ConnectionId;
use postern::telemetry::label::Label;
use postern::telemetry::record;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(60);
/// Messages that are on their way before their last one is awaited: fewer than the mailbox takes.
const AT_ONCE: u64 = 512;
/// Short ones, of which some are without anything else that the machine does.
const ROUNDS: usize = 401;
const MESSAGES_OF_A_ROUND: u64 = 8192;
const MANY: u64 = 10_000_000;
const IDLE_ACTORS: usize = 50_000;
/// What the record may add to a message.
const RECORD_MAX_NS: f64 = 200.0;
/// What an allocator may keep for itself; rings that grew by these messages would take a gigabyte.
const GROWN_MAX_BYTES: usize = 256 * 1024;
/// Of one actor at rest, without fault points (with them, `rest_tests.rs` measures).
const AT_REST_MAX_BYTES: usize = 2048;

struct Add(u64);

impl Message for Add {
    type Reply = u64;
    const NAME: &'static str = "Add";

    fn label() -> Label {
        static LABEL: OnceLock<Label> = OnceLock::new();
        *LABEL.get_or_init(|| Label::of("Add"))
    }
}

struct Sum(u64);

impl Behavior for Sum {
    const MAILBOX: usize = 1024;
}

impl Handle<Add> for Sum {
    fn handle(&mut self, Add(n): Add, _: &mut Ctx<'_, Self>) -> Reply<u64> {
        self.0 = self.0.wrapping_add(n);
        Reply::Now(self.0)
    }
}

fn start(runtime: &Runtime, name: &str) -> ActorRef<Sum> {
    start_on(runtime, Spec::temporary(name), Arc::new(|_| {}), || Sum(0))
}

async fn send(sum: &ActorRef<Sum>, messages: u64) {
    let outside = Origin::outside("bench");
    let of_a_connection = outside.clone().for_connection(ConnectionId::from_random([7; 8]));
    let add = sum.address::<Add>();
    let mut left = messages;
    while left > 0 {
        let batch = left.min(AT_ONCE);
        for number in 1..batch {
            let origin = if number % 2 == 0 { &outside } else { &of_a_connection };
            add.tell(origin, Add(1)).expect("room");
        }
        add.ask(&outside, Add(1), SOON).await.expect("an answer");
        left -= batch;
    }
}

async fn nanos_of_a_message(sum: &ActorRef<Sum>) -> f64 {
    let begin = Instant::now();
    send(sum, MESSAGES_OF_A_ROUND).await;
    begin.elapsed().as_nanos() as f64 / MESSAGES_OF_A_ROUND as f64
}

/// What others do on the machine only adds.
fn fastest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: usize = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("KiB");
    kib * 1024
}

/// Says the figure with its bound; whether it is within it.
fn holds(what: &str, figure: f64, unit: &str, bound: f64) -> bool {
    let within = figure <= bound;
    let verdict = if within { "" } else { "   BEYOND IT" };
    println!("{what:<26}{figure:7.0} {unit} (bound: {bound:.0}){verdict}");
    within
}

async fn compare(runtimes: &Runtimes) -> bool {
    // On the sender's own runtime: what is measured is the message, not the kernel that wakes another thread.
    let sum = start(&runtimes.control, "sum");
    let (mut on, mut off) = (Vec::new(), Vec::new());
    send(&sum, 400_000).await;
    for _ in 0..ROUNDS {
        record::pause(false);
        on.push(nanos_of_a_message(&sum).await);
        record::pause(true);
        off.push(nanos_of_a_message(&sum).await);
    }
    record::pause(false);
    let (on, off) = (fastest(&on), fastest(&off));
    println!("a message, record on:     {on:7.0} ns");
    println!("a message, record off:    {off:7.0} ns");
    holds("the record:", on - off, "ns", RECORD_MAX_NS)
}

async fn memory_of_the_rings(runtimes: &Runtimes) -> bool {
    // Both threads record.
    let sum = start(&runtimes.workers[0], "sum");
    // The rings are full after this.
    send(&sum, 100_000).await;
    let before = resident_bytes();
    send(&sum, MANY).await;
    let grown = resident_bytes().saturating_sub(before);
    let what = format!("over {MANY} messages:");
    holds(&what, grown as f64, "bytes more", GROWN_MAX_BYTES as f64)
}

async fn memory_of_an_actor(runtimes: &Runtimes) -> bool {
    let before = resident_bytes();
    let actors: Vec<_> = (0..IDLE_ACTORS)
        .map(|number| start(&runtimes.control, &format!("sum#{number}")))
        .collect();
    for actor in &actors {
        send(actor, 1).await;
    }
    let each = (resident_bytes() - before) / IDLE_ACTORS;
    holds("an actor at rest:", each as f64, "bytes", AT_REST_MAX_BYTES as f64)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["count", how, messages] = arguments[..] {
        record::pause(how == "off");
        let messages = messages.parse().expect("a number");
        run_system(1, |runtimes| async move {
            send(&start(&runtimes.control, "sum"), messages).await;
        });
        return ExitCode::SUCCESS;
    }
    let within = run_system(1, |runtimes| async move {
        [
            memory_of_an_actor(&runtimes).await,
            compare(&runtimes).await,
            memory_of_the_rings(&runtimes).await,
        ]
    });
    if within.contains(&false) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
