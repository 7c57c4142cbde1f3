#!/usr/bin/env bash
# Installs what the bench compares with and measures by, where it is missing: pgbouncer, haproxy, strace, valgrind, perf, openssl, iproute2, python3, and
# PostgreSQL with pgbench. Each is started by the bench itself, in a directory of its own; Debian's services of them stay off.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-postgresql.sh
missing=()
for package in pgbouncer haproxy strace valgrind openssl python3; do
    PATH=$PATH:/usr/sbin command -v "$package" >/dev/null || missing+=("$package")
done
command -v perf >/dev/null || missing+=(linux-perf)
PATH=$PATH:/usr/sbin command -v ip >/dev/null || missing+=(iproute2)
[ ${#missing[@]} = 0 ] && exit 0
scripts/apt-install.sh "what the bench needs" "${missing[@]}"
sudo=
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
# A machine with systemd has started them by now.
for service in pgbouncer haproxy; do
    if [[ " ${missing[*]} " == *" $service "* ]] && [ -d /run/systemd/system ]; then
        $sudo systemctl disable --now "$service" >/dev/null 2>&1 || echo "the service $service goes on running" >&2
    fi
done
