"""Orders that say what they are, told again: a dictionary of what is known, one version at a time.

It is written from the rules, not from the code that folds. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Any, Literal, NamedTuple

import xxhash

from freshet.stream.units import DAY_MS

Outcome = Literal["new", "same", "conflicting", "older", "forgotten"]


Place = tuple[int, int]
"""The day on which an order was made, since 1970, and the xxh3-64 of its id."""


class State(NamedTuple):
    """What is known of an order: its version, the day from which it is kept, its thousandths."""

    number: int
    kept_day: int
    quantities: dict[str, int]


@dataclass(frozen=True, slots=True)
class OrderVersion:
    """What a record says of an order: thousandths and their worth, by item.

    The worth is the sum of thousandths times ten-thousandths of money over the item's lines.
    """

    order_id: str
    number: int
    created_ms: int
    items: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Known:
    """An order as the last version that counted left it, and until which watermark it is known."""

    number: int
    until_ms: int
    quantities: dict[str, int]


@dataclass(slots=True)
class Orders:
    """The orders of one partition.

    Args:
        keep_ms: How long after the end of the day on which it was made an order is known.
    """

    keep_ms: int
    _known: dict[tuple[str, int], Known] = field(default_factory=dict)

    def judge(self, version: OrderVersion, watermark_ms: int | None, *, patient: bool) -> Outcome:
        """What a version is; `patient` says that it is history."""
        known = self._of(version, watermark_ms)
        if known is None:
            made_long_ago = (
                watermark_ms is not None and version.created_ms + self.keep_ms < watermark_ms
            )
            return "forgotten" if made_long_ago and not patient else "new"
        if version.number > known.number:
            return "new"
        if version.number < known.number:
            return "older"
        quantities = {item_id: quantity for item_id, (quantity, _) in version.items.items()}
        return "same" if quantities == known.quantities else "conflicting"

    def knows(self, version: OrderVersion, watermark_ms: int | None) -> bool:
        """Whether an earlier version of the order counted, and is kept."""
        return self._of(version, watermark_ms) is not None

    def change(
        self, version: OrderVersion, watermark_ms: int | None, *, patient: bool
    ) -> dict[str, dict[str, int]]:
        """Amounts by item and channel that a new version adds; it is known from now on."""
        known = self._of(version, watermark_ms)
        before = {} if known is None else known.quantities
        amounts = {}
        for item_id in {**before, **version.items}:
            quantity, worth = version.items.get(item_id, (0, 0))
            change = quantity - before.get(item_id, 0)
            if change > 0:
                amount = Fraction(change * worth, quantity * 1_000)
                amounts[item_id] = {"units": change}
                if amount >= Fraction(1, 2):
                    amounts[item_id]["revenue"] = floor(amount + Fraction(1, 2))
                if item_id not in before:
                    amounts[item_id]["orders"] = 1
            elif change < 0:
                amounts[item_id] = {"returns": -change}
        days = [version.created_ms // DAY_MS]
        old = watermark_ms is not None and version.created_ms + self.keep_ms < watermark_ms
        if old and patient and watermark_ms is not None:
            days.append(watermark_ms // DAY_MS)
        until_ms = (max(days) + 1) * DAY_MS + self.keep_ms
        if known is not None:
            until_ms = max(until_ms, known.until_ms)
        quantities = {item_id: quantity for item_id, (quantity, _) in version.items.items()}
        self._known[self._name(version)] = Known(version.number, until_ms, quantities)
        return amounts

    def forget(self, watermark_ms: int) -> None:
        """Free what no version can meet any more."""
        live = {name: known for name, known in self._known.items() if known.until_ms > watermark_ms}
        self._known = live

    def states(self, watermark_ms: int) -> dict[Place, State]:
        """What is known of each order, by the day on which it was made and the hash of its id."""
        return {
            (day, xxhash.xxh3_64_intdigest(order_id.encode())): State(
                known.number, (known.until_ms - self.keep_ms) // DAY_MS - 1, known.quantities
            )
            for (order_id, day), known in self._known.items()
            if known.until_ms > watermark_ms
        }

    def _of(self, version: OrderVersion, watermark_ms: int | None) -> Known | None:
        known = self._known.get(self._name(version))
        if known is None or (watermark_ms is not None and known.until_ms <= watermark_ms):
            return None
        return known

    def _name(self, version: OrderVersion) -> tuple[str, int]:
        return version.order_id, version.created_ms // DAY_MS


def key_is(order_id: str, key: bytes | None) -> bool:
    """Whether a record's key is the order's id: the text itself, or JSON of which it is the value.

    >>> key_is("7", b"7"), key_is("7", b'{"id": 7}'), key_is("7", b'{"id": 8}'), key_is("7", None)
    (True, True, False, False)
    """
    if key is None:
        return False
    if key == order_id.encode():
        return True
    try:
        value: Any = json.loads(key)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, dict) and sorted(value) == ["payload", "schema"]:
        value = value["payload"]
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    if isinstance(value, float):
        return value.is_integer() and str(int(value)) == order_id
    return str(value) == order_id
