"""Connections that rest: memory of each, what setting one up costs, and what happens when some of many wake."""

import time

from machine.process import Usage, resident_kib
from work.crowd import Crowd

# The first ones fill caches and make threads' stacks and allocators grow; they are no part of what one more costs.
WARM = 20
AT_ONCE = 8
# Until allocators and ended handshakes have come to rest.
SETTLE = 2


def memory(target):
    return {process.name: resident_kib(process) for process in target.processes()}


def measure(scratch, target, count, busy=0, seconds=0):
    with Crowd(scratch, target.door) as crowd:
        crowd.call(open=WARM, at_once=AT_ONCE)
        crowd.call(close="all")
        time.sleep(SETTLE)
        before, usage = memory(target), Usage(target)
        opened = crowd.call(open=count, at_once=AT_ONCE)
        taken = usage.taken()
        time.sleep(SETTLE)
        at_rest = memory(target)
        grown = {name: at_rest[name] - before[name] for name in before}
        found = {
            "count": count,
            "kib": sum(grown.values()) / count,
            "kib_by_process": {name.rsplit("-", 1)[-1]: kib / count for name, kib in grown.items()},
            "base_mib": sum(before.values()) / 1024,
            "at_rest_mib": sum(at_rest.values()) / 1024,
            "setup_cpu_ms": taken["cpu_s"] / count * 1000,
            "setup_cpu_auth_ms": taken["cpu_auth_s"] / count * 1000,
            "setup_rate": count / opened["wall_s"],
        }
        if busy:
            usage = Usage(target)
            found["busy"] = crowd.call(busy=busy, seconds=seconds)
            found["busy"].update(usage.taken(), clients=busy, mib=sum(memory(target).values()) / 1024)
        # Each is still there, and answered.
        found["asked"] = crowd.call(each="ask")["asked"]
        crowd.call(close="all")
    return found
