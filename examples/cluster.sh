#!/usr/bin/env bash
# A cluster of three processes on this machine: auth, proxy and agent, each with a configuration file, a data directory and a
# log of its own, in front of a PostgreSQL that it starts. It is written to be read: what an operator does on three machines
# stands here in order. `CLUSTER_ONCE=1` ends it after the first query; otherwise it runs until Ctrl-C.
#
#   cargo build && examples/cluster.sh
set -euo pipefail

cd "$(dirname "$0")/.."
postern=${POSTERN:-${CARGO_TARGET_DIR:-target}/debug/postern}
[ -x "$postern" ] || { echo "there is no $postern; run \`cargo build\` first" >&2; exit 1; }
postern=$(realpath "$postern")
pg=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$pg" ] || { echo "PostgreSQL is not installed; run \`apt-get install postgresql\` first" >&2; exit 1; }

dir=$(mktemp -d /tmp/postern-cluster.XXXXXX)
chmod 755 "$dir"
processes=()
clean_up() {
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Waits for a command to succeed, at most 30 seconds.
until_it_holds() {
    for _ in $(seq 300); do "$@" 2>/dev/null && return; sleep 0.1; done
    echo "not within 30 s: $*; the logs:" >&2
    tail -n 20 "$dir"/*.log >&2
    exit 1
}
# A node says where it listens once it is up, as port 0 in its file means any free one.
start_node() {
    "$postern" start --config "$dir/$1.yaml" >"$dir/$1.log" 2>&1 &
    processes+=($!)
    until_it_holds test -e "$dir/$1/listening.json"
}
port_of() { sed -nE "s/.*\"$2\": *\"[^\"]*:([0-9]+)\".*/\1/p" "$dir/$1/listening.json"; }
ctl() { "$postern" ctl --data-dir "$dir/auth" "$@"; }
# PostgreSQL does not run as root.
as_postgres() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }

echo "1. The auth node: authorities, roles, people, the audit log."
cat >"$dir/auth.yaml" <<YAML
version: v3
postern:
  nodename: auth
  data_dir: $dir/auth
auth_service:
  enabled: yes
  cluster_name: example.com
  listen_addr: 127.0.0.1:0
  tokens: ["proxy:$(openssl rand -hex 16 | tee "$dir/proxy-token")", "db:$(openssl rand -hex 16 | tee "$dir/db-token")"]
YAML
start_node auth
pin=$(ctl status --format json | grep -oE 'sha256:[0-9a-f]{64}' | head -n 1)

echo "2. The proxy joins auth, which it knows by its pin $pin."
cat >"$dir/proxy.yaml" <<YAML
version: v3
postern:
  nodename: proxy
  data_dir: $dir/proxy
  auth_server: localhost:$(port_of auth auth)
  auth_token: $dir/proxy-token
  ca_pin: $pin
proxy_service:
  enabled: yes
  web_listen_addr: 127.0.0.1:0
  public_addr: localhost
YAML
start_node proxy

echo "3. A PostgreSQL with a certificate of the cluster; over the network it lets in only who has one too."
ctl auth sign --format=db --host=localhost --ttl=24h --out="$dir/server" >/dev/null
mkdir "$dir/pg"
cp "$dir"/server.* "$dir/pg/"
[ "$(id -u)" = 0 ] && chown -R postgres: "$dir/pg"
as_postgres "$pg/initdb" --no-sync --auth=trust --username=postgres --pgdata="$dir/pg/data" >/dev/null
pg_port=$((15000 + RANDOM % 15000))
printf 'local all all trust\nhostssl all all all cert\n' >"$dir/pg/data/pg_hba.conf"
as_postgres "$pg/postgres" -D "$dir/pg/data" -k "$dir/pg" -p "$pg_port" -c listen_addresses=localhost -c ssl=on \
    -c ssl_cert_file="$dir/pg/server.crt" -c ssl_key_file="$dir/pg/server.key" -c ssl_ca_file="$dir/pg/server.cas" \
    >"$dir/postgres.log" 2>&1 &
processes+=($!)
until_it_holds "$pg/pg_isready" -q -h "$dir/pg" -p "$pg_port"
"$pg/psql" -X -q -h "$dir/pg" -p "$pg_port" -U postgres -c "create role app login" -c "create database app owner app"
"$pg/psql" -X -q -h "$dir/pg" -p "$pg_port" -U postgres app \
    -c "create table orders (id int, item text); insert into orders values (1, 'lantern'), (2, 'rope'); grant select on orders to app"

echo "4. The agent beside PostgreSQL dials out to the proxy; nothing of it listens."
cat >"$dir/agent.yaml" <<YAML
version: v3
postern:
  nodename: agent
  data_dir: $dir/agent
  proxy_server: localhost:$(port_of proxy proxy)
  auth_token: $dir/db-token
  ca_pin: $pin
db_service:
  enabled: yes
  databases:
  - name: orders
    protocol: postgres
    uri: localhost:$pg_port
    static_labels: {env: example}
YAML
start_node agent

echo "5. A role, a person who holds it, and a certificate for an hour."
cat >"$dir/people.yaml" <<'YAML'
kind: role
version: v5
metadata: {name: example}
spec:
  allow:
    db_labels: {env: example}
    db_users: [app]
    db_names: [app]
---
kind: user
version: v2
metadata: {name: alice}
spec: {roles: [example]}
YAML
ctl create -f "$dir/people.yaml"
ctl auth sign --format=file --user=alice --db-service=orders --ttl=1h --out="$dir/alice" >/dev/null

echo "6. Alice's query, through proxy, tunnel and agent:"
url="host=localhost port=$(port_of proxy proxy) user=app dbname=app sslmode=verify-full sslrootcert=$dir/alice.cas sslcert=$dir/alice.crt sslkey=$dir/alice.key"
echo "   psql \"$url\" -c 'select * from orders'"
until_it_holds "$pg/psql" -X "$url" -c 'select * from orders'

echo "7. What the audit log has of it:"
ctl audit ls --user alice

[ -n "${CLUSTER_ONCE:-}" ] && exit 0
echo
echo "It runs until Ctrl-C. For ctl: $postern ctl --data-dir $dir/auth status"
wait
