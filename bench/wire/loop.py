"""One thread that goes on with whichever connection is ready: coroutines (generators) that yield what they wait for."""

import select
import socket
import ssl

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Loop:
    """Runs coroutines that yield `(fileno, READ or WRITE)`. A coroutine waits for one descriptor all its life."""

    def __init__(self):
        self.epoll = select.epoll()
        self.waiting = {}

    def start(self, coroutine):
        self._advance(coroutine, None, None)

    def run(self, until=None):
        """Until no coroutine is left, or until `until` holds."""
        while self.waiting and not (until and until()):
            # A second, so that `until` is asked although nobody is ready.
            for fileno, _ in self.epoll.poll(1):
                coroutine, mask = self.waiting[fileno]
                self._advance(coroutine, fileno, mask)

    def _advance(self, coroutine, fileno, mask):
        try:
            wanted, wanted_mask = next(coroutine)
        except StopIteration:
            self._forget(coroutine, fileno)
            return
        except BaseException:
            self._forget(coroutine, fileno)
            raise
        if fileno is None:
            self.epoll.register(wanted, wanted_mask)
        elif mask != wanted_mask:
            self.epoll.modify(wanted, wanted_mask)
        self.waiting[wanted] = (coroutine, wanted_mask)

    def _forget(self, coroutine, fileno):
        # A coroutine that closes its socket and starts another may have given the number away already.
        if self.waiting.get(fileno, (None,))[0] is not coroutine:
            return
        del self.waiting[fileno]
        try:
            self.epoll.unregister(fileno)
        except OSError:
            pass  # A closed descriptor has left by itself.


def again(call, sock):
    """Repeats a call of a non-blocking socket until it is through, and returns what it gave."""
    while True:
        try:
            return call()
        except (ssl.SSLWantReadError, BlockingIOError):
            yield sock.fileno(), READ
        except ssl.SSLWantWriteError:
            yield sock.fileno(), WRITE


def send(sock, data):
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except (ssl.SSLWantWriteError, BlockingIOError):
            yield sock.fileno(), WRITE
        except ssl.SSLWantReadError:
            yield sock.fileno(), READ


def connect(port, address):
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    sock.connect_ex((address, port))
    yield sock.fileno(), WRITE
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"cannot connect to {address}:{port}")
    return sock
