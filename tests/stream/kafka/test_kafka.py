"""The door to Kafka, against a broker that speaks the protocol."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from freshet.stream.config import KafkaSettings, Settings
from freshet.stream.errors import BrokerError, LogLostError
from freshet.stream.kafka import (
    LogOffsets,
    Publisher,
    Silence,
    TableReader,
    TopicPartition,
    cluster,
    consumer,
    ensure_topics,
    log_range,
    partitions_of,
    shard_of,
    take,
)
from freshet.stream.kafka.client import Taken
from freshet.stream.kafka.servers import EmbeddedBroker
from freshet.stream.kafka.topics import TopicPlan


@pytest.fixture
def settings(mock_broker: str) -> Settings:
    return Settings(kafka=KafkaSettings(bootstrap_servers=mock_broker, request_timeout_ms=3_000))


def test_shards_are_even_and_never_change() -> None:
    shards = Counter(shard_of(f"sku-{number}|north", 4) for number in range(4_000))
    assert all(900 < count < 1_100 for count in shards.values())
    assert [shard_of(item_id, 1_000) for item_id in ("a|north", "ä|süd")] == [475, 272]


def test_a_table_is_read_whole_in_order_with_everything_a_record_has(settings: Settings) -> None:
    with Publisher(settings) as publisher:
        for number in range(300):
            value = None if number == 7 else b"%d" % number
            publisher.produce(
                "whole",
                value,
                key=b"k%d" % (number % 9),
                headers=[("h", None)],
                timestamp_ms=1_000 + number,
            )
        publisher.flush()
    with TableReader(settings, ["whole"]) as reader:
        assert not reader.caught_up
        records = reader.read_to_end()
        assert reader.caught_up
        with Publisher(settings) as publisher:
            publisher.produce("whole", b"later", partition=2)
        deadline = time.monotonic() + 60
        while not (later := reader.poll()):
            assert time.monotonic() < deadline
    assert sorted(int(record.value or b"7") for record in records) == list(range(300))
    (deleted,) = [record for record in records if record.value is None]
    assert (deleted.key, deleted.timestamp_ms, deleted.headers) == (b"k7", 1_007, (("h", None),))
    for partition in range(4):
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == list(range(len(offsets)))
    assert [(record.value, record.partition) for record in later] == [(b"later", 2)]


def test_an_empty_topic_is_caught_up_soon(settings: Settings) -> None:
    with TableReader(settings, ["empty"]) as reader:
        assert reader.read_to_end(timeout_ms=5_000) == []


def test_a_reader_of_whole_topics_does_not_wait_for_a_silent_broker_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TableReader(settings, ["table-silent"]) as reader:
        seconds = itertools.count()
        silence = partial(Silence, now_s=lambda: next(seconds))
        monkeypatch.setattr("freshet.stream.kafka.table.Silence", silence)
        monkeypatch.setattr(
            "freshet.stream.kafka.table.take", lambda *_: Taken([], {("table-silent", 0): 0})
        )
        longest_s = 3 * settings.kafka.request_timeout_ms / 1_000
        with pytest.raises(BrokerError, match=f"has said nothing for {longest_s:g} s"):
            list(reader.to_end())
        # The first look reached the end of one of four partitions, at 1 s.
        assert next(seconds) == 1 + longest_s + 2


def test_keys_land_where_javas_clients_put_them(settings: Settings) -> None:
    """Partition of murmur2: worked by hand after the rule of Java's DefaultPartitioner."""
    keys = ["a", "b", "sku-1", "sku-2"]
    with Publisher(settings) as publisher:
        for key in keys:
            publisher.produce("murmur", b"x", key=key)
    with TableReader(settings, ["murmur"]) as reader:
        found = {(record.key or b"").decode(): record.partition for record in reader.read_to_end()}
    assert found == {key: (murmur2(key.encode()) & 0x7FFFFFFF) % 4 for key in keys}


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client computes it."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def test_where_logs_begin_and_end(settings: Settings) -> None:
    assert partitions_of(settings, ["ends"]) == {"ends": 4}
    with Publisher(settings) as publisher:
        for _ in range(5):
            publisher.produce("ends", b"x", partition=1)
    logs = LogOffsets(settings)
    assert logs.ends([("ends", 0), ("ends", 1)]) == {("ends", 0): 0, ("ends", 1): 5}
    assert logs.ranges([("ends", 1)]) == {("ends", 1): (0, 5)}
    assert logs.ends([]) == {}
    reader = consumer(settings, "ends")
    assert log_range(reader, "ends", 1) == (0, 5)
    reader.close()


def test_an_offset_outside_the_log_is_an_error_and_not_a_jump(settings: Settings) -> None:
    partitions_of(settings, ["outside"])
    reader = consumer(settings, "outside")
    reader.assign([TopicPartition("outside", 0, 99)])
    deadline = time.monotonic() + 60
    with pytest.raises(LogLostError, match="outside:0"):
        while time.monotonic() < deadline:
            take(reader, 10, 100)
    reader.close()


def test_a_broker_without_a_controller_is_noticed_and_makes_topics_by_itself(
    settings: Settings,
) -> None:
    reports = ensure_topics(settings, live=True)
    assert {(report.state, report.partitions) for report in reports} == {("automatic", 4)}
    found = cluster(settings)
    assert (found.num_brokers, found.has_controller) == (1, False)
    assert found.partitions["freshet.orders.v1.dlq"] == 4


def test_records_that_are_not_acknowledged_are_an_error() -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1_000)
        publisher = Publisher(Settings(kafka=kafka))
        publisher.produce("gone", b"first")
        publisher.flush()
        broker.stop()
        publisher.produce("gone", b"second")
        publisher.produce("gone", b"third")
        with pytest.raises(BrokerError, match="2 records were not acknowledged"):
            publisher.flush(500)
        publisher.flush(500)


def test_no_broker_is_one_clear_error_without_the_password() -> None:
    kafka = KafkaSettings(
        bootstrap_servers="127.0.0.1:1", request_timeout_ms=200, sasl_password="secret"
    )
    with pytest.raises(
        BrokerError, match=r"no Kafka broker answers at 127.0.0.1:1 within 0.2 s"
    ) as refused:
        TableReader(Settings(kafka=kafka), ["any"])
    assert "secret" not in str(refused.value)
    assert refused.value.retriable


admin_module = import_module("freshet.stream.kafka.admin")


class Leaderless:
    """A consumer of partitions that have no leader the first so many times."""

    def __init__(self, times: int, code: int = KafkaError.NOT_LEADER_FOR_PARTITION) -> None:
        self.left, self.code = times, code

    def get_watermark_offsets(self, at: TopicPartition, timeout_s: float) -> tuple[int, int]:
        if self.left:
            self.left -= 1
            raise KafkaException(KafkaError(self.code))
        return (3, 8)


def test_a_partition_without_a_leader_yet_is_asked_again_a_few_times() -> None:
    waited_s: list[float] = []
    leaderless = cast("Consumer", Leaderless(11))
    assert log_range(leaderless, "orders", 0, wait=waited_s.append) == (3, 8)
    assert waited_s == [0.05, 0.1, 0.2, 0.4] + 7 * [0.8]
    with pytest.raises(BrokerError, match="offsets of orders:0"):
        log_range(cast("Consumer", Leaderless(12)), "orders", 0, wait=waited_s.append)


def test_the_leaders_of_new_topics_are_waited_for_a_minute(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has just begun on a busy machine has dozens of partitions to give leaders."""
    waited_s: list[float] = []
    slow = cast("Consumer", Leaderless(60))
    listed = SimpleNamespace(partitions={"new": 1})
    monkeypatch.setattr(admin_module, "cluster", lambda _: listed)
    monkeypatch.setattr(admin_module, "consumer", lambda *_: slow)
    offsets = partial(admin_module.LogOffsets, wait=waited_s.append)
    monkeypatch.setattr(admin_module, "LogOffsets", offsets)
    monkeypatch.setattr(slow, "close", lambda: None, raising=False)
    admin_module._wait_for(settings, [TopicPlan("new", 1, {})])
    assert 40.0 < sum(waited_s) < 60.0


def test_a_client_that_has_just_begun_is_asked_again_for_a_partition_that_it_does_not_know() -> (
    None
):
    new = cast("Consumer", Leaderless(2, KafkaError._UNKNOWN_PARTITION))
    assert log_range(new, "orders", 0, wait=lambda _: None) == (3, 8)


def test_told_to_stop_it_asks_for_no_leader_again() -> None:
    leaderless = Leaderless(5)
    with pytest.raises(BrokerError, match="offsets of orders:0"):
        log_range(cast("Consumer", leaderless), "orders", 0, wait=lambda _: True)
    assert leaderless.left == 4


def test_any_other_refusal_of_offsets_is_said_at_once() -> None:
    unknown = Leaderless(1, KafkaError.UNKNOWN_TOPIC_OR_PART)
    with pytest.raises(BrokerError, match="offsets of orders:0"):
        log_range(cast("Consumer", unknown), "orders", 0)
