"""System calls of processes, counted by strace. It slows them tenfold, so that it never runs beside a clock."""

import os
import signal
import time

from machine.scratch import BenchError, spawn

# strace says nothing when it is attached; /proc does: TracerPid of every thread.
ATTACH_WITHIN = 10


def traced(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as status:
            if any(line.split() == ["TracerPid:", "0"] for line in status):
                return False
    return True


def count(scratch, processes, what):
    """Calls by name of these processes, all of their threads, while `what` runs."""
    if os.geteuid() != 0:
        raise BenchError("counting system calls attaches to processes, which takes root; leave it out (BENCH_ONLY), or run as root")
    table = scratch.directory / "strace"
    command = ["strace", "-qq", "-f", "-c", "-o", table]
    for process in processes:
        command += ["-p", process.pid]
    strace = spawn(command, signal.SIGINT)
    try:
        deadline = time.monotonic() + ATTACH_WITHIN
        while not all(traced(process.pid) for process in processes):
            if strace.poll() is not None or time.monotonic() > deadline:
                raise BenchError("strace does not attach")
            time.sleep(0.02)
        what()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()
    return parse(table.read_text())


def parse(table):
    """The table of `strace -c`: % time, seconds, usecs/call, calls, errors where there are any, name."""
    calls = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) in (5, 6) and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    if not calls:
        raise BenchError(f"strace counted nothing:\n{table[-500:]}")
    return calls
