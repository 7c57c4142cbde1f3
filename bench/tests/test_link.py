"""The link: what one direction of it does with a packet, and, as root, that both ends are as far apart as they should be."""

import os
import pathlib
import socket
import time
import unittest

from machine.link import Link
from machine.scratch import Scratch, until
from wire.bulk import Teller
from wire.link import GRAIN, MTU, QUEUED_MAX, UNDER_WAY_MAX, Way, dropped_in

CONGESTION = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    1    0     0          0         0        0       0    0    2    0     0       0          0
 link0: 10042704  184457    0    3    0     0          0         0 988962700  659363    0 2785    0     0       0          0
"""


def way(delay=0.015, loss=0.0, rate=None):
    made = Way(1)
    made.become(delay, loss, rate)
    return made


class Ways(unittest.TestCase):
    def test_a_packet_comes_after_the_delay_and_not_before(self):
        one = way()
        one.take(b"a", 100.0)
        one.take(b"b", 100.01)
        self.assertEqual(list(one.due(100.014)), [])
        self.assertAlmostEqual(one.wait(100.005), 0.01)
        self.assertEqual(list(one.due(100.015)), [b"a"])
        self.assertEqual(list(one.due(100.1)), [b"b"])
        self.assertIsNone(one.wait(100.1))
        self.assertEqual(one.counts(), (2, 0, 0))

    def test_what_is_overdue_is_waited_for_no_longer(self):
        one = way()
        one.take(b"a", 100.0)
        self.assertEqual(one.wait(101.0), 0.0)

    def test_of_a_hundred_packets_one_is_lost_and_the_same_in_every_run(self):
        one, again = way(loss=0.01), way(loss=0.01)
        for made in (one, again):
            for number in range(10_000):
                made.take(number, 0.0)
        arrived = list(one.due(1.0))
        self.assertEqual(arrived, list(again.due(1.0)))
        self.assertEqual(arrived, sorted(arrived))
        carried, lost, dropped = one.counts()
        self.assertEqual((carried + lost, dropped), (10_000, 0))
        self.assertTrue(60 < lost < 140, lost)
        self.assertEqual(one.counts(), (0, 0, 0))

    def test_a_narrow_one_sends_one_packet_after_another(self):
        one = way(rate=1_000_000)
        for number in range(3):
            one.take(bytes([number]) * 1000, 0.0)
        times = [due for due, _ in one.under_way]
        for due, expected in zip(times, (0.016, 0.017, 0.018), strict=True):
            self.assertAlmostEqual(due, expected)
        # It has had nothing to do meanwhile, and has not saved that up.
        one.take(b"x" * 1000, 10.0)
        self.assertAlmostEqual(one.under_way[-1][0], 10.016)

    def test_a_narrow_one_keeps_so_many_packets_and_drops_the_rest(self):
        one = way(rate=1_000_000)
        for _ in range(2 * QUEUED_MAX):
            one.take(b"x" * MTU, 0.0)
        self.assertLessEqual(abs(len(one.under_way) - QUEUED_MAX), 1)
        self.assertEqual(one.counts()[2], 2 * QUEUED_MAX - len(one.under_way))

    def test_one_that_nobody_empties_is_bounded(self):
        one = way()
        for _ in range(UNDER_WAY_MAX + 5):
            one.take(b"", 0.0)
        self.assertEqual(one.counts()[2], 5)

    def test_packets_may_be_early_by_no_more_than_nobody_sees(self):
        self.assertLess(GRAIN, 0.015 / 50)


class Texts(unittest.TestCase):
    def test_what_the_devices_queue_had_no_room_for_is_read(self):
        self.assertEqual(dropped_in(NET_DEV), 2785)


class Telling(unittest.TestCase):
    def test_each_byte_is_told_once(self):
        teller, told = Teller(0.0), []
        teller.say = lambda seen, rows: told.append((seen - teller.seen, rows)) or setattr(teller, "seen", seen)
        for seen in (10, 30):
            teller.tell(seen)
        teller.say(35, 5)
        self.assertEqual(told, [(10, 0), (20, 0), (5, 5)])


@unittest.skipUnless(os.geteuid() == 0 and pathlib.Path("/dev/net/tun").exists(), "takes root and /dev/net/tun")
class Links(unittest.TestCase):
    def test_both_ends_are_as_far_apart_as_asked_and_what_passes_is_counted(self):
        here = os.readlink("/proc/self/ns/net")
        with Scratch() as scratch, Link(scratch) as link:
            with link.site(), socket.create_server((link.site_address, 0)) as server:
                for one_way in (0, 15):
                    link.become(one_way, 0.0)
                    with link.cluster():
                        began = time.perf_counter()
                        socket.create_connection(server.getsockname()).close()
                        took = time.perf_counter() - began
                    self.assertGreater(took, 2 * one_way / 1000 - 0.001)
            self.assertGreater(link.become(0, 0.0)["carried"], 1)
            self.assertEqual(os.readlink("/proc/self/ns/net"), here)

    def test_everything_can_be_lost(self):
        with Scratch() as scratch, Link(scratch) as link:
            link.become(0, 1.0)
            with link.site(), socket.create_server((link.site_address, 0)) as server, link.cluster(), socket.socket() as client:
                client.settimeout(0.2)
                self.assertRaises(TimeoutError, client.connect, server.getsockname())
            self.assertGreater(link.become(0, 0.0)["lost"], 0)

    def test_what_crosses_it_has_the_congestion_control_that_was_set(self):
        with Scratch() as scratch, Link(scratch) as link:
            with link.site(), socket.create_server((link.site_address, 0)) as server:
                for name in ("reno", CONGESTION.read_text().strip()):
                    link.set_congestion_control(name)
                    with link.cluster():
                        client = socket.create_connection(server.getsockname())
                    accepted, _ = server.accept()
                    with client, accepted:
                        for sock in (client, accepted):
                            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode(), name)

    def test_nothing_of_it_stays(self):
        with Scratch() as scratch, Link(scratch) as link:
            process = link.process
        until("the link is gone", lambda: not pathlib.Path(f"/proc/{process.pid}").exists(), 10)
