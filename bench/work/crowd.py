"""The driver's end of wire/crowd.py: a program that holds many sessions."""

import json
import pathlib
import select
import subprocess
import sys
from dataclasses import asdict

from machine.scratch import BenchError, tail

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "wire" / "crowd.py"
# For thousands of handshakes by a program in Python.
PATIENCE = 600


class Crowd:
    def __init__(self, scratch, door):
        self.scratch = scratch
        self.process = scratch.start("crowd", [sys.executable, "-B", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.call(door=asdict(door))

    def call(self, **command):
        pipes = self.process.popen
        pipes.stdin.write(json.dumps(command) + "\n")
        pipes.stdin.flush()
        ready, _, _ = select.select([pipes.stdout], [], [], PATIENCE)
        line = pipes.stdout.readline() if ready else ""
        if not line:
            raise BenchError(f"{command}: no answer\n{tail(self.process.log)}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{command}: {answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.popen.stdin.close()
        self.scratch.forget(self.process)
        self.process.popen.stdout.close()
