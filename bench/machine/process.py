"""CPU time and memory of processes, as the kernel counts them."""

import os
import time

from machine.scratch import BenchError

# clock_getcpuclockid(3) as the kernel has it: CPUCLOCK_SCHED of all threads of a process. It is utime + stime of
# /proc/PID/stat, ended threads included, in nanoseconds instead of ticks of 10 ms.
CPUCLOCK_SCHED = 2
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(processes):
    total = 0.0
    for process in processes:
        process.check()
        total += time.clock_gettime((~process.pid << 3) | CPUCLOCK_SCHED)
    return total


def resident_kib(process):
    with open(f"/proc/{process.pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Rss:"):
                return int(line.split()[1])
    raise BenchError(f"no Rss of {process.name}")


class Usage:
    """What a stretch of time took: CPU seconds of a target's processes and of the whole machine, and what the host stole."""

    def __init__(self, target):
        self.target = target
        self.before = self._now()

    def _now(self):
        with open("/proc/stat") as stat:
            # user nice system idle iowait irq softirq steal, in ticks; guest times are in user's already.
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(part) for part in stat.readline().split()[1:9])
        return {
            "cpu_s": cpu_seconds(self.target.middle),
            "cpu_auth_s": cpu_seconds(self.target.auth),
            "machine_s": (user + nice + system + irq + softirq) / TICKS,
            "steal_s": steal / TICKS,
        }

    def taken(self):
        now = self._now()
        return {name: round(now[name] - value, 6) for name, value in self.before.items()}
