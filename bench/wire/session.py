"""A client's session: TCP, TLS with a client certificate, start-up; and when each of them was through."""

import ssl
import time
from dataclasses import dataclass

from wire import messages
from wire.loop import again, connect, send
from wire.messages import Broken, Reader


@dataclass
class Door:
    """Where a session begins, and as whom. `root`, `certificate`, `key` are files of PEM."""

    port: int
    root: str
    certificate: str
    key: str
    user: str
    database: str
    address: str = "127.0.0.1"

    def context(self):
        context = ssl.create_default_context(cafile=self.root)
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass
class Session:
    sock: ssl.SSLSocket
    reader: Reader
    # Seconds of its parts: tcp, tls, startup.
    parts: dict

    def until_ready(self):
        """Reads up to ReadyForQuery; the rows. An error of PostgreSQL's or of a gateway's is Broken."""
        rows = []
        while True:
            kind, body = yield from self.reader.message()
            if kind == b"E":
                raise Broken(messages.error_text(body))
            if kind == b"D":
                rows.append(body)
            elif kind == b"Z":
                return rows

    def ask(self):
        """`select 1`, and the answer is what it has to be."""
        yield from send(self.sock, messages.query("select 1"))
        rows = yield from self.until_ready()
        if rows != [messages.ROW_OF_ONE]:
            raise Broken(f"select 1 was answered with {rows!r}")

    def close(self):
        try:
            yield from send(self.sock, messages.TERMINATE)
        finally:
            self.sock.close()


def open_session(door, context, user=None):
    began = time.perf_counter()
    sock = yield from connect(door.port, door.address)
    connected = time.perf_counter()
    yield from send(sock, messages.SSL_REQUEST)
    answer = yield from again(lambda: sock.recv(1), sock)
    if answer != b"S":
        raise Broken(f"SSLRequest was answered with {answer!r}")
    sock = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
    yield from again(sock.do_handshake, sock)
    encrypted = time.perf_counter()
    session = Session(sock, Reader(sock), {})
    yield from send(sock, messages.startup(user or door.user, door.database))
    yield from session.until_ready()
    ready = time.perf_counter()
    session.parts = {"tcp": connected - began, "tls": encrypted - connected, "startup": ready - encrypted}
    return session
