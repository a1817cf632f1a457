"""Commits in transactions on a real Kafka: all or nothing, once, and only by the owner."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from freshet.online.worker.group import Membership
from freshet.online.worker.marks import Mark
from freshet.stream.config import Settings
from freshet.stream.health import Health
from freshet.stream.kafka import (
    ExactlyOnce,
    NotTheOwnerError,
    Outgoing,
    TableReader,
    ensure_topics,
    transactions,
)
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.process import Stop
from freshet.stream.units import HOUR_MS
from tests.integration.shop import wait_for
from tests.integration.test_worker import settings_for


class Desk:
    """A member of a group with all shards, and its transactions."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.membership = Membership(settings)
        wait_for(self._joined)
        self.membership.marks()
        self.health = Health(Stop(), "start")
        self.commits = ExactlyOnce(settings, uuid4().hex, self.membership, self.health)
        self.generation = self.membership.metadata()

    def _joined(self) -> bool:
        self.membership.poll(50)
        return len(self.membership.shards) == self.membership.num_shards

    def commit(self, *values: bytes, cutoff_ms: int = HOUR_MS) -> bool:
        topic = self.settings.kafka.topics.forecasts
        mark = Mark(cutoff_ms, 7, len(values), 9)
        offsets = self.membership.offsets({0: {HOUR_MS: mark}})
        return self.commits.commit([Outgoing(topic, b"a", value) for value in values], offsets)

    def values(self) -> list[bytes | None]:
        with TableReader(self.settings, [self.settings.kafka.topics.forecasts]) as reader:
            return [record.value for record in reader.read_to_end()]

    def close(self) -> None:
        self.commits.close()
        self.membership.close()


@pytest.fixture
def desk(kafka_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Desk]:
    settings = settings_for(kafka_broker, redis_server, tmp_path, tmp_path.name)
    ensure_topics(settings, live=True)
    made = Desk(settings)
    yield made
    made.close()


class Stale:
    """The group as a process that slept knows it."""

    def __init__(self, generation: Any) -> None:
        self._generation = generation

    def metadata(self) -> Any:
        return self._generation

    def committed(self, asked: Sequence[TopicPartition]) -> list[TopicPartition]:
        raise AssertionError("nothing is in doubt")

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        raise AssertionError("it has transactions")


class Unheard:
    """A producer whose answer to a commit is lost, of as many commits as are said.

    Args:
        client: The producer itself.
        lost: How many answers.
        arrives: Whether the broker has heard the question.
    """

    def __init__(self, client: Producer, lost: list[None], *, arrives: bool) -> None:
        self._client, self._lost, self._arrives = client, lost, arrives

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def commit_transaction(self, timeout_s: float) -> None:
        if not self._lost:
            self._client.commit_transaction(timeout_s)
            return
        self._lost.pop()
        if self._arrives:
            self._client.commit_transaction(timeout_s)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_that_nobody_answered_is_neither_repeated_nor_forgotten(
    desk: Desk, arrives: bool
) -> None:
    opened, lost = desk.commits._open, [None]
    desk.commits._open = lambda **over: Unheard(  # type: ignore[assignment, misc, return-value]
        opened(**over), lost, arrives=arrives
    )
    assert desk.commit(b"1", b"2")
    assert not lost
    assert desk.commit(b"3", cutoff_ms=2 * HOUR_MS)
    assert desk.values() == [b"1", b"2", b"3"]
    assert desk.membership.marks()[0] == {HOUR_MS: Mark(2 * HOUR_MS, 7, 1, 9)}


def test_records_that_kafka_never_takes_are_left_out_and_all_others_are_committed_once(
    desk: Desk,
) -> None:
    large = b"x" * (desk.settings.kafka.max_record_bytes + 1)
    assert desk.commit(b"1", large, b"2", large)
    assert desk.values() == [b"1", b"2"]


def test_whoever_is_no_member_any_more_writes_nothing(desk: Desk) -> None:
    assert desk.commit(b"1")
    offsets = desk.membership.offsets({0: {HOUR_MS: Mark(2 * HOUR_MS, 7, 1, 9)}})
    desk.membership.close()
    other = Desk(desk.settings)
    try:
        forecast = Outgoing(desk.settings.kafka.topics.forecasts, b"a", b"late")
        stale = ExactlyOnce(desk.settings, "late", Stale(desk.generation), desk.health)
        with pytest.raises(NotTheOwnerError, match="committing forecasts"):
            stale.commit([forecast], offsets)
        assert other.commit(b"2")
        assert desk.values() == [b"1", b"2"]
    finally:
        other.close()


def test_after_a_restart_of_the_broker_forecasts_are_committed_again(
    redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(os.environ.get("KAFKA_HOME", "/nowhere"))
    if not (home / "bin").is_dir():
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka 4.x")
    monkeypatch.setattr(transactions, "CALL_TIMEOUT_S", 2.0)
    broker = RealKafka(home, tmp_path / "kafka")
    # Longer than the restart, so that the shards stay where they are.
    at = {"FRESHET_KAFKA__SESSION_TIMEOUT_MS": "45000"}
    settings = settings_for(broker.bootstrap_servers, redis_server, tmp_path, tmp_path.name, **at)
    ensure_topics(settings, live=True)
    desk = Desk(settings)
    try:
        assert desk.commit(b"1")
        broker.stop()
        broker = RealKafka(home, tmp_path / "kafka", broker.port)
        wait_for(lambda: desk._joined() and desk.values() == [b"1"])
        assert desk.commit(b"2", cutoff_ms=2 * HOUR_MS)
        assert desk.values() == [b"1", b"2"]
    finally:
        desk.close()
        broker.stop()
