"""Stands between a client and a server on loopback, and disturbs them: delays, throttles, drops, swallows.

with Proxy(server.port, delay=0.025) as proxy:      # 50 ms a round trip
    proxy.port
    proxy.drop()                                    # cuts every connection
    proxy.refuses = True                            # and lets no new one in
    proxy.swallow()                                 # lets nothing through any more, and tells nobody: a cable was pulled
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Queue

PART = 1 << 14


class Proxy:
    """A proxy that runs while the block does.

    Args:
        server: Port of the server.
        delay: Seconds that every byte is on its way, in one direction.
        rate: Most bytes a second in one direction; None for no limit.

    Attributes:
        port: Where clients connect.
        refuses: Whether new connections are closed at once.
        passed: Bytes that went from clients to the server.
        on_bytes: Called with that number after each part, for a test that drops at a place of its own.
    """

    def __init__(self, server: int, *, delay: float = 0.0, rate: float | None = None) -> None:
        self._server, self._delay, self.rate = server, delay, rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.refuses, self.passed = False, 0
        self.on_bytes: Callable[[int], None] = lambda _: None
        self._open: list[socket.socket] = []
        self._changes = threading.Lock()  # of `_open`: a test cuts connections while new ones come in
        self._swallowed: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Cut every connection."""
        with self._changes:
            cut, self._open = self._open, []
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def swallow(self) -> None:
        """Let nothing through on the connections that are open now."""
        with self._changes:
            self._swallowed.update(self._open)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # the server is not there, or the client is gone already
                client.close()
                continue
            with self._changes:
                self._open += [client, server]
            for here, there, counts in ((client, server, True), (server, client, False)):
                late: Queue[tuple[float, bytes]] = Queue()
                threading.Thread(target=self._take, args=(here, late, counts), daemon=True).start()
                threading.Thread(target=self._give, args=(there, late), daemon=True).start()

    def _take(self, here: socket.socket, late: "Queue[tuple[float, bytes]]", counts: bool) -> None:
        part = b"."
        while part:
            try:
                part = here.recv(PART)
            except OSError:
                part = b""
            if self.rate is not None:
                time.sleep(len(part) / self.rate)
            if here in self._swallowed:
                continue  # not even its end is told
            late.put((time.monotonic() + self._delay, part))
            if counts:
                self.passed += len(part)
                self.on_bytes(self.passed)

    def _give(self, there: socket.socket, late: "Queue[tuple[float, bytes]]") -> None:
        while True:
            due, part = late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not part:
                    there.shutdown(socket.SHUT_RDWR)
                    return
                there.sendall(part)
            except OSError:
                return
