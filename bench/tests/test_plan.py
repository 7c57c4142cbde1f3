"""BENCH_ONLY, and the order of targets."""

import unittest

from machine.scratch import BenchError
from targets import all as targets
from work.plan import FULL, QUICK, WORKS, plan, rotated


class Plans(unittest.TestCase):
    def test_without_a_word_everything_is_measured(self):
        whole = plan(False, None, {})
        self.assertEqual((whole.targets, whole.works, whole.sizes), (targets.NAMES, WORKS, FULL))

    def test_the_quick_run_has_the_main_table(self):
        quick = plan(True, "", {})
        self.assertTrue(quick.has("simple8") and quick.has("down") and not quick.has("beside") and not quick.has("link"))
        self.assertEqual(quick.sizes, QUICK)

    def test_a_kind_that_is_not_named_is_whole(self):
        self.assertEqual(plan(False, "simple8", {}).targets, targets.NAMES)
        self.assertEqual(plan(False, targets.APART, {}).works, WORKS)

    def test_direct_is_always_among_them(self):
        self.assertEqual(plan(False, "haproxy,simple8", {}).targets, ["direct", "haproxy"])

    def test_a_name_that_is_none_is_refused_with_those_that_there_are(self):
        with self.assertRaisesRegex(BenchError, "simple9; there is direct"):
            plan(False, "simple9", {})

    def test_sizes_can_be_set(self):
        self.assertEqual(plan(True, "", {"BENCH_ROUNDS": "7"}).sizes.rounds, 7)

    def test_each_round_begins_with_another(self):
        names = ["a", "b", "c"]
        self.assertEqual([rotated(names, number)[0] for number in range(4)], ["a", "b", "c", "a"])
