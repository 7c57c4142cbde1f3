"""Everything that was measured, one record for each work, target and round. An error is a record, and never a number."""

import sys
import time

from machine.scratch import BenchError


class Records:
    def __init__(self):
        self.all = []
        self.began = time.monotonic()

    def take(self, work, target, number, measure, *arguments):
        try:
            found = measure(*arguments)
        except (BenchError, OSError) as error:
            found = {"error": str(error) or type(error).__name__}
        self.all.append({"work": work, "target": target, "round": number, **found})
        say(f"{time.monotonic() - self.began:6.0f} s  round {number + 1}  {work:<11} {target:<20} {brief(found)}")

    def fail(self, part, error):
        """A whole part of a run ended; what was measured before stays."""
        self.all.append({"work": part, "target": "all", "round": 0, "error": str(error) or type(error).__name__})
        say(f"ERROR {part}: {error}")


def brief(found):
    """The first figures of a record, for whoever watches."""
    if "error" in found:
        return "ERROR " + found["error"].splitlines()[0]
    shown = list(flat(found))[:6]
    return "  ".join(f"{name} {value:,.{0 if abs(value) >= 100 else 2}f}" for name, value in shown)


def flat(found, prefix=""):
    for name, value in found.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and value:
            yield prefix + name, value


def say(text):
    print(text, file=sys.stderr, flush=True)
