"""The states of orders as Redis keeps them, against those that were told again from the log."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from freshet.stream.config import Settings
from freshet.stream.store.connection import translated
from freshet.stream.store.layout import Header, Keys
from freshet.stream.store.redis import WindowStore
from freshet.stream.telemetry import get_logger
from freshet.stream.units import DAY_MS
from freshet.stream.verify.orders import Place, State
from freshet.stream.verify.report import Difference, PartitionReport, Report

MAX_ORDERS = 2_000_000
MAX_TRIES = 3

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredOrders:
    """The states of a partition's orders at one offset; those that nobody asks for are left out."""

    offset: int
    watermark_ms: int
    states: dict[Place, State]


def read_orders(
    client: Any, store: WindowStore, keys: Keys, settings: Settings
) -> StoredOrders | None:
    """What is stored of each order; None where there are too many, or where they do not hold still.

    It is read day by day and not at once, so that nobody waits for it.

    Raises:
        StoreError: Redis cannot be read.
    """
    with translated(client):
        for _ in range(MAX_TRIES):
            before = Header.parse(client.hgetall(keys.header))
            item_ids = store.dictionary(keys.topic, keys.partition, before.items)
            found = _states(client, keys, before, item_ids, settings)
            after = Header.parse(client.hgetall(keys.header))
            if found is None or before.next_offset == after.next_offset:
                return found
    return None


def _states(
    client: Any, keys: Keys, header: Header, item_ids: Sequence[str], settings: Settings
) -> StoredOrders | None:
    watermark_ms = (header.frontier_ms or 0) - settings.windows.out_of_order_ms
    keep_ms = settings.events.orders.keep_ms
    states: dict[Place, State] = {}
    for name in client.zrange(keys.retained, 0, -1):
        kind, _, day = name.decode().partition(":")
        if kind != "o":
            continue
        for order_hash, data in client.hgetall(keys.orders(int(day))).items():
            (number, kept_day), *rows = struct.iter_unpack("<qI", data)
            if (kept_day + 1) * DAY_MS + keep_ms <= watermark_ms:
                continue
            quantities = {_item(item_ids, slot): quantity for quantity, slot in rows}
            place = int(day), int.from_bytes(order_hash, "little")
            states[place] = State(number, kept_day, quantities)
        if len(states) > MAX_ORDERS:
            log.info("orders_not_compared", topic=keys.topic, partition=keys.partition)
            return None
    return StoredOrders(header.next_offset or 0, watermark_ms, states)


def _item(item_ids: Sequence[str], slot: int) -> str:
    return item_ids[slot] if slot < len(item_ids) else f"(no item in slot {slot})"


def compare_orders(
    stored: StoredOrders, told: dict[Place, State], part: PartitionReport, report: Report
) -> None:
    """Every order that is not as it was told goes into the report."""
    for place in sorted(stored.states.keys() | told.keys()):
        found, expected = stored.states.get(place), told.get(place)
        if found != expected:
            day, order_hash = place
            what = f"the order with the hash {order_hash:016x} of day {day}"
            where = (part.topic, part.partition)
            report.note(part, Difference(*where, what, _text(found), _text(expected)))


def _text(state: State | None) -> str | None:
    if state is None:
        return None
    held = ", ".join(f"{n} {item}" for item, n in sorted(state.quantities.items()))
    number = f"{state.number // 2}{', given back,' if state.number % 2 else ''}"
    return f"version {number} of {held or 'nothing'}, kept from day {state.kept_day}"
