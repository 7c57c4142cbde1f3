"""Pictures as plain SVG: bars in groups, readable on a light and on a dark page."""

import functools
from xml.sax.saxutils import escape

from machine.profile import ORDER
from targets.all import APART, DIRECT, HAPROXY, ONE, PGBOUNCER
from work.plan import CALLS, CONNECT, DOWN, IDLE, PROFILE, UP

WIDTH, LEFT, RIGHT, TOP, BAR, GAP, GROUP_GAP = 860, 190, 70, 76, 15, 3, 16
SHORT = {PGBOUNCER: "pgbouncer", HAPROXY: "haproxy (no TLS)", APART: "Postern, apart", ONE: "Postern, in one"}
SHOWN = [PGBOUNCER, HAPROXY, APART, ONE]
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px } .small { font-size: 11.5px; fill: #57606a }
  .axis { stroke: #8c959f; stroke-width: 1 } .mark { stroke: #57606a; stroke-dasharray: 3 3 }
  .pgbouncer { fill: #9a6700 } .haproxy { fill: #8c959f } .postern-apart { fill: #0969da } .postern-one { fill: #1a7f64 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9da7b3 } .axis { stroke: #6e7681 } .mark { stroke: #9da7b3 }
    .pgbouncer { fill: #d4a72c } .haproxy { fill: #6e7681 } .postern-apart { fill: #58a6ff } .postern-one { fill: #3fb996 }
  }"""


def bars(title, groups, form, mark=None):
    """`groups`: a title and {target: value}. `mark`: a value with a line and a word, as 1.0 for direct."""
    shown = [name for name in SHOWN if any(values.get(name) is not None for _, values in groups)]
    most = max((value for _, values in groups for value in values.values() if value is not None), default=1)
    most = max(most, mark[0] if mark else 0) or 1
    scale = (WIDTH - LEFT - RIGHT) / most
    parts, y = [], TOP
    for text, values in groups:
        here = [name for name in shown if values.get(name) is not None]
        height = len(here) * (BAR + GAP)
        parts.append(f'<text x="{LEFT - 10}" y="{y + height / 2 + 3:.1f}" text-anchor="end">{escape(text)}</text>')
        for name in here:
            length = max(values[name] * scale, 1)
            parts.append(f'<rect class="{name}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"><title>{escape(SHORT[name])}</title></rect>')
            parts.append(f'<text class="small" x="{LEFT + length + 5:.1f}" y="{y + BAR - 3}">{values[name]:{form}}</text>')
            y += BAR + GAP
        y += GROUP_GAP
    bottom = y - GROUP_GAP + 4
    lines = [f'<line class="axis" x1="{LEFT}" y1="{TOP - 6}" x2="{LEFT}" y2="{bottom}"/>']
    if mark:
        x = LEFT + mark[0] * scale
        lines.append(f'<line class="mark" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}"/>')
        lines.append(f'<text class="small" x="{x:.1f}" y="{TOP - 10}" text-anchor="end">{escape(mark[1])}</text>')
    key, x = [], LEFT
    for name in shown:
        key.append(f'<rect class="{name}" x="{x}" y="32" width="11" height="11" rx="2"/><text class="small" x="{x + 16}" y="42">{escape(SHORT[name])}</text>')
        x += 34 + 7 * len(SHORT[name])
    return drawing(title, bottom + 12, [*key, *lines, *parts])


# Blue is the kernel, green what carries bytes, orange what Postern adds to that.
COLOURS = ["#0a3069", "#0550ae", "#218bff", "#54aeff", "#80ccff", "#b6e3ff", "#ddf4ff", "#0f6b3c", "#1a9f5a", "#57c785", "#a5e0bd", "#d3f0df",
           "#7d4e00", "#b07200", "#d9480f", "#f0883e", "#f7b26a", "#f9d9a8", "#8c959f"]  # fmt: skip
# Narrower parts have no room for their share.
LABEL_FROM = 24
PALE = (4, 5, 6, 9, 10, 11, 16, 17)


def stacked(title, rows):
    """`rows`: a title, what the whole is called, and {group: share}, each a bar of the same length."""
    width, parts, y = WIDTH - LEFT - RIGHT, [], 24 + TOP
    for text, whole, shares in rows:
        x = float(LEFT)
        parts.append(f'<text x="{LEFT - 10}" y="{y + 19}" text-anchor="end">{escape(text)}</text>')
        for group in ORDER:
            length = shares.get(group, 0) * width
            tip = f"<title>{escape(group)}: {shares.get(group, 0):.1%}</title>"
            colour = COLOURS[ORDER.index(group)]
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="28" style="fill:{colour}">{tip}</rect>')
            if length >= LABEL_FROM:
                ink = "#24292f" if ORDER.index(group) in PALE else "#ffffff"
                parts.append(f'<text class="small" x="{x + length / 2:.1f}" y="{y + 18}" text-anchor="middle" style="fill:{ink}">{shares[group] * 100:.0f}</text>')
            x += length
        parts.append(f'<text class="small" x="{x + 5:.1f}" y="{y + 18}">{escape(whole)}</text>')
        y += 28 + GROUP_GAP
    key, x, line = [], LEFT, 32
    for group in ORDER:
        length = 26 + 6.2 * len(group)
        if x + length > WIDTH - 8:
            x, line = LEFT, line + 17
        swatch = f'<rect x="{x:.0f}" y="{line}" width="11" height="11" rx="2" style="fill:{COLOURS[ORDER.index(group)]}"/>'
        key.append(f'{swatch}<text class="small" x="{x + 16:.0f}" y="{line + 10}">{escape(group)}</text>')
        x += length
    return drawing(title, y, [*key, *parts])


def drawing(title, height, parts):
    body = "\n".join([f'<text class="title" x="12" y="20">{escape(title)}</text>', *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" aria-label="{escape(title)}">\n'
        f"<style>{STYLE}\n</style>\n{body}\n</svg>\n"
    )


def every(find):
    return {name: find(name) for name in SHOWN}


def pictures(figures):
    """File names and SVG; those that have something to show."""
    measured = set(figures.results["works"])
    ratios = [("simple, 1 client", "simple1"), ("simple, 8", "simple8"), ("simple, 32", "simple32"), ("prepared, 8", "prepared8"),
              ("new connections", CONNECT), ("download", DOWN), ("upload", UP)]  # fmt: skip
    costs = [("s per 100,000 simple", "simple8"), ("s per 100,000 prepared", "prepared8"), ("s per GB down", DOWN), ("s per GB up", UP)]
    counts = [("per transaction", "inclusive"), ("per transaction, steady", "steady")]

    def of(rows, find):
        def value(work, name):
            # It does not make them: it gives away those that it has.
            return None if (work, name) == (CONNECT, PGBOUNCER) else find(work, name)

        return [(text, every(functools.partial(value, work))) for text, work in rows if work in measured]

    found = {
        "ratios.svg": bars("Rate, as a share of direct: more is better", of(ratios, figures.ratio), ".2f", (1.0, f"{DIRECT} = 1")),
        "cpu.svg": bars("CPU of what is between, 8 clients: less is better", of(costs, figures.per_unit), ".2f"),
    }
    if CALLS in measured:
        calls = [(text, every(lambda name, path=path: figures.median(CALLS, name, path))) for text, path in counts]
        found["calls.svg"] = bars("System calls of what is between, 8 clients: less is better", calls, ".1f")
    if IDLE in measured:
        memory = [("per idle connection", every(lambda name: figures.median(IDLE, name, "kib")))]
        found["memory.svg"] = bars("KiB of memory, all processes: less is better", memory, ".0f")
    if PROFILE in measured:
        found["profile.svg"] = profile(figures)
    return {name: text for name, text in found.items() if "<rect" in text}


def profile(figures):
    rows = []
    for unit, text in (("statement", "statement"), ("connection", "connection"), ("mb", "MB down")):
        for name in (APART, ONE):
            whole = figures.median(PROFILE, name, f"{unit}.cpu_us")
            if whole:
                shares = {group: figures.median(PROFILE, name, f"{unit}.shares.{group}") or 0 for group in ORDER}
                rows.append((f"{text}, {'apart' if name == APART else 'in one'}", f"{whole:,.0f} µs", shares))
    return stacked("Where the middle's CPU goes, in per cent of it", rows)
