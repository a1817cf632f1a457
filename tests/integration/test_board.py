"""The board of a flash sale on a real Kafka, held against a plain recount of the log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from freshet.stream.codec import encode
from freshet.stream.config import Settings, Topics, load
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.schemas import InventoryLevel, Promotion
from freshet.stream.units import HOUR_MS, MINUTE_MS
from tests.integration.shop import environ_for, running
from tests.integration.test_dashboard import dashboard

PARTITIONS = 2
PATIENCE_S = 120.0
EVERY_S = 0.1
ORDERS_PER_QUESTION = 5
MOVES = 6
BACKLOG = 120
ON_HAND = 900.0
REGIONS = ("north", "south")


@pytest.fixture
def settings(kafka_broker: str, redis_server: str, request: pytest.FixtureRequest) -> Settings:
    name = f"board{time.time_ns()}"
    topics = {
        f"FRESHET_KAFKA__TOPICS__{kind.upper()}": f"{name}.{kind}" for kind in Topics.model_fields
    }
    environ = environ_for(kafka_broker, redis_server, name) | topics
    made = load(environ=environ | {"FRESHET_KAFKA__PARTITIONS": str(PARTITIONS)}).settings
    ensure_topics(made, live=False)
    return made


class Sale:
    """A sale by script: orders of two regions on two partitions, some late, twice or returned."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        now_ms = time.time_ns() // 1_000_000
        self.starts_ms = now_ms // MINUTE_MS * MINUTE_MS - 3 * MINUTE_MS
        self.stocked_ms = self.starts_ms + 2 * MINUTE_MS
        self._random = np.random.default_rng(5)
        self._sent = 0

    def announce(self, publisher: Publisher) -> None:
        topics = self.settings.kafka.topics
        sale = Promotion(
            promotion_id="rush",
            sku="MUG",
            starts_at=self.starts_ms,
            ends_at=self.starts_ms + 4 * HOUR_MS,
            discount=0.3,
            kind="flash_sale",
        )
        publisher.produce(topics.promotions, encode(sale), key=b"rush")
        for region in REGIONS:
            level = InventoryLevel(sku="MUG", region=region, on_hand=ON_HAND, as_of=self.stocked_ms)
            publisher.produce(topics.inventory, encode(level), key=f"MUG|{region}".encode())

    def order(self, publisher: Publisher, at_ms: int) -> None:
        """The next one; each tenth a minute late, each seventh once more, a return now and then."""
        number, self._sent = self._sent, self._sent + 1
        late_ms = MINUTE_MS if number % 10 == 3 else 0
        event = {
            "event_id": f"o{number}",
            "sku": "MUG",
            "region": REGIONS[number % 3 == 0],
            "event_time": at_ms - late_ms,
            "quantity": -1 if number % 17 == 5 else int(self._random.integers(1, 5)),
            "unit_price": 9.5,
        }
        copies = 2 if number % 7 == 2 else 1
        for _ in range(copies):
            publisher.produce(
                self.settings.kafka.topics.orders,
                json.dumps(event).encode(),
                key=b"MUG",
                partition=int(self._random.integers(PARTITIONS)) if copies == 1 else 0,
                timestamp_ms=at_ms,
            )


Log = list[tuple[str, int, dict[str, Any]]]
"""Partition, offset and order of each record."""


def read_log(settings: Settings) -> Log:
    """The whole orders topic, read by another client."""
    topic = settings.kafka.topics.orders
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": "recount",
            "enable.auto.commit": False,
        }
    )
    parts = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
    ends = {part.partition: consumer.get_watermark_offsets(part, timeout=60)[1] for part in parts}
    consumer.assign(parts)
    log: Log = []
    while len(log) < sum(ends.values()):
        message = consumer.poll(60.0)
        assert message is not None and message.error() is None
        place = f"{topic}:{message.partition()}"
        log.append((place, message.offset(), json.loads(message.value())))
    consumer.close()
    return log


def recount(log: Log, offsets: dict[str, int], region: str, from_ms: int) -> float:
    """Units of a region sold from a time on, by the records before those offsets, each event once.

    An event is known again on its own partition, as the guarantees say.
    """
    seen: set[tuple[str, str]] = set()
    units = 0.0
    for place, offset, event in log:
        name = (place, event["event_id"])
        if offset >= offsets.get(place, 0) or name in seen:
            continue
        seen.add(name)
        if event["region"] == region and event["event_time"] >= from_ms:
            units += max(0, event["quantity"])
    return units


def asked(url: str) -> Iterator[dict[str, Any]]:
    """What the board says now: one row for each region."""
    answer = httpx.get(f"{url}api/flash-sales", timeout=60).json()
    for sale in answer["sales"]:
        rows = {row["item_id"].partition("|")[2]: row for row in sale["items"]}
        yield {"offsets": answer["offsets"], "rows": rows, "sold": sale["sold"]}


def positions(told: list[dict[str, Any]]) -> set[str]:
    """As of which offsets the board had rows when it was asked."""
    return {json.dumps(one["offsets"]) for one in told if one["rows"]}


def test_the_board_agrees_with_a_recount_of_the_log_all_through_a_sale(
    settings: Settings, tmp_path: Path
) -> None:
    script, told = Sale(settings), []
    with (
        running(settings),
        Publisher(settings) as publisher,
        dashboard(settings, tmp_path / "log") as (_, url),
    ):
        script.announce(publisher)
        begun_ms = time.time_ns() // 1_000_000
        for at_ms in np.linspace(script.starts_ms + 500, begun_ms - 500, BACKLOG).astype(int):
            script.order(publisher, int(at_ms))
        publisher.flush()
        deadline_s = time.monotonic() + PATIENCE_S
        while len(positions(told)) < MOVES:
            assert time.monotonic() < deadline_s, told[-1:]
            for _ in range(ORDERS_PER_QUESTION):
                script.order(publisher, time.time_ns() // 1_000_000)
                time.sleep(EVERY_S)
            told += asked(url)
        publisher.flush()
        log = read_log(settings)
        # The board comes to the log's end within some looks at Redis.
        while not told or sum(told[-1]["offsets"].values()) < len(log):
            assert time.monotonic() < deadline_s, told[-1:]
            told += asked(url)
            time.sleep(0.1)

    counted = [one for one in told if one["rows"]]
    for one in counted:
        for region, row in one["rows"].items():
            sold = recount(log, one["offsets"], region, script.starts_ms)
            since = recount(log, one["offsets"], region, script.stocked_ms)
            assert (row["sold"], row["on_hand"]) == (sold, ON_HAND - since), one["offsets"]
        assert one["sold"] == sum(row["sold"] for row in one["rows"].values())
    assert set(counted[-1]["rows"]) == set(REGIONS)
    assert any(event["quantity"] < 0 for _, _, event in log)
    names = [(place, event["event_id"]) for place, _, event in log]
    assert len(set(names)) < len(names), "some came twice"
    print(f"{len(log)} records, asked {len(counted)} times, {counted[-1]['sold']} sold")
