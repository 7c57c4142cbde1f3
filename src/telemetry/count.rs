//! What is counted: plain atomics, that cost a few nanoseconds where they are written and are read when somebody asks.

use crate::model::Moment;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn one_more(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are at the moment.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

/// One of those that a [`Level`] counts, for as long as it lives.
#[derive(Debug)]
#[must_use = "it is counted for as long as this lives"]
pub struct Present(&'static Level);

impl Level {
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub fn enter(&'static self) -> Present {
        self.0.fetch_add(1, Ordering::Relaxed);
        Present(self)
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When something happened last; what never did is not there.
#[derive(Debug, Default)]
pub struct Latest(AtomicU64);

impl Latest {
    pub const fn never() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn happens(&self, now: Moment) {
        // The moment at which the process began is none at which anything happens.
        self.0.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub fn ago(&self, now: Moment) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            at => Some(now.since(Moment::from_nanos(at))),
        }
    }
}

/// The values of a label: a closed list of the program's. Nothing that somebody sends is ever one.
pub trait Labels: Copy + 'static {
    const ALL: &'static [Self];

    fn label(self) -> &'static str;

    /// Its place in [`Labels::ALL`].
    fn place(self) -> usize;
}

/// A closed list of labels, in the order of their declaration.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($value:ident => $label:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($value,)* }

        impl $crate::telemetry::count::Labels for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)*];

            fn label(self) -> &'static str {
                match self { $(Self::$value => $label,)* }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    )*};
}
pub(crate) use labels;

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Counters<L, const N: usize>([Counter; N], PhantomData<L>);

impl<L: Labels, const N: usize> Counters<L, N> {
    pub const fn zero() -> Self {
        assert!(L::ALL.len() == N, "one counter for each value");
        Self([const { Counter::new() }; N], PhantomData)
    }

    pub fn of(&self, value: L) -> &Counter {
        &self.0[value.place().min(N - 1)]
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        L::ALL.iter().map(|value| (value.label(), self.of(*value).get()))
    }
}

/// Upper bounds in seconds: from a hundred microseconds, which an fsync of a good disk takes, to half a minute, where clients
/// have given up.
pub const BOUNDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// How long something took.
#[derive(Debug)]
pub struct Durations {
    /// One for each bound, and one for what is longer.
    counts: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Durations {
    pub const fn zero() -> Self {
        Self {
            counts: [const { Counter::new() }; BOUNDS.len() + 1],
            nanoseconds: Counter::new(),
        }
    }

    pub fn took(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BOUNDS.len());
        self.counts[place].one_more();
        self.nanoseconds
            .add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Each upper bound (the last is infinity) with how many took at most that long and longer than the bound before.
    pub fn counts(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().map(Counter::get)).collect()
    }

    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds.get()).as_secs_f64()
    }
}

/// Durations for each value of a label.
#[derive(Debug)]
pub struct DurationsOf<L, const N: usize>([Durations; N], PhantomData<L>);

impl<L: Labels, const N: usize> DurationsOf<L, N> {
    pub const fn zero() -> Self {
        assert!(L::ALL.len() == N, "one for each value");
        Self([const { Durations::zero() }; N], PhantomData)
    }

    pub fn of(&self, value: L) -> &Durations {
        &self.0[value.place().min(N - 1)]
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        L::ALL.iter().map(|value| (value.label(), self.of(*value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        Colour { Red => "red", Blue => "blue", }
    }

    #[test]
    fn each_value_of_a_label_is_counted_for_itself() {
        let counters = Counters::<Colour, 2>::zero();
        counters.of(Colour::Blue).add(2);
        assert_eq!(counters.all().collect::<Vec<_>>(), [("red", 0), ("blue", 2)]);
    }

    #[test]
    fn a_level_falls_when_what_it_counts_is_gone() {
        static LEVEL: Level = Level::new();
        let (one, two) = (LEVEL.enter(), LEVEL.enter());
        assert_eq!(LEVEL.get(), 2);
        drop(one);
        assert_eq!(LEVEL.get(), 1);
        drop(two);
        assert_eq!(LEVEL.get(), 0);
    }

    #[test]
    fn a_duration_is_counted_under_the_first_bound_that_holds_it() {
        let durations = Durations::zero();
        for milliseconds in [1, 2, 60_000] {
            durations.took(Duration::from_millis(milliseconds));
        }
        let counts = durations.counts();
        let of = |bound: f64| {
            counts
                .iter()
                .find(|(upper, _)| *upper == bound)
                .map(|(_, count)| *count)
        };
        assert_eq!(
            (of(0.001), of(0.0025), of(30.0), of(f64::INFINITY)),
            (Some(1), Some(1), Some(0), Some(1))
        );
        assert!((durations.seconds() - 60.003).abs() < 1e-9);
    }
}
