//! When events were fsynced, so that somebody can be told how long the oldest has waited for auth.

use crate::model::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// Marks closer together than this are one: an age is read in seconds.
const APART: Duration = Duration::from_secs(1);
/// An hour and more of marks; a longer wait has them farther apart.
const MARKS_MAX: usize = 4096;

/// Marks: up to this number, everything was fsynced by this moment.
#[derive(Debug, Default)]
pub(super) struct Ages {
    marks: VecDeque<(u64, Timestamp)>,
}

impl Ages {
    pub fn reached(&mut self, number: u64, now: Timestamp) {
        match self.marks.back_mut() {
            Some((last, at)) if now.since(*at) < APART => *last = number,
            _ => {
                if self.marks.len() >= MARKS_MAX {
                    self.thin_out();
                }
                self.marks.push_back((number, now));
            }
        }
    }

    /// Of two marks, the later number keeps the earlier moment: an age is never told too short.
    fn thin_out(&mut self) {
        let marks: Vec<_> = self.marks.drain(..).collect();
        let merged = marks
            .chunks(2)
            .filter_map(|pair| Some((pair.last()?.0, pair.first()?.1)));
        self.marks = merged.collect();
    }

    /// Auth has everything up to this number.
    pub fn confirmed(&mut self, number: u64) {
        while self.marks.front().is_some_and(|(last, _)| *last <= number) {
            self.marks.pop_front();
        }
    }

    pub fn oldest(&self) -> Option<Timestamp> {
        self.marks.front().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn the_oldest_is_the_first_that_is_not_confirmed() {
        let mut ages = Ages::default();
        ages.reached(3, at(10));
        ages.reached(5, at(20));
        assert_eq!(ages.oldest(), Some(at(10)));
        ages.confirmed(2);
        assert_eq!(ages.oldest(), Some(at(10)));
        ages.confirmed(3);
        assert_eq!(ages.oldest(), Some(at(20)));
        ages.confirmed(5);
        assert_eq!(ages.oldest(), None);
    }

    #[test]
    fn a_long_wait_has_a_bounded_number_of_marks_and_keeps_its_age() {
        let mut ages = Ages::default();
        for second in 0..50_000 {
            ages.reached(second + 1, at(second * 2));
        }
        assert!(ages.marks.len() <= MARKS_MAX);
        assert_eq!(ages.oldest(), Some(at(0)));
    }
}
