//! Randomness. This is the one file that asks the system for it.

/// Fills `buf` with bytes from the operating system's generator (by way of AWS-LC).
///
/// # Panics
/// When the system has no randomness to give. There is no safe way on: a key, a token or a serial number made without it
/// could be guessed. A kernel that has finished booting does not fail here.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads randomness")]
pub fn fill(buf: &mut [u8]) {
    #[cfg(test)]
    if seeded::fill(buf) {
        return;
    }
    if aws_lc_rs::rand::fill(buf).is_err() {
        panic!("the operating system gave no randomness; no key or token can be made without it");
    }
}

/// `N` random bytes.
///
/// # Panics
/// As [`fill`].
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut buf = [0; N];
    fill(&mut buf);
    buf
}

/// Draws that a seed decides, for tests: the same ids in the same order.
#[cfg(test)]
pub mod seeded {
    use std::cell::RefCell;

    /// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
    #[derive(Debug, Clone)]
    pub struct Draws(u64);

    impl Draws {
        /// The draws of a seed for one purpose; those of another purpose do not shift them.
        pub fn new(seed: u64, purpose: u64) -> Self {
            let mut draws = Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
            draws.draw();
            draws
        }

        pub fn draw(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// One of the numbers below `bound`.
        pub fn below(&mut self, bound: u64) -> u64 {
            (self.draw() >> 11) % bound.max(1)
        }

        /// True so many times of a hundred.
        pub fn percent(&mut self, chance: u64) -> bool {
            self.below(100) < chance
        }
    }

    thread_local! {
        static DRAWS: RefCell<Option<Draws>> = const { RefCell::new(None) };
    }

    /// From here on this thread's bytes come from `draws`; `None` gives it the system's again.
    pub fn draw_from(draws: Option<Draws>) {
        DRAWS.with(|here| *here.borrow_mut() = draws);
    }

    pub(super) fn fill(buf: &mut [u8]) -> bool {
        DRAWS.with(|draws| match draws.borrow_mut().as_mut() {
            Some(draws) => {
                buf.fill_with(|| draws.draw().to_le_bytes()[0]);
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<16>(), super::bytes::<16>());
    }
}
