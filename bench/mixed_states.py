"""Changes of a shop's table of orders as Debezium tells them, each with what must become of it.

Orders are made, edited, partly refunded, cancelled, opened again and deleted; versions overtake
each other, come twice, or once more with another content; between them lie snapshots, tombstones,
late changes, keys that are not the order's, and junk. What the days should hold is counted here
from what each order held before and after a version, in plain dictionaries.
"""

from __future__ import annotations

import base64
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from bench.mixed_log import PRICES, REGIONS, SKUS, START_MS, Expected, thousandths
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.integration.messy_log import MessyRecord

CONNECT: Final = {"type": "struct", "fields": [], "optional": False, "name": "shop.Envelope"}
LSN_STEP: Final = 10
SETTLED: Final = 30  # Records of a partition after which its watermark surely stands
JUNK: Final = (
    *(b"\xff\xfe", b"{", b"[]", b'"text"', b'{"op": "u"}', b'{"id": 4, "sku": "a"}'),
    *(b'{"op": "c", "after": null, "ts_ms": 1}', b"\x00\x00\x00\x00\x07record"),
    b'{"op": "d", "before": {"id": 1}, "source": {"lsn": 9}, "ts_ms": 1772409600000}',
)
NOTHING: Final = (None, b'{"op": "t", "source": {"lsn": 1}}', b'{"op": "m", "source": {"lsn": 1}}')


def states_map() -> dict[str, Any]:
    """The section `events.orders` of a table that Debezium follows."""
    quantity = {"path": "quantity", "minus": "refunded"}
    fields = {
        "order_id": "id",
        "event_time": {"path": "created_at", "time": "us"},
        "region": "warehouse",
        "cancelled": "cancelled_at",
        "quantity": quantity,
        "unit_price": "price",
        "lines": "items",
        "lines.quantity": quantity,
        "lines.unit_price": "price",
    }
    decimals = {"price": 2}
    return {"mode": "state", "envelope": "debezium", "decimals": decimals, "fields": fields}


@dataclass
class Line:
    """A line of an order."""

    sku: str
    quantity: float
    price: str
    refunded: float = 0

    def row(self) -> dict[str, Any]:
        return {"sku": self.sku, "quantity": self.quantity, "refunded": self.refunded}


@dataclass
class Order:
    """An order as its row is now."""

    number: int
    created_ms: int
    region: str
    lines: list[Line]
    flat: bool
    cancelled_ms: int | None = None
    deleted: bool = False

    def row(self) -> dict[str, Any]:
        """As the table has it: one line in its columns, or several in one."""
        made = {"created_at": self.created_ms * 1_000, "cancelled_at": self.cancelled_ms}
        told = {"id": self.number, "warehouse": self.region, **made}
        if not self.flat:
            return told | {"items": [{**line.row(), "price": line.price} for line in self.lines]}
        (line,) = self.lines
        cents = round(float(line.price) * 100)
        price = base64.b64encode(cents.to_bytes(cents.bit_length() // 8 + 1, "big", signed=True))
        return told | line.row() | {"price": price.decode()}

    def holds(self) -> dict[str, int]:
        """Thousandths by item."""
        found: dict[str, int] = defaultdict(int)
        if self.cancelled_ms is None and not self.deleted:
            for line in self.lines:
                item_id = f"{line.sku}|{self.region}"
                found[item_id] += thousandths(line.quantity) - thousandths(line.refunded)
        return {item_id: amount for item_id, amount in found.items() if amount}


Told = tuple[bytes | None, str]
"""A record, and the name of its outcome in the books."""


@dataclass
class States:
    """The log of a table's topic, order by order."""

    rng: random.Random
    name: str
    partitions: int
    expected: Expected = field(default_factory=Expected)
    _lsn: int = 1_000
    _orders: list[Order] = field(default_factory=list)
    _known: dict[int, tuple[int, dict[str, int]]] = field(default_factory=dict)
    _order: Order = field(init=False)
    _key: bytes | None = None

    def records(self, number: int, now_ms: int) -> Iterator[MessyRecord]:
        """What happens next; all of it to one order."""
        kinds = self._kinds() if len(self._orders) > SETTLED * self.partitions else {self._make: 1}
        (make,) = self.rng.choices(list(kinds), list(kinds.values()))
        self._order = self.rng.choice(self._orders) if self._orders else self._new(0, now_ms)
        for value, outcome in make(number, now_ms):
            key = self._key or self._usual_key()
            self._key = None
            self.expected.books["read"] += 1
            self.expected.books[outcome] += 1
            at = self._order.number % self.partitions
            yield MessyRecord(self.name, at, value, now_ms, key)

    def _kinds(self) -> dict[Callable[[int, int], Iterator[Told]], float]:
        usual = {self._make: 34.0, self._change: 26, self._delete: 5, self._snapshot: 4}
        odd = {self._overtaken: 4, self._repeat: 4, self._otherwise: 2, self._late: 2}
        bad = {self._ahead: 1, self._foreign_key: 1, self._bad: 2, self._ancient: 1}
        return usual | odd | bad | {self._nothing: 3, self._junk: 4}

    # What is sent ---------------------------------------------------------------------------------

    def _usual_key(self) -> bytes:
        """As Debezium writes it, with or without a schema, or as plain text."""
        told = {"id": self._order.number}
        luck = self.rng.random()
        if luck < 0.1:
            return json.dumps({"schema": CONNECT, "payload": told}).encode()
        return b"%d" % self._order.number if luck < 0.3 else json.dumps(told).encode()

    def _new(self, number: int, created_ms: int) -> Order:
        pick, flat = self.rng.choice, self.rng.random() < 0.4
        skus = self.rng.choices(SKUS, k=1 if flat else pick((1, 2, 3)))
        lines = [Line(sku, pick((1, 2, 3, 2.5)), pick(PRICES)) for sku in skus]
        return Order(number, created_ms, pick(REGIONS), lines, flat)

    def _envelope(self, op: str, now_ms: int, lsn: int, changed_ms: int) -> bytes:
        row = self._order.row()
        states = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
        source = {"connector": "postgresql", "lsn": lsn, "ts_ms": changed_ms, "table": "orders"}
        return json.dumps({**states, "op": op, "ts_ms": now_ms, "source": source}).encode()

    def _version(self, op: str, now_ms: int, lsn: int = 0, changed_ms: int = 0) -> Told:
        """What the order is now, judged by what was known of it."""
        if not lsn:
            self._lsn += LSN_STEP
        lsn = lsn or self._lsn
        changed_ms = changed_ms or now_ms - self.rng.randrange(5) * self.rng.randrange(MINUTE_MS)
        changed_ms = max(changed_ms, START_MS)
        value = self._envelope(op, now_ms, lsn, changed_ms)
        return value, self._judged(lsn, self._order.holds(), changed_ms)

    def _judged(self, lsn: int, holds: dict[str, int], changed_ms: int) -> str:
        known_lsn, before = self._known.get(self._order.number, (0, {}))
        if lsn <= known_lsn:
            self.expected.books["conflicting"] += lsn == known_lsn and holds != before
            return "duplicate"
        for item_id in {**before, **holds}:
            change = holds.get(item_id, 0) - before.get(item_id, 0)
            self.expected.add(changed_ms, item_id, "net", change)
        self._known[self._order.number] = lsn, holds
        return "applied"

    # What happens ---------------------------------------------------------------------------------

    def _make(self, number: int, now_ms: int) -> Iterator[Told]:
        """A new order, or one that a first snapshot finds."""
        snapshot = number < 100 or self.rng.random() < 0.05
        age_ms = self.rng.randrange(20 * DAY_MS) if snapshot else self.rng.randrange(MINUTE_MS)
        self._order = self._new(number, now_ms - age_ms)
        self._orders.append(self._order)
        changed_ms = max(self._order.created_ms, now_ms - MINUTE_MS)
        yield self._version("r" if snapshot else "c", now_ms, changed_ms=changed_ms)

    def _edit(self, now_ms: int) -> None:
        """One thing that happens to an order."""
        order, pick = self._order, self.rng.choice
        line = pick(order.lines)
        kind = pick(("more", "less", "refund", "refund", "other", "cancel", "open"))
        if kind == "more":
            line.quantity += pick((1, 2, 0.5))
        elif kind == "less":
            line.quantity = max(line.refunded, line.quantity - 1)
        elif kind == "refund":
            line.refunded = min(line.quantity, line.refunded + 1)
        elif kind == "other":
            line.sku = pick(SKUS)
        else:
            order.cancelled_ms = now_ms if kind == "cancel" else None

    def _change(self, number: int, now_ms: int) -> Iterator[Told]:
        self._edit(now_ms)
        yield self._version("u", now_ms)

    def _delete(self, number: int, now_ms: int) -> Iterator[Told]:
        self._order.deleted = True
        self._orders.remove(self._order)
        yield self._version("d", now_ms)
        yield None, "skipped"

    def _snapshot(self, number: int, now_ms: int) -> Iterator[Told]:
        """Told again, as it was, under a newer version."""
        yield self._version("r", now_ms)

    def _overtaken(self, number: int, now_ms: int) -> Iterator[Told]:
        """Of two changes the second comes first."""
        self._edit(now_ms)
        first = deepcopy(self._order)
        self._edit(now_ms)
        newest, self._lsn = self._order, self._lsn + 2 * LSN_STEP
        yield self._version("u", now_ms, self._lsn)
        self._order = first
        yield self._version("u", now_ms, self._lsn - LSN_STEP)
        self._order = newest

    def _known_lsn(self) -> int:
        return self._known[self._order.number][0]

    def _repeat(self, number: int, now_ms: int) -> Iterator[Told]:
        """The newest version once more."""
        yield self._version("u", now_ms, self._known_lsn())

    def _otherwise(self, number: int, now_ms: int) -> Iterator[Told]:
        """A version that is known, with another content; the order goes on without it."""
        newest, self._order = self._order, deepcopy(self._order)
        self._order.lines[0].quantity += 3
        yield self._version("u", now_ms, self._known_lsn())
        self._order = newest

    def _unseen(self, now_ms: int, changed_ms: int) -> bytes:
        """A newer version of which nothing must come; the order itself goes on without it."""
        self._order = deepcopy(self._order)
        self._edit(now_ms)
        self._lsn += LSN_STEP
        return self._envelope("u", now_ms, self._lsn, changed_ms)

    def _late(self, number: int, now_ms: int) -> Iterator[Told]:
        self._order = deepcopy(self._order)
        self._order.created_ms = min(self._order.created_ms, now_ms - 4 * HOUR_MS)
        yield self._unseen(now_ms, now_ms - 3 * HOUR_MS), "late_dropped"

    def _ahead(self, number: int, now_ms: int) -> Iterator[Told]:
        yield self._unseen(now_ms, now_ms + 2 * HOUR_MS), "dead_letter"

    def _foreign_key(self, number: int, now_ms: int) -> Iterator[Told]:
        self._key = self.rng.choice((b"k", b'{"id": -1}', b'{"id": 1, "shop": 2}'))
        yield self._unseen(now_ms, now_ms), "dead_letter"

    def _bad(self, number: int, now_ms: int) -> Iterator[Told]:
        """One line that cannot be used takes its version along; so does an order from tomorrow."""
        self._order = deepcopy(self._order)
        self._order.cancelled_ms = None
        line = self._order.lines[-1]
        if self.rng.random() < 0.3:
            self._order.created_ms = now_ms + DAY_MS
        elif self.rng.random() < 0.5:
            line.refunded = line.quantity + 1
        else:
            line.sku = ""
        yield self._unseen_as_is(now_ms), "dead_letter"

    def _unseen_as_is(self, now_ms: int) -> bytes:
        self._lsn += LSN_STEP
        return self._envelope("u", now_ms, self._lsn, now_ms)

    def _ancient(self, number: int, now_ms: int) -> Iterator[Told]:
        """An order that nobody knows, made before the time for which orders are kept."""
        self._order = self._new(number, now_ms - 90 * DAY_MS)
        yield self._unseen_as_is(now_ms), "late_dropped"

    def _nothing(self, number: int, now_ms: int) -> Iterator[Told]:
        yield self.rng.choice(NOTHING), "skipped"

    def _junk(self, number: int, now_ms: int) -> Iterator[Told]:
        yield self.rng.choice(JUNK), "dead_letter"
