"""The link of wire/link.py as the driver has it: its two ends, and how long, lossy and narrow it is."""

import contextlib
import ctypes
import json
import os
import pathlib
import select
import subprocess
import sys

from machine.scratch import BenchError, run, tail
from wire.link import CLONE_NEWNET, CLUSTER, DEVICE, SITE

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "wire" / "link.py"
PATIENCE = 20
LIBC = ctypes.CDLL(None, use_errno=True)


class Link:
    """`cluster` and `site` are contexts: what is started within, and every socket that is made, is at that end."""

    def __init__(self, scratch):
        if os.geteuid() != 0:
            raise BenchError("a link between network namespaces takes root; leave it out (BENCH_ONLY), or run as root")
        self.scratch = scratch
        self.process = scratch.start("link", [sys.executable, "-B", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        spaces = self.line()
        self.spaces = {name: os.open(path, os.O_RDONLY) for name, path in spaces.items()}
        self.cluster_address, self.site_address = CLUSTER, SITE

    def line(self):
        pipe = self.process.popen.stdout
        ready, _, _ = select.select([pipe], [], [], PATIENCE)
        line = pipe.readline() if ready else ""
        if not line:
            raise BenchError(f"the link says nothing\n{tail(self.process.log)}")
        return json.loads(line)

    def become(self, delay_ms, loss, rate_mbit=None):
        """One way. What it carried, lost and dropped until now."""
        self.process.check()
        pipe = self.process.popen.stdin
        pipe.write(json.dumps({"delay_ms": delay_ms, "loss": loss, "rate_mbit": rate_mbit}) + "\n")
        pipe.flush()
        return self.line()

    def set_congestion_control(self, name):
        """Of connections that are made across it from now on, whoever listens for how long. A namespace takes no default that the
        machine does not allow everybody; a route does."""
        for side, to in ((self.cluster, SITE), (self.site, CLUSTER)):
            with side():
                run(["ip", "route", "change", to, "dev", DEVICE, "congctl", name])

    @contextlib.contextmanager
    def _within(self, name):
        before = os.open("/proc/self/ns/net", os.O_RDONLY)
        enter(self.spaces[name])
        try:
            yield
        finally:
            enter(before)
            os.close(before)

    def cluster(self):
        return self._within("cluster")

    def site(self):
        return self._within("site")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for space in self.spaces.values():
            os.close(space)
        self.process.popen.stdin.close()
        self.scratch.forget(self.process)
        self.process.popen.stdout.close()


def enter(space):
    """Of this thread, and of what it starts: the driver has no other."""
    if LIBC.setns(space, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
