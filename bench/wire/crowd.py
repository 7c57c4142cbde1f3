"""Many sessions of one program. It reads commands from standard input, one JSON object a line, and answers each with a line.

    {"door": {…}}                                     whom to call, and as whom
    {"open": N, "at_once": M}                         N sessions more, each with one question asked, held open
    {"busy": N, "seconds": S}                         the first N ask one question after another
    {"each": "ask"}                                   every session asks once
    {"pass": N, "at_once": M, "users": "cold-%d"}     N sessions open, ask once and close; the database user of each by its number
    {"close": "all"}
"""

import itertools
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from wire.loop import Loop  # noqa: E402
from wire.session import Door, open_session  # noqa: E402


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Crowd:
    def __init__(self):
        self.door = self.context = None
        self.sessions = []

    def handle(self, command):
        if "door" in command:
            self.door = Door(**command["door"])
            self.context = self.door.context()
            return {}
        if "open" in command:
            return self.come(command["open"], command["at_once"], None, hold=True)
        if "pass" in command:
            return self.come(command["pass"], command["at_once"], command.get("users"), hold=False)
        if "busy" in command:
            return self.busy(command["busy"], command["seconds"])
        if "each" in command:
            self._together(session.ask() for session in self.sessions)
            return {"asked": len(self.sessions)}
        self._together(session.close() for session in self.sessions)
        self.sessions = []
        return {}

    @staticmethod
    def _together(coroutines):
        loop = Loop()
        for coroutine in coroutines:
            loop.start(coroutine)
        loop.run()

    def come(self, count, at_once, users, hold):
        """`at_once` queues, each of which opens one session after another."""
        parts, took, loop = [], [], Loop()
        numbers = iter(range(count))

        def one(number):
            began = time.perf_counter()
            session = yield from open_session(self.door, self.context, users % number if users else None)
            yield from session.ask()
            took.append(time.perf_counter() - began)
            parts.append(session.parts)
            if hold:
                self.sessions.append(session)
            else:
                yield from session.close()
            for follower in numbers:
                loop.start(one(follower))
                break

        began = time.perf_counter()
        for number in list(itertools.islice(numbers, at_once)):
            loop.start(one(number))
        loop.run()
        wall = time.perf_counter() - began
        if len(took) != count:
            raise RuntimeError(f"{len(took)} of {count} sessions were opened")
        return {
            "count": count,
            "wall_s": wall,
            "p50_us": percentile(took, 0.5) * 1e6,
            "p99_us": percentile(took, 0.99) * 1e6,
            "parts_us": {name: percentile([part[name] for part in parts], 0.5) * 1e6 for name in parts[0]},
        }

    def busy(self, count, seconds):
        took = []
        deadline = time.perf_counter() + seconds

        def asking(session):
            while time.perf_counter() < deadline:
                began = time.perf_counter()
                yield from session.ask()
                took.append(time.perf_counter() - began)

        self._together(asking(session) for session in self.sessions[:count])
        return {"count": len(took), "rate": len(took) / seconds, "p50_us": percentile(took, 0.5) * 1e6, "p99_us": percentile(took, 0.99) * 1e6}


if __name__ == "__main__":
    crowd = Crowd()
    for line in sys.stdin:
        try:
            answer = crowd.handle(json.loads(line))
        except Exception as error:  # whatever it is, it is the answer: the run ends with it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
