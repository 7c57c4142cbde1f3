"""Direct, pgbouncer and haproxy: what Postern is compared with."""

import signal

from machine.host import program
from machine.scratch import account_for_postgresql, free_port, give_to
from targets.target import NAME, Target, middle_environment
from wire.session import Door

# Thousands of idle connections, which the stand-in has.
CLIENTS_MAX = 6000
# Real PostgreSQL has no more than CONNECTIONS_MAX of upstream.py; pgbouncer keeps its sessions there open.
POOL_OF_POSTGRESQL = 300

# What is not here has its default: above all server_reset_query, DISCARD ALL after each client, without which the next client's
# prepared statements fail.
PGBOUNCER = """\
[databases]
{name} = host=localhost port={upstream} dbname={name}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = cert
auth_file = {directory}/pgbouncer-{port}.txt
pool_mode = session
max_client_conn = {clients}
default_pool_size = {pool}
client_tls_sslmode = verify-full
client_tls_ca_file = {directory}/root.crt
client_tls_cert_file = {directory}/server.crt
client_tls_key_file = {directory}/server.key
server_tls_sslmode = verify-full
server_tls_ca_file = {directory}/root.crt
server_tls_cert_file = {directory}/client.crt
server_tls_key_file = {directory}/client.key
log_connections = 0
log_disconnections = 0
"""

# Two threads, as Postern has on two cores; the bytes pass without TLS of its own.
HAPROXY = """\
global
  maxconn {clients}
  nbthread {threads}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend bench
  bind 127.0.0.1:{port}
  default_backend postgresql
backend postgresql
  server postgresql 127.0.0.1:{upstream}
"""


def door(upstream, port):
    identity = upstream.identity
    return Door(port, str(upstream.authority.root), str(identity.with_suffix(".crt")), str(identity.with_suffix(".key")), NAME, NAME)


def direct(_scratch, upstream, name):
    return Target(name, door(upstream, upstream.port))


def pgbouncer(scratch, upstream, name):
    port, account = free_port(), account_for_postgresql()
    pool = POOL_OF_POSTGRESQL if upstream.name == "postgresql" else CLIENTS_MAX
    file, users = upstream.directory / f"pgbouncer-{port}.ini", upstream.directory / f"pgbouncer-{port}.txt"
    file.write_text(PGBOUNCER.format(name=NAME, upstream=upstream.port, port=port, directory=upstream.directory, clients=CLIENTS_MAX, pool=pool))
    users.write_text(f'"{NAME}" ""\n')
    give_to(account, file, users)
    # SIGINT waits for its clients; SIGTERM does not.
    process = scratch.start(f"{port}-{name}", [program("pgbouncer"), file], signal.SIGTERM, account, middle_environment())
    return Target(name, door(upstream, port), [process])


def haproxy(scratch, upstream, name):
    port = free_port()
    file = scratch.directory / f"haproxy-{port}.cfg"
    file.write_text(HAPROXY.format(clients=CLIENTS_MAX, threads=2, port=port, upstream=upstream.port))
    process = scratch.start(f"{port}-{name}", [program("haproxy"), "-db", "-q", "-f", file], env=middle_environment())
    return Target(name, door(upstream, port), [process])
