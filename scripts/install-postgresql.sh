#!/usr/bin/env bash
# Installs Debian's PostgreSQL where there is none; only its programs are used, each time in a directory of our own.
set -euo pipefail

compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && command -v psql >/dev/null && exit 0
exec "$(dirname "$0")/apt-install.sh" PostgreSQL postgresql
