"""What a demo sees from outside: log ends, books in Redis, output topics, the source's plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from freshet.online.demo import story
from freshet.online.demo.count import COUNTED_KINDS, Tally
from freshet.stream.codec import time_ms
from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import LogOffsets, TableReader, partitions_of
from freshet.stream.process import BackOff
from freshet.stream.schemas import DriftAlert, ModelEvent, Promotion, RetrainRequest
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import BESIDE, OUTCOMES
from freshet.stream.store.redis import WindowStore

MAX_POLLS_PER_LOOK = 20
MAX_LAST_READS = 1_000
LAST_WAIT_MS = 1_000
LEADERS_TIMEOUT_S = 30.0
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 1.0


class DemoWatcher:
    """Reads topics and Redis as any outsider could.

    Args:
        settings: Where the demo's broker and Redis are.
        speed: Clock milliseconds per wall millisecond.
        say: Takes one sentence for each thing that happened.
    """

    def __init__(self, settings: Settings, speed: float, say: Callable[[str], None]) -> None:
        names = settings.kafka.topics
        self._kinds = names.of(*COUNTED_KINDS, "promotions")
        self._settings = settings
        self._say = say
        self._reader = TableReader(settings, sorted(self._kinds))
        self._offsets = LogOffsets(settings)
        self._redis = connect(settings.redis)
        self._store = WindowStore(self._redis, settings.redis.generation)
        self.clock = open_clock(self._redis)
        self.tally = Tally(settings.main.resolution_ms, speed)
        self._sales: dict[str, Promotion] = {}
        self._running: set[str] = set()
        watched = self._partitions(names.orders, names.clicks, names.windows)
        ranges = self._ranges_of_new_topics(watched)
        self._starts = {partition: start for partition, (start, _) in ranges.items()}

    def _ranges_of_new_topics(
        self, partitions: list[tuple[str, int]]
    ) -> dict[tuple[str, int], tuple[int, int]]:
        """Offset ranges, asked again while partitions of new topics wait for their leaders."""
        deadline = time.monotonic() + LEADERS_TIMEOUT_S
        back_off = BackOff(FIRST_WAIT_S, LONGEST_WAIT_S)
        while True:
            try:
                return self._offsets.ranges(partitions)
            except BrokerError:
                if time.monotonic() > deadline:
                    raise
                back_off.pause()

    def look(self) -> None:
        """Count what has come since the last look; bounded, never waits long."""
        for _ in range(MAX_POLLS_PER_LOOK):
            if not self._read(max_wait_ms=10):
                break
        self._tell_sales()

    def _read(self, max_wait_ms: int) -> bool:
        """Count what comes next; False where nothing did in time."""
        records = self._reader.poll(max_wait_ms)
        for record in records:
            self._take(self._kinds[record.topic], record.value)
        return bool(records)

    def _take(self, kind: str, value: bytes | None) -> None:
        if kind == "promotions":
            self._plan_sale(value)
            return
        record = self.tally.count(kind, value)
        if isinstance(record, DriftAlert):
            self._say(story.of_drift(record))
        elif isinstance(record, RetrainRequest):
            self._say(story.of_request(record))
        elif isinstance(record, ModelEvent):
            self._say(story.of_model(record))

    def _plan_sale(self, value: bytes | None) -> None:
        promotion = msgspec.json.decode(value, type=Promotion) if value else None
        if promotion and promotion.flash_sale:
            self._sales[promotion.promotion_id] = promotion

    def _tell_sales(self) -> None:
        """Say of each known sale, once, that it starts and that it is over."""
        now_ms = self.clock.now_ms()
        for name, sale in list(self._sales.items()):
            starts_ms, ends_ms = time_ms(sale.starts_at), time_ms(sale.ends_at)
            if name not in self._running and starts_ms <= now_ms < ends_ms:
                self._running.add(name)
                self._say(story.of_promotion(sale, started=True))
            elif ends_ms <= now_ms:
                del self._sales[name]
                if name in self._running:
                    self._running.remove(name)
                    self._say(story.of_promotion(sale, started=False))

    def books(self) -> dict[str, int]:
        """The books of all partitions added up, as Redis holds them."""
        total = dict.fromkeys(("read", *OUTCOMES, *BESIDE), 0)
        for topic, partition in self._store.partitions():
            header = self._store.header(topic, partition)
            if header is not None:
                for name in total:
                    total[name] += getattr(header, name)
        return total

    def produced(self) -> int:
        """End less start offsets of the event topics, asked of the broker."""
        names = self._settings.kafka.topics
        return self._taken(names.orders, names.clicks)

    def updates(self) -> int:
        """How many notices the windows topic has taken."""
        return self._taken(self._settings.kafka.topics.windows)

    def items(self) -> int:
        """Distinct items in the dictionaries of all partitions."""
        found: set[str] = set()
        for topic, partition in self._store.partitions():
            header = self._store.header(topic, partition)
            if header is not None:
                found.update(self._store.dictionary(topic, partition, header.items))
        return len(found)

    def _taken(self, *topics: str) -> int:
        """Records ever taken by these topics since the demo began."""
        ranges = self._offsets.ranges(self._partitions(*topics))
        return sum(end - self._starts[partition] for partition, (_, end) in ranges.items())

    def _partitions(self, *topics: str) -> list[tuple[str, int]]:
        numbers = partitions_of(self._settings, topics)
        return [(topic, partition) for topic in topics for partition in range(numbers[topic])]

    def summary(self) -> dict[str, Any]:
        """Everything that `--summary` promises; call when nothing moves any more."""
        for _ in range(MAX_LAST_READS):
            if not self._read(max_wait_ms=LAST_WAIT_MS):
                break
        self._tell_sales()
        produced, books = self.produced(), self.books()
        read = books.pop("read")
        return {
            "events": {"produced": produced, **books},
            "conserved": produced == read == sum(books[name] for name in OUTCOMES),
            "windows": {"items": self.items(), "updates": self.updates()},
            "forecasts": self.tally.forecast_section(),
            **self.tally.sections(),
        }

    def close(self) -> None:
        """Let go of topics and Redis."""
        self._reader.close()
        self._redis.close()


def read_plan(path: Path) -> dict[str, Any]:
    """The source's progress file; empty until it is written."""
    try:
        plan = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return plan if isinstance(plan, dict) else {}
