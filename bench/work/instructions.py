"""Instructions of the middle: of a transaction with eight clients, of a new connection, of a MB downwards. With bounds, so that it stays so:
a count is beyond one when the code has changed, and never because a machine was busy.

Of two runs, one longer, what the longer takes more: what a node does anyhow is in both.
"""

from machine import callgrind
from targets import all as targets
from work import bulk, statements
from work.calls import bare
from work.plan import INSTRUCTIONS

CLIENTS = 8
FEW, MANY = 50, 300
FEW_CONNECTIONS, MANY_CONNECTIONS = 5, 20
FEW_ROWS, MANY_ROWS = 2_000, 22_000
# Nodes under callgrind are slow.
PATIENCE = 300

STATEMENT, CONNECTION, DOWN = "statement", "connection", "mb_down"
# A seventh beyond what was counted: how many statements share a turn depends a little on how busy the machine is.
BOUNDS = {
    targets.APART: {STATEMENT: 68_000, CONNECTION: 5_800_000, DOWN: 16_600_000},
    targets.ONE: {STATEMENT: 62_000, CONNECTION: 5_800_000, DOWN: 7_800_000},
}


def works(scratch, target):
    """By name: the shorter and the longer run, and how many units it has more."""

    def select(each, *mode):
        arguments = [*statements.select_arguments("simple", CLIENTS), *mode, "-t", str(each)]
        return lambda: statements.pgbench(scratch, target, arguments, PATIENCE, log=False)

    def down(rows):
        return lambda: bulk.copy(bare(target), "down", rows)

    return {
        STATEMENT: (select(FEW), select(MANY), CLIENTS * (MANY - FEW)),
        CONNECTION: (select(FEW_CONNECTIONS, "-C"), select(MANY_CONNECTIONS, "-C"), CLIENTS * (MANY_CONNECTIONS - FEW_CONNECTIONS)),
        DOWN: (down(FEW_ROWS), down(MANY_ROWS), (MANY_ROWS - FEW_ROWS) * bulk.ROW_BYTES / 1e6),
    }


def measure(scratch, target, bounds):
    found, beyond = {}, []
    for name, (shorter, longer, units) in works(scratch, target).items():
        few, many = (callgrind.count(scratch, target.middle, what) for what in (shorter, longer))
        by_process = {kind: round((many[kind] - few[kind]) / units) for kind in few}
        whole = sum(by_process.values())
        found[name] = {"all": whole, "at_most": bounds[name], "by_process": by_process}
        if whole > bounds[name]:
            beyond.append(f"{name}: {whole:,} instructions, and at most {bounds[name]:,}")
    return {**found, **({"beyond": beyond} if beyond else {})}


def run(scratch, program, upstream, plan, records):
    watched = callgrind.watched(scratch, program)
    for name in plan.targets:
        if name in BOUNDS:
            records.take(INSTRUCTIONS, name, 0, one, scratch, watched, upstream, name)


def one(scratch, watched, upstream, name):
    target = targets.start(scratch, watched, upstream, name)
    try:
        return measure(scratch, target, BOUNDS[name])
    finally:
        target.end(scratch)
