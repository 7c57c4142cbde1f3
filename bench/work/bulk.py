"""One large COPY, down or up, by wire/bulk.py, which counts what it reads."""

import json
import pathlib
import select
import signal
import subprocess
import sys
from dataclasses import asdict

from machine.process import Usage
from machine.scratch import BenchError, spawn

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "wire" / "bulk.py"
# Of one row, its line feed included.
ROW_BYTES = 1001
# For 1 GB through whatever it is.
PATIENCE = 300


class Copier:
    """The client's process. The connection is open when it says so; the COPY begins when it is told."""

    def __init__(self, target, direction, rows, endless=False, every=None):
        self.name = f"COPY {direction} through {target.name}"
        order = {"door": asdict(target.door), "copy": direction, "rows": rows, "endless": endless, "every": every}
        self.popen = spawn([sys.executable, "-B", PROGRAM, json.dumps(order)], signal.SIGKILL,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        if self.line() != "ready":
            raise BenchError(f"{self.name} does not begin")

    def line(self):
        ready, _, _ = select.select([self.popen.stdout], [], [], PATIENCE)
        line = self.popen.stdout.readline() if ready else ""
        if not line:
            self.popen.kill()
            raise BenchError(f"{self.name}: {self.popen.communicate()[1].strip()[-1000:] or 'no answer'}")
        return line.strip()

    def go(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self):
        """What an endless one had to say until now."""
        if self.popen.poll() is not None:
            raise BenchError(f"{self.name} has ended: {self.popen.communicate()[1].strip()[-1000:]}")
        self.popen.kill()
        return [json.loads(line) for line in self.popen.communicate()[0].splitlines() if line.endswith("}")]


def copy(target, direction, rows):
    copier = Copier(target, direction, rows)
    usage = Usage(target)
    copier.go()
    found = json.loads(copier.line())
    taken = usage.taken()
    if copier.popen.wait(PATIENCE) or found["rows"] != rows:
        raise BenchError(f"{copier.name} did not end well: {copier.popen.communicate()[1].strip()[-1000:]}")
    copier.popen.communicate()
    megabytes = found["bytes"] / 1e6
    return {"rate": megabytes / found["seconds"], "count": megabytes / 1000, "unit": "MB/s", **taken}
