"""One stream of shop events for every contender of a bench: equal seeds, equal bytes; onto Kafka.

10,000 items by zipf, 70 % clicks and 30 % orders (5 % of them whole orders of 2 to 4 lines), epoch
milliseconds, 5 % duplicates of recent events, 2 % too late to count. The record timestamp is when
the shop sent it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher
from freshet.stream.units import HOUR_MS

START_MS = 1_767_225_600_000
ORDERS, WHOLE_ORDERS, DUPLICATES, LATE = 0.30, 0.05, 0.05, 0.02
RECENT, OUT_OF_ORDER_MS, TOO_LATE_MS = 2_000, 3_000, HOUR_MS
REGIONS = ("north", "south", "east")
CLICKS = ("view", "view", "view", "view", "view", "view", "cart", "favourite", "checkout")
ZIPF = 1.1

Kind = Literal["orders", "clicks"]


@dataclass(frozen=True, slots=True)
class ShopLog:
    """What a log of events is made of.

    Attributes:
        events: Records on both topics together.
        items: Different series, sku and region together.
        rate: Events a second, in event time.
        rfc_3339: Times as text instead of epoch milliseconds.
    """

    events: int
    items: int = 10_000
    rate: int = 5_000
    seed: int = 1
    rfc_3339: bool = False

    def records(self) -> Iterator[tuple[Kind, bytes, bytes, int]]:
        """(kind, key, value, timestamp_ms) in the order of the log."""
        dice = np.random.default_rng(self.seed)
        recent: list[tuple[Kind, bytes, bytes]] = []
        for start in range(0, self.events, 100_000):
            yield from self._block(dice, start, min(100_000, self.events - start), recent)

    def _block(
        self,
        dice: np.random.Generator,
        start: int,
        count: int,
        recent: list[tuple[Kind, bytes, bytes]],
    ) -> Iterator[tuple[Kind, bytes, bytes, int]]:
        sent_ms = START_MS + (np.arange(start, start + count) * 1_000) // self.rate
        late = dice.random(count) < LATE
        time_ms = sent_ms - np.where(late, TOO_LATE_MS, dice.integers(0, OUT_OF_ORDER_MS, count))
        items = zipf(dice, self.items, 4 * count).reshape(count, 4).tolist()
        order = (dice.random(count) < ORDERS).tolist()
        lines = np.where(dice.random(count) < WHOLE_ORDERS, dice.integers(2, 5, count), 1).tolist()
        repeats = dice.random(count) < DUPLICATES
        repeat = np.where(repeats, dice.integers(1, RECENT + 1, count), 0).tolist()
        salt = dice.integers(0, 2**62, count).tolist()
        cents = dice.integers(100, 9_000, count).tolist()
        times = self._times(time_ms)
        for n, at_ms in enumerate(sent_ms.tolist()):
            if repeat[n] and len(recent) >= repeat[n]:
                kind, key, value = recent[-repeat[n]]
            elif order[n]:
                kind = "orders"
                key, value = _order(salt[n], times[n], items[n][: lines[n]], cents[n])
            else:
                kind = "clicks"
                key, value = _click(salt[n], times[n], items[n][0])
            recent.append((kind, key, value))
            if len(recent) > 2 * RECENT:
                del recent[:RECENT]
            yield kind, key, value, at_ms

    def _times(self, time_ms: Ints) -> list[str]:
        if self.rfc_3339:
            return [
                f'"{text}Z"'
                for text in np.datetime_as_string(time_ms.astype("datetime64[ms]")).tolist()
            ]
        return list(map(str, time_ms.tolist()))


def zipf(dice: np.random.Generator, items: int, count: int) -> Ints:
    """Ranks below `items`, the first the most frequent."""
    weight = np.arange(1, items + 1) ** -ZIPF
    return np.searchsorted(np.cumsum(weight) / weight.sum(), dice.random(count)).clip(0, items - 1)


def _place(item: int) -> str:
    return f'"sku":"sku-{item // len(REGIONS):06d}","region":"{REGIONS[item % len(REGIONS)]}"'


def _click(salt: int, time: str, item: int) -> tuple[bytes, bytes]:
    kind = CLICKS[salt % len(CLICKS)]
    head = f'"event_id":"c-{salt:016x}","session_id":"s-{salt % 2**40:010x}","event_time":{time}'
    return (
        f"sku-{item // len(REGIONS):06d}".encode(),
        f'{{{head},{_place(item)},"kind":"{kind}"}}'.encode(),
    )


def _order(salt: int, time: str, items: list[int], cents: int) -> tuple[bytes, bytes]:
    head = f'"event_id":"o-{salt:016x}","order_id":"{salt % 2**40:010x}","event_time":{time}'
    lines = [
        f'{_place(item)},"quantity":{1 + (salt + item) % 3},"unit_price":{cents / 100}'
        for item in items
    ]
    key = f"sku-{items[0] // len(REGIONS):06d}".encode()
    if len(lines) == 1:
        return key, f"{{{head},{lines[0]}}}".encode()
    return key, f'{{{head},"lines":[{",".join(f"{{{line}}}" for line in lines)}]}}'.encode()


@dataclass(frozen=True, slots=True)
class ChangingOrders:
    """A log of orders that say what they are: two new orders, then a change of an earlier one.

    Attributes:
        events: Records.
        items: Different series.
        rate: Records a second, in event time.
    """

    events: int
    items: int = 10_000
    rate: int = 5_000
    seed: int = 1

    def records(self) -> Iterator[tuple[bytes, bytes, int]]:
        """(key, value, timestamp_ms): every third one is a version of an order of the last hour."""
        dice = np.random.default_rng(self.seed)
        items = zipf(dice, self.items, 3 * self.events).reshape(-1, 3).tolist()
        back = dice.integers(1, HOUR_MS * self.rate // 1_000, self.events).tolist()
        for n in range(self.events):
            number = max(0, n - back[n]) // 3 * 3 if n % 3 == 2 else n
            made_ms, now_ms = (START_MS + each * 1_000 // self.rate for each in (number, n))
            head = f'"order_id":"{number:012d}","version":{n},"event_time":{made_ms}'
            lines = [
                f'{_place(item)},"quantity":{1 + (n + item) % 3},"unit_price":{item % 90 + 0.99}'
                for item in items[number][: 1 + number % 3]
            ]
            whole = ",".join(f"{{{line}}}" for line in lines)
            value = f'{{{head},"changed_at":{now_ms},"lines":[{whole}]}}'
            yield b"%012d" % number, value.encode(), now_ms


def publish(log: ShopLog, settings: Settings, **over: Any) -> dict[Kind, int]:
    """Send the whole log to the event topics by key; how many records each got."""
    topics: dict[Kind, str] = {
        "orders": settings.kafka.topics.orders,
        "clicks": settings.kafka.topics.clicks,
    }
    sent: dict[Kind, int] = {"orders": 0, "clicks": 0}
    with Publisher(settings, **over) as publisher:
        for kind, key, value, timestamp_ms in log.records():
            publisher.produce(topics[kind], value, key=key, timestamp_ms=timestamp_ms)
            sent[kind] += 1
        publisher.flush()
    return sent
