"""PostgreSQL's messages, as far as the bench speaks them (PostgreSQL documentation, chapter "Frontend/Backend Protocol")."""

import struct

from wire.loop import again

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
PROTOCOL_3_0 = 3 << 16
# More than any message that the bench exchanges outside of COPY.
MESSAGE_MAX = 64 * 1024
RECEIVE_BYTES = 16 * 1024


def message(kind, body=b""):
    return kind + struct.pack("!i", len(body) + 4) + body


def startup(user, database):
    body = struct.pack("!i", PROTOCOL_3_0)
    for name, value in (("user", user), ("database", database), ("application_name", "bench")):
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!i", len(body) + 4) + body


def query(text):
    return message(b"Q", text.encode() + b"\0")


TERMINATE = message(b"X")
READY = message(b"Z", b"I")
# What `select 1` is answered with: one column, one row.
ONE_ROW = (
    message(b"T", struct.pack("!h", 1) + b"one\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0))
    + message(b"D", struct.pack("!hi", 1, 1) + b"1")
    + message(b"C", b"SELECT 1\0")
    + READY
)
ROW_OF_ONE = struct.pack("!hi", 1, 1) + b"1"

GREETING = message(b"R", struct.pack("!i", 0))
for _name, _value in (
    ("server_version", "15.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
):
    GREETING += message(b"S", _name.encode() + b"\0" + _value.encode() + b"\0")
GREETING += message(b"K", struct.pack("!ii", 1, 2)) + READY


class Broken(Exception):
    """The other side closed, or said what it should not."""


class Reader:
    """Takes messages out of what a TLS socket gives. Holds no more than one receive and one message."""

    def __init__(self, sock):
        self.sock, self.pending = sock, b""

    def exactly(self, count):
        while len(self.pending) < count:
            data = yield from again(lambda: self.sock.recv(RECEIVE_BYTES), self.sock)
            if not data:
                raise Broken("the connection was closed")
            self.pending += data
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken

    def length(self, field):
        length = struct.unpack("!i", field)[0] - 4
        if not 0 <= length <= MESSAGE_MAX:
            raise Broken(f"a message of {length} bytes")
        return length

    def startup(self):
        return (yield from self.exactly(self.length((yield from self.exactly(4)))))

    def message(self):
        head = yield from self.exactly(5)
        return head[:1], (yield from self.exactly(self.length(head[1:])))


def error_text(body):
    """An ErrorResponse as `SQLSTATE: message`."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return f"{fields.get(b'C', '?')}: {fields.get(b'M', '?')}"
