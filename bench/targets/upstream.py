"""What stands behind every target: a real PostgreSQL, or the stand-in for one. Both want a client certificate that they trust."""

import pathlib
import shutil
import signal
import sys

from machine.host import postgresql_programs
from machine.scratch import account_for_postgresql, free_port, give_to, run, until
from targets.certificates import Authority
from targets.target import NAME

# Sessions of the workloads with those that pgbouncer keeps, and some for the bench itself.
CONNECTIONS_MAX = 600
# pgbench -i -s: a million rows, 150 MB, which stay in memory.
SCALE = 10

CONFIGURATION = """\
listen_addresses = '{addresses}'
port = {port}
unix_socket_directories = '{directory}'
max_connections = {connections}
shared_buffers = 512MB
ssl = on
ssl_cert_file = '{directory}/server.crt'
ssl_key_file = '{directory}/server.key'
ssl_ca_file = '{directory}/trusted.crt'
fsync = off
synchronous_commit = off
autovacuum = off
jit = off
max_parallel_workers_per_gather = 0
"""
ACCESS = "local all all trust\nhostssl all all all cert\n"


class Upstream:
    """`port` on 127.0.0.1, and where else it is told to; `authority` signed its certificate, and the client certificate `identity`, which it trusts."""

    def __init__(self, scratch, name):
        self.scratch, self.name, self.port = scratch, name, free_port()
        self.account = account_for_postgresql()
        self.authority = Authority(scratch.directory / f"{name}-{self.port}-authority")
        self.identity = self.authority.sign("client", NAME, f"DNS:{NAME}")
        server = self.authority.sign("server", "localhost", "DNS:localhost,IP:127.0.0.1")
        # What runs as another account has copies of its own.
        self.directory = scratch.directory / f"{name}-{self.port}"
        self.directory.mkdir()
        for source, kept in ((server, "server"), (self.identity, "client")):
            for ending in (".crt", ".key"):
                shutil.copyfile(source.with_suffix(ending), self.directory / (kept + ending))
                (self.directory / (kept + ending)).chmod(0o600)
        shutil.copyfile(self.authority.root, self.directory / "root.crt")
        self.trusted = self.directory / "trusted.crt"
        shutil.copyfile(self.authority.root, self.trusted)
        give_to(self.account, self.directory, *self.directory.iterdir())
        self.process = self._start()

    def trust(self, certificates):
        """Client certificates of one authority more."""
        with open(self.trusted, "a") as trusted:
            trusted.write(certificates)
        self.process.popen.send_signal(signal.SIGHUP)

    def end(self):
        self.scratch.forget(self.process)


class PostgreSql(Upstream):
    def __init__(self, scratch, addresses=("127.0.0.1",)):
        self.programs, self.addresses = postgresql_programs(), addresses
        super().__init__(scratch, "postgresql")
        self.sql("postgres", f"create role {NAME} login; create database {NAME} owner {NAME}", separate=True)
        run([self.programs / "pgbench", "-i", "-q", "-s", str(SCALE), "-h", self.directory, "-p", self.port, "-U", "postgres", NAME],
            self.account, timeout=300)  # fmt: skip
        self.sql(NAME, f"grant select on all tables in schema public to {NAME}; create unlogged table sink (t text); alter table sink owner to {NAME}")

    def _start(self):
        data = self.directory / "data"
        run([self.programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"], self.account)
        text = CONFIGURATION.format(port=self.port, addresses=",".join(self.addresses), directory=self.directory, connections=CONNECTIONS_MAX)
        (data / "postgresql.conf").write_text(text)
        (data / "pg_hba.conf").write_text(ACCESS)
        # SIGINT is its fast shutdown.
        process = self.scratch.start(self.name, [self.programs / "postgres", "-D", data], signal.SIGINT, self.account)
        ready = [self.programs / "pg_isready", "-q", "-h", self.directory, "-p", self.port]
        until("PostgreSQL accepts connections", lambda: run(ready, self.account), watched=[process])
        return process

    def sql(self, database, script, separate=False):
        """As superuser, over the Unix socket. `separate`: each statement by itself, not in one transaction."""
        command = [self.programs / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.directory, "-p", self.port, "-U", "postgres", database]
        parts = script.split("; ") if separate else [script]
        return run(command + [word for part in parts for word in ("-c", part)], self.account)[0]


class StandInUpstream(Upstream):
    def __init__(self, scratch, name="stand-in"):
        super().__init__(scratch, name)

    def _start(self):
        program = pathlib.Path(__file__).resolve().parent.parent / "wire" / "upstream.py"
        files = [self.directory / "server.crt", self.directory / "server.key", self.trusted]
        process = self.scratch.start(self.name, [sys.executable, "-B", program, self.port, *files], account=None)
        until("the stand-in listens", lambda: "listening" in process.log.read_text(), watched=[process])
        return process
