"""That a target gives what PostgreSQL gives, before anything of it is measured."""

import hashlib

from machine.host import postgresql_programs
from machine.scratch import BenchError, run

ROWS = 10_000
DOWN = f"copy (select i, md5(i::text), repeat('x', 900) from generate_series(1, {ROWS}) i) to stdout"
TABLE = "create temp table proof (i int, t text, x text)"
# An order of its own: what arrives is compared, and not how PostgreSQL keeps it.
BACK = "copy (select * from proof order by i) to stdout"


def psql(target, *commands, text_in=None):
    command = [postgresql_programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    for text in commands:
        command += ["-c", text]
    return run(command, env=target.environment(), text_in=text_in)[0]


def expected():
    lines = (f"{i}\t{hashlib.md5(str(i).encode()).hexdigest()}\t{'x' * 900}\n" for i in range(1, ROWS + 1))
    return "".join(lines)


def prove(target):
    """Ten thousand rows, each another, down and up and down again, byte by byte."""
    rows = expected()
    if psql(target, DOWN) != rows:
        raise BenchError(f"{target.name} gives other rows than PostgreSQL has")
    if psql(target, TABLE, "copy proof from stdin", BACK, text_in=rows) != rows:
        raise BenchError(f"through {target.name} other rows arrive than were sent")
