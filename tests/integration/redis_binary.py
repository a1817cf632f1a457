"""Which redis-server a test starts, and on which port."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from freshet.stream.child import free_port


def redis_binary(*, tls: bool = False) -> str:
    """The first redis-server on PATH, one that was built with TLS if need be."""
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which("redis-server", path=folder)
        if found and (not tls or b"SSL_CTX_new" in Path(found).read_bytes()):
            return found
    pytest.skip("there is no such redis-server on PATH")


def cluster_port() -> int:
    """A free port whose bus port, 10,000 higher, exists too."""
    while True:
        port = free_port()
        if port < 55_000:
            return port
