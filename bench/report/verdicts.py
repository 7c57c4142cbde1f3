"""What was to be reached, and whether it was."""

from dataclasses import dataclass

from machine.profile import ACTORS, AUDIT, DECISION
from targets.all import APART, ONE, PGBOUNCER
from work.plan import CALLS, CONNECT, DOWN, IDLE, PROFILE, UP


@dataclass
class Line:
    """`more` is better, or less is. `find` takes Figures and a target's name. `form` is of the number."""

    text: str
    target: str
    find: object
    must: float
    goal: float
    more: bool = False
    form: str = ".2f"
    # pgbouncer's own figure of the same run is as good a bound as the number.
    or_pgbouncers: bool = False
    # Of CPU time: pgbouncer's figure where the bounds come from.
    reference: float | None = None

    def must_here(self, figures):
        """The bound at the pace of this machine: as much more as pgbouncer takes here. None where it is the bound itself."""
        pgbouncers = self.find(figures, PGBOUNCER) if self.reference else None
        return self.must * pgbouncers / self.reference if pgbouncers else None

    def verdict(self, figures):
        value = self.find(figures, self.target)
        if value is None:
            return None, "not measured"
        must = self.must
        if self.or_pgbouncers:
            must = max(must, self.find(figures, PGBOUNCER) or must)
        reached = (lambda bound: value >= bound) if self.more else (lambda bound: value <= bound)
        here = self.must_here(figures)
        if reached(self.goal) or reached(must):
            return value, "goal" if reached(self.goal) else "must"
        return value, "must here" if here is not None and reached(here) else "SHORT"


def ratio(work):
    return lambda figures, target: figures.ratio(work, target)


def cpu(work):
    return lambda figures, target: figures.per_unit(work, target)


def plain(work, path):
    return lambda figures, target: figures.median(work, target, path)


def of_postern(figures, target):
    parts = [figures.median(PROFILE, target, f"statement.shares.{group}") for group in (AUDIT, ACTORS, DECISION)]
    return None if None in parts else sum(parts)


# What pgbouncer took where the bounds come from: CPU seconds for 100,000 transactions of eight clients and for a GB down and up, CPU ms for a
# session's set-up.
REFERENCE = {"simple8": 3.13, DOWN: 3.02, UP: 2.84, IDLE: 2.95}

LINES = [
    Line("simple, 8 clients: ratio to direct", APART, ratio("simple8"), 0.40, 0.50, more=True),
    Line("prepared, 8 clients: ratio to direct", APART, ratio("prepared8"), 0.37, 0.45, more=True),
    Line("added to the p50 of one client, µs", APART, lambda figures, target: figures.added("simple1", target), 200, 120, form=".0f"),
    Line("download: ratio to direct", APART, ratio(DOWN), 0.65, 0.75, more=True),
    Line("upload: ratio to direct", APART, ratio(UP), 0.75, 0.88, more=True),
    Line("CPU s per 100,000 transactions, 8 clients", APART, cpu("simple8"), 5.5, 4.4, reference=REFERENCE["simple8"]),
    Line("CPU s per GB down", APART, cpu(DOWN), 2.2, 1.5, reference=REFERENCE[DOWN]),
    Line("CPU s per GB up", APART, cpu(UP), 2.2, 1.5, reference=REFERENCE[UP]),
    Line("system calls per transaction, 8 clients, connections included", APART, plain(CALLS, "inclusive"), 11, 9),
    Line("system calls per MB down", APART, plain(CALLS, "per_mb_down"), 180, 125, form=".0f"),
    Line("CPU s per 100,000 transactions, 8 clients", ONE, cpu("simple8"), 3.1, 2.5, or_pgbouncers=True),
    Line("CPU s per GB down", ONE, cpu(DOWN), 1.5, 1.0, reference=REFERENCE[DOWN]),
    Line("new connections: ratio to direct", APART, ratio(CONNECT), 0.80, 0.95, more=True),
    Line("CPU ms per set-up of a session, PostgreSQL excluded", APART, plain(IDLE, "setup_cpu_ms"), 1.5, 1.0, reference=REFERENCE[IDLE]),
    Line("share of the middle's CPU for audit, decisions and actors, 8 clients", APART, of_postern, 0.10, 0.05, form=".1%"),
    Line("KiB per idle connection, all processes", APART, plain(IDLE, "kib"), 48, 32, form=".0f"),
]
