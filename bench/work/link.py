"""A large COPY and twenty clients over a link of 30 ms there and back: PostgreSQL direct, and through tunnels that cross it.

PostgreSQL and the agent are at the site; auth, the proxy and the client are in the cluster (wire/link.py).
"""

import os
import pathlib
from dataclasses import dataclass

from machine.link import Link
from machine.scratch import BenchError
from targets import link as targets
from targets.upstream import PostgreSql
from work import bulk, statements
from work.plan import LINK, rotated
from work.records import say

ONE_WAY_MS = 15
LOSS = 0.01
CLIENTS = 20
# pgbench's time begins before its connections are open; each of its clients has a thread, so that they open theirs at once, and a lost
# packet of a handshake is sent again after a second.
OPENING = 2
# How much came is looked at so often while a download runs beside the clients.
EVERY = 0.25
KNOWN = pathlib.Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


@dataclass(frozen=True)
class Condition:
    """`rows` of 1001 bytes are one COPY: some seconds of it."""

    name: str
    title: str
    loss: float
    congestion: str
    rows: int


# bbr does not take a lost packet for a full link, and cubic, which most machines have, does.
CONDITIONS = [
    Condition(f"{LINK}-clean-bbr", "nothing lost, bbr", 0.0, "bbr", 60_000),
    Condition(f"{LINK}-lossy-bbr", "1 % lost, bbr", LOSS, "bbr", 60_000),
    Condition(f"{LINK}-clean-cubic", "nothing lost, cubic", 0.0, "cubic", 60_000),
    Condition(f"{LINK}-lossy-cubic", "1 % lost, cubic", LOSS, "cubic", 4_000),
]
# A download beside the clients that lasts as long as they do.
ENDLESS_ROWS = 2_000_000


def clients(scratch, target, seconds):
    arguments = ["-S", "-c", str(CLIENTS), "-j", str(CLIENTS), "-T", str(seconds + OPENING)]
    return statements.pgbench(scratch, target, arguments, seconds + OPENING)


def beside(scratch, target, seconds):
    copier = bulk.Copier(target, "down", ENDLESS_ROWS, endless=True, every=EVERY)
    try:
        found = clients(scratch, target, seconds)
    finally:
        parts = copier.end()
    if not parts:
        raise BenchError(f"no byte of a download through {target.name} came in {seconds} s")
    return {**found, "bulk_mb_s": sum(part["bytes"] for part in parts) / sum(part["seconds"] for part in parts) / 1e6}


def measure(scratch, link, target, condition, seconds):
    link.become(ONE_WAY_MS, condition.loss, rate())
    found = {
        "down_mb_s": bulk.copy(target, "down", condition.rows)["rate"],
        "up_mb_s": bulk.copy(target, "up", condition.rows)["rate"],
        "alone": clients(scratch, target, seconds),
        "beside": beside(scratch, target, seconds),
    }
    counts = link.become(ONE_WAY_MS, 0.0, rate())
    return {**found, "lost_share": (counts["lost"] + counts["dropped"]) / sum(counts.values())}


def rate():
    """Mbit/s of the link; as wide as it can be without a word."""
    return float(os.environ.get("BENCH_LINK_MBIT") or 0) or None


def run(scratch, program, plan, records):
    say("PostgreSQL beyond a link")
    known = KNOWN.read_text().split()
    with Link(scratch) as link:
        with link.site():
            upstream = PostgreSql(scratch, ("127.0.0.1", link.site_address))
        for condition in CONDITIONS:
            if condition.congestion not in known:
                say(f"this kernel has no {condition.congestion}: {condition.name} is not measured")
                continue
            with link.cluster():
                under(condition, scratch, program, upstream, link, plan, records)
        upstream.end()


def under(condition, scratch, program, upstream, link, plan, records):
    """Targets of its own: a tunnel keeps the congestion control with which it was dialled."""
    link.set_congestion_control(condition.congestion)
    link.become(ONE_WAY_MS, 0.0, rate())
    running = {name: targets.start(scratch, program, upstream, name, link) for name in targets.NAMES}
    for number in range(plan.sizes.link_rounds):
        for name in rotated(targets.NAMES, number):
            records.take(condition.name, name, number, measure, scratch, link, running[name], condition, plan.sizes.link_seconds)
    for target in running.values():
        target.end(scratch)
