"""A whole run: what stands in front of what, in which order."""

from machine.scratch import BenchError, Scratch
from targets import all as targets
from targets.upstream import PostgreSql, StandInUpstream
from work import beside, calls, first, idle, instructions, link, profile, proof, rounds, setup
from work.plan import BESIDE, CALLS, FIRST, IDLE, IDLE_REAL, INSTRUCTIONS, LINK, PROFILE, ROUNDS, SETUP
from work.records import say

# pgbouncer lets in whose certificate names the database user, so that it cannot be asked for one after another.
NOT_SET_UP = [targets.PGBOUNCER]


def run(program, plan, records):
    before_real = [*ROUNDS, CALLS, INSTRUCTIONS, PROFILE, BESIDE, FIRST, IDLE_REAL]
    for name, works, part in (
        ("before PostgreSQL", before_real, before_postgresql),
        ("before the stand-in", [IDLE, SETUP], before_the_stand_in),
        ("beyond a link", [LINK], link.run),
    ):
        if any(plan.has(work) for work in works):
            # Of its own for each, so that nothing of a part that fails is left beside the next one.
            try:
                with Scratch() as scratch:
                    part(scratch, program, plan, records)
            except (BenchError, OSError) as error:
                records.fail(name, error)


def before_postgresql(scratch, program, plan, records):
    say("starting PostgreSQL and every target")
    upstream = PostgreSql(scratch)
    if any(plan.has(work) for work in [*ROUNDS, CALLS, PROFILE, BESIDE, FIRST]):
        running = {}
        for name in plan.targets:
            running[name] = targets.start(scratch, program, upstream, name)
            proof.prove(running[name])
        rounds.run(scratch, running, plan, records)
        for work, runner in ((CALLS, calls), (PROFILE, profile), (BESIDE, beside), (FIRST, first)):
            if plan.has(work):
                runner.run(scratch, running, plan, records)
        for target in running.values():
            target.end(scratch)
    if plan.has(INSTRUCTIONS):
        instructions.run(scratch, program, upstream, plan, records)
    if plan.has(IDLE_REAL):
        # Fresh processes: what others left in an allocator would hide what a connection takes.
        for name in measured_alone(plan):
            records.take(IDLE_REAL, name, 0, fresh, scratch, program, upstream, name, lambda target: idle.measure(scratch, target, plan.sizes.idle_real))
    upstream.end()


def before_the_stand_in(scratch, program, plan, records):
    say("the stand-in in place of PostgreSQL")
    upstream = StandInUpstream(scratch)
    sizes = plan.sizes

    def resting(target):
        return idle.measure(scratch, target, sizes.idle, sizes.idle_busy, sizes.idle_busy_seconds)

    if plan.has(IDLE):
        for name in measured_alone(plan):
            records.take(IDLE, name, 0, fresh, scratch, program, upstream, name, resting)
    if plan.has(SETUP):
        names = [name for name in plan.targets if name not in NOT_SET_UP]
        running = {name: targets.start(scratch, program, upstream, name) for name in names}
        setup.run(scratch, running, plan, records)
        for target in running.values():
            target.end(scratch)
    upstream.end()


def measured_alone(plan):
    """Memory is hardly a matter of the machine's mood: the second instance of the same Postern says nothing here."""
    return [name for name in plan.targets if name not in (targets.DIRECT, targets.AGAIN)]


def fresh(scratch, program, upstream, name, measure):
    target = targets.start(scratch, program, upstream, name)
    try:
        return measure(target)
    finally:
        target.end(scratch)
