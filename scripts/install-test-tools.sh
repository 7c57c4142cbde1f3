#!/usr/bin/env bash
# Makes a Python environment with psycopg 3, a client that binds parameters on the server, in the directory given.
set -euo pipefail

venv=${1:?the directory of the environment}
"$venv/bin/python" -c 'import psycopg' 2>/dev/null && exit 0
make_venv() { rm -rf "$venv" && mkdir -p "$(dirname "$venv")" && python3 -m venv "$venv" >/dev/null 2>&1; }
if ! command -v python3 >/dev/null || ! make_venv; then
    echo "installing Python's venv (apt-get install python3-venv)"
    sudo=
    if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    $sudo apt-get update -q >"$log" 2>&1 || echo "apt-get update failed; trying with the index that is there" >&2
    if ! DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends python3-venv >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        exit 1
    fi
    make_venv || { echo "python3 -m venv $venv fails" >&2; exit 1; }
fi
echo "installing psycopg 3 into $venv (pip install 'psycopg[binary]')"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'psycopg[binary]>=3.2,<4'
