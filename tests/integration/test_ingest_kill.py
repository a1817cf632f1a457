"""Ingest is killed at every named point, started again, and holds what a naive recount holds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from freshet.stream.config import Settings, load
from freshet.stream.kafka import TableReader, TableRecord, ensure_topics
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.store import tiles
from tests.integration.messy_log import MessyLog, publish
from tests.integration.shop import OUTCOMES, environ_for
from tests.stream.fold.windows_checks import NaiveFrontier

Cell = tuple[int, int, str, str]
"""Resolution, bucket, item, channel."""

KILLS = (
    "after_dead_letters:1",
    "before_apply:3",
    "after_apply:2",
    "before_notice:3",
    "after_dead_letters:2",
)
RUN = """
from freshet.stream.config import load
from freshet.stream.ingest.process import run
run(load().settings, until_end=True)
"""


# The recount --------------------------------------------------------------------------------------


@dataclass
class Books:
    """What one partition should hold."""

    counts: Counter[str] = field(default_factory=Counter)
    cells: Counter[Cell] = field(default_factory=Counter)
    applied: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    frontier_ms: int | None = None
    ranked: NaiveFrontier | None = None

    def count(self, time_ms: int) -> None:
        """Move the frontier on by an event."""
        if self.ranked is None:
            self.frontier_ms = max(time_ms, self.frontier_ms or 0)
        else:
            self.ranked.count(time_ms)
            self.frontier_ms = self.ranked.frontier_ms


def recount(
    records: list[TableRecord], settings: Settings, *, by_producers: bool
) -> dict[tuple[str, int], Books]:
    """The rules once more, record by record, with dictionaries."""

    def begin() -> Books:
        return Books(ranked=NaiveFrontier(settings) if by_producers else None)

    books: dict[tuple[str, int], Books] = defaultdict(begin)
    for record in sorted(
        records, key=lambda record: (record.topic, record.partition, record.offset)
    ):
        count_one(books[record.topic, record.partition], record, settings)
    return books


def count_one(book: Books, record: TableRecord, settings: Settings) -> None:
    rules = settings.windows
    book.counts["read"] += 1
    event = parsed(record.value)
    if event is None or event["event_time"] > record.timestamp_ms + rules.max_future_ms:
        book.counts["dead_letter"] += 1
        return
    time_ms = event["event_time"]
    watermark_ms = (
        -(10**18) if book.frontier_ms is None else book.frontier_ms - rules.out_of_order_ms
    )
    book.count(time_ms)
    before = book.applied[event["event_id"]]
    if time_ms + rules.allowed_lateness_ms < watermark_ms:
        book.counts["late_dropped"] += 1
    elif any(
        (ms // 60_000 + 1) * 60_000 + rules.allowed_lateness_ms > watermark_ms for ms in before
    ):
        book.counts["duplicate"] += 1
    else:
        book.counts["applied"] += 1
        before.append(time_ms)
        for resolution in rules.resolutions:
            bucket = time_ms // resolution.resolution_ms
            if (bucket + 1 + resolution.buckets) * resolution.resolution_ms > watermark_ms:
                for item_id, channel, amount in amounts(event):
                    book.cells[resolution.resolution_ms, bucket, item_id, channel] += amount


def parsed(value: bytes | None) -> dict[str, Any] | None:
    try:
        event = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event_id"), str) else None


def amounts(event: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    if "kind" in event:
        yield f"{event['sku']}|{event['region']}", event["kind"] + "s", 1
        return
    for line in event.get("lines") or [event]:
        item_id, thousandths = f"{line['sku']}|{event['region']}", round(line["quantity"] * 1_000)
        if thousandths < 0:
            yield item_id, "returns", -thousandths
            continue
        yield item_id, "units", thousandths
        yield item_id, "revenue", (thousandths * round(line["unit_price"] * 10_000) + 500) // 1_000
        yield item_id, "orders", 1


# What Redis holds ---------------------------------------------------------------------------------


def stored(client: redis.Redis, topic: str, partition: int) -> tuple[dict[str, int], Counter[Cell]]:
    """A partition's header and its non-zero cells, straight from the keys."""
    prefix = f"{{freshet:g0:{topic}:{partition}}}"
    raw: dict[bytes, bytes] = client.hgetall(f"{prefix}:h")  # type: ignore[assignment]
    texts = (b"owner", b"fingerprint", b"topic_id", b"timestamp_type", b"top_ms")
    header = {name.decode(): int(value) for name, value in raw.items() if name not in texts}
    slots: dict[bytes, bytes] = client.hgetall(f"{prefix}:d:0")  # type: ignore[assignment]
    cells: Counter[Cell] = Counter()
    for key in client.scan_iter(f"{prefix}:w:*", count=1_000):
        resolution_ms, bucket, chunk = (int(part) for part in key.decode().rsplit(":", 3)[1:])
        assert chunk == 0
        values = tiles.decode(client.get(key))  # type: ignore[arg-type]
        for channel, slot in zip(*values.nonzero(), strict=True):
            item_id = slots[b"%d" % slot].decode()
            cells[resolution_ms, bucket, item_id, tiles.CHANNELS[channel]] = int(
                values[channel, slot]
            )
    return header, cells


def assert_equal_to_recount(
    client: redis.Redis, expected: dict[tuple[str, int], Books], settings: Settings
) -> None:
    buckets = {width.resolution_ms: width.buckets for width in settings.windows.resolutions}
    for (topic, partition), book in expected.items():
        header, cells = stored(client, topic, partition)
        found = {name: header[name] for name in ("read", *OUTCOMES)}
        assert found == {name: book.counts[name] for name in found}, (topic, partition)
        assert found["read"] == sum(found.values()) - found["read"]
        assert header["frontier_ms"] == book.frontier_ms
        watermark_ms = header["frontier_ms"] - settings.windows.out_of_order_ms

        def retained(cell: Cell, watermark_ms: int = watermark_ms) -> bool:
            return (cell[1] + 1 + buckets[cell[0]]) * cell[0] > watermark_ms

        assert {c: v for c, v in cells.items() if retained(c)} == {
            c: v for c, v in book.cells.items() if v and retained(c)
        }


# The tests ----------------------------------------------------------------------------------------


def ingest(environ: dict[str, str], failpoint: str = "") -> int:
    environ = {**os.environ, **environ, "OMP_NUM_THREADS": "1"}
    if failpoint:
        environ["FRESHET_FAILPOINT"] = failpoint
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.returncode


def kill_and_compare(bootstrap_servers: str, redis_url: str, *, by_producers: bool) -> None:
    environ = environ_for(
        bootstrap_servers,
        redis_url,
        "kill",
        FRESHET_INGEST__BATCH_MAX_RECORDS="300",
        FRESHET_INGEST__DEAD_LETTER_PAUSE_SHARE="0.9",
    )
    settings = load(environ=environ).settings
    topics = settings.kafka.topics
    ensure_topics(settings, live=False)
    # Partition 0 gets half of the records.
    log = MessyLog(settings, random.Random(7), partitions=(0, 0, 1, 2))
    publish(settings, [log.record() for _ in range(6_000)])
    for failpoint in KILLS:
        assert ingest(environ, failpoint) == -signal.SIGKILL, f"{failpoint} was not passed"
    assert ingest(environ) == 0
    with TableReader(settings, [topics.orders, topics.clicks]) as reader:
        expected = recount(reader.read_to_end(), settings, by_producers=by_producers)
    totals = sum((book.counts for book in expected.values()), Counter())
    assert totals["read"] == 6_000
    assert min(totals[name] for name in OUTCOMES if name != "skipped") > 50
    with redis.Redis.from_url(redis_url) as client:
        assert_equal_to_recount(client, expected, settings)
    assert_letters_complete(settings, totals)


def assert_letters_complete(settings: Settings, totals: Counter[str]) -> None:
    """Each dead letter and late record is there, and repeats name the same source offset."""
    topics = settings.kafka.topics
    letter_topics = [dead_letter_topic(topics.orders), dead_letter_topic(topics.clicks)]
    with TableReader(settings, letter_topics) as reader:
        letters = {places(record, "freshet.error.") for record in reader.read_to_end()}
    with TableReader(settings, [topics.late]) as reader:
        late = {places(record, "freshet.source.") for record in reader.read_to_end()}
    assert (len(letters), len(late)) == (totals["dead_letter"], totals["late_dropped"])


def places(record: TableRecord, prefix: str) -> tuple[bytes | None, ...]:
    said = dict(record.headers)
    return tuple(said[prefix + name] for name in ("topic", "partition", "offset"))


@pytest.mark.slow
def test_windows_equal_a_recount_after_kills_on_a_mock_broker(
    mock_broker: str, redis_server: str
) -> None:
    kill_and_compare(mock_broker, redis_server, by_producers=False)


@pytest.mark.slow
def test_windows_equal_a_recount_after_kills_on_a_real_kafka(
    kafka_broker: str, redis_server: str
) -> None:
    kill_and_compare(kafka_broker, redis_server, by_producers=True)
