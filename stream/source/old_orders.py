"""Rows of a table as records of history: with our own fields, whatever the topic's map says.

Where the topic's orders have several lines, or say what an order is, rows of one order are one
record. Of a state it is the version 0, older than whatever a live record says of the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.event_settings import EventSettings
from freshet.stream.source.replay.rows import ORDER, FileEvents

OWN_FIELDS: Final = (("freshet-fields", b"own"),)
"""The header of a record that has our own fields."""

Record = tuple[bytes, bytes]
"""Key and value."""


def holds_whole_orders(events: EventSettings) -> bool:
    """Whether one record of the orders topic is a whole order."""
    return events.orders.mode == "state" or "lines" in events.fields_of("orders")


def whole_orders(rows: FileEvents, events: EventSettings, name: str) -> Iterator[Record]:
    """Each order of a file once, at its first row.

    Raises:
        InvalidInputError: Nothing says which rows are one order, or rows are clicks.
    """
    if rows.order_id is None:
        raise InvalidInputError(
            f"{name}: a record of the orders topic is a whole order, and no column says which "
            "rows are one",
            hint="--map order_id=COLUMN, with the ids that live records have",
        )
    if (rows.kind != ORDER).any():
        raise InvalidInputError(
            f"{name}: rows of clicks and whole orders are in one file", hint="load them apart"
        )
    state = events.orders.mode == "state"
    for order_id, own in _groups(rows):
        value: dict[str, Any] = {"order_id": order_id, "event_time": int(rows.time_ms[own[0]])}
        if state:
            value |= {"version": 0, "changed_at": value["event_time"]}
        else:
            value["event_id"] = order_id
        region = rows.region.names[rows.region.codes[own[0]]]
        lines = [
            {
                "sku": rows.sku.names[rows.sku.codes[row]],
                **{name: one.names[one.codes[row]] for name, one in rows.series.items()},
                "quantity": float(rows.quantity[row]),
                "unit_price": float(rows.unit_price[row]),
            }
            for row in own.tolist()
        ]
        yield order_id.encode(), msgspec.json.encode({**value, "region": region, "lines": lines})


def _groups(rows: FileEvents) -> Iterator[tuple[str, Ints]]:
    """The rows of each order, orders by their first row."""
    assert rows.order_id is not None
    codes, first, inverse = np.unique(rows.order_id.codes, return_index=True, return_inverse=True)
    place = np.empty(len(codes), np.int64)
    place[np.argsort(first)] = np.arange(len(codes))
    of_row = place[inverse]
    order = np.argsort(of_row, kind="stable")
    ends = np.flatnonzero(np.diff(of_row[order])) + 1
    for own in np.split(order, ends):
        yield rows.order_id.names[rows.order_id.codes[own[0]]], own
