"""bench/RESULTS.md."""

import json

from report.figures import Figures
from report.pictures import pictures
from report.tables import Tables, number, table
from report.verdicts import LINES, REFERENCE
from targets.all import AGAIN, HAPROXY, ONE, PGBOUNCER
from work.plan import BESIDE, CALLS, DOWN, FIRST, IDLE, IDLE_REAL, INSTRUCTIONS, LINK, PROFILE, SETUP, UP

ALTS = {
    "ratios.svg": "Rates of pgbouncer, haproxy and Postern as shares of direct",
    "cpu.svg": "CPU seconds of pgbouncer, haproxy and Postern for each unit of work",
    "calls.svg": "System calls of pgbouncer, haproxy and Postern for each transaction",
    "profile.svg": "Where Postern's CPU goes for a statement, a connection and a MB",
    "memory.svg": "Memory of pgbouncer, haproxy and Postern for each idle connection",
}


def section(title, *parts):
    """Nothing where its table has nothing."""
    return [f"## {title}", *parts] if parts[-1] else []


def introduction(results):
    machine, sizes = results["machine"], results["sizes"]
    versions = "; ".join(f"{name} {text}" if name.lower() not in text.lower() else text for name, text in machine["versions"].items())
    steal = sum(record.get("steal_s", 0) for record in results["records"])
    return [
        "# What passing through costs",
        f"Written by `make bench` ({results['kind']} run, {results['date']}, {results['seconds'] / 60:.0f} minutes); what is measured, and how, is in "
        "[README.md](README.md), and every single round in [results.json](results.json).",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, kernel {machine['kernel']}. {versions}. Load generator, "
        f"middle and PostgreSQL share the cores, over loopback. {sizes['rounds']} interleaved rounds; a load of {results['load_before']:.1f} before it began; "
        f"the host stole {steal:.1f} CPU s of the timed stretches.",
    ]


def errors(results):
    lines = [f"* {record['work']}, {record['target']}, round {record['round'] + 1}: {record['error'].splitlines()[0]}" for record in results["records"] if "error" in record]
    return section("Errors: this run has no figures where they are", "\n".join(lines))


def verdicts(figures):
    measured = figures.results["targets"]
    others = [name for name in (PGBOUNCER, HAPROXY) if name in measured]
    rows = []
    for line in LINES:
        if line.target not in measured:
            continue

        def of(name, line=line):
            return number(line.find(figures, name), line.form)

        must = number(line.must, line.form)
        if line.or_pgbouncers and PGBOUNCER in measured:
            must += f", or pgbouncer's {of(PGBOUNCER)}"
        text = ("one process: " if line.target == ONE else "") + line.text
        here = line.must_here(figures)
        bounds = [must, "" if here is None else number(here, line.form), number(line.goal, line.form), line.verdict(figures)[1]]
        rows.append([text, f"**{of(line.target)}**", *map(of, others), *bounds])
    return table(["", "Postern", *others, "must", "must here", "goal", "reached"], rows)


def reference(figures):
    """How this machine compares with the one that the bounds come from: by the others' figures, not by ours."""
    work_of = {"simple8": "100,000 transactions", DOWN: "a GB down", UP: "a GB up"}
    here = {work: figures.per_unit(work, PGBOUNCER) for work in work_of}
    if None in here.values():
        return ""
    paces = [f"{here[work]:.2f} s in place of {REFERENCE[work]:.2f} for {text}, {here[work] / REFERENCE[work]:.1f} times as much" for work, text in work_of.items()]
    if set_up := figures.median(IDLE, PGBOUNCER, "setup_cpu_ms"):
        paces.append(f"{set_up:.2f} ms in place of {REFERENCE[IDLE]:.2f} for a session's set-up, {set_up / REFERENCE[IDLE]:.1f} times")
    return (
        f"The bounds in CPU time come from another machine. pgbouncer takes on this one {'; '.join(paces)}. *Must* and *goal* are shown as they stand, and *must here* is "
        "the first as many times as pgbouncer takes on this machine what it took on that one, in the same work."
    )


def text(results):
    figures = Figures(results)
    tables, sizes = Tables(figures), results["sizes"]
    has = results["works"].__contains__
    parts = introduction(results) + errors(results)
    parts += section("What was to be reached", verdicts(figures))
    parts += [reference(figures)] if reference(figures) else []
    parts += section("Rates", "Per second, MB/s for the bulk; in bold the ratio to direct, the median over rounds of the ratios within one.", tables.rates())
    parts += section("Latency", "p50 / p99 in µs · what is added to direct's p50, the median over rounds of the differences within one.", tables.latencies())
    parts += section("CPU", "Seconds of the middle's processes (Postern apart: proxy and agent) · of the whole machine, client and PostgreSQL included; "
                     "for 100,000 transactions or connections, or for a GB.", tables.cpu())  # fmt: skip
    if has(CALLS):
        parts += section(
            "System calls", "Of the middle's processes (Postern apart: proxy and agent; in one process auth's threads are in it), by strace.", tables.calls()
        )
    if has(INSTRUCTIONS):
        parts += section(
            "Instructions", "Of the middle's processes, by valgrind's callgrind on a processor without the newest vectors; a run beyond a bound fails.", tables.instructions()
        )
    if has(PROFILE):
        parts += section("Where the middle's CPU goes", "µs for a unit, and what share of them; eight clients with simple statements, eight with a connection for each, one COPY. The µs were "
                         "measured without perf, the shares with it.", tables.profile())  # fmt: skip
        parts += section("What each safety costs", "Of the middle, processes apart, out of the same samples. Cryptography is counted apart.", tables.safeties())
    if has(IDLE):
        parts += section(f"{sizes['idle']:,} idle connections", "Before a stand-in for PostgreSQL, by fresh processes.", tables.idle(IDLE),
                         f"Then {sizes['idle_busy']} of them ask one question after another for {sizes['idle_busy_seconds']} s (client and stand-in are "
                         "programs in Python and slower than any middle), and in the end each of all is asked once:", tables.busy())  # fmt: skip
    if has(IDLE_REAL):
        parts += section(f"{sizes['idle_real']} idle connections before a real PostgreSQL", tables.idle_real())
    if has(SETUP):
        parts += section("Setting up", f"{sizes['setup']} connections, four at a time, before the stand-in, each with one question; cold: the agent has no certificate "
                         "for the database user, and auth makes one. Direct is what client and stand-in can do.", tables.setup())  # fmt: skip
    if has(FIRST):
        parts += section("A person's first connection after a login", f"µs, medians of {sizes['people']} people: the first · the next. Below, where the nodes had it, by "
                         "`postern trace`.", tables.first())  # fmt: skip
    if has(BESIDE):
        parts += section("A download beside 50 clients with small statements", "1,000 statements/s of all fifty together, as they were due.", tables.beside())
    if has(LINK):
        parts += section("Over a link of 30 ms", "30 ms there and back; 1 % of the packets lost each way, or none but what finds no room in a queue. Postern's tunnels cross it, and direct the client's "
                         "own connections do. bbr and cubic are the congestion control of all that crosses it.", tables.link())  # fmt: skip
    if AGAIN in results["targets"]:
        parts += section(
            "How noisy the machine was",
            "A second instance of Postern with processes apart, measured as a target of its own: what differs is noise.",
            tables.noise(),
        )
    return "\n\n".join(parts) + "\n"


def write(directory, results):
    for name, picture in (drawn := pictures(Figures(results))).items():
        (directory / name).write_text(picture)
    shown = "\n\n".join(f"![{ALTS[name]}]({name})" for name in drawn)
    whole = text(results).replace("\n## Rates\n", f"\n{shown}\n\n## Rates\n", 1)
    (directory / "RESULTS.md").write_text(whole)


def compact(results):
    """JSON with one record a line, so that a change of it can be read."""
    head = {name: value for name, value in results.items() if name != "records"}
    records = ",\n".join(json.dumps(record) for record in results["records"])
    return json.dumps(head, indent=1)[:-2] + ',\n "records": [\n' + records + "\n]}\n"
