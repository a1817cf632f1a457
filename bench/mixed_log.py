"""Records of a shop as they come, each with what must become of it: orders, clicks, old orders.

Orders are flat or nested under one map, some gzipped or behind a byte order mark, some refunds,
some with lines that cannot be used; clicks are Avro. Between them lie page views, tombstones, junk,
repeats, late events and events from the future. What should be in the books and in the days is
counted here, as records are made, by nothing but what was meant.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import fastavro

from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.integration.messy_log import MessyRecord

START_MS: Final = 1_772_407_800_000  # 2026-03-01, half an hour before midnight
STEP_MS: Final = 6_000
REPEATS_MS: Final = 4 * MINUTE_MS  # So soon that the watermark is not past the first one
HISTORY_DAYS: Final = 40
SKUS: Final = [f"sku-{number}" for number in range(60)]
REGIONS: Final = ("north", "south", "web")
QUANTITIES: Final = (1, 2, 3, 5, 2.5)
PRICES: Final = ("12.50", "4.99", "1299.00", "0.75")
ZONE: Final = timezone(timedelta(hours=2))
SCHEMA_ID, UNKNOWN_ID = 17, 99
CLICK: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "session", "type": "long"},
        {"name": "kind", "type": "string"},
        {"name": "sku", "type": ["null", "string"]},
        {"name": "shop", "type": {"type": "enum", "name": "Shop", "symbols": list(REGIONS)}},
    ],
}
WORDS: Final = {"view_item": "views", "add_to_cart": "carts", "begin_checkout": "checkouts"}
JUNK: Final = (
    *(b"\xff\xfe", b"{", b"", b"[]", b'"text"', b"7", b"[" * 1_000, b'{"type": "page_view"'),
    *(b"\x00\x00\x00\x00\x07record", b"\x1f\x8bno gzip", b'{"event_id": 3}', b'{"order": []}'),
    b'{"event_id":"n","event_time":1772409600000,"sku":"a","region":"web","quantity":NaN}',
    b'{"event_id":"z","event_time":1772409600000,"sku":"a","region":"web","quantity":0,'
    b'"unit_price":1}',
)
LINES_OF_NO_USE: Final = (
    {"amount": {"qty": 1, "each": "1.00"}},
    {"sku": "", "amount": {"qty": 1, "each": "1.00"}},
    {"sku": "tip", "amount": {"qty": 0, "each": "1.00"}},
    {"sku": "tip", "amount": {"qty": 1, "each": "free"}},
    {"sku": "discount", "amount": {"qty": 1, "each": "-5.00"}},
    "gift wrap",
)

Cell = tuple[int, str, str]
"""Day since 1970, item, and what is counted: `net` of units in thousandths, or a kind of click."""


@dataclass
class Expected:
    """What the books and the days should hold."""

    books: Counter[str] = field(default_factory=Counter)
    cells: Counter[Cell] = field(default_factory=Counter)

    def __iadd__(self, other: Expected) -> Expected:
        self.books.update(other.books)
        self.cells.update(other.cells)
        return self

    def add(self, time_ms: int, item_id: str, what: str, amount: int) -> None:
        """So much more on the day of a time."""
        self.cells[time_ms // DAY_MS, item_id, what] += amount


def thousandths(quantity: float) -> int:
    return round(quantity * 1_000)


@dataclass(frozen=True)
class Basket:
    """What somebody bought or gave back."""

    number: int
    time_ms: int
    region: str
    lines: tuple[tuple[str, float, str], ...]
    refund: bool = False
    useless: tuple[Any, ...] = ()

    def flat(self) -> dict[str, Any]:
        """One line, in names of our own."""
        ((sku, quantity, price),) = self.lines
        told = {"event_id": str(self.number), "event_time": self.time_ms, "region": self.region}
        told |= {"sku": sku, "quantity": str(quantity), "unit_price": float(price)}
        return told | ({"type": "refund"} if self.refund else {})

    def nested(self) -> dict[str, Any]:
        """As a web shop has it: ids are numbers, prices texts, times local."""
        lines = [self._line(n, *line) for n, line in enumerate(self.lines)]
        made = datetime.fromtimestamp(self.time_ms / 1_000, ZONE).isoformat()
        order = {"id": self.number, "placed_at": made, "note": None}
        kind = "refund" if self.refund else "sale"
        told = {"type": kind, "order": order, "shop": {"country": self.region}}
        return told | {"line_items": [*lines[:1], *self.useless, *lines[1:]]}

    def _line(self, place: int, sku: str, quantity: float, price: str) -> dict[str, Any]:
        amount = {"amount": {"qty": quantity, "each": price}, "id": place}
        return amount | ({"sku": sku} if place % 2 else {"sku": "", "variant": {"code": sku}})


def orders_map() -> dict[str, Any]:
    """The section `events.orders` that reads both spellings."""
    sign = {"path": "type", "words": {"refund": -1, "*": 1}, "default": 1}
    fields = {
        "event_id": ["event_id", "order.id"],
        "event_time": ["event_time", "order.placed_at"],
        "region": ["region", "shop.country"],
        "quantity": {"path": "quantity", "sign": sign},
        "lines": "line_items",
        "lines.sku": ["sku", "variant.code"],
        "lines.quantity": {"path": "amount.qty", "sign": sign},
        "lines.unit_price": {"path": "amount.each", "number": "1299.00"},
    }
    return {"skip_when": {"type": ["page_view", "ping"]}, "tombstones": "skip", "fields": fields}


def clicks_map() -> dict[str, Any]:
    """The section `events.clicks`."""
    words = {word: channel.removesuffix("s") for word, channel in WORDS.items()}
    fields = {"event_id": "id", "event_time": "at", "session_id": "session", "region": "shop"}
    fields |= {"kind": {"path": "kind", "words": words}}  # type: ignore[dict-item]
    skip = {"skip_when": {"kind": ["page_view", "scroll"]}, "tombstones": "skip"}
    return {"format": "avro", "fields": fields, **skip}


def dressed(rng: random.Random, told: dict[str, Any]) -> bytes:
    """JSON as it travels: as it is, gzipped, or behind a byte order mark."""
    value, luck = json.dumps(told).encode(), rng.random()
    if luck < 0.05:
        value = b"\xef\xbb\xbf" + value
    return gzip.compress(value, 1) if luck < 0.02 or luck > 0.95 else value


Make = Callable[[int, int], tuple[bytes | None, str]]
"""Of a number and a time: a record, and the name of its outcome in the books."""


@dataclass
class Topic(ABC):
    """The live records of one topic, in log order."""

    rng: random.Random
    name: str
    partitions: int
    expected: Expected = field(default_factory=Expected)
    _sent: dict[int, deque[tuple[int, Any]]] = field(default_factory=lambda: defaultdict(deque))
    _partition: int = 0

    def record(self, number: int, now_ms: int) -> MessyRecord:
        """The next record."""
        self._partition = self.rng.randrange(self.partitions)
        makes = self._kinds()
        (make,) = self.rng.choices(list(makes), list(makes.values()))
        value, outcome = make(number, now_ms)
        self.expected.books["read"] += 1
        self.expected.books[outcome] += 1
        return MessyRecord(self.name, self._partition, value, now_ms)

    @abstractmethod
    def _kinds(self) -> dict[Make, float]:
        """What makes each kind of record, and how often it comes."""

    def _remember(self, now_ms: int, what: Any) -> None:
        self._sent[self._partition].append((now_ms, what))

    def _lately(self, now_ms: int) -> Any | None:
        """Something that this partition has had within the last minutes."""
        sent = self._sent[self._partition]
        while sent and sent[0][0] < now_ms - REPEATS_MS:
            sent.popleft()
        return self.rng.choice(sent)[1] if sent else None

    def _soon(self, now_ms: int) -> int:
        """A time by a clock that is up to ten minutes behind."""
        return max(START_MS, now_ms - self.rng.randrange(10) * self.rng.randrange(MINUTE_MS))

    def _tombstone(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        return None, "skipped"


class Orders(Topic):
    """Orders that are events."""

    def _kinds(self) -> dict[Make, float]:
        usual = {self._good: 76.0, self._again: 4, self._otherwise: 2, self._late: 2}
        odd = {self._ahead: 1, self._useless: 1, self._page_view: 6, self._tombstone: 3}
        return usual | odd | {self._junk: 5}

    def basket(self, number: int, time_ms: int) -> Basket:
        """One or more lines, now and then with some of no use between them."""
        skus = self.rng.sample(SKUS, self.rng.choice((1, 1, 1, 2, 4)))
        pick = self.rng.choice
        lines = tuple((sku, pick(QUANTITIES), pick(PRICES)) for sku in skus)
        odd = self.rng.choices(LINES_OF_NO_USE, k=pick((1, 2))) if self.rng.random() < 0.06 else ()
        refund = self.rng.random() < 0.1
        return Basket(number, time_ms, pick(REGIONS), lines, refund, tuple(odd))

    def value(self, basket: Basket) -> bytes:
        flat = len(basket.lines) == 1 and not basket.useless and self.rng.random() < 0.7
        return dressed(self.rng, basket.flat() if flat else basket.nested())

    def count(self, basket: Basket) -> None:
        """It is applied."""
        self.expected.books["lines_dead"] += len(basket.useless)
        for sku, quantity, _ in basket.lines:
            net = -thousandths(quantity) if basket.refund else thousandths(quantity)
            self.expected.add(basket.time_ms, f"{sku}|{basket.region}", "net", net)

    def _good(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        basket = self.basket(number, self._soon(now_ms))
        self._remember(now_ms, basket)
        self.count(basket)
        return self.value(basket), "applied"

    def _again(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        """The same once more, perhaps spelled in the other way."""
        basket = self._lately(now_ms)
        if basket is None:
            return self._good(number, now_ms)
        return self.value(basket), "duplicate"

    def _otherwise(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        """The same event that says something else."""
        basket = self._lately(now_ms)
        if basket is None:
            return self._good(number, now_ms)
        self.expected.books["conflicting"] += 1
        sku, quantity, price = basket.lines[0]
        lines = ((sku, quantity + 1, price), *basket.lines[1:])
        return self.value(replace(basket, lines=lines)), "duplicate"

    def _late(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        return self.value(self.basket(number, now_ms - 3 * HOUR_MS)), "late_dropped"

    def _ahead(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        return self.value(self.basket(number, now_ms + 2 * HOUR_MS)), "dead_letter"

    def _useless(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        odd = tuple(self.rng.choices(LINES_OF_NO_USE, k=self.rng.randrange(3)))
        basket = Basket(number, now_ms, "web", (), useless=odd)
        return dressed(self.rng, basket.nested()), "dead_letter"

    def _page_view(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        told = {"type": self.rng.choice(("page_view", "ping")), "url": "/", "line_items": "none"}
        return dressed(self.rng, told), "skipped"

    def _junk(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        return self.rng.choice(JUNK), "dead_letter"


class Clicks(Topic):
    """Clicks in Avro, framed as a Schema Registry has them."""

    schema = fastavro.parse_schema(CLICK)

    def _kinds(self) -> dict[Make, float]:
        usual = {self._good: 77.0, self._again: 5, self._late: 3, self._ahead: 1}
        return usual | {self._page_view: 8, self._tombstone: 2, self._junk: 4}

    def _value(self, number: int, time_ms: int, **over: Any) -> bytes:
        at, pick = datetime.fromtimestamp(time_ms / 1_000, UTC), self.rng.choice
        click = {"id": f"c{number}", "at": at, "session": number // 5, "kind": pick(list(WORDS))}
        click |= {"sku": pick(SKUS), "shop": pick(REGIONS), **over}
        out = io.BytesIO(b"\0" + SCHEMA_ID.to_bytes(4, "big"))
        out.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(out, self.schema, click)
        return out.getvalue()

    def _good(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        time_ms, sku, shop = self._soon(now_ms), self.rng.choice(SKUS), self.rng.choice(REGIONS)
        kind = self.rng.choice(list(WORDS))
        self.expected.add(time_ms, f"{sku}|{shop}", WORDS[kind], 1)
        value = self._value(number, time_ms, sku=sku, shop=shop, kind=kind)
        self._remember(now_ms, value)
        return value, "applied"

    def _again(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        value = self._lately(now_ms)
        return self._good(number, now_ms) if value is None else (value, "duplicate")

    def _late(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        return self._value(number, now_ms - 3 * HOUR_MS), "late_dropped"

    def _ahead(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        return self._value(number, now_ms + 2 * HOUR_MS), "dead_letter"

    def _page_view(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        kind = self.rng.choice(("page_view", "scroll"))
        return self._value(number, now_ms, kind=kind, sku=None), "skipped"

    def _junk(self, number: int, now_ms: int) -> tuple[bytes | None, str]:
        """Without an item, of an unknown kind or schema, cut off, or no Avro at all."""
        value = self._value(number, now_ms)
        foreign = b"\0" + UNKNOWN_ID.to_bytes(4, "big") + value[5:]
        odd = (self._value(number, now_ms, sku=None), self._value(number, now_ms, kind="hover"))
        return self.rng.choice((*odd, foreign, value[:7], b'{"id": "c"}', b"")), "dead_letter"


ARRIVALS: Final = ("by_time", "by_item", "shuffled")


def history(orders: Orders, first: int, count: int, arrival: str) -> tuple[list[bytes], Expected]:
    """Old orders, one a line, in one order of arrival, and what they come to."""
    old = Orders(orders.rng, orders.name, orders.partitions)
    span_ms, rng = HISTORY_DAYS * DAY_MS, orders.rng
    numbers = range(first, first + count)
    times = sorted(START_MS - 1 - rng.randrange(span_ms) for _ in numbers)
    baskets = [old.basket(number, at_ms) for number, at_ms in zip(numbers, times, strict=True)]
    if arrival == "by_item":
        baskets.sort(key=lambda basket: (basket.lines[0][0], -basket.time_ms))
    elif arrival == "shuffled":
        rng.shuffle(baskets)
    return [_old_line(old, basket) for basket in baskets], old.expected


def _old_line(old: Orders, basket: Basket) -> bytes:
    """Mostly the order; now and then what is none."""
    luck, books = old.rng.random(), old.expected.books
    books["read"] += 1
    if luck < 0.03:
        books["dead_letter"] += 1
        return old.rng.choice((b"{", b"[]", b'{"event_id": 3}', b"no json"))
    if luck < 0.07:
        books["skipped"] += 1
        return b'{"type": "page_view"}'
    books["applied"] += 1
    old.count(basket)
    return json.dumps(basket.nested()).encode()
