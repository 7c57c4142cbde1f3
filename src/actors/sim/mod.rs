//! The actors of a proxy and its agents under a seed: virtual time, a drawn order, drawn misfortune, and what holds all the same.
//!
//! `POSTERN_SEED=n` runs one seed and prints its record; `POSTERN_SEEDS=n` runs so many.

mod client;
pub(super) mod cluster;
mod invariants;
mod invariants_tests;
mod postgres;
mod record;
mod rules;
mod script;
mod world;

use super::host::run_seeded;
use crate::telemetry::panics;
use cluster::Cluster;
use script::{Outcome, play};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

/// How many seeds a usual run tries.
const SEEDS: u64 = 1000;
/// A seed takes some milliseconds, as its time is virtual. One that takes so long comes to no end.
const SEED_DEADLINE: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn run(seed: u64) -> Outcome {
    // What is made once draws none of the seed's ids.
    let _made = Cluster::of_the_tests();
    run_seeded(seed, |_| play(seed))
}

fn what_is_wrong(Outcome { happened, left_over }: &Outcome) -> Vec<String> {
    let mut wrong = invariants::broken(happened);
    wrong.extend(left_over.iter().cloned());
    wrong
}

#[test]
fn every_seed_holds_the_invariants() {
    if let Some(seed) = number("POSTERN_SEED") {
        let outcome = run(seed);
        println!("{}", record::in_lines(&outcome.happened));
        let wrong = what_is_wrong(&outcome);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
        return;
    }
    let failed = failures(0..number("POSTERN_SEEDS").unwrap_or(SEEDS), SEED_DEADLINE, |seed| {
        what_is_wrong(&run(seed))
    });
    for (seed, why) in &failed {
        println!("POSTERN_SEED={seed} cargo test --features fault-points --lib sim:: -- --nocapture   # {why}");
    }
    assert!(failed.is_empty(), "{} seeds fail", failed.len());
}

/// The seeds with which something is wrong, and what: what `wrong_with` says first, its panic, or that it does not end, after which
/// no other is tried.
fn failures(seeds: Range<u64>, deadline: Duration, wrong_with: fn(u64) -> Vec<String>) -> Vec<(u64, String)> {
    let (tell, told) = mpsc::channel();
    let tried = seeds.clone();
    // Nobody waits for this thread where a seed does not end.
    let _runs = std::thread::spawn(move || {
        for seed in tried {
            let wrong = catch_unwind(AssertUnwindSafe(|| wrong_with(seed)));
            let wrong = wrong.unwrap_or_else(|panic| vec![format!("it panics: {}", panics::text(panic.as_ref()))]);
            if tell.send(wrong.into_iter().next()).is_err() {
                return;
            }
        }
    });
    let mut failed = Vec::new();
    for seed in seeds {
        match told.recv_timeout(deadline) {
            Ok(None) => {}
            Ok(Some(first)) => failed.push((seed, first)),
            Err(_) => {
                failed.push((seed, format!("it has come to no end within {deadline:?}")));
                break;
            }
        }
    }
    failed
}

#[test]
fn a_seed_that_panics_or_comes_to_no_end_is_named_as_one_that_breaks_an_invariant() {
    let deadline = Duration::from_millis(500);
    let failed = failures(0..9, deadline, |seed| match seed {
        2 => vec!["an invariant".to_owned(), "another".to_owned()],
        3 => panic!("outside of any actor"),
        5 => loop {
            std::thread::park();
        },
        _ => Vec::new(),
    });
    let named: Vec<_> = failed.iter().map(|(seed, _)| *seed).collect();
    assert_eq!(named, [2, 3, 5]);
    assert_eq!(failed[0].1, "an invariant");
    assert!(failed[1].1.contains("it panics"), "{failed:?}");
    assert!(failed[2].1.contains("no end"), "{failed:?}");
}

#[test]
fn a_seed_takes_the_same_turns_every_time() {
    for seed in 0..20 {
        let (once, again) = (run(seed), run(seed));
        assert!(once.happened.len() > 20, "seed {seed}: nothing happened");
        for (at, (one, other)) in once.happened.iter().zip(&again.happened).enumerate() {
            assert_eq!(one, other, "seed {seed}, at {at}");
        }
        assert_eq!(once.happened.len(), again.happened.len(), "seed {seed}");
    }
}
