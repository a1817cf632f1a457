"""What another version of freshet wrote is neither read nor written on, and nobody ends for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from freshet.stream.config import Settings
from freshet.stream.errors import OtherFormatError
from freshet.stream.kafka import ensure_topics
from freshet.stream.read.heads import read_heads
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.read.versions import VersionReader
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import Keys
from freshet.stream.store.versions import VersionKeys, VersionStore
from freshet.stream.units import HOUR_MS
from tests.integration.shop import (
    START_MS,
    books,
    order,
    running,
    send,
    settings_for,
    wait_for,
)

OTHERS = pytest.mark.parametrize("written", [2, 4], ids=["older", "newer"])


def write_format(client: redis.Redis, keys: Keys, written: int) -> dict[bytes, bytes]:
    """The header as a version of that format would have left it."""
    said: Any = client.hget(keys.header, "fingerprint")
    fingerprint = json.dumps(json.loads(said) | {"format": written})
    client.hset(keys.header, "fingerprint", fingerprint)
    header: Any = client.hgetall(keys.header)
    return dict(header)


def reader_of(settings: Settings) -> WindowReader:
    rules = ReadRules.of(settings, HOUR_MS)
    return WindowReader(connect(settings.redis), 0, HOUR_MS, 24, rules=rules)


@OTHERS
def test_ingest_and_readers_wait_and_go_on_with_windows_of_their_own(
    kafka_broker: str, redis_server: str, written: int
) -> None:
    over = {"FRESHET_KAFKA__PARTITIONS": "1"}
    settings = settings_for(kafka_broker, redis_server, f"format {written}", **over)
    ensure_topics(settings, live=False)
    client = connect(settings.redis)
    keys = Keys(0, settings.kafka.topics.orders, 0)
    with running(settings):
        send(settings, [order(0), order(1)])
        wait_for(lambda: books(settings).get("applied") == 2)
    before = write_format(client, keys, written)
    reader = reader_of(settings)
    for look in (reader.refresh, lambda: read_heads(client, 0)):
        refused(look, written)
    assert reader.item_ids == [] and not reader.inputs
    with running(settings) as waiting:
        wait_for(lambda: f"have format {written}" in (waiting.ready() or ""))
        send(settings, [order(2)])
        with running(settings, into=1):
            # Readers go over, and whoever waited for another generation has nothing to do.
            wait_for(lambda: client.get("freshet:generation") == b"1")
            wait_for(waiting.parts.health.stop.is_set)
        reader.refresh()
    assert client.hgetall(keys.header) == before
    units = reader.sums(START_MS + HOUR_MS, 1)[0, CHANNELS.index("units")]
    assert reader.generation == 1 and units.tolist() == [6_000]


def refused(look: Callable[[], object], written: object) -> None:
    with pytest.raises(OtherFormatError, match=f"have format {written}, and this .* reads") as told:
        look()
    assert told.value.retriable and "it waits" in told.value.hint


def test_versions_of_another_format_are_left_alone(redis_server: str) -> None:
    settings = settings_for("nowhere:1", redis_server, "versions of another format")
    topic = settings.kafka.topics.catalog
    client = connect(settings.redis)
    store = VersionStore(client)
    store.claim(topic, 0)
    header = VersionKeys(topic, 0).header
    # Claims that wrote nothing yet are anybody's.
    client.hset(header, mapping={"fingerprint": "versions:9", "next_offset": 5})
    before = client.hgetall(header)
    refused(lambda: store.claim(topic, 0), "versions:9")
    refused(VersionReader(client, settings).poll, "versions:9")
    assert client.hgetall(header) == before
