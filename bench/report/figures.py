"""From records to figures: medians over rounds, and ratios to direct in the same round."""

from statistics import median

from targets.all import DIRECT
from work.plan import CONNECT, DOWN, STATEMENTS, UP

BULK = (DOWN, UP)
# A unit of work: 100,000 statements or connections; a GB.
PER = {**{work: 100_000 for work in [*STATEMENTS, CONNECT]}, **{work: 1 for work in BULK}}


def look(record, path):
    """`busy.p50_us` of a record; None where it has none."""
    for part in path.split("."):
        if not isinstance(record, dict) or part not in record:
            return None
        record = record[part]
    return record


class Figures:
    def __init__(self, results):
        self.results = results
        self.failed = {(record["work"], record["target"]) for record in results["records"] if "error" in record}

    def rounds(self, work, target, path):
        """The values by round. None at all where one of them was an error: a target that fails has no figure."""
        if (work, target) in self.failed:
            return {}
        found = {}
        for record in self.results["records"]:
            value = look(record, path) if (record["work"], record["target"]) == (work, target) else None
            if value is not None:
                found[record["round"]] = value
        return found

    def median(self, work, target, path):
        values = self.rounds(work, target, path).values()
        return median(values) if values else None

    def paired(self, work, target, path, combine, base=DIRECT):
        """What `combine` makes of a value and of the base's in the same round, one for each round."""
        ours, theirs = self.rounds(work, target, path), self.rounds(work, base, path)
        return [combine(ours[number], theirs[number]) for number in sorted(ours) if number in theirs]

    def ratios(self, work, target, path="rate", base=DIRECT):
        return self.paired(work, target, path, lambda ours, theirs: ours / theirs, base)

    def ratio(self, work, target, path="rate", base=DIRECT):
        found = self.ratios(work, target, path, base)
        return median(found) if found else None

    def added(self, work, target, path="p50_us"):
        found = self.paired(work, target, path, lambda ours, theirs: ours - theirs)
        return median(found) if found else None

    def per_unit(self, work, target, path="cpu_s"):
        """CPU seconds for a unit of work."""
        spent, count = self.rounds(work, target, path), self.rounds(work, target, "count")
        each = [spent[number] / count[number] * PER[work] for number in spent]
        return median(each) if each else None
