#!/usr/bin/env python3
"""Measures what passing through costs; bench/README.md says what and how. `make bench` and `make bench-quick` call it.

    run.py [--quick] [--write]        measure; the full run writes RESULTS.md, results.json and pictures, the quick one with --write
    run.py --report FILE              write RESULTS.md and pictures from a results.json
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

from machine import host
from machine.scratch import ENDING, BenchError
from report import document
from work import plan as plans
from work import run as works
from work.records import Records, say

HERE = pathlib.Path(__file__).resolve().parent
# Two for each of 5,000 idle connections of one process, and what else it has open.
OPEN_FILES = 12_000


def interrupted(number, _frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def heed_signals():
    """Whatever asks us to end, everything is ended in order. A shell starts what runs in the background with SIGINT ignored."""
    for number in ENDING:
        signal.signal(number, interrupted)


def postern():
    program = pathlib.Path(os.environ.get("POSTERN") or HERE.parent / "target/release/postern").resolve()
    if not os.access(program, os.X_OK):
        raise BenchError(f"there is no {program}; run `make build`, or say with POSTERN which one to measure")
    return program


def measure(quick):
    program = postern()
    plan = plans.plan(quick, os.environ.get("BENCH_ONLY"))
    host.raise_file_limit(OPEN_FILES)
    records, began, load = Records(), time.time(), host.load()
    if load > 0.5:
        say(f"the machine has a load of {load:.1f} before anything is measured: the figures will say more of it than of the targets")
    works.run(program, plan, records)
    return {
        "kind": "quick" if quick else "full",
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": round(time.time() - began),
        "load_before": load,
        "machine": host.describe(program),
        "sizes": vars(plan.sizes),
        "targets": plan.targets,
        "works": plan.works,
        "records": records.all,
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--report", type=pathlib.Path)
    chosen = arguments.parse_args()
    heed_signals()
    if chosen.report:
        document.write(HERE, json.loads(chosen.report.read_text()))
        return 0
    results = measure(chosen.quick)
    print(document.text(results))
    if chosen.write or os.environ.get("BENCH_WRITE") or not (chosen.quick or os.environ.get("BENCH_ONLY")):
        (HERE / "results.json").write_text(document.compact(results))
        document.write(HERE, results)
        say(f"written: {HERE}/RESULTS.md, results.json and pictures")
    for record in results["records"]:
        for beyond in record.get("beyond", []):
            say(f"bench: {record['target']}: {beyond}")
    return 1 if any("error" in record or "beyond" in record for record in results["records"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        say(f"bench: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; everything that was started is ended")
        sys.exit(130)
