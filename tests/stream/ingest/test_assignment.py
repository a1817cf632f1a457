"""Which partitions are read, and from where, with a consumer and windows that only remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from freshet.stream.errors import LogLostError, StoreUnavailableError
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.ingest.assignment import Assignment
from freshet.stream.kafka import Consumer, Key, TopicPartition
from freshet.stream.store.layout import Header


class FakeConsumer:
    """Remembers what it reads: (topic, partition) -> the offset it was told to begin at."""

    def __init__(self) -> None:
        self.reading: dict[Key, int] = {}
        self.committed: dict[Key, int] = {}
        self.subscriptions = 0

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        self.subscriptions += 1

    def unsubscribe(self) -> None:
        self.reading.clear()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            assert (at.topic, at.partition) not in self.reading, "assigned twice"
            self.reading[at.topic, at.partition] = at.offset

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            del self.reading[at.topic, at.partition]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.committed.update({(at.topic, at.partition): at.offset for at in offsets})


@dataclass
class FakeWindows:
    """Stands at an offset."""

    header: Header
    started_at: int | None = None

    def start_at(self, offset: int) -> None:
        self.started_at = offset

    @property
    def next_offset(self) -> int:
        offset = self.started_at if self.header.next_offset is None else self.header.next_offset
        assert offset is not None
        return offset


@dataclass
class Rig:
    """An assignment on fakes: what Redis holds, where the logs begin and end."""

    stored: dict[Key, int | None]
    logs: dict[Key, tuple[int, int]]
    claims: list[Key] = field(default_factory=list)
    down: bool = False
    client: FakeConsumer = field(default_factory=FakeConsumer)

    def __post_init__(self) -> None:
        client = cast("Consumer", self.client)
        self.assignment = Assignment(
            client, self.claim, lambda keys: {key: self.logs[key] for key in keys}
        )

    def claim(self, topic: str, partition: int) -> PartitionWindows:
        if self.down:
            raise StoreUnavailableError("no Redis")
        self.claims.append((topic, partition))
        return cast(
            "PartitionWindows",
            FakeWindows(Header(epoch=1, next_offset=self.stored[topic, partition])),
        )

    def assign(self, *keys: Key) -> None:
        self.assignment._assigned(
            cast("Consumer", self.client), [TopicPartition(*key) for key in keys]
        )

    def revoke(self, *keys: Key) -> None:
        self.assignment._revoked(
            cast("Consumer", self.client), [TopicPartition(*key) for key in keys]
        )


A, B = ("orders", 0), ("orders", 1)


@pytest.fixture
def rig() -> Rig:
    return Rig(stored={A: 40, B: None}, logs={A: (10, 100), B: (7, 7)})


def test_nothing_is_read_before_it_is_claimed_and_then_from_the_stored_offset(rig: Rig) -> None:
    rig.assign(A, B)
    assert rig.client.reading == {}
    assert rig.assignment.claim_waiting() == [A, B]
    assert rig.client.reading == {A: 40, B: 7}
    assert cast("FakeWindows", rig.assignment.owned[B].windows).started_at == 7


def test_a_claim_that_fails_is_made_again_later(rig: Rig) -> None:
    rig.assign(A)
    rig.down = True
    with pytest.raises(StoreUnavailableError):
        rig.assignment.claim_waiting()
    rig.down = False
    assert rig.assignment.claim_waiting() == [A]
    assert rig.assignment.claim_waiting() == []


def test_a_partition_revoked_before_its_claim_is_never_claimed(rig: Rig) -> None:
    rig.assign(A, B)
    rig.revoke(A)
    assert rig.assignment.claim_waiting() == [B]
    rig.revoke(B)
    assert rig.client.reading == {} and rig.assignment.owned == {}


@pytest.mark.parametrize("offset", [9, 101])
def test_a_stored_offset_outside_the_log_is_never_skipped(rig: Rig, offset: int) -> None:
    rig.stored[A] = offset
    rig.assign(A)
    with pytest.raises(LogLostError, match=f"end at offset {offset}, and the log holds 10 to 100"):
        rig.assignment.claim_waiting()
    assert rig.client.reading == {}


@pytest.mark.parametrize("offset", [10, 100])
def test_the_logs_first_offset_and_its_end_are_inside(rig: Rig, offset: int) -> None:
    rig.stored[A] = offset
    rig.assign(A)
    assert rig.assignment.claim_waiting() == [A]


def test_after_an_interruption_it_reads_on_after_what_was_applied_and_not_after_what_was_seen(
    rig: Rig,
) -> None:
    rig.assign(A)
    rig.assignment.claim_waiting()
    rig.assignment.reached({A: 100, B: 3})
    assert rig.assignment.owned[A].position == 100
    rig.assignment.suspend()
    assert rig.client.reading == {}
    rig.assignment.resume()
    assert rig.client.reading == {A: 40}
    assert rig.assignment.owned[A].position == 40


def test_a_revocation_during_an_interruption_is_answered_and_remembered(rig: Rig) -> None:
    rig.assign(A, B)
    rig.assignment.claim_waiting()
    rig.assignment.suspend()
    rig.revoke(A)
    rig.assignment.resume()
    assert rig.client.reading == {B: 7}


def test_after_a_gap_it_claims_again_and_reads_from_what_redis_holds_now(rig: Rig) -> None:
    rig.assign(A)
    rig.assignment.claim_waiting()
    rig.stored[A] = 25
    rig.assignment.claim_again(A)
    assert rig.client.reading == {}
    rig.assignment.claim_waiting()
    assert rig.client.reading == {A: 25} and rig.claims == [A, A]


def test_a_fenced_partition_is_left_alone_until_it_is_assigned_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.assign(A)
    rig.assignment.claim_waiting()
    rig.assignment.drop(A)
    assert rig.assignment.claim_waiting() == [] and rig.client.reading == {}
    assert rig.assignment.trouble == "a partition was taken over by another process"
    rig.assignment.rejoin_when_fenced()
    assert rig.client.subscriptions == 0
    monkeypatch.setattr("freshet.stream.ingest.assignment.REJOIN_S", 0.0)
    rig.assignment.rejoin_when_fenced()
    assert rig.client.subscriptions == 1 and rig.claims == [A]
    rig.assign(A)
    assert rig.assignment.claim_waiting() == [A]


def test_it_says_what_it_waits_for_until_its_partitions_are_claimed(rig: Rig) -> None:
    assert rig.assignment.trouble == "joining the consumer group"
    rig.assign(A)
    assert rig.assignment.trouble == "claiming partitions"
    rig.assignment.claim_waiting()
    assert rig.assignment.trouble is None


def test_positions_are_ours_and_what_others_of_the_group_have_stored(rig: Rig) -> None:
    rig.assign(A)
    rig.assignment.claim_waiting()
    rig.assignment.owned[A].position = 60
    stored = {A: Header(next_offset=40), B: Header(next_offset=5)}
    nothing_yet = ("orders", 2)
    found = rig.assignment.positions([A, B, nothing_yet], lambda *key: stored.get(key))
    assert found == {A: 60, B: 5, nothing_yet: 0}


def test_positions_are_committed_once_each_time_they_move(rig: Rig) -> None:
    rig.assign(A, B)
    rig.assignment.claim_waiting()
    rig.assignment.commit(wait=False)
    assert rig.client.committed == {A: 40, B: 7}
    rig.client.committed.clear()
    rig.assignment.owned[A].position = 60
    rig.assignment.commit(wait=True)
    assert rig.client.committed == {A: 60}
