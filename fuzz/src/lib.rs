//! Fuzzing of Postern: the targets, and the bound on what one run of a target may allocate.
//!
//! The targets themselves are shared with the tests (`tests/it/fuzzed.rs`), which replay the corpus.

pub mod targets;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a target may take whatever its input: a capacity that a length claims before its bytes have come (serde takes at most
/// 1 MiB for each list), tables of a regular expression, and caches that are filled on first use.
const MEMORY_BASE: usize = 24 << 20;
/// What a target may take for each byte of its input, its own copies for comparison included.
const MEMORY_PER_BYTE: usize = 2048;

/// Runs a target, and fails where it took more memory than an input of this length may cost.
///
/// # Panics
/// A property of the target does not hold, or the bound does not.
pub fn run(name: &str, bytes: &[u8]) {
    let target = targets::ALL.iter().find(|target| target.name == name);
    let target = target.expect("the target is in the list");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = MEMORY_BASE + MEMORY_PER_BYTE * bytes.len();
    assert!(
        taken <= most,
        "{} bytes of input cost {taken} bytes of memory; {most} are allowed",
        bytes.len()
    );
}
