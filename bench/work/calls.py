"""System calls of the middle: of a transaction with eight clients, and of a MB downwards.

They are a matter of design and hardly of the machine. Two ways for a transaction: of 2,000 with the eight connections that they
take (`inclusive`), and of what 4,000 more take (`steady`).
"""

from machine.syscalls import count
from targets.target import Target
from work import bulk, statements
from work.plan import CALLS, rotated

CLIENTS = 8
FEW, MANY = 250, 750
DOWN_ROWS = 100_000
# strace slows what it watches.
PATIENCE = 120


def transactions(scratch, target, processes, each):
    arguments = [*statements.select_arguments("simple", CLIENTS), "-t", str(each)]
    return count(scratch, processes, lambda: statements.pgbench(scratch, target, arguments, PATIENCE, log=False))


def megabytes(scratch, target, processes):
    return count(scratch, processes, lambda: bulk.copy(bare(target), "down", DOWN_ROWS))


def bare(target):
    """The same door, with nothing to charge: the CPU of a process that strace holds says nothing."""
    return Target(target.name, target.door)


def each(calls, by):
    return {name: round(number / by, 4) for name, number in sorted(calls.items(), key=lambda item: -item[1])}


def measure(scratch, target):
    few = transactions(scratch, target, target.middle, FEW)
    many = transactions(scratch, target, target.middle, MANY)
    down = megabytes(scratch, target, target.middle)
    more = {call: many.get(call, 0) - few.get(call, 0) for call in set(few) | set(many)}
    found = {
        "inclusive": sum(few.values()) / (CLIENTS * FEW),
        "steady": sum(more.values()) / (CLIENTS * (MANY - FEW)),
        "per_mb_down": sum(down.values()) / (DOWN_ROWS * bulk.ROW_BYTES / 1e6),
        "by_name": each(few, CLIENTS * FEW),
        "by_name_down": each(down, DOWN_ROWS * bulk.ROW_BYTES / 1e6),
    }
    if target.auth:
        auth = transactions(scratch, target, target.auth, FEW)
        found["auth"] = sum(auth.values()) / (CLIENTS * FEW)
    return found


def run(scratch, targets, plan, records):
    middles = [name for name in plan.targets if targets[name].middle]
    for number in range(plan.sizes.calls_rounds):
        for name in rotated(middles, number):
            records.take(CALLS, name, number, measure, scratch, targets[name])
