"""Up to when events have come: the partition of orders that is behind says it, and nobody idle."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.stream.config import Settings
from freshet.stream.read import heads as module
from freshet.stream.read.heads import LOOK_S, EventsReached
from freshet.stream.store.layout import Header

ORDERS, CLICKS = "freshet.orders.v1", "freshet.clicks.v1"


def header(frontier_ms: int | None, first_ms: int | None = 5) -> Header:
    fields: dict[bytes, bytes] = {b"next_offset": b"7", b"first_offset": b"0"}
    if frontier_ms is not None:
        fields[b"frontier_ms"] = b"%d" % frontier_ms
        fields[b"idle_frontier_ms"] = b"%d" % 9_999_999
        fields[b"first_event_ms"] = b"%d" % (first_ms or 0)
    return Header.parse(fields)


def test_it_is_that_of_the_orders_that_are_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: dict[tuple[str, int], Header] = {}
    looks: list[int] = []

    def read(client: Any, generation: int) -> dict[tuple[str, int], Header]:
        looks.append(generation)
        return heads

    monkeypatch.setattr(module, "read_heads", read)
    now_s = 100.0
    client: Any = None
    reached = EventsReached(client, Settings(), now_s=lambda: now_s)
    assert reached.ms() == 0
    heads |= {
        (ORDERS, 0): header(900),
        (ORDERS, 1): header(700),
        (ORDERS, 2): header(None),
        (CLICKS, 0): header(50),
    }
    # It is not looked up again at once.
    assert reached.ms() == 0 and looks == [0]
    now_s += LOOK_S
    assert reached.ms() == 700 and looks == [0, 0]
