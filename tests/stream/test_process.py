"""Waiting that ends when told to: `Stop` beside `threading.Event`, signals, growing waits."""

from __future__ import annotations

import os
import signal
import threading
import time

from freshet.stream.process import BackOff, Stop, stop_on_signals, wait_until

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
