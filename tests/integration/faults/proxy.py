"""A TCP proxy that can be cut, and turned to another server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class TcpProxy:
    """Forwards a port of loopback to a server, until it is cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and every new one at once."""
        with self._lock:
            self._cut = True
            broken, self._open = self._open, set()
        for one in broken:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def mend(self) -> None:
        """Let new connections through again."""
        self._cut = False

    def turn(self, target_port: int) -> None:
        """From now on, this server; whoever is connected has to connect again."""
        self.cut()
        self._target_port = target_port
        self.mend()

    def close(self) -> None:
        """Break everything for good."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._cut:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=2)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        with self._lock:
            self._open -= {one, other}
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
