"""How what is measured is started."""

import unittest

from targets.target import UNIT, middle_environment


class Environment(unittest.TestCase):
    def test_every_middle_runs_with_what_the_unit_sets(self):
        self.assertIn("Environment=GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=", UNIT.read_text())
        environment = middle_environment()
        self.assertRegex(environment["GLIBC_TUNABLES"], r"^glibc\.cpu\.x86_rep_movsb_threshold=0x[0-9a-f]+$")
        self.assertIn("PATH", environment)
