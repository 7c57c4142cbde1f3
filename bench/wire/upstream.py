"""A stand-in for PostgreSQL: TLS with client certificates, a start-up, and one row for every statement. A real one takes a
process for each connection, which thousands of idle ones would show more than the gateway before it.

    upstream.py PORT CERTIFICATE KEY AUTHORITIES     SIGHUP reads AUTHORITIES again
"""

import pathlib
import signal
import socket
import ssl
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from wire import messages  # noqa: E402
from wire.loop import READ, Loop, again, send  # noqa: E402
from wire.messages import Broken, Reader  # noqa: E402


class StandIn:
    def __init__(self, port, certificate, key, authorities):
        self.files = certificate, key, authorities
        self.trust_again()
        self.loop = Loop()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.listener.setblocking(False)

    def trust_again(self, *_):
        certificate, key, authorities = self.files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED
        # As PostgreSQL, which never resumes a session.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        self.context = context

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                yield self.listener.fileno(), READ
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.loop.start(self.serve(sock))

    def serve(self, sock):
        try:
            first = yield from again(lambda: sock.recv(len(messages.SSL_REQUEST)), sock)
            if first == messages.SSL_REQUEST:
                yield from send(sock, b"S")
                sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                yield from again(sock.do_handshake, sock)
                yield from self.session(sock, Reader(sock))
        except (OSError, Broken):
            pass  # Whoever called hung up; it knows why.
        finally:
            sock.close()

    def session(self, sock, reader):
        yield from reader.startup()
        yield from send(sock, messages.GREETING)
        while True:
            kind, _ = yield from reader.message()
            if kind == b"X":
                return
            if kind != b"Q":
                raise Broken(f"a message {kind!r}, which the stand-in does not speak")
            yield from send(sock, messages.ONE_ROW)


if __name__ == "__main__":
    stand_in = StandIn(int(sys.argv[1]), *sys.argv[2:5])
    signal.signal(signal.SIGHUP, stand_in.trust_again)
    stand_in.loop.start(stand_in.accept())
    print("listening", flush=True)
    stand_in.loop.run()
