"""One writer at a time in a folder, also from other processes and machines that share it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freshet.stream.errors import RegistryError
from freshet.stream.process import BackOff, wait_until

LOCK_FILE = ".lock"
FIRST_WAIT_S = 0.01
LONGEST_WAIT_S = 0.5
# Writing a version takes a second, and a lock goes with the process that held it.
PATIENCE_S = 30.0


@contextmanager
def only_writer(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the folder's lock; waits for whoever holds it, but not for ever.

    Raises:
        RegistryError: Somebody else held it all that time.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        if not wait_until(lambda: _taken(descriptor), patience_s, back_off):
            raise RegistryError(f"another process has held {path} for {patience_s:.0f} s")
        yield
    finally:
        # Closing lets go of the lock.
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
