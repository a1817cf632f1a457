"""Ingest keeps each record of the shop's tables, whatever dies, and what Kafka compacts away."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from freshet.stream.codec import encode
from freshet.stream.config import Settings, load
from freshet.stream.ingest.process import run
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.read.versions import SideRecord, VersionReader
from freshet.stream.schemas import SHOP_TABLES, CatalogEntry
from freshet.stream.store.connection import connect
from freshet.stream.store.versions import VersionKeys, VersionStore
from freshet.stream.verify.verify import verify
from tests.integration.shop import environ_for, read, running, settings_for, wait_for
from tests.integration.test_ingest_kill import ingest

DAY_MS = 86_400_000
FIRST_MS = 1_767_225_600_000


def price(number: int, sku: str = "a") -> bytes:
    return encode(CatalogEntry(sku=sku, unit_price=number + 0.5))


def tell(
    settings: Settings,
    values: Sequence[bytes | None],
    *,
    key: bytes = b"a",
    first: int = 0,
    partition: int = 0,
) -> None:
    """Records onto one partition of the catalogue, a second apart by their stamps."""
    with Publisher(settings) as publisher:
        for number, value in enumerate(values, start=first):
            publisher.produce(
                settings.kafka.topics.catalog,
                value,
                key=key,
                partition=partition,
                timestamp_ms=FIRST_MS + number * 1_000,
            )
        publisher.flush()


def versions(settings: Settings) -> list[SideRecord]:
    """All that a new reader reads of the catalogue, once it has caught up."""
    reader = VersionReader(connect(settings.redis), settings, ["catalog"])
    found = []
    while records := reader.poll():
        found += records
    assert reader.caught_up, reader.waits_for
    return sorted(found, key=lambda record: (record.partition, record.offset))


def prices(settings: Settings) -> list[Any]:
    """The numbers of all versions, in the order of their offsets; None is a tombstone."""
    return [record.value and number_of(record.value) for record in versions(settings)]


def number_of(value: bytes) -> int:
    return int(json.loads(value)["unit_price"])


@pytest.fixture
def settings(mock_broker: str, redis_server: str, request: pytest.FixtureRequest) -> Settings:
    return settings_for(mock_broker, redis_server, request.node.name)


def test_every_record_is_kept_and_what_cannot_be_used_is_a_dead_letter_and_counted(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    topic = settings.kafka.topics.catalog
    tell(settings, [price(1), b"{", price(2), None])
    tell(settings, [price(3, "b")], key=b"b", partition=3)
    run(settings, until_end=True)
    assert [record[2:] for record in versions(settings)] == [
        (0, 0, b"a", price(1), FIRST_MS),
        (0, 2, b"a", price(2), FIRST_MS + 2_000),
        (0, 3, b"a", None, FIRST_MS + 3_000),
        (3, 0, b"b", price(3, "b"), FIRST_MS),
    ]
    (letter,) = read(settings, dead_letter_topic(topic))
    assert letter.value == b"{"
    assert dict(letter.headers)["freshet.error.stage"] == b"table"
    header = VersionStore(connect(settings.redis)).header(topic, 0)
    assert header is not None
    assert (header.next_offset, header.read, header.applied, header.dead_letter) == (4, 4, 3, 1)
    # The next process goes on behind it.
    tell(settings, [price(4)])
    run(settings, until_end=True)
    assert prices(settings) == [1, 2, None, 4, 3]
    assert len(read(settings, dead_letter_topic(topic))) == 1


def test_tables_flow_beside_events_and_metrics_count_them(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    reader = VersionReader(connect(settings.redis), settings, ["catalog"])
    with running(settings) as live:
        tell(settings, [price(1)])
        wait_for(lambda: [record.offset for record in reader.poll()] == [0])
        tell(settings, [b"{", price(2)], first=1)
        wait_for(lambda: [record.offset for record in reader.poll()] == [2])
        records = live.parts.metrics.records.labels(settings.kafka.topics.catalog, "applied")
        wait_for(lambda: records._value.get() == 2)
        wait_for(lambda: live.parts.metrics.versions._value.get() == 3)
        wait_for(lambda: live.ready() is None)


def test_verify_agrees_and_finds_what_is_planted(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    tell(settings, [price(1), b"{", price(2), None, price(3)])
    run(settings, until_end=True)
    report = verify(settings)
    assert [part.cells for part in report.tables if part.records] == [5]
    assert len(report.tables) == 4 * len(SHOP_TABLES) and not report.differences
    client, keys = connect(settings.redis), VersionKeys(settings.kafka.topics.catalog, 0)
    entries: Any = client.xrange(keys.log)
    client.xdel(keys.log, entries[2][0])
    client.hset(keys.newest, "a", "9:9")
    shown = {difference.what for difference in verify(settings).shown}
    assert shown == {"the record at offset 2", "the newest of b'a' (time:offset)", "versions"}


def test_a_redis_that_was_emptied_is_filled_again_from_the_log(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    tell(settings, [price(n) for n in range(5)])
    with running(settings) as live:
        reader = VersionReader(connect(settings.redis), settings, ["catalog"])
        assert found_by(reader, 5) == [0, 1, 2, 3, 4]
        connect(settings.redis).flushall()
        # Nothing more is told: ingest looks by itself.
        assert found_by(reader, 5) == [0, 1, 2, 3, 4]
        assert reader.restarts == 1
        wait_for(lambda: reader.poll() == [] and reader.caught_up)
        assert live.parts.metrics.gaps._value.get() >= len(live.parts.tables.keys)
    assert prices(settings) == [0, 1, 2, 3, 4]


def found_by(reader: VersionReader, count: int) -> list[int]:
    found: list[int] = []
    wait_for(lambda: found.extend(r.offset for r in reader.poll()) or len(found) >= count)
    return found


def test_of_two_that_own_a_table_one_is_fenced_and_nothing_is_kept_twice(
    settings: Settings,
) -> None:
    """Another group, as after a network split: both are assigned every partition."""
    ensure_topics(settings, live=False)
    other = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"group_prefix": "other"})}
    )
    with running(settings) as first:
        tell(settings, [price(n) for n in range(20)])
        wait_for(lambda: len(versions_or_none(settings)) == 20)
        with running(other) as second:
            wait_for(lambda: len(second.parts.assignment.owned) == len(second.parts.keys))
            tell(settings, [price(n) for n in range(20, 40)], first=20)
            wait_for(lambda: len(versions_or_none(settings)) == 40)
            wait_for(lambda: first.parts.metrics.fenced._value.get() >= 1)
            assert second.parts.metrics.fenced._value.get() == 0
    assert prices(settings) == list(range(40))


def versions_or_none(settings: Settings) -> Any:
    return connect(settings.redis).xrange(VersionKeys(settings.kafka.topics.catalog, 0).log)


def test_a_generation_is_built_without_the_tables_and_then_goes_on_with_them(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    tell(settings, [price(1)])
    run(settings, until_end=True)
    store, topic = VersionStore(connect(settings.redis)), settings.kafka.topics.catalog
    epoch = (store.header(topic, 0) or pytest.fail()).epoch
    tell(settings, [price(2)], first=1)
    run(settings, until_end=True, into=1)
    assert (store.header(topic, 0) or pytest.fail()).epoch == epoch
    with running(settings, into=2) as builder:
        wait_for(lambda: not builder.parts.generations.building)
        wait_for(lambda: prices(settings) == [1, 2])
        tell(settings, [price(3)], first=2)
        wait_for(lambda: prices(settings) == [1, 2, 3])


def test_too_many_versions_leave_early_and_that_is_said_loudly(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("freshet.stream.ingest.tables.MAX_VERSIONS", 30)
    ensure_topics(settings, live=False)
    with Publisher(settings) as publisher:
        for number in range(100):
            key = b"%d" % (number % 25)
            publisher.produce(
                settings.kafka.topics.catalog,
                price(number),
                key=key,
                partition=1,
                timestamp_ms=FIRST_MS + number,
            )
        publisher.flush()
    with running(settings) as live:
        wait_for(lambda: live.parts.metrics.dropped_versions._value.get() == 70)
        wait_for(lambda: live.ready() is None)
    # The newest of each of the 25 keys, and the five superseded last.
    assert prices(settings) == list(range(70, 100))
    # Once an episode; a slow machine may see a part of the log, and then the rest as another one.
    out = capsys.readouterr().out
    said = re.findall(r"(error|info) +\] (degraded|recovered) .*what=versions", out)
    assert said == [("error", "degraded"), ("info", "recovered")] * (len(said) // 2 or 1)
    assert "versions of catalogue, promotions, stock and covariates are kept, over 30" in out


# Real Kafka ---------------------------------------------------------------------------------------

KILLS = ("after_table_letters:1", "before_append:3", "after_append:2", "after_append:1")


def test_killed_at_every_point_and_compacted_no_version_is_lost_or_doubled(
    kafka_broker: str, redis_server: str
) -> None:
    environ = environ_for(
        kafka_broker, redis_server, "tables", FRESHET_INGEST__BATCH_MAX_RECORDS="20"
    )
    settings = load(environ=environ).settings
    ensure_topics(settings, live=False)
    compact_soon(settings)
    told: list[bytes | None] = [b"{" if n % 9 == 4 else price(n) for n in range(200)]
    tell(settings, told)
    for failpoint in KILLS:
        assert ingest(environ, failpoint) == -signal.SIGKILL, f"{failpoint} was not passed"
    assert ingest(environ) == 0
    good = [n for n in range(200) if n % 9 != 4]
    assert prices(settings) == good
    # Compaction takes all but the newest, and leaves the newest segment alone.
    topic = settings.kafka.topics.catalog
    tell(settings, [price(200)], first=200)
    wait_for(lambda: len(read(settings, topic)) < 20)
    assert ingest(environ) == 0
    assert prices(settings) == [*good, 200]
    with redis.Redis.from_url(redis_server) as client:
        assert client.xlen(VersionKeys(topic, 0).log) == 201
    report = verify(settings)
    assert report.tables and not report.differences, report.as_text()
    assert sum(part.cells for part in report.tables) == 201
    letters = read(settings, dead_letter_topic(topic))
    offsets = {dict(letter.headers)["freshet.error.offset"] for letter in letters}
    assert offsets == {b"%d" % n for n in range(200) if n % 9 == 4}


def compact_soon(settings: Settings) -> None:
    """Have the broker compact the catalogue within a second."""
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    topic = {"segment.ms": "500", "min.cleanable.dirty.ratio": "0.01"}
    broker = {"log.cleaner.backoff.ms": "200"}
    for kind, name, values in (
        (ResourceType.TOPIC, settings.kafka.topics.catalog, topic),
        (ResourceType.BROKER, "1", broker),
    ):
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in values.items()
        ]
        resource = ConfigResource(kind, name, incremental_configs=entries)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(10)
