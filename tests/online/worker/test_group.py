"""A worker owns the items of its shards, and its version rises exactly when they change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import xxhash
from confluent_kafka import OFFSET_INVALID

from freshet.online.worker import group as module
from freshet.online.worker.group import MAX_NOTICES, Membership
from freshet.online.worker.marks import Mark, decode_marks
from freshet.stream.config import Settings
from freshet.stream.kafka import Taken, TopicPartition

ITEMS = [f"sku{number}|n" for number in range(40)]
WINDOWS = Settings().kafka.topics.windows


class Client:
    """A member of a group whose assignments are told by the test."""

    def __init__(self, settings: Settings, group: str, **over: Any) -> None:
        self.made, self.closed = (group, over), False
        self.assigned: list[tuple[str, int, int]] = []
        self.before_first = 40
        self.commits: list[tuple[list[TopicPartition], bool]] = []

    def subscribe(self, topics: list[str], **calls: Any) -> None:
        self.topics, self.calls = topics, calls

    def tell(self, what: str, *shards: int) -> None:
        self.calls[f"on_{what}"](self, [TopicPartition(WINDOWS, shard) for shard in shards])

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.assigned += [(place.topic, place.partition, place.offset) for place in places]

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return asked

    def position(self, asked: list[TopicPartition]) -> list[TopicPartition]:
        return [
            TopicPartition(at.topic, at.partition, self.before_first + at.partition) for at in asked
        ]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.commits.append((offsets, asynchronous))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def membership(monkeypatch: pytest.MonkeyPatch) -> Membership:
    monkeypatch.setattr(module, "consumer", Client)
    monkeypatch.setattr(module, "partitions_of", lambda _, topics: dict.fromkeys(topics, 3))
    return Membership(Settings())


def client_of(membership: Membership) -> Client:
    client: Any = membership._client
    assert isinstance(client, Client)
    return client


def shard(item_id: str) -> int:
    return xxhash.xxh3_64_intdigest(item_id.encode()) % 3


def test_it_joins_the_workers_of_the_windows_topic_and_owns_nothing_yet(
    membership: Membership,
) -> None:
    client = client_of(membership)
    assert client.topics == [WINDOWS] and membership.num_shards == 3
    assert client.made == ("worker", {"auto_offset_reset": "latest"})
    assert (membership.shards, membership.version) == (frozenset(), 0)
    assert not any(map(membership.owns, ITEMS))


def test_shards_come_and_go_one_by_one_and_an_item_is_owned_by_its_shard_alone(
    membership: Membership,
) -> None:
    client = client_of(membership)
    history = []
    for what, *shards in (
        ("assign", 0, 2),
        ("assign", 1),
        ("assign", 1),
        ("revoke", 0),
        ("lost", 1, 2),
        ("revoke", 2),
    ):
        client.tell(str(what), *map(int, shards))
        owned = {shard(item_id) for item_id in ITEMS if membership.owns(item_id)}
        left = {shard(item_id) for item_id in ITEMS if not membership.owns(item_id)}
        assert not owned & left
        history.append((membership.version, set(membership.shards), owned))
    assert history == [
        (1, {0, 2}, {0, 2}),
        (2, {0, 1, 2}, {0, 1, 2}),
        (2, {0, 1, 2}, {0, 1, 2}),
        (3, {1, 2}, {1, 2}),
        (4, set(), set()),
        (4, set(), set()),
    ]


def test_all_notices_of_a_wait_come_together_as_they_were_sent(
    membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, int, int]] = []

    def take(client: object, max_records: int, max_wait_ms: int) -> Taken:
        asked.append((client, max_records, max_wait_ms))
        notices: list[Any] = [SimpleNamespace(value=lambda: b"1"), SimpleNamespace(value=bytes)]
        return Taken(notices if max_wait_ms else [], {})

    monkeypatch.setattr(module, "take", take)
    assert membership.poll(200) == [b"1", b""]
    assert membership.poll(0) == []
    client = client_of(membership)
    assert asked == [(client, MAX_NOTICES, 200), (client, MAX_NOTICES, 0)]


def test_what_is_committed_of_a_shard_is_its_place_among_the_notices_and_its_marks(
    membership: Membership,
) -> None:
    client = client_of(membership)
    client.tell("assign", 0, 2)
    assert membership.marks() == {0: {}, 2: {}}
    marks = {2: {60_000: Mark(120_000, 7, 1, 3)}}
    (at,) = membership.offsets(marks)
    assert (at.topic, at.partition, at.offset) == (WINDOWS, 2, 42)
    assert decode_marks(at.metadata) == marks[2]


def test_before_its_first_notice_a_shard_is_committed_at_the_beginning(
    membership: Membership,
) -> None:
    client_of(membership).before_first = OFFSET_INVALID
    (at,) = membership.offsets({0: {}})
    assert (at.partition, at.offset) == (0, 0)


def test_without_a_transaction_a_commit_is_waited_for(membership: Membership) -> None:
    at = TopicPartition(WINDOWS, 2, 42)
    membership.commit((at,))
    assert client_of(membership).commits == [([at], False)]


def test_closing_leaves_the_group(membership: Membership) -> None:
    membership.close()
    assert client_of(membership).closed
