"""What becomes of a run of which a part fails."""

import unittest
from unittest import mock

from machine.scratch import BenchError
from work import run as works
from work.plan import plan
from work.records import Records


class Parts(unittest.TestCase):
    def test_a_part_that_fails_is_an_error_and_takes_no_other_with_it(self):
        def measured(_scratch, _program, _plan, records):
            records.take("simple1", "direct", 0, dict, {"rate": 1.0})

        def fails(*_):
            raise BenchError("the stand-in: not within 60 s")

        records = Records()
        with (
            mock.patch.object(works, "before_postgresql", measured),
            mock.patch.object(works, "before_the_stand_in", fails),
            mock.patch.object(works.link, "run", measured),
        ):
            works.run("postern", plan(False, None, {}), records)
        self.assertEqual([record.get("error") for record in records.all], [None, "the stand-in: not within 60 s", None])
