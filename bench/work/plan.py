"""What can be measured, by name, and how much of it."""

import os
from dataclasses import dataclass, replace

from machine.scratch import BenchError
from targets import all as targets

# In rounds, every target one after another: statements, new connections, bulk.
STATEMENTS = {
    "simple1": ("simple", 1),
    "simple8": ("simple", 8),
    "simple32": ("simple", 32),
    "prepared1": ("prepared", 1),
    "prepared8": ("prepared", 8),
    "prepared32": ("prepared", 32),
}
CONNECT, DOWN, UP = "connect", "down", "up"
ROUNDS = [*STATEMENTS, CONNECT, DOWN, UP]
# By themselves.
CALLS, INSTRUCTIONS, PROFILE, BESIDE, FIRST = "calls", "instructions", "profile", "beside", "first"
IDLE, IDLE_REAL, SETUP, LINK = "idle", "idle-real", "setup", "link"
ALONE = [CALLS, INSTRUCTIONS, PROFILE, BESIDE, FIRST, IDLE, IDLE_REAL, SETUP, LINK]
WORKS = ROUNDS + ALONE


@dataclass(frozen=True)
class Sizes:
    rounds: int
    # Of one run of pgbench.
    seconds: int
    # Of ROW_BYTES each: a million is 1 GB.
    bulk_rows: int
    # Repetitions of what strace counts, and of the bulk beside small statements.
    calls_rounds: int
    # Of each run with and without perf.
    profile_seconds: int
    profile_rows: int
    beside_rounds: int
    beside_seconds: int
    idle: int
    idle_busy: int
    idle_busy_seconds: int
    idle_real: int
    setup_rounds: int
    setup: int
    people: int
    link_rounds: int
    link_seconds: int


FULL = Sizes(
    rounds=5, seconds=3, bulk_rows=1_000_000, calls_rounds=3, profile_seconds=10, profile_rows=500_000, beside_rounds=3, beside_seconds=8, idle=5000, idle_busy=200,
    idle_busy_seconds=10, idle_real=200, setup_rounds=3, setup=400, people=20, link_rounds=3, link_seconds=6,
)  # fmt: skip
QUICK = Sizes(
    rounds=2, seconds=1, bulk_rows=200_000, calls_rounds=1, profile_seconds=3, profile_rows=100_000, beside_rounds=1, beside_seconds=4, idle=400, idle_busy=100,
    idle_busy_seconds=1, idle_real=50, setup_rounds=1, setup=50, people=3, link_rounds=1, link_seconds=3,
)  # fmt: skip
# What the quick run leaves out unless it is asked for: it would take longer than three minutes.
NOT_QUICK = [INSTRUCTIONS, PROFILE, BESIDE, FIRST, IDLE, IDLE_REAL, SETUP, LINK]


@dataclass(frozen=True)
class Plan:
    sizes: Sizes
    targets: list
    works: list

    def has(self, work):
        return work in self.works


def plan(quick, only, environment=os.environ):
    """`only` is the text of BENCH_ONLY: names of targets and of works with commas between; a kind that has no name in it is whole."""
    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    unknown = [name for name in names if name not in targets.NAMES + WORKS]
    if unknown:
        raise BenchError(f"BENCH_ONLY has {', '.join(unknown)}; there is {', '.join(targets.NAMES)}; and {', '.join(WORKS)}")
    chosen = [name for name in targets.NAMES if name in names] or targets.NAMES
    if targets.DIRECT not in chosen:
        chosen = [targets.DIRECT, *chosen]
    works = [name for name in WORKS if name in names] or [name for name in WORKS if not (quick and name in NOT_QUICK)]
    sizes = QUICK if quick else FULL
    for key, variable in (("rounds", "BENCH_ROUNDS"), ("seconds", "BENCH_SECONDS"), ("idle", "BENCH_IDLE")):
        if environment.get(variable):
            sizes = replace(sizes, **{key: int(environment[variable])})
    return Plan(sizes, chosen, works)


def rotated(names, number):
    """Another begins in each round, so that none is always first on a cold machine or behind the same neighbour."""
    by = number % len(names)
    return names[by:] + names[:by]
