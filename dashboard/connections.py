"""Connections that ask for nothing, or do not take what they asked for, are dropped in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

from freshet.stream.telemetry import get_logger

SILENT_S = 10.0
UNREAD_S = 30.0
SWEEP_S = 1.0
SEND_BUFFER_BYTES = 65_536
"""What the kernel keeps for who does not read; it hides that from us, megabytes by default."""

log = get_logger(__name__)


class Connections:
    """Looks at every open connection once a second.

    * Without a whole request for `SILENT_S` after it was opened or answered: dropped, however many
      single bytes came meanwhile.
    * What was written is not taken for `UNREAD_S`: dropped, a live stream or a file.

    uvicorn itself ends only those that are silent after an answer.

    Args:
        found: The open connections now, uvicorn's protocols.
        now_s: Monotonic seconds.
    """

    def __init__(
        self, found: Callable[[], Collection[Any]], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._found = found
        self._now_s = now_s
        # Since when a connection is in the state it is in.
        self._since: dict[Any, tuple[_State, float]] = {}
        self.dropped = 0

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self.sweep()
            await asyncio.sleep(SWEEP_S)

    def sweep(self) -> None:
        """Drop what has been in a bad state for too long."""
        now_s = self._now_s()
        before, self._since = self._since, {}
        for connection in list(self._found()):
            state = _state(connection)
            if state is None:
                continue
            known, since_s = before.get(connection, (state, now_s))
            if known.why != state.why or known.request is not state.request:
                since_s = now_s
            self._since[connection] = (state, since_s)
            limit_s = UNREAD_S if state.why == "unread" else SILENT_S
            if now_s - since_s >= limit_s:
                self.dropped += 1
                log.info("connection_dropped", why=state.why, after_s=round(now_s - since_s))
                connection.transport.abort()


class _State(NamedTuple):
    """What is wrong with a connection, and the request that it is about."""

    why: Literal["unread", "silent"]
    request: Any


def _state(connection: Any) -> _State | None:
    """None where nothing is wrong."""
    cycle = connection.cycle
    if connection.transport.get_write_buffer_size():
        return _State("unread", cycle)
    if cycle is None or cycle.response_complete:
        return _State("silent", cycle)
    return None
