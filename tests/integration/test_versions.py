"""Versions of the shop's tables in a real Redis: by hand, fenced, freed, and read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from freshet.stream.config import Settings
from freshet.stream.errors import LogLostError, StoreError
from freshet.stream.read.versions import SideRecord, VersionReader
from freshet.stream.store.layout import Answer
from freshet.stream.store.versions import (
    Append,
    Version,
    VersionHeader,
    VersionKeys,
    VersionStore,
)

SETTINGS = Settings()
TOPIC = SETTINGS.kafka.topics.catalog
KEYS = VersionKeys(TOPIC, 0)


@pytest.fixture
def client(redis_server: str) -> redis.Redis:
    return redis.Redis.from_url(redis_server, protocol=2)


class Owner:
    """A claim of the first partition of the catalogue, appending what a test lays out."""

    def __init__(self, client: redis.Redis, topic: str = TOPIC, topic_id: str = "") -> None:
        self.store = VersionStore(client)
        self.topic = topic
        self.header = self.store.claim(topic, 0, topic_id)

    def append(self, *versions: Version, next_offset: int | None = None, **over: Any) -> Answer:
        """One call; the header moves on where it is in."""
        before = self.header.next_offset
        last = versions[-1].offset + 1 if versions else before
        header = replace(
            self.header,
            first_offset=self.header.first_offset or 0,
            next_offset=last if next_offset is None else next_offset,
            reached_end=over.pop("reached_end", self.header.reached_end),
        )
        answer, stored = self.store.append(self.topic, 0, Append(header, before, versions, **over))
        if answer in (Answer.APPLIED, Answer.ALREADY):
            self.header = stored
        return answer


def told(
    offset: int, key: str = "a", value: bytes | None = b"{}", at: int = 0, **over: Any
) -> Version:
    """A record of a time, by default a hundredth of a second after the one before."""
    at_ms = at or offset * 10
    return Version(offset, at_ms, over.pop("as_of", at_ms), key.encode(), value, **over)


def offsets_stored(client: redis.Redis) -> list[int]:
    entries: Any = client.xrange(KEYS.log)
    return [int(entry_id.split(b"-")[0]) for entry_id, _ in entries]


def read(reader: VersionReader) -> list[int]:
    return [record.offset for record in reader.poll()]


# One call, by hand --------------------------------------------------------------------------------


def test_a_version_is_stored_with_its_offset_in_one_call(client: redis.Redis) -> None:
    owner = Owner(client)
    versions = (told(7, "a", b"x"), told(9, "b", None), told(12, "c", b"?", dead=True))
    assert owner.append(*versions, next_offset=15, reached_end=1) is Answer.APPLIED
    token = owner.header.written_by
    assert client.xrange(KEYS.log) == [
        (f"7-{token}".encode(), {b"k": b"a", b"t": b"70", b"v": b"x"}),
        (f"9-{token}".encode(), {b"k": b"b", b"t": b"90"}),
        (f"12-{token}".encode(), {b"k": b"c", b"t": b"120", b"d": b""}),
    ]
    assert client.hgetall(KEYS.newest) == {b"a": b"70:7", b"b": b"90:9"}
    # A tombstone leaves after all that it supersedes, a dead letter by its own time.
    assert client.zrange(KEYS.leaving, 0, -1, withscores=True) == [(b"9", 91.0), (b"12", 120.0)]
    header = owner.store.header(TOPIC, 0)
    assert header is not None
    assert (header.epoch, header.next_offset, header.versions, header.reached_end) == (1, 15, 3, 1)
    assert owner.store.partitions() == [(TOPIC, 0)]


def test_the_same_call_again_changes_nothing(client: redis.Redis) -> None:
    owner = Owner(client)
    before = owner.header
    assert owner.append(told(0)) is Answer.APPLIED
    stored = client.dump(KEYS.log), client.hgetall(KEYS.header)
    owner.header = before
    assert owner.append(told(0)) is Answer.ALREADY
    assert (client.dump(KEYS.log), client.hgetall(KEYS.header)) == stored
    assert owner.append(told(1)) is Answer.APPLIED


def test_an_owner_that_was_succeeded_writes_nothing(client: redis.Redis) -> None:
    first = Owner(client)
    first.append(told(0))
    second = Owner(client)
    assert second.header.next_offset == 1
    assert first.append(told(1, value=b"late")) is Answer.FENCED
    assert first.append(reached_end=1) is Answer.FENCED
    assert second.append(told(1)) is Answer.APPLIED
    assert offsets_stored(client) == [0, 1]


def test_an_owner_of_the_same_epoch_by_another_name_is_fenced(client: redis.Redis) -> None:
    owner = Owner(client)
    client.hset(KEYS.header, "owner", "00ff")
    assert owner.append(told(0)) is Answer.FENCED


def test_a_redis_that_went_back_or_was_emptied_is_a_gap(client: redis.Redis) -> None:
    owner = Owner(client)
    owner.append(told(0), told(1))
    client.hset(KEYS.header, "next_offset", 1)
    assert owner.append(told(2)) is Answer.GAP
    client.flushall()
    assert owner.append(told(2)) is Answer.GAP
    assert client.keys() == []


def test_versions_of_a_topic_that_was_made_again_are_not_claimed(client: redis.Redis) -> None:
    Owner(client, topic_id="one").append(told(0))
    with pytest.raises(LogLostError, match=r"freshet\.catalog\.v1:0.*topic id one.*now two"):
        Owner(client, topic_id="two")
    assert VersionStore(client).forget(TOPIC) == 1
    assert client.keys("*catalog*0}*") == []
    assert Owner(client, topic_id="two").header.next_offset is None


@pytest.mark.parametrize("name", ["log", "newest", "leaving"])
def test_a_key_of_another_kind_stops_the_call_before_it_writes(
    client: redis.Redis, name: str
) -> None:
    owner = Owner(client)
    client.set(getattr(KEYS, name), "strange")
    with pytest.raises(StoreError, match="DAMAGED"):
        owner.append(told(0))
    assert client.hget(KEYS.header, "next_offset") is None


def test_entries_out_of_order_stop_the_call_before_it_writes(client: redis.Redis) -> None:
    owner = Owner(client)
    owner.append(told(4))
    for versions in ([told(6), told(5)], [told(3)], [told(6), told(6)]):
        with pytest.raises(StoreError, match="DAMAGED"):
            owner.append(*versions, next_offset=9)
    with pytest.raises(StoreError, match="DAMAGED"):
        owner.append(told(9), next_offset=9)
    client.xadd(KEYS.log, {"k": "a"}, id="5-1")
    with pytest.raises(StoreError, match="DAMAGED"):
        owner.append(told(7))
    assert offsets_stored(client) == [4, 5]


# What leaves --------------------------------------------------------------------------------------


def test_what_was_superseded_before_the_horizon_leaves_and_the_newest_stays(
    client: redis.Redis,
) -> None:
    owner = Owner(client)
    owner.append(told(0, "a", at=100), told(1, "b", at=100), told(2, "a", at=200))
    owner.append(told(3, "a", at=300), horizon_ms=199)
    assert offsets_stored(client) == [0, 1, 2, 3]
    owner.append(horizon_ms=200)
    assert offsets_stored(client) == [1, 2, 3]
    owner.append(horizon_ms=10**12)
    assert offsets_stored(client) == [1, 3]
    assert owner.header.versions == 2


def test_a_tombstone_leaves_after_what_it_superseded_and_takes_its_key_along(
    client: redis.Redis,
) -> None:
    owner = Owner(client)
    owner.append(told(9, "a", at=100), told(10, "a", None, at=200))
    owner.append(horizon_ms=200)
    assert offsets_stored(client) == [10]
    owner.append(horizon_ms=201)
    assert offsets_stored(client) == []
    assert client.hgetall(KEYS.newest) == {}
    # The log goes on behind it.
    owner.append(told(11, "a", at=300), horizon_ms=201)
    assert client.hgetall(KEYS.newest) == {b"a": b"300:11"}


def test_one_announced_for_an_earlier_time_is_superseded_by_the_later_one(
    client: redis.Redis,
) -> None:
    owner = Owner(client)
    owner.append(told(0, as_of=500), told(1, as_of=300), told(2, as_of=400))
    assert client.hgetall(KEYS.newest) == {b"a": b"500:0"}
    owner.append(horizon_ms=10**12)
    assert offsets_stored(client) == [0]
    # Of two of one time the later in the log counts.
    owner.append(told(3, as_of=500), horizon_ms=10**12)
    assert offsets_stored(client) == [3]


def test_what_a_late_record_supersedes_was_in_force_until_that_came(client: redis.Redis) -> None:
    owner = Owner(client)
    owner.append(told(0, at=100), told(1, at=700, as_of=200), horizon_ms=699)
    assert offsets_stored(client) == [0, 1]
    owner.append(horizon_ms=700)
    assert offsets_stored(client) == [1]


def test_too_many_leave_early_soonest_first_and_that_is_written_down(client: redis.Redis) -> None:
    owner = Owner(client)
    owner.append(*(told(n, "ab"[n % 2], at=100 + n) for n in range(8)))
    owner.append(drop=3)
    # 0 was superseded by 2 at 102, 1 by 3 at 103, 2 by 4 at 104.
    assert offsets_stored(client) == [3, 4, 5, 6, 7]
    assert (owner.header.dropped, owner.header.dropped_until_ms) == (3, 104)
    owner.append(drop=100)
    assert offsets_stored(client) == [6, 7]
    assert (owner.header.dropped, owner.header.dropped_until_ms) == (6, 107)
    owner.append(drop=100)
    assert offsets_stored(client) == [6, 7]


def test_one_call_removes_a_bounded_number(client: redis.Redis) -> None:
    owner = Owner(client)
    owner.append(*(told(n) for n in range(2_500)))
    for left in (1_500, 500, 1, 1):
        owner.append(horizon_ms=10**12)
        assert owner.header.versions == left


# Reading ------------------------------------------------------------------------------------------


def test_each_version_is_handed_over_once_and_in_order(client: redis.Redis) -> None:
    owner, reader = Owner(client), VersionReader(client, SETTINGS, ["catalog"])
    assert reader.poll() == []
    owner.append(told(3, "a", b"x"), told(5, "a", None), told(6, dead=True), next_offset=8)
    assert reader.poll() == [
        SideRecord("catalog", TOPIC, 0, 3, b"a", b"x", 30),
        SideRecord("catalog", TOPIC, 0, 5, b"a", None, 50),
    ]
    assert reader.poll() == []
    assert reader.offsets() == {f"{TOPIC}:0": 8}
    owner.append(told(8))
    assert read(reader) == [8]


def test_it_has_caught_up_when_every_owner_stood_at_its_end_and_all_was_read(
    client: redis.Redis,
) -> None:
    catalog = Owner(client)
    catalog.store.name([(TOPIC, 0), (SETTINGS.kafka.topics.inventory, 0)])
    reader = VersionReader(client, SETTINGS, ["catalog", "inventory", "promotions"])
    catalog.append(told(0), told(1), reached_end=1)
    reader.poll(1)
    assert not reader.caught_up
    inventory = Owner(client, SETTINGS.kafka.topics.inventory)
    promotions = SETTINGS.kafka.topics.promotions
    reader.poll()
    assert reader.waits_for == [promotions, f"{inventory.topic}:0"]
    inventory.append(next_offset=0, reached_end=1)
    Owner(client, promotions).append(told(0))
    reader.poll()
    assert reader.waits_for == [f"{promotions}:0"]
    Owner(client, promotions).append(told(1), reached_end=1)
    assert not reader.caught_up
    reader.poll()
    assert reader.caught_up
    # What comes later does not take it back.
    catalog.append(told(2))
    assert reader.caught_up


def test_nothing_new_costs_one_round_trip(client: redis.Redis) -> None:
    owner, reader = Owner(client), VersionReader(client, SETTINGS, ["catalog"])
    owner.append(told(0), reached_end=1)
    reader.poll()
    calls = commands(client)
    reader.poll()
    assert commands(client) == calls + 2  # SMEMBERS and HGETALL, sent together.


def commands(client: redis.Redis) -> int:
    """How many a reader has sent: INFO itself is left out."""
    found: Any = client.info("commandstats")
    return sum(stat["calls"] for name, stat in found.items() if name != "cmdstat_info")


def test_many_are_read_in_pieces(client: redis.Redis) -> None:
    owner, reader = Owner(client), VersionReader(client, SETTINGS, ["catalog"])
    owner.append(*(told(n) for n in range(0, 2_402, 2)))
    owner.append(told(2_500, "b"))
    found = read(reader)
    assert found == [*range(0, 2_402, 2), 2_500]
    again = VersionReader(client, SETTINGS, ["catalog"])
    parts = [again.poll(700) for _ in range(3)]
    assert [record.offset for part in parts for record in part] == found
    assert 700 <= len(parts[0]) <= 700 + 501


def lose_the_claim(client: redis.Redis, owner: Owner) -> None:
    client.flushall()


def lose_the_last_second(client: redis.Redis, owner: Owner) -> None:
    """Header and stream are as they were one version ago."""
    client.hset(KEYS.header, "next_offset", 1)
    kept: Any = client.xrange(KEYS.log, "-", 0)
    client.delete(KEYS.log)
    for entry_id, fields in kept:
        client.xadd(KEYS.log, fields, id=entry_id)


def lose_the_last_second_unseen(client: redis.Redis, owner: Owner) -> None:
    """Another owner has written it again before anybody looked."""
    lose_the_last_second(client, owner)
    successor = Owner(client)
    successor.append(told(1), told(2, value=b"new"))
    Owner(client).append(told(3))


@pytest.mark.parametrize(
    "lose", [lose_the_claim, lose_the_last_second, lose_the_last_second_unseen]
)
def test_a_redis_that_lost_what_was_read_is_read_again_from_the_beginning(
    client: redis.Redis, lose: Callable[[redis.Redis, Owner], None]
) -> None:
    owner, reader = Owner(client), VersionReader(client, SETTINGS, ["catalog"])
    owner.append(told(0), told(1), reached_end=1)
    assert read(reader) == [0, 1] and reader.caught_up
    lose(client, owner)
    assert reader.poll() == []
    assert reader.restarts == 1 and not reader.caught_up
    if lose is not lose_the_last_second_unseen:
        successor = Owner(client)
        successor.append(*(told(n) for n in range(successor.header.next_offset or 0, 4)))
    assert read(reader) == [0, 1, 2, 3]
    assert reader.restarts == 1


def test_another_owner_that_lost_nothing_is_read_on(client: redis.Redis) -> None:
    owner, reader = Owner(client), VersionReader(client, SETTINGS, ["catalog"])
    owner.append(told(0))
    reader.poll()
    Owner(client).append(told(1))
    assert read(reader) == [1]
    assert reader.restarts == 0


def test_an_audit_reads_what_was_known_at_its_offsets(client: redis.Redis) -> None:
    owner = Owner(client)
    owner.append(told(0), told(4), reached_end=1)
    named = {f"{TOPIC}:0": 4, f"{TOPIC}:1": 1}
    reader = VersionReader(client, SETTINGS, ["catalog", "inventory"], until=named)
    Owner(client, SETTINGS.kafka.topics.inventory).append(told(0))
    assert read(reader) == [0]
    assert not reader.caught_up and reader.waits_for == [f"{TOPIC}:1"]
    reader = VersionReader(client, SETTINGS, ["catalog"], until={f"{TOPIC}:0": 4})
    assert read(reader) == [0]
    assert reader.caught_up and reader.offsets() == {f"{TOPIC}:0": 4}
    owner.append(told(5))
    assert reader.poll() == []


def test_what_had_to_leave_early_is_said(client: redis.Redis) -> None:
    owner, reader = Owner(client), VersionReader(client, SETTINGS, ["catalog"])
    owner.append(told(0, at=100), told(1, at=200))
    reader.poll()
    assert reader.dropped_until_ms() == 0
    owner.append(drop=1)
    reader.poll()
    assert reader.dropped_until_ms() == 200


def test_the_header_ignores_fields_that_it_does_not_know() -> None:
    assert VersionHeader.parse({b"epoch": b"3", b"later": b"x"}) == VersionHeader(epoch=3)
