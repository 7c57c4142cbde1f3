"""A person's first connection to a database after a login, and the next: what the first one waits for that later ones do not."""

import json
import secrets
from dataclasses import replace

from machine import scratch as machine
from work.crowd import Crowd
from work.plan import FIRST
from work.trace import stages


def connection(scratch, door, look=None):
    with Crowd(scratch, door) as crowd:
        opened = crowd.call(open=1, at_once=1)
        trace = look() if look else None
        crowd.call(close="all")
    return {"total_us": opened["p50_us"], **{f"{part}_us": took for part, took in opened["parts_us"].items()}}, trace


def direct(scratch, target):
    found, _ = connection(scratch, target.door)
    again, _ = connection(scratch, target.door)
    return {"first": found, "later": again}


def person(scratch, target, name):
    cluster = target.cluster
    prefix = cluster.person(name)
    door = replace(target.door, root=f"{prefix}.cas", certificate=f"{prefix}.crt", key=f"{prefix}.key")
    proxy = target.middle[0]
    data = cluster.data_of(proxy)

    def look():
        return json.loads(machine.run([cluster.program, "trace", "--user", name, "--data-dir", data, "--format", "json"])[0])

    found, trace = connection(scratch, door, look)
    again, trace_again = connection(scratch, door, look)
    return {"first": {**found, "stages": stages(trace)}, "later": {**again, "stages": stages(trace_again)}}


def run(scratch, targets, plan, records):
    for number in range(plan.sizes.people):
        for name, target in targets.items():
            if target.cluster:
                someone = f"person-{secrets.token_hex(4)}"
                target.cluster.create(someone)
                records.take(FIRST, name, number, person, scratch, target, someone)
            elif not target.middle:
                records.take(FIRST, name, number, direct, scratch, target)
