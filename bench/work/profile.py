"""Where the middle's CPU goes: of a small statement with eight clients, of a new connection, of a MB downwards.

CPU is measured without perf, as perf slows what it watches; the shares with it, of another run.
"""

from machine import profile
from machine.process import Usage
from targets.all import APART, ONE
from work import bulk
from work.calls import bare
from work.plan import PROFILE
from work.statements import pgbench, select_arguments

STATEMENT, CONNECTION, DOWN = "statement", "connection", "mb"
CLIENTS = 8
MEASURED = [APART, ONE]


def works(scratch, target, sizes):
    """By name: what does it and returns how many units it did."""
    seconds, rows = sizes.profile_seconds, sizes.profile_rows

    def select(*mode):
        arguments = [*select_arguments("simple", CLIENTS), *mode, "-T", str(seconds)]
        return pgbench(scratch, target, arguments, seconds, log=False)["count"]

    def down():
        bulk.copy(bare(target), "down", rows)
        return rows * bulk.ROW_BYTES / 1e6

    return {STATEMENT: select, CONNECTION: lambda: select("-C"), DOWN: down}


def measure(scratch, target, sizes):
    found = {}
    for name, work in works(scratch, target, sizes).items():
        usage = Usage(target)
        done = work()
        each = usage.taken()["cpu_s"] / done * 1e6
        of_each = profile.shares(scratch, target.middle, work)
        shares = {group: round(sum(shares[group] for shares in of_each), 4) for group in profile.ORDER}
        # Of two, the agent: where the second decision is made.
        found[name] = {"cpu_us": round(each, 2), "shares": shares, "last": of_each[-1]}
    return found


def run(scratch, targets, plan, records):
    for name in plan.targets:
        if name in MEASURED:
            records.take(PROFILE, name, 0, measure, scratch, targets[name], plan.sizes)
