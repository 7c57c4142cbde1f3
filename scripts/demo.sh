#!/usr/bin/env bash
# A query through a whole cluster on this machine: auth, proxy and agent in one process, the agent behind a tunnel, in front of a
# throw-away PostgreSQL. Everything that it types is shown. `DEMO_ONCE=1` ends it after that; otherwise it runs until Ctrl-C.
#
#   scripts/demo.sh PROGRAM    the demo, with this postern
#   scripts/demo.sh --clean    removes what demos that were killed have left
set -euo pipefail

prefix=/tmp/postern-demo

# A process of that directory: one that was started later under the same number is left alone.
is_ours() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF -- "$2"; }

if [ "${1:-}" = --clean ]; then
    for left in "$prefix".*; do
        [ -d "$left" ] || continue
        process=$(cat "$left/pid" 2>/dev/null || true)
        if [ -n "$process" ] && is_ours "$process" "$left"; then
            kill "$process"
            for _ in $(seq 100); do is_ours "$process" "$left" || break; sleep 0.1; done
        fi
        rm -rf "$left"
        echo "removed $left"
    done
    exit 0
fi

postern=$(realpath "${1:?the program, for example target/debug/postern}")
dir=$(mktemp -d "$prefix.XXXXXX")
chmod 755 "$dir"
dev=
clean_up() {
    code=$?
    trap '' INT TERM
    if [ -n "$dev" ]; then
        kill "$dev" 2>/dev/null || true
        wait "$dev" 2>/dev/null || true
    fi
    rm -rf "$dir"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 0' INT TERM

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# As a person would type it, with `postern` for the program.
type_in() { printf '$ %s\n' "$*"; eval "$*"; }
postern() { "$postern" "$@"; }
fail() {
    printf '\nthe demo failed: %s\nthe end of the log of postern dev:\n' "$1" >&2
    tail -n 40 "$dir/log" >&2
    exit 1
}
until_it_holds() {
    for _ in $(seq 600); do
        "$@" 2>/dev/null && return
        kill -0 "$dev" 2>/dev/null || fail "postern dev has ended"
        sleep 0.1
    done
    fail "not within 60 s: $*"
}

say "1. A cluster in one process, with a tunnel between proxy and agent, and a PostgreSQL that only it may reach"
printf '$ postern dev --tunnel --data-dir %s\n' "$dir/data"
# In a session of its own: Ctrl-C comes to this script, which ends the cluster in order.
setsid "$postern" dev --tunnel --listen "127.0.0.1:${DEMO_PORT:-0}" --data-dir "$dir/data" >"$dir/log" 2>&1 </dev/null &
dev=$!
echo "$dev" >"$dir/pid"
until_it_holds grep -q '^Postern is ready' "$dir/log"
grep '^Postern is ready' "$dir/log"

say "2. psql finds proxy and certificate in its environment; there is no password"
type_in "eval \"\$(postern dev env --data-dir $dir/data)\""

say "3. A query: psql - proxy - tunnel - agent - PostgreSQL"
type_in "psql -X -c 'select * from orders order by 1 limit 5'" || fail "the query did not pass"
type_in "psql -X -c \"select current_user, current_database(), split_part(version(), ' (', 1) as server\"" || fail "the query did not pass"

say "4. As another database user, which no role allows"
if type_in "psql -X -U postgres -c 'select * from orders'" 2>"$dir/denial"; then fail "the database user postgres was let in"; fi
cat "$dir/denial"
grep -qi 'denied' "$dir/denial" || fail "the refusal is not a denial"

say "5. The audit log has both, and the proxy and the agent each name their decision"
events() { postern ctl --data-dir "$dir/data" audit ls --format json; }
complete() {
    local log
    log=$(events) &&
        grep -q '"code":"TDB00I".*"decided_by":"agent"' <<<"$log" && grep -q '"code":"PDB00I".*"decided_by":"proxy"' <<<"$log" &&
        grep -q '"code":"TDB00W"' <<<"$log" && [ "$(grep -c '"code":"TDB01I"' <<<"$log")" -ge 2 ]
}
# The agent ships what it wrote a moment later.
until_it_holds complete
type_in "postern ctl --data-dir $dir/data audit ls"

say "What to try next"
ctl="postern ctl --data-dir $dir/data"
cat <<TEXT
In another terminal:

  alias postern=$postern
  eval "\$(postern dev env --data-dir $dir/data)"
  psql                        # then \\d, a query, and Ctrl-C during: select pg_sleep(60);
  pg_dump --schema-only       # a whole schema through the gateway
  $ctl get role/access
  $ctl rm role/access         # every session that it carried ends, and psql says why
  $ctl audit ls --since 10m
TEXT
[ -n "${DEMO_ONCE:-}" ] && exit 0
say "It runs until Ctrl-C."
wait "$dev"
