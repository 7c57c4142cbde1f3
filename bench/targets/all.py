"""The targets by name, and a start that ends in a target that answers."""

from machine.host import postgresql_programs
from machine.scratch import run, until
from targets import others, postern

DIRECT, PGBOUNCER, HAPROXY, APART, ONE = "direct", "pgbouncer", "haproxy", "postern-apart", "postern-one"
# A second instance of the first Postern: what differs between the two is the machine's noise.
AGAIN = "postern-apart-again"
NAMES = [DIRECT, PGBOUNCER, HAPROXY, APART, ONE, AGAIN]
POSTERNS = [APART, ONE, AGAIN]


def starters(program):
    return {
        DIRECT: others.direct,
        PGBOUNCER: others.pgbouncer,
        HAPROXY: others.haproxy,
        APART: postern.apart(program),
        ONE: postern.in_one(program),
        AGAIN: postern.apart(program),
    }


def start(scratch, program, upstream, name):
    """Starts the target and waits until a statement passes."""
    return answering(starters(program)[name](scratch, upstream, name))


def answering(target):
    psql = [postgresql_programs() / "psql", "-X", "-A", "-t", "-c", "select 1"]

    def answers():
        return run(psql, env=target.environment())[0].strip() == "1"

    until(f"a statement passes through {target.name}", answers, watched=target.processes())
    return target
