"""A messy log: some records disordered, late, repeated, from the future, or broken."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher
from freshet.stream.units import DAY_MS

START_MS = 1_767_225_600_000
STEP_MS = 4_000
SKUS = [f"sku-{number}" for number in range(12)]
KINDS = ("view", "cart", "favourite", "checkout")
BROKEN = (b"\xff\xfe", b"{", None, b'{"event_id": 3}', b"[" * 1_000, b"1" * 3_000)

Odd = Callable[[random.Random], bytes | None]


def order_value(rng: random.Random, number: int, event_time_ms: int) -> bytes:
    event: dict[str, Any] = {
        "event_id": f"o{number}",
        "order_id": f"r{number}",
        "event_time": event_time_ms,
    }
    if rng.random() < 0.3:
        event["region"] = "north"
        event["lines"] = [_line(rng) for _ in range(rng.randint(1, 4))]
    else:
        quantity = -rng.randint(1, 3) if rng.random() < 0.1 else rng.randint(1, 9)
        event |= {"sku": rng.choice(SKUS), "region": "south"}
        event |= {"quantity": quantity, "unit_price": 4.99}
    return json.dumps(event).encode()


def state_value(rng: random.Random, number: int, changed_ms: int) -> bytes:
    """A version of one of the newest orders, which was made when its own number was drawn."""
    order = max(0, number - rng.randrange(40))
    event: dict[str, Any] = {
        "order_id": f"r{order}",
        "version": number,
        "event_time": START_MS + order * STEP_MS - 3_600_000,
        "changed_at": changed_ms,
        "region": "south",
        "lines": [_line(rng) for _ in range(rng.randrange(4))],
        "cancelled": rng.random() < 0.1,
    }
    return json.dumps(event).encode()


def _line(rng: random.Random) -> dict[str, Any]:
    return {
        "sku": rng.choice(SKUS),
        "quantity": rng.randint(1, 5),
        "unit_price": rng.choice((2.5, 9.99)),
    }


def click_value(rng: random.Random, number: int, event_time_ms: int) -> bytes:
    event = {
        "event_id": f"c{number}",
        "session_id": "s",
        "sku": rng.choice(SKUS),
        "region": "south",
        "event_time": event_time_ms,
        "kind": rng.choice(KINDS),
    }
    return json.dumps(event).encode()


@dataclass(frozen=True)
class MessyRecord:
    """One record, and where and when it is sent."""

    topic: str
    partition: int
    value: bytes | None
    timestamp_ms: int
    key: bytes = b"k"
    history: bytes | None = None


def publish(settings: Settings, records: Iterable[MessyRecord]) -> None:
    """Send records; returns when all are acknowledged."""
    with Publisher(settings) as publisher:
        for record in records:
            publisher.produce(
                record.topic,
                record.value,
                key=record.key,
                partition=record.partition,
                timestamp_ms=record.timestamp_ms,
                headers=[("freshet-history", record.history)] if record.history else None,
            )
        publisher.flush()


@dataclass
class MessyLog:
    """Draws records of both event topics, one after the other.

    Args:
        settings: Names of the topics.
        rng: What is drawn.
        partitions: Each record goes to one of these; one named twice gets twice as many.
        states: Whether orders say what they are, each on a partition of its own choice.
        history: Whether old records are loaded among the others, some of them twice.
    """

    settings: Settings
    rng: random.Random
    partitions: Sequence[int]
    states: bool = False
    history: bool = False
    _number: int = 0
    _loaded: list[MessyRecord] = field(default_factory=list)
    _sent: dict[tuple[str, int], list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def record(self, odd: Odd | None = None) -> MessyRecord:
        """The next record; half of them are what `odd` draws, where it is given."""
        if self.history and self.rng.random() < 0.2:
            return self._old()
        return self._live(odd)

    def completes(self) -> list[MessyRecord]:
        """What says to every partition that history is all there."""
        topics = self.settings.kafka.topics
        return [
            MessyRecord(topic, partition, b"", START_MS, history=b"old:complete")
            for topic in (topics.orders, topics.clicks)
            for partition in sorted(set(self.partitions))
        ]

    def _old(self) -> MessyRecord:
        """An old record, or one that was sent before: its load was cut off and run again."""
        if self._loaded and self.rng.random() < 0.3:
            return self.rng.choice(self._loaded[-50:])
        record = self._live(None)
        topics, old_ms = self.settings.kafka.topics, START_MS - self.rng.randrange(20 * DAY_MS)
        value = record.value
        if self.rng.random() < 0.95:
            make = order_value if record.topic == topics.orders else click_value
            if self.states and record.topic == topics.orders:
                make = state_value
            value = make(self.rng, self._number, old_ms)
        record = replace(record, value=value, history=b"old:%d" % self._number)
        if self.states and record.topic == topics.orders:
            record = self._keyed(record)
        self._loaded.append(record)
        return record

    def _live(self, odd: Odd | None) -> MessyRecord:
        topics = self.settings.kafka.topics
        topic = self.rng.choice((topics.orders, topics.clicks))
        partition = self.rng.choice(self.partitions)
        now_ms = START_MS + self._number * STEP_MS
        if self.states and topic == topics.orders:
            value = self._value(state_value, self._sent[topic, 0], now_ms, odd)
            record = self._keyed(MessyRecord(topic, partition, value, now_ms))
        else:
            make = order_value if topic == topics.orders else click_value
            value = self._value(make, self._sent[topic, partition], now_ms, odd)
            record = MessyRecord(topic, partition, value, now_ms)
        self._number += 1
        return record

    def _keyed(self, record: MessyRecord) -> MessyRecord:
        """Under its order's id, on the partition of that order; what is no order stays."""
        try:
            order_id = json.loads(record.value or b"")["order_id"]
            partition = self.partitions[int(order_id[1:]) % len(self.partitions)]
        except (ValueError, KeyError, TypeError, RecursionError):
            return record
        return replace(record, partition=partition, key=order_id.encode())

    def _value(
        self,
        make: Callable[[random.Random, int, int], bytes],
        sent: list[bytes],
        now_ms: int,
        odd: Odd | None,
    ) -> bytes | None:
        """A record of `now_ms`: a good one, which is added to `sent`, or not."""
        rng, number = self.rng, self._number
        luck = rng.random()
        if luck < 0.05 and sent:
            return rng.choice(sent[-400:])
        if luck < 0.08:
            return make(rng, number, now_ms - 3_000_000)
        if luck < 0.10:
            return make(rng, number, now_ms + 900_000)
        if luck < 0.13:
            return rng.choice(BROKEN)
        if odd is not None and luck < 0.6:
            return odd(rng)
        disorder_ms = rng.choice((0, 0, 700, 4_000, 60_000))
        value = make(rng, number, now_ms - disorder_ms)
        sent.append(value)
        return value
