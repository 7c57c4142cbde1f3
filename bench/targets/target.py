"""What is measured: a door to PostgreSQL, and the processes between."""

from dataclasses import dataclass, field

from wire.session import Door

# The person, the database user, the database and the service are all called so.
NAME = "bench"


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
