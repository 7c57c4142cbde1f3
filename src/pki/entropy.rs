//! Randomness. This is the one file that asks the system for it.

/// Fills `buf` with bytes from the operating system's generator (by way of AWS-LC).
///
/// # Panics
/// When the system has no randomness to give. There is no safe way on: a key, a token or a serial number made without it
/// could be guessed. A kernel that has finished booting does not fail here.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads randomness")]
pub fn fill(buf: &mut [u8]) {
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

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<16>(), super::bytes::<16>());
    }
}
