"""The anchor of simulated time in Redis: the source writes it, every process follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from freshet.stream.clock import Anchor, Clock, SimulatedClock, wall_now_ms
from freshet.stream.errors import StoreError
from freshet.stream.store.connection import translated

CLOCK_KEY: Final = "freshet:clock"


def read_anchor(client: Any) -> Anchor | None:
    """The anchor in Redis, or None when there is none.

    Raises:
        StoreUnavailableError: Redis does not answer.
        StoreError: The key holds something else.
    """
    with translated(client):
        fields: Mapping[bytes, bytes] = client.hgetall(CLOCK_KEY)
    if not fields:
        return None
    try:
        anchor = Anchor(
            int(fields[b"wall_ms"]), int(fields[b"simulated_ms"]), float(fields[b"speed"])
        )
    except (KeyError, ValueError):
        raise StoreError(
            f"Redis key {CLOCK_KEY} holds {dict(fields)}; expected wall_ms, simulated_ms and speed",
            hint="delete the key to go back to wall time",
        ) from None
    if not 0 <= anchor.speed < float("inf"):
        raise StoreError(f"Redis key {CLOCK_KEY} has speed {anchor.speed}; expected a number >= 0")
    return anchor


def set_anchor(
    client: Any, simulated_ms: int, speed: float, *, wall_now_ms: Callable[[], int] = wall_now_ms
) -> None:
    """From now on it is `simulated_ms` for every process on this Redis, and `speed` 0 holds it.

    Raises:
        StoreUnavailableError: Redis does not answer.
        StoreError: No clock can run at this speed.
    """
    if not 0 <= speed < float("inf"):
        raise StoreError(f"a clock cannot run at speed {speed}; expected a number >= 0")
    anchor = {
        "wall_ms": str(wall_now_ms()),
        "simulated_ms": str(simulated_ms),
        "speed": repr(float(speed)),
    }
    with translated(client):
        client.hset(CLOCK_KEY, mapping=anchor)


def open_clock(client: Any) -> Clock:
    """The clock that all processes share: wall time until a source sets an anchor, then simulated.

    Raises:
        StoreUnavailableError, StoreError: See `read_anchor`.
    """
    return SimulatedClock(lambda: read_anchor(client))
