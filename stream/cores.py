"""How many cores this process may use, and how its threads wait for each other.

A library that counts cores sees the host's. In a container the cgroup's quota (`cpu.max`, or
`cpu.cfs_quota_us` of version 1) may be a small part of them, and threads beyond it are not slower
but stopped, all together, for most of every tenth of a second.

OpenMP's threads, which are PyTorch's, spin while they wait for each other. Where another process
wants the core, the one that is waited for does not run meanwhile: of two threads beside two busy
loops a forecast of half a second took half a minute. Asleep, they take a second and a half.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path, PurePosixPath

SLEEPING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""What makes OpenMP's threads sleep where they wait: GNU's, which PyTorch brings, and Intel's."""

Read = Callable[[str], str | None]
"""The text of a file, or None where there is none."""


def usable_threads() -> int:
    """As many threads as this process can run at a time: whole cores of what it may use, or 1."""
    return threads_of(_affinity(), quota_cores(_read))


def sleep_where_threads_wait(environ: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads of this process and its children sleep; what a person set stays.

    The library reads this once, when it is loaded: to be called before torch is imported.

    >>> environ = {"GOMP_SPINCOUNT": "100"}
    >>> sleep_where_threads_wait(environ)
    >>> environ["GOMP_SPINCOUNT"], environ["OMP_WAIT_POLICY"]
    ('100', 'passive')
    """
    for name, value in SLEEPING.items():
        environ.setdefault(name, value)


def threads_of(affinity: int, quota: float | None) -> int:
    """Whole cores, rounded down: one thread too many stops all of them.

    Args:
        affinity: Cores that the scheduler may put the process on.
        quota: Cores' worth of time that its cgroup may use; None is no limit.

    >>> threads_of(64, 2.5), threads_of(2, 8.0), threads_of(4, 0.5), threads_of(4, None)
    (2, 2, 1, 4)
    """
    return max(1, affinity if quota is None else min(affinity, math.floor(quota)))


def quota_cores(read: Read) -> float | None:
    """The smallest quota of the process's cgroup and those above it, in cores; None is no limit.

    In a container the mount shows its own cgroup as the root, whatever path the process has on the
    host: places that are not there are passed over.

    Args:
        read: Reads a file below /proc and /sys.
    """
    found = []
    for line in (read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files = [f"{place}/cpu.max" for place in _upwards("/sys/fs/cgroup", path)]
            found += [_quota_of((read(name) or "").split()) for name in files]
        elif "cpu" in controllers.split(","):
            for place in _upwards("/sys/fs/cgroup/cpu", path):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                found.append(_quota_of([(read(f"{place}/{name}") or "").strip() for name in names]))
    return min((quota for quota in found if quota is not None), default=None)


def _quota_of(words: list[str]) -> float | None:
    """Cores of a quota and its period, both in microseconds; `max` and -1 are no limit.

    >>> _quota_of(["150000", "100000"]), _quota_of(["max", "100000"]), _quota_of(["-1", "100000"])
    (1.5, None, None)
    """
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def _upwards(mount: str, path: str) -> Iterator[str]:
    """The folders of a cgroup and of those above it, up to the mount.

    >>> list(_upwards("/sys/fs/cgroup", "/a/b"))
    ['/sys/fs/cgroup/a/b', '/sys/fs/cgroup/a', '/sys/fs/cgroup']
    """
    inside = PurePosixPath(path.lstrip("/"))
    for place in (inside, *inside.parents):
        yield str(PurePosixPath(mount) / place)


def _read(name: str) -> str | None:
    try:
        return Path(name).read_text("utf-8")
    except OSError:
        return None


def _affinity() -> int:
    # Only Linux can bind a process to some of the cores.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
