#!/usr/bin/env bash
# Installs Debian's PostgreSQL where there is none; only its programs are used, each time in a directory of our own.
set -euo pipefail

compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && command -v psql >/dev/null && exit 0
if ! command -v apt-get >/dev/null; then
    echo "PostgreSQL is not installed, and this machine has no apt-get; install PostgreSQL by its own means" >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
echo "installing PostgreSQL (apt-get install postgresql)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# An index that is out of date, or one source that cannot be reached, need not stop the installation.
$sudo apt-get update -q >"$log" 2>&1 || echo "apt-get update failed; trying with the index that is there" >&2
if ! DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends postgresql >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
