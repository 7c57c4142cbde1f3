"""From records to figures, verdicts, tables and pictures."""

import json
import os
import pathlib
import re
import tempfile
import unittest
import xml.etree.ElementTree

from machine import profile
from report import document
from report.figures import Figures
from report.pictures import bars, pictures
from report.tables import number
from report.verdicts import LINES
from targets.all import APART, DIRECT, NAMES, ONE, PGBOUNCER
from targets.link import ONE_TUNNEL
from work.link import CONDITIONS
from work.plan import FULL, ROUNDS, WORKS


def results(records, works=WORKS):
    return {
        "kind": "full", "date": "2026-01-01", "seconds": 1800, "load_before": 0.1, "sizes": vars(FULL), "targets": NAMES, "works": works, "records": records,
        "machine": {"processor": "a processor", "cores": 2, "memory_gib": 24, "kernel": "6", "versions": {"Postern": "postern 1"}},
    }  # fmt: skip


def record(work, target, number=0, **more):
    return {"work": work, "target": target, "round": number, "count": 1000, "cpu_s": 0.01, "machine_s": 0.1, "p50_us": 100, "p99_us": 200, **more}


def whole():
    return results([record(work, target, number, rate=100.0 + number) for work in ROUNDS for target in NAMES for number in range(5)])


class FiguresOfRecords(unittest.TestCase):
    def test_a_ratio_is_taken_within_a_round_and_the_median_of_them_is_shown(self):
        rates = {DIRECT: (100, 1000, 10), APART: (50, 400, 9)}
        figures = Figures(results([record("simple8", target, i, rate=rate) for target in rates for i, rate in enumerate(rates[target])]))
        self.assertEqual(figures.ratios("simple8", APART), [0.5, 0.4, 0.9])
        self.assertEqual(figures.ratio("simple8", APART), 0.5)

    def test_a_target_that_failed_in_one_round_has_no_figure_at_all(self):
        records = [record("simple8", APART, 0, rate=1.0), {"work": "simple8", "target": APART, "round": 1, "error": "closed"}]
        figures = Figures(results(records))
        self.assertIsNone(figures.median("simple8", APART, "rate"))
        text = document.text(results(records, ["simple8"]))
        self.assertIn("simple8, postern-apart, round 2: closed", text)
        self.assertIn("| ERROR |", text)

    def test_cpu_is_of_a_hundred_thousand_transactions_and_of_a_gigabyte(self):
        figures = Figures(results([record("simple8", APART, count=50_000, cpu_s=2.0), record("down", APART, count=0.5, cpu_s=1.0)]))
        self.assertEqual(figures.per_unit("simple8", APART), 4.0)
        self.assertEqual(figures.per_unit("down", APART), 2.0)


class Verdicts(unittest.TestCase):
    def line(self, text, target):
        return next(line for line in LINES if line.text.startswith(text) and line.target == target)

    def test_goal_must_and_short_are_told_apart(self):
        line = self.line("simple, 8 clients: ratio", APART)
        for rate, verdict in ((50.0, "goal"), (40.0, "must"), (39.0, "SHORT")):
            figures = Figures(results([record("simple8", DIRECT, rate=100.0), record("simple8", APART, rate=rate)]))
            self.assertEqual(line.verdict(figures)[1], verdict)

    def test_what_was_not_measured_is_neither(self):
        self.assertEqual(self.line("KiB per idle", APART).verdict(Figures(results([]))), (None, "not measured"))

    def test_one_process_may_take_what_pgbouncer_takes_in_the_same_run(self):
        line = self.line("CPU s per 100,000 transactions", ONE)
        ours = record("simple8", ONE, count=100_000, cpu_s=3.5)
        self.assertEqual(line.verdict(Figures(results([ours])))[1], "SHORT")
        self.assertEqual(line.verdict(Figures(results([ours, record("simple8", PGBOUNCER, count=100_000, cpu_s=3.6)])))[1], "must")

    def test_a_bound_of_cpu_is_also_shown_at_the_pace_of_this_machine(self):
        line = self.line("CPU s per 100,000 transactions", APART)
        pgbouncer = record("simple8", PGBOUNCER, count=100_000, cpu_s=2 * line.reference)
        for cpu, verdict in ((5.0, "must"), (10.9, "must here"), (11.1, "SHORT")):
            ours = record("simple8", APART, count=100_000, cpu_s=cpu)
            self.assertEqual(line.verdict(Figures(results([ours, pgbouncer])))[1], verdict)
        self.assertEqual(line.verdict(Figures(results([ours])))[1], "SHORT")


class Document(unittest.TestCase):
    def test_every_section_is_there_without_a_word_of_python(self):
        text = document.text(whole())
        for title in ("What was to be reached", "Rates", "Latency", "CPU", "How noisy the machine was"):
            self.assertIn(f"## {title}\n", text)
        self.assertNotIn("None", text)

    def test_what_is_written_shows_the_pictures_that_are_beside_it(self):
        with tempfile.TemporaryDirectory() as directory:
            document.write(pathlib.Path(directory), whole())
            text = (pathlib.Path(directory) / "RESULTS.md").read_text()
            shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
            self.assertIn("ratios.svg", shown)
            self.assertEqual(sorted([*shown, "RESULTS.md"]), sorted(os.listdir(directory)))

    def test_the_link_has_a_row_for_what_was_measured_under_each_condition(self):
        lossy = CONDITIONS[1]
        records = [
            record(lossy.name, DIRECT, down_mb_s=20.0, alone={"p50_us": 31_000}, lost_share=0.0099),
            {"work": lossy.name, "target": ONE_TUNNEL, "round": 0, "error": "closed"},
        ]
        text = document.text(results(records, ["link"]))
        self.assertIn(f"| **{lossy.title}** |  |  |  |", text)
        self.assertIn("| one COPY down, MB/s | 20.0 | ERROR | – |", text)
        self.assertIn("| · p50, ms | 31.0 | ERROR | – |", text)
        self.assertIn("| packets that did not arrive, % | 0.99 | ERROR | – |", text)
        self.assertNotIn(CONDITIONS[0].title, text)

    def test_results_are_json_again(self):
        self.assertEqual(json.loads(document.compact(whole())), whole())

    def test_rows_have_as_many_cells_as_their_head(self):
        for block in document.text(whole()).split("\n\n"):
            if block.startswith("| "):
                self.assertEqual(len({line.count("|") for line in block.splitlines()}), 1, block)

    def test_numbers_have_the_digits_that_count(self):
        self.assertEqual([number(value) for value in (None, 0.1234, 12.34, 123.4, 12345.6)], ["–", "0.12", "12.3", "123", "12,346"])
        self.assertEqual(number(1234.5, "+.0f"), "+1,234")


class Pictures(unittest.TestCase):
    def test_they_are_well_formed_and_show_every_middle(self):
        drawn = pictures(Figures(whole()))
        self.assertIn("ratios.svg", drawn)
        # Of Postern alone.
        drawn.pop("profile.svg", None)
        for text in drawn.values():
            xml.etree.ElementTree.fromstring(text)
            self.assertEqual({name for name in NAMES if f'class="{name}"' in text}, set(NAMES) - {DIRECT, NAMES[-1]})

    def test_where_the_cpu_goes_is_a_bar_of_shares_for_each_unit(self):
        unit = {"cpu_us": 100.0, "shares": {profile.SENDING: 0.6, profile.AUDIT: 0.4}, "last": {profile.DECISION: 0.0}}
        measured = record("profile", APART, statement=unit, connection=unit, mb=unit)
        text = pictures(Figures(results([measured], ["profile"])))["profile.svg"]
        root = xml.etree.ElementTree.fromstring(text)
        self.assertEqual(text.count("100 µs"), 3)
        width = float(root.get("viewBox").split()[2])
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            self.assertLess(float(bar.get("x")) + float(bar.get("width")), width)

    def test_the_longest_bar_stays_within_the_picture(self):
        text = bars("t", [("g", {APART: 2.0, PGBOUNCER: 1.0})], ".1f", (1.0, "direct"))
        root = xml.etree.ElementTree.fromstring(text)
        width = float(root.get("viewBox").split()[2])
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            self.assertLess(float(bar.get("x")) + float(bar.get("width")), width)
