"""One COPY through one session, as fast as one client can read or write; every byte that comes is counted.

    bulk.py '{"door": {…}, "copy": "down" or "up", "rows": N}'      one JSON object: rows, bytes, seconds of the COPY alone
    … "endless": true                                               one COPY after another until it is ended
    … "every": SECONDS                                              such an object in the midst of one that goes down as well, with what came since the last
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from wire import messages  # noqa: E402
from wire.loop import Loop  # noqa: E402
from wire.messages import Broken, message  # noqa: E402
from wire.session import Door, open_session  # noqa: E402

ROW = b"x" * 1000 + b"\n"
# As large as libpq's own; TLS cuts it into records of 16 KiB.
ROWS_PER_MESSAGE = 64
BUFFER_BYTES = 256 * 1024


def opened(door):
    found = []

    def opening():
        found.append((yield from open_session(door, door.context())))

    loop = Loop()
    loop.start(opening())
    loop.run()
    session = found[0]
    session.sock.setblocking(True)
    return session


def down(session, rows, tell=None):
    """Each row comes as one CopyData: five bytes of head and the row. What follows the last is small, and read as messages."""
    session.sock.sendall(messages.query(f"copy (select repeat('x', 1000) from generate_series(1, {rows})) to stdout"))
    kind, body = through(session.reader.message())
    if kind == b"E":
        raise Broken(messages.error_text(body))
    if kind != b"H":
        raise Broken(f"{kind!r} in place of CopyOutResponse")
    head = message(b"d", ROW)[:5]
    expected, got = rows * (len(head) + len(ROW)), session.reader.pending
    if got and not (head + ROW).startswith(got[: len(head + ROW)]):
        raise Broken("the first row is another")
    seen, last = len(got), got
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    receive = session.sock.recv_into
    while seen < expected:
        count = receive(buffer)
        if not count:
            raise Broken(f"closed after {seen} of {expected} bytes")
        seen += count
        last = view[:count]
        if tell:
            tell(seen // (len(head) + len(ROW)) * len(ROW))
    session.reader.pending = bytes(last[len(last) - (seen - expected) :])
    finish(session, rows)
    return rows * len(ROW)


def up(session, rows, _tell=None):
    """Rows that PostgreSQL reads and does not keep: what is measured is the way to it."""
    session.sock.sendall(messages.query("copy sink from stdin where false"))
    kind, body = through(session.reader.message())
    if kind == b"E":
        raise Broken(messages.error_text(body))
    if kind != b"G":
        raise Broken(f"{kind!r} in place of CopyInResponse")
    chunk = message(b"d", ROW * ROWS_PER_MESSAGE)
    for _ in range(rows // ROWS_PER_MESSAGE):
        session.sock.sendall(chunk)
    session.sock.sendall(message(b"d", ROW * (rows % ROWS_PER_MESSAGE)) + message(b"c"))
    finish(session, 0)
    return rows * len(ROW)


class Teller:
    """What has come, and in which time, since it was last said."""

    def __init__(self, every):
        self.every, self.seen, self.began = every, 0, time.perf_counter()

    def tell(self, seen):
        if time.perf_counter() - self.began >= self.every:
            self.say(seen, 0)

    def say(self, seen, rows):
        now = time.perf_counter()
        print(json.dumps({"rows": rows, "bytes": seen - self.seen, "seconds": now - self.began}), flush=True)
        self.seen, self.began = seen, now


def finish(session, rows):
    tag, kind = None, None
    while kind != b"Z":
        kind, body = through(session.reader.message())
        if kind == b"E":
            raise Broken(messages.error_text(body))
        if kind == b"C":
            tag = body
        elif kind == b"d":
            raise Broken("more rows than were asked for")
    if tag != f"COPY {rows}\0".encode():
        raise Broken(f"{tag!r} in place of COPY {rows}")


def through(coroutine):
    """The result of a coroutine over a blocking socket, which never waits."""
    try:
        next(coroutine)
    except StopIteration as end:
        return end.value
    raise Broken("a blocking socket had to wait")


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    copy = {"down": down, "up": up}[order["copy"]]
    session = opened(Door(**order["door"]))
    print("ready", flush=True)
    if not order.get("endless"):
        sys.stdin.readline()
    while True:
        teller = Teller(order.get("every"))
        count = copy(session, order["rows"], teller.tell if teller.every else None)
        teller.say(count, order["rows"])
        if not order.get("endless"):
            break
    through(session.close())
