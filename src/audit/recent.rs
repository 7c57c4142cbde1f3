//! The last events of a spool, in memory: what is shipped within a second of its fsync need not be read from the disk, checked and
//! made a text again, which cost an agent a tenth of its instructions for a statement.
//!
//! Nothing depends on it. What it has forgotten, or given out once, is in the segments.

use std::collections::VecDeque;

/// What gathers until it is shipped: the fsync comes after half a second at the latest, the shipper waits for 200 ms. Of ten thousand statements a second and their
/// results that is 9 MB.
const MAX_BYTES: usize = 16 << 20;

/// Events with consecutive numbers.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The number of the first line.
    first: u64,
    lines: VecDeque<String>,
    bytes: usize,
}

impl Recent {
    /// Keeps the event of this number, if there is room and it follows the last one that is kept.
    pub fn remember(&mut self, number: u64, line: String) {
        if self.lines.is_empty() {
            self.first = number;
        }
        let follows = self.first + self.lines.len() as u64 == number;
        if follows && self.bytes + line.capacity() <= MAX_BYTES {
            self.bytes += line.capacity();
            self.lines.push_back(line);
        }
    }

    /// Gives out the events from `first` to `last`, at most so many and, beyond the first, so many bytes of them. None, if it has not the
    /// first. What is before is forgotten.
    pub fn take(&mut self, first: u64, last: u64, (max_lines, max_bytes): (usize, usize)) -> Vec<String> {
        while self.first < first && self.pop().is_some() {}
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while self.first == first + taken.len() as u64 && self.first <= last && taken.len() < max_lines.max(1) {
            let Some(next) = self.lines.front() else { break };
            bytes += next.len();
            if bytes > max_bytes && !taken.is_empty() {
                break;
            }
            taken.extend(self.pop());
        }
        taken
    }

    fn pop(&mut self) -> Option<String> {
        let line = self.lines.pop_front()?;
        self.first += 1;
        self.bytes -= line.capacity();
        if self.lines.is_empty() {
            // A burst's room is given back.
            self.lines = VecDeque::new();
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: (usize, usize) = (usize::MAX, usize::MAX);

    fn holding(first: u64, lines: &[&str]) -> Recent {
        let mut recent = Recent::default();
        for (number, line) in (first..).zip(lines) {
            recent.remember(number, (*line).to_owned());
        }
        recent
    }

    #[test]
    fn what_is_given_out_is_in_order_within_its_bounds_and_given_once() {
        let mut recent = holding(5, &["aa", "bb", "cc", "dd"]);
        assert_eq!(recent.take(5, 7, (2, usize::MAX)), ["aa", "bb"]);
        assert_eq!(
            recent.take(5, 7, MANY),
            [""; 0],
            "these were given out; the disk has them"
        );
        assert_eq!(recent.take(7, 7, MANY), ["cc"], "what is not fsynced stays");
        recent.remember(9, "ee".into());
        assert_eq!(recent.take(8, 9, (9, 3)), ["dd"]);
        assert_eq!(recent.take(9, 9, (0, 0)), ["ee"], "one goes whatever the bounds");
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn what_came_from_the_disk_meanwhile_is_forgotten() {
        let mut recent = holding(5, &["aa", "bb", "cc"]);
        assert_eq!(recent.take(7, 9, MANY), ["cc"]);
        assert_eq!(recent.take(4, 9, MANY), [""; 0], "the disk has it");
        assert_eq!(holding(5, &["aa"]).take(4, 9, MANY), [""; 0], "the disk has the first");
    }

    #[test]
    fn beyond_its_room_nothing_is_kept_until_all_that_is_kept_has_left() {
        let mut recent = Recent::default();
        let big = || "x".repeat(MAX_BYTES / 2);
        for number in 1..=3 {
            recent.remember(number, big());
        }
        recent.remember(4, "after a gap".into());
        assert_eq!((recent.lines.len(), recent.bytes), (2, MAX_BYTES));
        assert_eq!(recent.take(1, 4, MANY).len(), 2);
        recent.remember(5, "anew".into());
        assert_eq!(recent.take(3, 5, MANY), [""; 0]);
        assert_eq!(recent.take(5, 5, MANY), ["anew"]);
    }
}
