#!/usr/bin/env bash
# Installs packages of Debian, and says so: scripts/apt-install.sh WHAT-IT-IS PACKAGE…
set -euo pipefail

what=$1
shift
if ! command -v apt-get >/dev/null; then
    echo "$what: not installed, and this machine has no apt-get; install it by its own means" >&2
    exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
echo "installing $what (apt-get install $*)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# An index that is out of date, or one source that cannot be reached, need not stop the installation.
$sudo apt-get update -q >"$log" 2>&1 || echo "apt-get update failed; trying with the index that is there" >&2
if ! DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
