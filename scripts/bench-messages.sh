#!/bin/bash
# What a message between actors costs with the record on and off: time, memory, and instructions under callgrind. Exit code 1 where a figure is beyond its bound.
set -euo pipefail
program=$1
# What the record may add to a message: 200 ns of a core that does 2.5 in each.
record_max=500

code=0
"$program" || code=1
if ! command -v valgrind >/dev/null; then
    echo "valgrind is not installed, so no instructions were counted (apt-get install valgrind)"
    exit "$code"
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
echo "instructions of a message, record on: $on, off: $off; the record: $((on - off)) (bound: $record_max)"
if [ $((on - off)) -gt "$record_max" ]; then
    echo "the record costs more instructions than its bound"
    code=1
fi
exit "$code"
