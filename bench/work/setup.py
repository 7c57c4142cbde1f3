"""New connections before the stand-in, with the agent's certificate for PostgreSQL not yet there (cold) and there (warm).

The agent keeps one for each person, service and database user: each cold connection is of another database user, and the warm
ones are of the same users again.
"""

from machine.process import Usage
from work.crowd import Crowd
from work.plan import SETUP, rotated

AT_ONCE = 4
WARM = 20


def passed(crowd, target, count, users):
    usage = Usage(target)
    found = crowd.call(**{"pass": count, "at_once": AT_ONCE, "users": users})
    taken = usage.taken()
    return {
        "rate": count / found["wall_s"],
        "p50_us": found["p50_us"],
        "p99_us": found["p99_us"],
        "cpu_ms": taken["cpu_s"] / count * 1000,
        "cpu_auth_ms": taken["cpu_auth_s"] / count * 1000,
    }


def measure(scratch, target, number, count):
    # Of this round alone, so that the first pass is cold in each.
    users = f"round-{number}-%d"
    with Crowd(scratch, target.door) as crowd:
        crowd.call(**{"pass": WARM, "at_once": AT_ONCE})
        return {"cold": passed(crowd, target, count, users), "warm": passed(crowd, target, count, users)}


def run(scratch, targets, plan, records):
    for number in range(plan.sizes.setup_rounds):
        for name in rotated(list(targets), number):
            records.take(SETUP, name, number, measure, scratch, targets[name], number, plan.sizes.setup)
