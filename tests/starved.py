"""How long something took on a machine that had time: promises of seconds are held to that."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

NS_PER_S = 1_000_000_000
PROBE_S = 0.3


class Stopwatch:
    """Seconds since it was made, less those in which processes could run and others had the CPU.

    Linux counts for each thread how long it was ready and not let run. Of each process the thread
    that waited longest counts, ours among them, whose answers and looks are waited for as well.
    Elsewhere nothing is known, and all seconds count.

    Args:
        pids: The processes that are to do something in time.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = (os.getpid(), *pids)
        self._stolen_s = stolen_s()
        self._before_ns = {pid: waited_ns(pid) for pid in self._pids}
        self._started_s = time.monotonic()

    def seconds(self) -> float:
        """So many until now; what a process waited is known until it is reaped."""
        return max(0.0, time.monotonic() - self._started_s - self.starved_s())

    def starved_s(self) -> float:
        """How long they could have run, and were not let."""
        return sum(map(self._starved_s, self._pids)) + stolen_s() - self._stolen_s

    def until_end(self, pid: int) -> float:
        """So many until one of them has ended; blocks, and leaves it to be reaped."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return self.seconds()

    def _starved_s(self, pid: int) -> float:
        before_ns = self._before_ns[pid]
        waited = [ns - before_ns.get(thread, 0) for thread, ns in waited_ns(pid).items()]
        return max(waited, default=0) / NS_PER_S


def ended(pid: int) -> bool:
    """Whether a child has ended; it is left to be reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def slowness() -> float:
    """How many times longer than on a free CPU work takes now; 1 where nobody else works."""
    began_s, worked_s = time.monotonic(), time.process_time()
    while time.process_time() - worked_s < PROBE_S:
        pass
    return max(1.0, (time.monotonic() - began_s) / PROBE_S)


def waited_ns(pid: int) -> dict[str, int]:
    """How long each thread of a process has waited for a CPU; nothing where nobody counts that."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return found


def stolen_s() -> float:
    """How long the host of a virtual machine had each CPU for others."""
    with suppress(OSError):
        ticks = int(Path("/proc/stat").read_text().split()[8])
        return ticks / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
    return 0.0
