//! The bench: its own tests, in Python, of what it reads, starts, ends and writes. What it measures is no matter of `make test`.

use crate::harness::run;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn the_bench_counts_what_it_says_it_counts_and_leaves_nothing_behind() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Command::new("python3");
    tests
        .current_dir(top)
        .args(["-B", "-m", "unittest", "discover", "-s", "bench/tests", "-t", "bench"]);
    let output = run(tests, Duration::from_secs(300));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(!output.stderr.contains("Ran 0 tests"), "{}", output.stderr);
}
