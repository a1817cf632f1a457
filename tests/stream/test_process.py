"""Waiting that ends when told to: `Stop` beside `threading.Event`, signals, growing waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from freshet.stream.process import BackOff, Stop, on_signals, stop_on_signals, wait_until

LONG_S = 60.0


def test_a_wait_that_nobody_ends_lasts_its_time_and_says_that_work_goes_on() -> None:
    stop = Stop()
    assert not stop.wait(0.001)
    assert not stop.is_set()


def test_all_who_wait_go_on_at_once_when_told_and_nobody_waits_afterwards() -> None:
    stop, told = Stop(), list[bool]()
    waiting = [threading.Thread(target=lambda: told.append(stop.wait(LONG_S))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    stop.set()
    stop.set()
    for thread in waiting:
        thread.join(LONG_S / 2)
    assert told == [True, True, True]
    assert stop.wait(LONG_S)


def test_a_signal_ends_the_wait_that_it_interrupts() -> None:
    started_s = time.monotonic()
    with stop_on_signals() as stop:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        assert stop.wait(LONG_S)
    timer.join()
    assert time.monotonic() - started_s < LONG_S / 2


def test_waits_double_up_to_the_longest_and_begin_anew_after_success() -> None:
    waited_s: list[float] = []
    back_off = BackOff(0.1, 0.5, waited_s.append)
    assert all(back_off.pause() for _ in range(5))
    back_off.reset()
    assert back_off.pause()
    assert waited_s == [0.1, 0.2, 0.4, 0.5, 0.5, 0.1]


def test_told_to_stop_a_back_off_wants_no_further_attempt() -> None:
    stop = Stop()
    stop.set()
    assert not BackOff(LONG_S, LONG_S, stop.wait).pause()


def test_waiting_until_something_is_so_ends_at_the_time_limit() -> None:
    now_s = 0.0

    def sleep(wait_s: float) -> None:
        nonlocal now_s
        now_s += wait_s

    back_off = BackOff(1.0, 4.0, sleep)
    assert not wait_until(lambda: False, 10.0, back_off, now_s=lambda: now_s)
    assert now_s == 11.0


def test_a_process_that_a_library_does_not_let_go_is_ended_after_its_time() -> None:
    """The main thread sits in a C call, where no handler of Python's runs."""
    code = (
        "import ctypes, signal; from freshet.stream.process import Stop, on_signals\n"
        "with on_signals({signal.SIGTERM: Stop().set}, within_s=0.2):\n"
        "    print('in', flush=True)\n"
        "    while True: ctypes.CDLL(None).poll(None, 0, 60_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 1


def test_at_the_end_nobody_looks_through_all_that_is_left() -> None:
    """With torch loaded that takes a second, and ten on a machine that has no time."""
    code = (
        "from freshet.stream.process import stop_on_signals\n"
        "class Ring:\n"
        "    def __init__(self): self.me = self\n"
        "    def __del__(self): print('found', flush=True)\n"
        "with stop_on_signals(): Ring()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b""


def test_whoever_leaves_in_time_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    stop = Stop()
    with on_signals({signal.SIGTERM: stop.set}, within_s=0.05):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(LONG_S)
    assert not Stop().wait(0.2)
    assert ended == []
