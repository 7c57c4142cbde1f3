#!/usr/bin/env bash
# Installs what the bench compares with and measures by, where it is missing: pgbouncer, haproxy, strace, openssl, python3, and
# PostgreSQL with pgbench. Each is started by the bench itself, in a directory of its own; Debian's services of them stay off.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-postgresql.sh
missing=()
for package in pgbouncer haproxy strace openssl python3; do
    PATH=$PATH:/usr/sbin command -v "$package" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "${missing[*]}: not installed, and this machine has no apt-get; install them by its own means" >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
echo "installing what the bench needs (apt-get install ${missing[*]})"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
$sudo apt-get update -q >"$log" 2>&1 || echo "apt-get update failed; trying with the index that is there" >&2
if ! DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
# A machine with systemd has started them by now.
for service in pgbouncer haproxy; do
    if [[ " ${missing[*]} " == *" $service "* ]] && [ -d /run/systemd/system ]; then
        $sudo systemctl disable --now "$service" >/dev/null 2>&1 || echo "the service $service goes on running" >&2
    fi
done
