"""Where the time of a connection went, of a trace."""

import unittest

from machine.scratch import BenchError
from work.trace import STAGES, stages

PROXY, AGENT = "listener/connection#6fdc", "agent/upstream#2"


def record(at, kind, what, to, origin=None):
    return {"at_us": at, "kind": kind, "what": what, "from": origin, "to": to}


def trace(question):
    """The agent's clock is another than the proxy's. A certificate that is kept asks auth nothing."""
    asks = [record(5030, "sent", "IssueDbClient", "auth", "auth-link"), record(5330, "answered", "IssueDbClient", "auth", "auth-link")]
    return {
        "connection": "6fdc",
        "parts": [
            {"node": "proxy", "records": [
                record(100, "state", "greeting", PROXY), record(400, "state", "authorising", PROXY), record(450, "state", "opening", PROXY),
                record(460, "sent", "OpenRelay", "agent agent", PROXY), record(1460, "answered", "OpenRelay", "agent agent", PROXY),
                record(1475, "state", "relaying", PROXY)]},
            {"node": "agent", "records": [
                record(5000, "state", "deciding", AGENT), record(5020, "sent", "GetUpstreamClient", "agent", AGENT), *(asks if question else []),
                record(5350, "answered", "GetUpstreamClient", "agent", AGENT), record(5360, "state", "connecting", AGENT),
                record(5900, "state", "relaying", AGENT)]},
        ],
    }  # fmt: skip


class Stages(unittest.TestCase):
    def test_each_is_of_one_nodes_clock_and_what_is_left_is_the_tunnel(self):
        found = stages(trace(question=True))
        self.assertEqual(set(found), set(STAGES))
        self.assertEqual([found[name] for name in STAGES], [300, 50, 100, 20, 330, 300, 540, 15])

    def test_a_certificate_that_is_kept_takes_no_time_of_auth(self):
        self.assertEqual(stages(trace(question=False))["of_auth"], 0)

    def test_a_trace_without_the_agents_part_is_no_figure(self):
        half = trace(question=True)
        del half["parts"][1]
        with self.assertRaises(BenchError):
            stages(half)
