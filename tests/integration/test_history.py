"""History loaded onto live topics of a real Kafka, in three orders, killed in the middle."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.source.history import History, OldRecord, load, of_file
from freshet.stream.store.connection import connect
from freshet.stream.units import DAY_MS, HOUR_MS
from freshet.stream.verify.verify import verify
from tests.integration.shop import running, settings_for, store_of, wait_for

BEFORE_MS = 1_767_225_600_000
NUM_OLD, NUM_NEW = 1_500, 60
SKUS = [f"sku-{n}" for n in range(9)]
UNITS = CHANNELS.index("units")


def order(number: int, time_ms: int) -> dict[str, Any]:
    sku = SKUS[number % len(SKUS)]
    event = {"event_id": f"e{number}", "event_time": time_ms, "sku": sku, "region": "-"}
    return event | {"quantity": 1 + number % 3, "unit_price": 2}


OLD = [order(n, BEFORE_MS - 20 * DAY_MS + n * 20 * DAY_MS // NUM_OLD) for n in range(NUM_OLD)]
NEW = [order(NUM_OLD + n, BEFORE_MS + n * 3 * HOUR_MS // NUM_NEW) for n in range(NUM_NEW)]
ARRIVALS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "by time": list,
    "by item": lambda events: sorted(events, key=lambda one: (one["sku"], -one["event_time"])),
    "shuffled": lambda events: random.Random(5).sample(events, len(events)),
}


class KilledError(Exception):
    """The load died here."""


def dying(records: Iterator[OldRecord], after: int) -> Iterator[OldRecord]:
    for number, record in enumerate(records):
        if number == after:
            raise KilledError
        yield record


def send_live(settings: Settings, events: list[dict[str, Any]]) -> None:
    with Publisher(settings) as publisher:
        for event in events:
            topic, value = settings.kafka.topics.orders, json.dumps(event).encode()
            publisher.produce(
                topic, value, key=event["sku"].encode(), timestamp_ms=event["event_time"]
            )
        publisher.flush()


def read_of(settings: Settings) -> int:
    store, topics = store_of(settings), settings.kafka.topics
    headers = [store.header(*at) for at in store.partitions() if at[0] == topics.orders]
    return sum(header.read for header in headers if header is not None)


def complete(settings: Settings) -> bool:
    store = store_of(settings)
    headers = [store.header(*at) for at in store.partitions() if at[0].split(".")[-1] != "x"]
    events = [header for header in headers if header is not None and header.skipped]
    return len(events) == 2 * settings.kafka.partitions


@pytest.mark.parametrize("arrival", sorted(ARRIVALS))
def test_history_is_all_there_once_whatever_order_it_comes_in_and_whoever_dies(
    kafka_broker: str, redis_server: str, tmp_path: Path, arrival: str
) -> None:
    path = tmp_path / "old.jsonl"
    lines = [json.dumps(event) for event in ARRIVALS[arrival](OLD)]
    path.write_text("\n".join(lines) + "\n")
    over = {"FRESHET_WINDOWS__HISTORY_BEFORE": "2026-01-01", "FRESHET_KAFKA__PARTITIONS": "2"}
    # Nobody is idle, or the live cutoff would be today's, months after these events.
    over["FRESHET_WINDOWS__IDLE_MS"] = str(10**9)
    settings = settings_for(kafka_broker, redis_server, f"history {arrival}", **over)
    ensure_topics(settings, live=False)
    reader = reader_of(settings)
    with running(settings):
        old = of_file(path, key="sku")
        with pytest.raises(KilledError):
            load(settings, History(old.name, dying(iter(old.records), NUM_OLD // 2), old.total))
        send_live(settings, NEW[: NUM_NEW // 2])
        wait_for(lambda: read_of(settings) >= NUM_NEW // 2)
    reader.refresh()
    assert reader.live_cutoff_ms() is None and reader.loading() is not None
    with running(settings):
        load(settings, of_file(path, key="sku"))
        send_live(settings, NEW[NUM_NEW // 2 :])
        wait_for(lambda: complete(settings))
        wait_for(lambda: applied(settings) == NUM_OLD + NUM_NEW)
    assert verify(settings).agrees
    reader.refresh()
    assert reader.loading() is None
    check(reader)


def applied(settings: Settings) -> int:
    store = store_of(settings)
    headers = [store.header(*at) for at in store.partitions()]
    return sum(header.applied for header in headers if header is not None)


def reader_of(settings: Settings) -> WindowReader:
    rules = ReadRules.of(settings, HOUR_MS)
    return WindowReader(connect(settings.redis), 0, HOUR_MS, 24 * 30, rules=rules)


def check(reader: WindowReader) -> None:
    """Every hour of every item, up to the live cutoff, is what a plain count says."""
    cutoff_ms = reader.live_cutoff_ms()
    assert cutoff_ms is not None and cutoff_ms > BEFORE_MS
    truth = Counter[tuple[str, int]]()
    for event in [*OLD, *NEW]:
        if event["event_time"] < cutoff_ms:
            truth[event["sku"] + "|-", event["event_time"] // HOUR_MS] += event["quantity"] * 1_000
    view = reader.window(cutoff_ms, 24 * 21)
    first = view.start_ms // HOUR_MS
    found = {
        (item_id, first + step): int(view.values_ICB[row, UNITS, step])
        for row, item_id in enumerate(reader.item_ids)
        for step in range(24 * 21)
        if view.values_ICB[row, UNITS, step]
    }
    assert found == truth
    assert view.observed_ICB[0, UNITS, 24 * 3 :].all()
