#!/usr/bin/env bash
# Runs every test and says at the end how many ran. What is given is passed on to cargo test, for example a part of a name.
set -uo pipefail

cd "$(dirname "$0")/.."
output=$(mktemp)
POSTERN_FIGURES=$(mktemp)
export POSTERN_FIGURES
# Many tests wait for a deadline: one more than there are cores keeps these busy.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}
trap 'rm -f "$output" "$POSTERN_FIGURES"' EXIT
cargo test --locked --no-fail-fast --features fault-points --lib --test it -- "$@" 2>&1 | tee "$output"
code=${PIPESTATUS[0]}
# Each test binary closes with a line such as: test result: ok. 12 passed; 0 failed; 0 ignored; …
sum() { sed -nE "s/^test result: .* ([0-9]+) $1;.*/\1/p" "$output" | awk '{ n += $1 } END { print n + 0 }'; }
passed=$(sum passed)
failed=$(sum failed)
if [ -s "$POSTERN_FIGURES" ]; then
    echo "measured on the way:"
    sed 's/^/  /' "$POSTERN_FIGURES"
fi
if [ "$code" = 0 ] && [ "$passed" = 0 ]; then
    echo "no test ran" >&2
    code=1
fi
echo "$passed passed, $failed failed"
exit "$code"
