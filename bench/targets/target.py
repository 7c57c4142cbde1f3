"""What is measured: a door to PostgreSQL, and the processes between."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from wire.session import Door

# The person, the database user, the database and the service are all called so.
NAME = "bench"

UNIT = Path(__file__).resolve().parents[2] / "config" / "postern.service"


def middle_environment():
    """Of every middle, Postern or not: what Postern's systemd unit adds to ours, which is how to run it, and would help the others as much."""
    added = [line.removeprefix("Environment=") for line in UNIT.read_text().splitlines() if line.startswith("Environment=")]
    return {**os.environ, **dict(assignment.split("=", 1) for assignment in added)}


@dataclass
class Target:
    name: str
    door: Door
    # Whose CPU, calls and memory are counted.
    middle: list = field(default_factory=list)
    # Postern's auth process where it is one of its own: counted apart, as it carries no bytes and no connection waits for it
    # but the first of a person.
    auth: list = field(default_factory=list)
    # Of a Postern: where people and rules are made.
    cluster: object = None

    def environment(self):
        """Of libpq's programs."""
        door = self.door
        return {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/nonexistent",
            "PGHOST": "localhost",
            "PGHOSTADDR": door.address,
            "PGPORT": str(door.port),
            "PGUSER": door.user,
            "PGDATABASE": door.database,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(door.root),
            "PGSSLCERT": str(door.certificate),
            "PGSSLKEY": str(door.key),
            "PGGSSENCMODE": "disable",
            "PGCONNECT_TIMEOUT": "30",
        }

    def processes(self):
        return self.middle + self.auth

    def end(self, scratch):
        for process in reversed(self.processes()):
            scratch.forget(process)
