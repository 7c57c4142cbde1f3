#!/bin/bash
# What a message between actors costs with the record on and off: time, memory, and instructions under callgrind.
set -euo pipefail
program=$1

"$program"
if ! command -v valgrind >/dev/null; then
    echo "valgrind is not installed, so no instructions were counted (apt-get install valgrind)"
    exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Two lengths, so that what the start costs cancels out.
few=20000
many=120000
instructions() {
    valgrind --tool=callgrind --callgrind-out-file="$scratch/out" "$program" count "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
for how in on off; do
    first=$(instructions $how $few)
    last=$(instructions $how $many)
    declare "$how=$(((last - first) / (many - few)))"
done
echo "instructions of a message, record on: $on, off: $off; the record: $((on - off))"
