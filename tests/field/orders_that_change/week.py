"""A week of a shop's orders as its webhooks tell them, and what was sold by a plain recount.

Orders are edited, partly refunded, cancelled and opened again. Each change sends the whole order;
messages overtake each other by minutes, and some are sent twice.
"""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 3, 23, tzinfo=ZONE).astimezone(UTC)  # On its Sunday clocks go forward.
DAYS = [date(2026, 3, 23 + n) for n in range(7)]
NUM_PARTITIONS = 3
PRICES = {"TEE-S": "19.99", "TEE-M": "19.99", "TEE-L": "21.50", "MUG": "8.00", "CAP": "12.25"}


@dataclass
class Order:
    """An order as the shop has it."""

    number: int
    created: datetime
    basket: dict[str, int]
    cancelled: datetime | None = None

    def message(self, updated: datetime) -> bytes:
        """The whole order, as it is sent when it changes."""
        lines = [
            {"id": n, "sku": sku, "current_quantity": quantity, "price": PRICES[sku]}
            for n, (sku, quantity) in enumerate(self.basket.items())
        ]
        order = {
            "id": self.number,
            "created_at": _told(self.created),
            "updated_at": _told(updated),
            "cancelled_at": self.cancelled and _told(self.cancelled),
            "line_items": lines,
            "customer": {"id": 7, "note": None},
        }
        return json.dumps(order).encode()

    def change(self, draw: random.Random, now: datetime) -> None:
        """One thing that happens to an order."""
        sku = draw.choice(list(self.basket))
        kind = draw.choice(["more", "less", "less", "other", "take out", "cancel", "open"])
        if kind == "more":
            self.basket[draw.choice(list(PRICES))] = draw.randint(1, 5)
        elif kind == "less":
            self.basket[sku] = max(0, self.basket[sku] - 1)
        elif kind == "other":
            self.basket[draw.choice(list(PRICES))] = self.basket.pop(sku)
        elif kind == "take out":
            self.basket[sku] = 0
        else:
            self.cancelled = now if kind == "cancel" else None


def _told(moment: datetime) -> str:
    """A time on the shop's own clock."""
    return moment.astimezone(ZONE).isoformat()


@dataclass(frozen=True)
class Sent:
    """A message: where and when it is sent, and what it says in plain words."""

    partition: int
    sent: datetime
    number: int
    updated: datetime
    value: bytes
    sold: dict[str, int] = field(compare=False)

    @property
    def key(self) -> bytes:
        return str(self.number).encode()

    @property
    def timestamp_ms(self) -> int:
        return round(self.sent.timestamp() * 1_000)


def week(seed: int, num_orders: int = 900) -> list[list[Sent]]:
    """The log of each partition."""
    draw = random.Random(seed)
    messages = [one for number in range(num_orders) for one in _story(draw, number)]
    messages.sort(key=lambda one: one.sent)
    return [[one for one in messages if one.partition == n] for n in range(NUM_PARTITIONS)]


def _story(draw: random.Random, number: int) -> Iterator[Sent]:
    """All messages of one order."""
    now = MONDAY + timedelta(seconds=draw.randrange(6 * 86_400))
    skus = draw.sample(list(PRICES), draw.randint(1, 3))
    order = Order(number, now, {sku: draw.randint(1, 4) for sku in skus})
    for _ in range(1 + min(draw.choice([0, 0, 1, 2, 3, 6]), 6)):
        sold = {} if order.cancelled else {sku: n for sku, n in order.basket.items() if n}
        for _ in range(1 + (draw.random() < 0.08)):
            sent = now + timedelta(seconds=draw.choice([0, 1, 2, draw.randrange(600)]))
            partition = zlib.crc32(str(number).encode()) % NUM_PARTITIONS
            yield Sent(partition, sent, number, now, order.message(now), sold)
        now += timedelta(seconds=draw.choice([20, 120, draw.randrange(3_600), 90_000]))
        order.change(draw, now)


# The plain recount --------------------------------------------------------------------------------


def counted(log: Iterable[Sent]) -> list[Sent]:
    """Messages that are newer than all of their order before them."""
    newest: dict[int, datetime] = {}
    found = []
    for one in log:
        if one.number not in newest or one.updated > newest[one.number]:
            newest[one.number] = one.updated
            found.append(one)
    return found


def sold_by_the_end_of(day: date, logs: Iterable[Iterable[Sent]]) -> dict[str, int]:
    """What all orders hold as of a day's end, by item."""
    states: dict[int, dict[str, int]] = {}
    for log in logs:
        for one in counted(log):
            if one.updated.astimezone(ZONE).date() <= day:
                states[one.number] = one.sold
    total: Counter[str] = Counter()
    for sold in states.values():
        total.update(sold)
    return {sku: quantity for sku, quantity in total.items() if quantity}


def day_number(day: date) -> int:
    """Days since 1970."""
    return day.toordinal() - date(1970, 1, 1).toordinal()
