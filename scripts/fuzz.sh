#!/usr/bin/env bash
# Runs the fuzz targets one after the other, each for FUZZ_SECONDS (default 60), from the corpus that is kept: what is committed in
# fuzz/corpus/TARGET, and what earlier runs found in fuzz/found/TARGET, which git does not see. FUZZ_TARGET=NAME runs one.
#
# RUSTC_BOOTSTRAP=1 lets the stable compiler take the sanitizer's flag, so that what is fuzzed is what the program's own compiler
# makes and no second toolchain is needed. FUZZ_SANITIZER=none does without, where the toolchain has no sanitizer.
set -euo pipefail

cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
sanitizer=${FUZZ_SANITIZER:-address}
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz, which the fuzz targets are built with (cargo install cargo-fuzz --locked)"
    cargo install --quiet --locked cargo-fuzz
fi
targets=${FUZZ_TARGET:-$(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')}
export RUSTC_BOOTSTRAP=1
# The targets of the audit trail sync their files all the time; in memory that costs nothing.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi

echo "building the fuzz targets with the sanitizer $sanitizer; the first time takes some minutes"
build=(cargo fuzz build --sanitizer "$sanitizer")
[ -n "${FUZZ_TARGET:-}" ] && build+=("$FUZZ_TARGET")
"${build[@]}"

failed=()
for target in $targets; do
    mkdir -p "fuzz/found/$target" "fuzz/artifacts/$target"
    echo "== $target, $seconds s"
    log=$(mktemp)
    # One allocation of more than 64 MiB, a gigabyte in all or ten seconds for one input are findings, too.
    if cargo fuzz run --sanitizer "$sanitizer" "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -malloc_limit_mb=64 -rss_limit_mb=1024 -print_final_stats=1 \
        >"$log" 2>&1; then
        grep -E ' INITED | DONE |number_of_executed_units' "$log" | sed 's/^/  /'
    else
        tail -n 60 "$log"
        failed+=("$target")
    fi
    rm -f "$log"
done
if [ ${#failed[@]} != 0 ]; then
    echo "found something: ${failed[*]}; the inputs are in fuzz/artifacts/. See Fuzzing in CONTRIBUTING.md" >&2
    exit 1
fi
echo "nothing found"
