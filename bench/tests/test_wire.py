"""The stand-in, many sessions of one program, and a client that must not be satisfied with less than everything."""

import json
import pathlib
import subprocess
import sys
import unittest
from dataclasses import asdict

from machine.scratch import BenchError, Scratch
from targets.others import door
from targets.upstream import StandInUpstream
from wire import messages
from wire.messages import Broken, Reader
from work.crowd import Crowd

BULK = pathlib.Path(__file__).resolve().parent.parent / "wire" / "bulk.py"


class Sessions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Scratch()
        cls.addClassCleanup(cls.scratch.__exit__)
        cls.upstream = StandInUpstream(cls.scratch)
        cls.door = door(cls.upstream, cls.upstream.port)

    def test_sessions_open_ask_and_close(self):
        with Crowd(self.scratch, self.door) as crowd:
            opened = crowd.call(open=20, at_once=4)
            self.assertEqual(opened["count"], 20)
            self.assertGreater(opened["parts_us"]["tls"], 0)
            self.assertGreater(crowd.call(busy=5, seconds=0.2)["count"], 5)
            self.assertEqual(crowd.call(each="ask")["asked"], 20)
            crowd.call(close="all")
            self.assertEqual(crowd.call(**{"pass": 10, "at_once": 3, "users": "person-%d"})["count"], 10)

    def test_a_session_that_is_lost_is_an_error(self):
        upstream = StandInUpstream(self.scratch, "lost")
        with Crowd(self.scratch, door(upstream, upstream.port)) as crowd:
            crowd.call(open=3, at_once=1)
            upstream.end()
            with self.assertRaises(BenchError):
                crowd.call(each="ask")

    def test_whose_certificate_nobody_signed_is_turned_away(self):
        stranger = StandInUpstream(self.scratch, "stranger")
        with Crowd(self.scratch, door(stranger, self.upstream.port)) as crowd, self.assertRaises(BenchError):
            crowd.call(open=1, at_once=1)
        stranger.end()

    def test_a_copy_that_is_refused_is_no_copy(self):
        order = {"door": asdict(self.door), "copy": "down", "rows": 10}
        done = subprocess.run([sys.executable, "-B", BULK, json.dumps(order)], input="\n", capture_output=True, text=True, timeout=30, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("in place of CopyOutResponse", done.stderr)


class Messages(unittest.TestCase):
    def test_a_message_is_read_however_it_was_cut(self):
        class Pieces:
            def __init__(self, data):
                self.data = data

            def recv(self, _):
                piece, self.data = self.data[:1], self.data[1:]
                return piece

        reader = Reader(Pieces(messages.ONE_ROW))
        kinds = [finished(reader.message())[0] for _ in range(4)]
        self.assertEqual(kinds, [b"T", b"D", b"C", b"Z"])
        with self.assertRaises(Broken):
            finished(reader.message())

    def test_an_error_is_told_with_its_state(self):
        self.assertEqual(messages.error_text(b"SFATAL\0C28000\0Mno entry\0\0"), "28000: no entry")


def finished(coroutine):
    try:
        next(coroutine)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")
