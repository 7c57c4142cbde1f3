"""A link of a real network, where the kernel has no netem: two network namespaces, and the way between them, which takes its time, loses
packets and may be narrow. It takes root.

    link.py                                             {"cluster": PATH, "site": PATH}, which setns(2) takes, when both ends are up
    {"delay_ms": D, "loss": L, "rate_mbit": R or null}  a line on standard input: how it is from now on, one way; answered with what was
                                                        carried, lost (as asked) and dropped (for want of room, here or in the kernel's
                                                        queue before it) until then, both ways together

It ends with its standard input, and nothing of it stays: a namespace without a name is gone with the last process in it.
"""

import collections
import ctypes
import fcntl
import gc
import json
import os
import pathlib
import random
import select
import struct
import subprocess
import sys
import time

DEVICE, CLUSTER, SITE = "link0", "10.99.0.1", "10.99.0.2"
MTU = 1500
CLONE_NEWNET = 0x4000_0000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000
# Where a narrow link keeps what it cannot send yet: the product of 100 Mbit/s and 30 ms, as a router would have it.
QUEUED_MAX = 250
# Under way at once, in one direction: 15 ms of 50 MB/s are 500. More than that, and this program is what is measured.
UNDER_WAY_MAX = 20_000
# Read from one end before what is due is delivered.
BATCH = 64
# Packets that are due so soon go now: fewer turns, for less than anybody sees of 15 ms.
GRAIN = 0.0002
# It is a wire: what shares the cores with it must not make it longer.
NICE = -15
SEED = 30


class Way:
    """One direction. Every packet takes as long as the others, so that they come in the order in which they went."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.under_way = collections.deque()
        self.free_at = 0.0
        self.carried = self.lost = self.dropped = 0
        self.become(0.0, 0.0, None)

    def become(self, delay, loss, rate):
        """Seconds, a probability, bytes a second."""
        self.delay, self.loss, self.rate = delay, loss, rate

    def take(self, packet, now):
        # What is lost on a narrow link has had its turn on it, but this one loses before.
        if self.loss and self.random.random() < self.loss:
            self.lost += 1
            return
        if len(self.under_way) >= UNDER_WAY_MAX:
            self.dropped += 1
            return
        if self.rate:
            begin = max(now, self.free_at)
            if (begin - now) * self.rate > QUEUED_MAX * MTU:
                self.dropped += 1
                return
            now = self.free_at = begin + len(packet) / self.rate
        self.under_way.append((now + self.delay, packet))

    def wait(self, now):
        """Seconds until the next packet is due; None without one."""
        return max(self.under_way[0][0] - now, 0.0) if self.under_way else None

    def due(self, now):
        under_way, now = self.under_way, now + GRAIN
        while under_way and under_way[0][0] <= now:
            self.carried += 1
            yield under_way.popleft()[1]

    def counts(self):
        found = (self.carried, self.lost, self.dropped)
        self.carried = self.lost = self.dropped = 0
        return found


class Statistics:
    """Of the namespace in which it is made: what the kernel could not put into the device's queue since it was last asked."""

    def __init__(self):
        self.file, self.before = open("/proc/thread-self/net/dev"), 0

    def dropped(self):
        self.file.seek(0)
        found = dropped_in(self.file.read())
        before, self.before = self.before, found
        return found - before


def dropped_in(table):
    """bytes, packets, errors, drop, fifo, frame, compressed and multicast of what came, and then of what went."""
    return next(int(line.split(":")[1].split()[11]) for line in table.splitlines() if line.strip().startswith(DEVICE + ":"))


def end(address, peer):
    """A new namespace, which this process is in from now on, with one end of the link: device, namespace, statistics."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    for arguments in ("link set lo up", f"link set dev {DEVICE} mtu {MTU} txqueuelen 1000 up", f"addr add {address} dev {DEVICE}", f"route add {peer} dev {DEVICE}"):
        subprocess.run(["ip", *arguments.split()], check=True, stdout=subprocess.DEVNULL)
    # A connection begins without what others have seen, above all of losses.
    pathlib.Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
    return device, os.open("/proc/self/ns/net", os.O_RDONLY), Statistics()


def carry(ends, ways, order):
    """`ends`: the two devices; `ways`: from each to the other. Until `order`, asked for each line, gives something false."""
    clock, read, write = time.monotonic, os.read, os.write
    sides = {ends[0]: (ways[0], ends[1]), ends[1]: (ways[1], ends[0])}
    orders = sys.stdin.fileno()
    while True:
        now = clock()
        waits = [wait for way in ways if (wait := way.wait(now)) is not None]
        readable, _, _ = select.select([*ends, orders], [], [], min(waits) if waits else None)
        now = clock()
        for one in readable:
            if one == orders:
                if not order():
                    return
                continue
            take = sides[one][0].take
            try:
                for _ in range(BATCH):
                    take(read(one, MTU), now)
            except BlockingIOError:
                pass
        now = clock()
        for way, to in sides.values():
            for packet in way.due(now):
                write(to, packet)


def main():
    os.nice(NICE)
    cluster, cluster_space, *statistics = end(CLUSTER, SITE)
    site, site_space, *more = end(SITE, CLUSTER)
    ways = [Way(SEED), Way(SEED + 1)]

    def order():
        line = sys.stdin.buffer.raw.readline()
        if not line:
            return False
        wanted = json.loads(line)
        rate = wanted["rate_mbit"] * 1e6 / 8 if wanted["rate_mbit"] else None
        for way in ways:
            way.become(wanted["delay_ms"] / 1000, wanted["loss"], rate)
        carried, lost, dropped = (sum(both) for both in zip(*(way.counts() for way in ways), strict=True))
        dropped += sum(device.dropped() for device in statistics + more)
        print(json.dumps({"carried": carried, "lost": lost, "dropped": dropped}), flush=True)
        return True

    print(json.dumps({name: f"/proc/{os.getpid()}/fd/{space}" for name, space in (("cluster", cluster_space), ("site", site_space))}), flush=True)
    # Millions of packets and no circle among them.
    gc.disable()
    carry([cluster, site], ways, order)


if __name__ == "__main__":
    main()
