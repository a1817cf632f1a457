"""Whoever began last under a name writes; whoever slept is shut out by Kafka, lease or no lease."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from freshet.stream.config import Settings
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import (
    Acknowledged,
    Fenced,
    FencedError,
    Outgoing,
    TableReader,
    ensure_topics,
)
from freshet.stream.store.connection import connect
from freshet.stream.store.lease import Lease, is_free
from tests.integration.shop import wait_for
from tests.integration.test_worker import settings_for

# Time enough to renew it where a machine is busy.
TTL_S = 2.0


@pytest.fixture(scope="module")
def settings(kafka_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("fenced")
    made = settings_for(kafka_broker, "redis://localhost:1/0", folder, folder.name)
    ensure_topics(made, live=True)
    return made


def record(settings: Settings, value: bytes) -> Outgoing:
    return Outgoing(settings.kafka.topics.effects, b"k", value, (("h", b"1"),))


def values(settings: Settings) -> list[bytes | None]:
    with TableReader(settings, [settings.kafka.topics.effects]) as reader:
        return [one.value for one in reader.read_to_end()]


def test_the_last_that_began_shuts_out_the_one_before_and_what_it_left_open(
    settings: Settings,
) -> None:
    first = Fenced(settings, "owner")
    first.write([record(settings, b"1"), record(settings, b"2")])
    # It falls asleep in the middle of a transaction.
    first._client.begin_transaction()
    first._produce(record(settings, b"half"))
    second = Fenced(settings, "owner")
    second.write([record(settings, b"3")])
    with pytest.raises(FencedError):
        repeated_write(first, settings)
    with pytest.raises(FencedError, match="session is over"):
        first.write([record(settings, b"never")])
    second.write([record(settings, b"4")])
    assert values(settings) == [b"1", b"2", b"3", b"4"]
    for one in (first, second):
        one.close()


def repeated_write(writer: Fenced, settings: Settings) -> None:
    """As a process goes on that slept before its commit."""
    try:
        writer.write([record(settings, b"late")])
    except FencedError:
        raise
    except BrokerError:
        # It had a transaction open; the next one tells what became of it.
        writer.write([record(settings, b"late")])


def test_what_the_broker_refuses_leaves_nothing_and_the_next_write_goes_on(
    settings: Settings,
) -> None:
    before = values(settings)
    writer = Fenced(settings, "owner-2")
    nowhere = Outgoing("", b"k", b"v")
    with pytest.raises(BrokerError):
        writer.write([record(settings, b"with it"), nowhere])
    writer.write([record(settings, b"5")])
    assert values(settings) == [*before, b"5"]
    writer.close()
    plain = Acknowledged(settings)
    plain.write([record(settings, b"6")])
    assert values(settings) == [*before, b"5", b"6"]
    plain.close()


class Holder:
    """Somebody who wants the lease."""

    def __init__(self, client: redis.Redis, ttl_s: float = 1.0) -> None:
        self.alive, self.lost = True, 0
        self.lease = Lease(
            client, "test:lease", alive=lambda: self.alive, lost=self._lose, ttl_s=ttl_s
        )

    def _lose(self) -> None:
        self.lost += 1


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    settings = Settings.model_validate({"redis": {"url": redis_server, "timeout_ms": 2_000}})
    made = connect(settings.redis)
    yield made
    made.close()


def test_a_lease_has_one_holder_who_keeps_it_until_it_gives_it_back(client: redis.Redis) -> None:
    one, two = Holder(client, TTL_S), Holder(client, TTL_S)
    assert is_free(client, "test:lease") and one.lease.take() and not two.lease.take()
    ends_s = time.monotonic() + 1.5 * TTL_S
    wait_for(lambda: time.monotonic() > ends_s)
    assert one.lease.held and not one.lost and not two.lease.take()
    one.lease.give_back()
    assert not one.lease.held and two.lease.take()
    two.lease.give_back()
    assert is_free(client, "test:lease") and one.lost == two.lost == 0


def test_a_holder_that_stands_still_or_lost_the_key_is_told_once(client: redis.Redis) -> None:
    one, two = Holder(client), Holder(client)
    assert one.lease.take()
    one.alive = False
    wait_for(lambda: one.lost)
    wait_for(two.lease.take)
    assert not one.lease.held
    client.set("test:lease", "another's")
    wait_for(lambda: two.lost)
    assert not two.lease.held and (one.lost, two.lost) == (1, 1)
    two.lease.give_back()
    assert client.get("test:lease") == b"another's"
