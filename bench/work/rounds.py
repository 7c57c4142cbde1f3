"""The main table: in each round every work, and for each work every target, one after another."""

from work import bulk, statements
from work.plan import CONNECT, DOWN, ROUNDS, STATEMENTS, UP, rotated


def measure(scratch, target, work, sizes):
    if work in STATEMENTS:
        mode, clients = STATEMENTS[work]
        return statements.select(scratch, target, mode, clients, sizes.seconds)
    if work == CONNECT:
        return statements.connect(scratch, target, sizes.seconds)
    assert work in (DOWN, UP), work
    return bulk.copy(target, work, sizes.bulk_rows)


def run(scratch, targets, plan, records):
    for number in range(plan.sizes.rounds):
        for work in (work for work in ROUNDS if plan.has(work)):
            for name in rotated(plan.targets, number):
                records.take(work, name, number, measure, scratch, targets[name], work, plan.sizes)
