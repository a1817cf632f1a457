"""What a process does when it is told to stop, as a block that puts everything back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_signals(actions: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call these on signals; only the main thread can ask for that, in another it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def act(number: int, _: FrameType | None) -> None:
        actions[signal.Signals(number)]()

    before = {number: signal.signal(number, act) for number in actions}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
