"""Fifty clients with small statements at a rate that leaves the machine room, without and with one large download beside them."""

from machine.process import Usage
from machine.scratch import BenchError
from targets.all import AGAIN
from work import bulk, statements
from work.plan import BESIDE, rotated

CLIENTS = 50
# Of all of them together: a tenth of what the slowest target can do, so that what their p99 shows is waiting and not want of a machine.
RATE = 1000
# A download is as many COPYs one after another.
ROWS = 50_000


def small(scratch, target, seconds):
    """The latency counts from when the statement was due (pgbench -R)."""
    arguments = [*statements.select_arguments("simple", CLIENTS), "-R", str(RATE), "-T", str(seconds)]
    usage = Usage(target)
    return {**statements.pgbench(scratch, target, arguments, seconds), **usage.taken()}


def measure(scratch, target, seconds):
    alone = small(scratch, target, seconds)
    copier = bulk.Copier(target, "down", ROWS, endless=True)
    try:
        beside = small(scratch, target, seconds)
    finally:
        copies = copier.end()
    if not copies:
        raise BenchError(f"no download through {target.name} was done in {seconds} s")
    rate = sum(copy["bytes"] for copy in copies) / sum(copy["seconds"] for copy in copies) / 1e6
    return {"alone": alone, "with_bulk": beside, "bulk_mb_s": rate}


def run(scratch, targets, plan, records):
    for number in range(plan.sizes.beside_rounds):
        # The second instance of the same Postern would say how noisy a machine is, which others do better.
        for name in rotated([name for name in plan.targets if name != AGAIN], number):
            records.take(BESIDE, name, number, measure, scratch, targets[name], plan.sizes.beside_seconds)
