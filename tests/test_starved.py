"""The stopwatch of promises leaves out what a process waits for a CPU, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.starved import Stopwatch, slowness

WORK_S = 0.3
RIVALS = 3
# Ready, told to go on, then so much work.
WORK = f"""
import time
print(flush=True)
input()
began_s = time.process_time()
while time.process_time() - began_s < {WORK_S}: pass
"""


@pytest.fixture
def crowded() -> Iterator[int]:
    """A CPU on which others work all the time."""
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this system does not count how long a thread waits for a CPU")
    cpu = min(os.sched_getaffinity(0))
    rivals = [pinned(cpu, "while True: pass") for _ in range(RIVALS)]
    yield cpu
    for rival in rivals:
        rival.kill()
        rival.wait()


def pinned(cpu: int, code: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.sched_setaffinity(process.pid, {cpu})
    return process


def test_a_process_that_is_not_let_run_took_no_longer_than_it_worked(crowded: int) -> None:
    with pinned(crowded, WORK) as worker:
        assert worker.stdout is not None and worker.stdin is not None
        worker.stdout.readline()
        watch, began_s = Stopwatch(worker.pid), time.monotonic()
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        fair_s = watch.until_end(worker.pid)
        wall_s = time.monotonic() - began_s
        assert worker.wait() == 0
    assert wall_s > 2 * WORK_S
    # It may be less: what both processes wait for at once is left out twice.
    assert fair_s < 2 * WORK_S


def test_work_beside_three_others_takes_about_four_times_as_long(crowded: int) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {crowded})
    try:
        assert slowness() > 2.0
    finally:
        os.sched_setaffinity(0, before)


def test_waiting_for_anything_else_counts() -> None:
    watch = Stopwatch()
    time.sleep(0.2)
    assert 0.15 < watch.seconds() < 10.0
