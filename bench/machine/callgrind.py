"""Instructions of processes, counted by valgrind's callgrind: the same program and the same work give the same number, whatever else the
machine does. It slows them fifty times, and gives them a processor without the newest vectors, so that cryptography takes more of them
than it would."""

import shlex
import time

from machine.scratch import BenchError, run

# What is written and shipped behind the work (the audit trail gathers 200 ms, and is fsynced) belongs to it.
SETTLE = 2


def watched(scratch, program):
    """A program that starts the node that it is told to under callgrind, and does everything else itself."""
    script = scratch.directory / "under-callgrind"
    valgrind = f"valgrind -q --tool=callgrind --callgrind-out-file={shlex.quote(str(scratch.directory))}/instructions.%p"
    start = f'[ "$1" = start ] && exec {valgrind} {shlex.quote(str(program))} "$@"'
    script.write_text(f'#!/bin/sh\n{start}\nexec {shlex.quote(str(program))} "$@"\n')
    script.chmod(0o755)
    return script


def count(scratch, processes, what):
    """Instructions of each of these processes while `what` runs, by what is last in their names."""
    for process in processes:
        run(["callgrind_control", "--zero", process.pid])
    what()
    time.sleep(SETTLE)
    return {process.name.rsplit("-", 1)[-1]: dumped(scratch, process) for process in processes}


def dumped(scratch, process):
    run(["callgrind_control", "--dump", process.pid])
    dumps = sorted(scratch.directory.glob(f"instructions.{process.pid}.*"))
    if not dumps:
        raise BenchError(f"callgrind has written nothing of {process.name}")
    text = dumps[-1].read_text(errors="replace")
    for dump in dumps:
        dump.unlink()
    return total(text)


def total(text):
    """A dump's line `totals: N`, or `summary: N`."""
    for line in reversed(text.splitlines()):
        name, _, number = line.partition(":")
        if name in ("totals", "summary") and number.split():
            return int(number.split()[0])
    raise BenchError(f"a dump of callgrind has no total:\n{text[-300:]}")
