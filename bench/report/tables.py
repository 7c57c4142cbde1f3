"""Tables of Markdown: a row for each figure, a column for each target."""

import functools

from machine.profile import AUDIT, DECISION, ORDER, PROTOCOL, TELEMETRY
from targets.all import AGAIN, APART, DIRECT, HAPROXY, ONE, PGBOUNCER
from targets.link import ONE_TUNNEL, TWO_TUNNELS
from work.link import CONDITIONS
from work.plan import BESIDE, CALLS, CONNECT, DOWN, FIRST, IDLE, IDLE_REAL, INSTRUCTIONS, PROFILE, ROUNDS, SETUP, STATEMENTS, UP

TITLES = {
    DIRECT: "direct",
    PGBOUNCER: "pgbouncer",
    HAPROXY: "haproxy (no TLS of its own)",
    APART: "Postern, processes apart",
    ONE: "Postern in one process",
    AGAIN: "Postern apart, a second instance",
}
LINK_TITLES = {DIRECT: "direct", ONE_TUNNEL: "Postern, one tunnel", TWO_TUNNELS: "Postern, two tunnels"}
COLUMNS = [DIRECT, PGBOUNCER, HAPROXY, APART, ONE]
WORK_TITLES = {
    **{work: f"{mode}, {clients} client{'s' if clients > 1 else ''}" for work, (mode, clients) in STATEMENTS.items()},
    CONNECT: "new connections, 4 at a time",
    DOWN: "download of one COPY",
    UP: "upload of one COPY",
}


FIRST_ROWS = [
    ("to the first answer, as the client sees it", "total_us"),
    ("· TCP", "tcp_us"),
    ("· TLS", "tls_us"),
    ("· start-up, to ReadyForQuery", "startup_us"),
    ("proxy: TLS with the client, to its StartupMessage", "stages.greeting"),
    ("proxy: certificate, decision, event on disk", "stages.authorising"),
    ("tunnel, there and back", "stages.tunnel"),
    ("agent: certificate, decision", "stages.deciding"),
    ("agent: its own certificate for PostgreSQL", "stages.certificate"),
    ("· of this auth, which makes it", "stages.of_auth"),
    ("agent: TCP, TLS and start-up with PostgreSQL, event on disk", "stages.connecting"),
    ("proxy: until bytes pass", "stages.answering"),
]


PROFILE_UNITS = {"statement": "a statement", "connection": "a connection", "mb": "a MB down"}


def number(value, form=None):
    """Three digits that count."""
    if value is None:
        return "–"
    if form:
        # A comma between thousands stands before the point of a format.
        return format(value, form.replace(".", ",."))
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


class Tables:
    def __init__(self, figures):
        self.figures = figures
        chosen = figures.results["targets"]
        self.columns = [name for name in COLUMNS if name in chosen]

    def rows(self, work, rows, columns=None):
        """`rows`: a title, and what takes a target's name and gives the text of its cell."""
        columns = columns or self.columns
        lines = [[title, *(self.cell(work, name, find) for name in columns)] for title, find in rows]
        return table(["", *(TITLES[name] for name in columns)], lines)

    def cell(self, work, name, find):
        return "ERROR" if (work, name) in self.figures.failed else find(name)

    def of_rounds(self, find, works=None):
        """A row for each work of the rounds that was measured; `find` takes work and target."""
        works = [work for work in works or ROUNDS if work in self.figures.results["works"]]
        lines = [[WORK_TITLES[work], *(self.cell(work, name, functools.partial(find, work)) for name in self.columns)] for work in works]
        return table(["", *(TITLES[name] for name in self.columns)], lines) if lines else ""

    def rates(self):
        def find(work, name):
            rate = number(self.figures.median(work, name, "rate"))
            return rate if name == DIRECT else f"{rate} · **{number(self.figures.ratio(work, name), '.2f')}**"

        return self.of_rounds(find)

    def latencies(self):
        def find(work, name):
            p50, p99 = (self.figures.median(work, name, path) for path in ("p50_us", "p99_us"))
            more = "" if name == DIRECT else f" · {number(self.figures.added(work, name), '+.0f')}"
            return f"{number(p50, '.0f')} / {number(p99, '.0f')}{more}"

        return self.of_rounds(find, [*STATEMENTS, CONNECT])

    def cpu(self):
        def find(work, name):
            own = "–" if name == DIRECT else number(self.figures.per_unit(work, name), ".2f")
            return f"{own} · {number(self.figures.per_unit(work, name, 'machine_s'), '.1f')}"

        return self.of_rounds(find)

    def noise(self):
        """The second instance against the first: 1.00 is a quiet machine."""
        works = [work for work in ROUNDS if work in self.figures.results["works"]]
        lines = []
        for work in works:
            ratios = self.figures.ratios(work, AGAIN, base=APART)
            mine, again = (self.figures.per_unit(work, name) for name in (APART, AGAIN))
            if ratios:
                spread = f"{number(min(ratios), '.2f')} … {number(max(ratios), '.2f')}"
                cpu = number(again / mine, ".2f")
                direct = list(self.figures.rounds(work, DIRECT, "rate").values())
                wander = number(max(direct) / min(direct), ".2f") if direct else "–"
                lines.append([WORK_TITLES[work], number(self.figures.ratio(work, AGAIN, base=APART), ".2f"), spread, cpu, wander])
        heads = ["", "rate, second to first: median", "of single rounds", "CPU per unit, second to first", "direct: fastest round to slowest"]
        return table(heads, lines) if lines else ""

    def plain(self, work, rows, columns=None):
        """`rows`: title, path in the record, form of the number."""
        median = self.figures.median

        def cell(path, form):
            return lambda name: number(median(work, name, path), form)

        return self.rows(work, [(title, cell(path, form)) for title, path, form in rows], columns)

    def middles(self):
        return [name for name in self.columns if name != DIRECT]

    def calls(self):
        rows = [
            ("per transaction, the 8 connections of 2,000 included", "inclusive", ".2f"),
            ("per transaction, steady", "steady", ".2f"),
            ("per MB down", "per_mb_down", ".0f"),
            ("auth alone, per transaction (in no line above)", "auth", ".2f"),
        ]
        return self.plain(CALLS, rows, self.middles())

    def instructions(self):
        works = [("a statement of eight clients", "statement"), ("a connection with one statement", "connection"), ("a MB down", "mb_down")]
        parts = [("{}", "all"), ("· at most", "at_most"), ("· proxy", "by_process.proxy"), ("· agent", "by_process.agent")]
        rows = [(text.format(title), f"{work}.{path}", ".0f") for title, work in works for text, path in parts]
        return self.plain(INSTRUCTIONS, rows, [name for name in self.columns if name in (APART, ONE)])

    def idle(self, work):
        rows = [
            ("KiB per idle connection, all processes", "kib", ".1f"),
            ("· proxy alone", "kib_by_process.proxy", ".1f"),
            ("· agent alone", "kib_by_process.agent", ".1f"),
            ("· auth alone", "kib_by_process.auth", ".1f"),
            ("MiB before, all processes", "base_mib", ".0f"),
            ("MiB with all of them at rest", "at_rest_mib", ".0f"),
            ("CPU ms of the middle per set-up, with one question", "setup_cpu_ms", ".2f"),
            ("· of auth", "setup_cpu_auth_ms", ".2f"),
        ]
        return self.plain(work, rows, self.middles())

    def busy(self):
        rows = [
            ("connections that answered in the end", "asked", ".0f"),
            ("statements while some were busy", "busy.count", ".0f"),
            ("p50, µs", "busy.p50_us", ".0f"),
            ("p99, µs", "busy.p99_us", ".0f"),
            ("MiB while they were busy, all processes", "busy.mib", ".0f"),
        ]
        return self.plain(IDLE, rows, self.middles())

    def setup(self):
        columns = [name for name in self.columns if name != PGBOUNCER]
        rows = [
            (f"{title}{of}", f"{kind}.{path}", form)
            for kind, of in (("cold", ", cold"), ("warm", ", warm"))
            for title, path, form in (
                ("connections/s", "rate", ".0f"),
                ("p50, µs", "p50_us", ".0f"),
                ("CPU ms of the middle", "cpu_ms", ".2f"),
                ("CPU ms of auth", "cpu_auth_ms", ".2f"),
            )
        ]
        return self.plain(SETUP, rows, columns)

    def beside(self):
        rows = [
            ("p50 alone, µs", "alone.p50_us", ".0f"),
            ("p50 beside the download, µs", "with_bulk.p50_us", ".0f"),
            ("p99 alone, µs", "alone.p99_us", ".0f"),
            ("p99 beside the download, µs", "with_bulk.p99_us", ".0f"),
            ("the download meanwhile, MB/s", "bulk_mb_s", ".0f"),
        ]
        return self.plain(BESIDE, rows)

    def profile(self):
        """A column for each target and unit: microseconds, and what part of the whole."""
        columns = [(name, unit) for unit in PROFILE_UNITS for name in (APART, ONE) if self.figures.median(PROFILE, name, f"{unit}.cpu_us")]

        def cell(group, name, unit):
            part = self.figures.median(PROFILE, name, f"{unit}.shares.{group}")
            return "–" if not part else f"{number(part * self.figures.median(PROFILE, name, f'{unit}.cpu_us'))} · {part:.1%}"

        heads = ["", *(f"{PROFILE_UNITS[unit]}, {'apart' if name == APART else 'in one'}" for name, unit in columns)]
        whole = ["**all**", *(f"**{number(self.figures.median(PROFILE, name, f'{unit}.cpu_us'))}**" for name, unit in columns)]
        rows = [[group, *(cell(group, *column) for column in columns)] for group in ORDER]
        return table(heads, [whole, *rows]) if columns else ""

    def safeties(self):
        """What is there for safety alone, in microseconds of the middle, processes apart."""

        def cost(unit, group, part="shares"):
            return self.figures.median(PROFILE, APART, f"{unit}.{part}.{group}"), self.figures.median(PROFILE, APART, f"{unit}.cpu_us")

        rows = [
            ("audit trail: an event for the statement and one for its result, written, shipped", *cost("statement", AUDIT)),
            ("framing of the client's and PostgreSQL's messages", *cost("statement", PROTOCOL)),
            ("records, gauges and metrics", *cost("statement", TELEMETRY)),
            ("a connection's events in the audit trail, with their fsyncs", *cost("connection", AUDIT)),
            ("certificates read and both decisions", *cost("connection", DECISION)),
            ("· of these the agent's, the second", *cost("connection", DECISION, "last")),
        ]
        lines = [[text, number(share * whole), f"{share:.1%}"] for text, share, whole in rows if share is not None and whole]
        return table(["", "µs", "of the statement's or the connection's"], lines) if lines else ""

    def first(self):
        """First and later side by side, as what the first waits for is the matter."""
        columns = [name for name in self.columns if name in (DIRECT, APART, ONE)]

        def cell(path):
            def find(name):
                first, later = (number(self.figures.median(FIRST, name, f"{kind}.{path}"), ".0f") for kind in ("first", "later"))
                return f"{first} · {later}"

            return find

        return self.rows(FIRST, [(title, cell(path)) for title, path in FIRST_ROWS], columns)

    def link(self):
        rows = [
            ("one COPY down, MB/s", "down_mb_s", None),
            ("one COPY up, MB/s", "up_mb_s", None),
            ("20 clients, statements/s", "alone.rate", ".0f"),
            ("· p50, ms", "alone.p50_us", ".1f"),
            ("· p99, ms", "alone.p99_us", ".1f"),
            ("20 clients beside a COPY down, statements/s", "beside.rate", ".0f"),
            ("· p50, ms", "beside.p50_us", ".1f"),
            ("· p99, ms", "beside.p99_us", ".1f"),
            ("· the COPY meanwhile, MB/s", "beside.bulk_mb_s", None),
            ("packets that did not arrive, %", "lost_share", ".2f"),
        ]
        scales = {"us": 1e-3, "share": 100}

        def cell(work, path, form):
            def find(name):
                value = self.figures.median(work, name, path)
                return number(None if value is None else value * scales.get(path.rsplit("_", 1)[-1], 1), form)

            return find

        lines = []
        for condition in CONDITIONS:
            if any(record["work"] == condition.name for record in self.figures.results["records"]):
                lines.append([f"**{condition.title}**", *("" for _ in LINK_TITLES)])
                lines += [[title, *(self.cell(condition.name, name, cell(condition.name, path, form)) for name in LINK_TITLES)] for title, path, form in rows]
        return table(["", *LINK_TITLES.values()], lines) if lines else ""

    def idle_real(self):
        return self.idle(IDLE_REAL)
