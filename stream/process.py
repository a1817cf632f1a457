"""How a process hears that it must stop, and how it waits meanwhile: signals, `Stop`, `BackOff`."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

from freshet.stream.telemetry import get_logger

STOP_WITHIN_S = 9.0
"""Container runtimes kill ten seconds after SIGTERM."""

log = get_logger(__name__)


@contextmanager
def on_signals(
    actions: Mapping[signal.Signals, Callable[[], None]], *, within_s: float | None = STOP_WITHIN_S
) -> Iterator[None]:
    """Call these on signals; only the main thread can ask for that, in another it does nothing.

    Args:
        actions: What to call.
        within_s: A process that is still inside this block so long after SIGTERM or SIGINT is
            ended with status 1, whatever it waits for: every process may die at any line. None
            leaves it the time it takes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def act(number: int, _: FrameType | None) -> None:
        actions[signal.Signals(number)]()

    # At its end Python would look through all that is left for cycles, for a second where torch is
    # loaded, and for ten of them where a machine is busy.
    atexit.register(gc.freeze)
    before = {number: signal.signal(number, act) for number in actions}
    try:
        with nullcontext() if within_s is None else _ended_hard(within_s):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_hard(within_s: float) -> Iterator[None]:
    """End the process where it is told to stop, and has not left the block in time.

    The main thread may be inside a call of a library, where no handler of ours runs. The number of
    a signal is written to the pipe at once, by Python's own handler.
    """
    left = Stop()
    ours, signals = socket.socketpair()
    signals.setblocking(False)
    before = signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while (number := ours.recv(1)) and number[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        if number and not left.wait(within_s):
            hint = "a server did not let go; nothing is lost"
            log.error("ended_hard", after_s=within_s, hint=hint)
            os._exit(1)

    threading.Thread(target=watch, name="last-resort", daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        signals.close()


class Stop:
    """Whether the process was told to stop; a wait on it ends at once then.

    Used like `threading.Event`, but a signal handler may set it: the `set` of an Event takes a
    lock that the `wait` it interrupted may hold.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._told = False

    def set(self) -> None:
        """Tell it to stop, for good; may be called again."""
        self._told = True
        with suppress(RuntimeError):  # Open already.
            self._gate.release()

    def is_set(self) -> bool:
        """Whether somebody told it to stop."""
        return self._told

    def wait(self, wait_s: float) -> bool:
        """Sleep, but no longer than until it is told to stop; whether it was."""
        if not self._told and self._gate.acquire(timeout=wait_s):
            self.set()  # Lets whoever else waits through.
        return self._told


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """What SIGTERM and SIGINT set; outside the main thread nothing sets it."""
    stop = Stop()
    with on_signals({signal.SIGTERM: stop.set, signal.SIGINT: stop.set}):
        yield stop


class BackOff:
    """The waits between attempts: each twice as long as the last, up to a longest one.

    >>> waited = []
    >>> back_off = BackOff(0.5, 3.0, waited.append)
    >>> all(back_off.pause() for _ in range(4)), waited
    (True, [0.5, 1.0, 2.0, 3.0])
    >>> back_off.reset()
    >>> back_off.grow()
    0.5

    Args:
        first_s: The first wait, and the first one after `reset`.
        longest_s: No wait is longer.
        wait: Waits so many seconds and says whether the process was told to stop, as the `wait` of
            a `Stop` does; `time.sleep` where only an exception ends the process.
    """

    def __init__(
        self, first_s: float, longest_s: float, wait: Callable[[float], bool | None] = time.sleep
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._wait = wait
        self.next_s = first_s

    def pause(self) -> bool:
        """Wait; False when told to stop, so that no further attempt is wanted."""
        return not self._wait(self.grow())

    def grow(self) -> float:
        """How long to wait now, for a caller that waits by itself: `asyncio.sleep` is cancelled."""
        wait_s = self.next_s
        self.next_s = min(2 * wait_s, self._longest_s)
        return wait_s

    def reset(self) -> None:
        """An attempt went well: begin with the first wait again."""
        self.next_s = self._first_s


def wait_until(
    ready: Callable[[], bool],
    timeout_s: float,
    back_off: BackOff,
    *,
    now_s: Callable[[], float] = time.monotonic,
) -> bool:
    """Ask again until it is so, the time is up, or the process is told to stop; says which.

    >>> waited = []
    >>> wait_until(lambda: len(waited) == 3, 60, BackOff(1, 4, waited.append)), waited
    (True, [1, 2, 4])
    >>> wait_until(lambda: False, 60, BackOff(1, 4, lambda wait_s: True))
    False
    """
    end_s = now_s() + timeout_s
    while not ready():
        if now_s() > end_s or not back_off.pause():
            return False
    return True
