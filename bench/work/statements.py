"""Small statements by pgbench, its select of one row by key: `-S`."""

import re

from machine.host import postgresql_programs
from machine.process import Usage
from machine.scratch import BenchError, run

# pgbench's own threads; it is no bottleneck with two on the two cores that it shares.
THREADS = 2
# What a run may take beyond its time: 32 connections are opened first.
SLACK = 60
ERROR_CHARS = 500
# pgbench's time begins before its connections are open, and this many take about a second of it.
CONNECTIONS_A_SECOND = 32


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))]


def pgbench(scratch, target, arguments, seconds, log=True):
    """Runs it and reads what it says. A failed transaction, a line on standard error, a line that is missing in its log: BenchError."""
    prefix = scratch.memory / "pgbench"
    command = [postgresql_programs() / "pgbench", "-n", *arguments]
    if log:
        command += ["-l", f"--log-prefix={prefix}"]
    try:
        output, error = run(command, env=target.environment(), timeout=seconds + SLACK)
        latencies = sorted(latency for path in scratch.memory.glob("pgbench.*") for latency in read_log(path))
    finally:
        for path in scratch.memory.glob("pgbench.*"):
            path.unlink()
    done = re.search(r"number of transactions actually processed: (\d+)", output)
    rate = re.search(r"tps = ([\d.]+)", output)
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if error.strip():
        raise BenchError(f"pgbench: {error.strip()[:ERROR_CHARS]}")
    if not (done and rate) or (failed and failed[1] != "0"):
        raise BenchError(f"pgbench: {output.strip()[:ERROR_CHARS]}")
    count = int(done[1])
    if count == 0:
        raise BenchError(f"no transaction in {seconds} s: opening the connections took as long (BENCH_SECONDS)")
    if log and len(latencies) != count:
        raise BenchError(f"pgbench through {target.name} logged {len(latencies)} transactions and counted {count}")
    found = {"rate": float(rate[1]), "count": count}
    if latencies:
        found.update(p50_us=percentile(latencies, 0.5), p99_us=percentile(latencies, 0.99))
    return found


def read_log(path):
    """The third field of a line is the transaction's time in microseconds, or a word for one that was not done."""
    with open(path) as log:
        for line in log:
            latency = line.split(None, 3)[2]
            if not latency.isdigit():
                raise BenchError(f"pgbench logged {line.strip()!r}")
            yield int(latency)


def select_arguments(mode, clients):
    return ["-S", "-M", mode, "-c", str(clients), "-j", str(min(THREADS, clients))]


def select(scratch, target, mode, clients, seconds):
    seconds += clients // CONNECTIONS_A_SECOND
    usage = Usage(target)
    found = pgbench(scratch, target, [*select_arguments(mode, clients), "-T", str(seconds)], seconds)
    return {**found, **usage.taken(), "unit": "transactions/s"}


def connect(scratch, target, seconds):
    """A connection for each statement, four at a time."""
    usage = Usage(target)
    found = pgbench(scratch, target, ["-C", *select_arguments("simple", 4), "-T", str(seconds)], seconds)
    return {**found, **usage.taken(), "unit": "connections/s"}
