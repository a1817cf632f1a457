"""What a foreign client finds of forecasts: is each there once, and has every gap a name?

It knows Kafka and JSON, and nothing of our code.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import xxhash
from confluent_kafka import Consumer, KafkaError, TopicPartition

Json = dict[str, Any]
Identity = tuple[str, int, int]
"""Item, resolution and cutoff."""
Place = tuple[int, int]
"""Shard and resolution."""

READ_AT_ONCE = 5_000
WAIT_S = 0.2


class ForeignReader:
    """Reads committed records of three topics, from their beginning, as they come.

    Args:
        bootstrap_servers: Where.
        forecasts, latest, rounds: The topics.
    """

    def __init__(self, bootstrap_servers: str, forecasts: str, latest: str, rounds: str) -> None:
        config = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid4().hex,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "log_level": 0,
        }
        self._client = Consumer({**config, "isolation.level": "read_committed"})
        self._anything = Consumer({**config, "isolation.level": "read_uncommitted"})
        self._ends: dict[tuple[str, int], int] = {}
        self._names = {forecasts: "forecasts", latest: "latest", rounds: "rounds"}
        self.found: dict[str, list[Json]] = {name: [] for name in self._names.values()}
        self.newest: dict[str, Json] = {}
        """Of the topic of the newest, by key."""
        topics = self._client.list_topics(timeout=60).topics
        self._at = {(topic, number) for topic in self._names for number in topics[topic].partitions}
        self._client.assign([TopicPartition(*at, 0) for at in self._at])

    def read(self, seconds: float = WAIT_S) -> None:
        """Take what comes within this time."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._take(left_s)

    def read_to_end(self, timeout_s: float = 180.0) -> None:
        """Take everything that was written, once all of it is committed or given up."""
        end_s = time.monotonic() + timeout_s
        written = {
            at: self._anything.get_watermark_offsets(TopicPartition(*at))[1] for at in self._at
        }
        # Ends are told again where reading begins again.
        self._client.assign(self._client.position([TopicPartition(*at) for at in self._at]))
        while left := [at for at, offset in written.items() if self._ends.get(at, 0) < offset]:
            assert time.monotonic() < end_s, f"{left} were not read to their end"
            self._take(WAIT_S)

    def complete(self, cutoff_ms: int, resolution_ms: int) -> set[int]:
        """The shards that were said to be complete at a cutoff."""
        return {
            one["shard"]
            for one in self.found["rounds"]
            if one["complete"] and one["cutoff_ms"] == cutoff_ms
            if one["resolution_ms"] == resolution_ms
        }

    def close(self) -> None:
        self._client.close()
        self._anything.close()

    def _take(self, wait_s: float) -> None:
        """Keep what comes, and how far it is."""
        for message in self._client.consume(READ_AT_ONCE, min(wait_s, WAIT_S)):
            topic = message.topic() or ""
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._ends[topic, message.partition() or 0] = message.offset() or 0
                continue
            value = json.loads(message.value() or b"{}")
            self.found[self._names[topic]].append(value)
            if self._names[topic] == "latest":
                key = message.key()
                assert isinstance(key, bytes)
                self.newest[key.decode()] = value


@dataclass(slots=True)
class Account:
    """Every cutoff of every shard, by what became of it."""

    forecasts: int = 0
    twice: list[Identity] = field(default_factory=list)
    complete: list[tuple[Place, int]] = field(default_factory=list)
    incomplete: list[tuple[Place, int]] = field(default_factory=list)
    skipped: list[tuple[Place, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What the topics say that does not agree, in words."""

    @property
    def cutoffs(self) -> int:
        return len(self.complete) + len(self.incomplete) + len(self.skipped)

    @property
    def lost_share(self) -> float:
        """Of all cutoffs of all shards: those without a whole forecast."""
        return 1 - len(self.complete) / max(self.cutoffs, 1)


def account(reader: ForeignReader, num_shards: int) -> Account:
    """Hold forecasts, the newest of them and rounds against each other."""
    found = Account()
    identities = Counter(map(_identity, reader.found["forecasts"]))
    found.forecasts = sum(identities.values())
    found.twice = [one for one, times in identities.items() if times > 1]
    found.faults += _newest_faults(reader)
    published: dict[Place, Counter[int]] = defaultdict(Counter)
    for (item_id, resolution_ms, cutoff_ms), times in identities.items():
        published[_shard(item_id, num_shards), resolution_ms][cutoff_ms] += times
    said: dict[Place, list[Json]] = defaultdict(list)
    for one in reader.found["rounds"]:
        said[one["shard"], one["resolution_ms"]].append(one)
    for place in sorted(published.keys() | said.keys()):
        _close_books(found, place, published[place], said[place])
    return found


def _identity(forecast: Json) -> Identity:
    return forecast["item_id"], forecast["resolution_ms"], forecast["cutoff_ms"]


def _shard(item_id: str, num_shards: int) -> int:
    return int(xxhash.xxh3_64_intdigest(item_id.encode())) % num_shards


def _newest_faults(reader: ForeignReader) -> list[str]:
    """The table of the newest holds what the log holds, and under each key the newest."""
    faults = []
    ids, of_table = (
        Counter(one["forecast_id"] for one in reader.found[name])
        for name in ("forecasts", "latest")
    )
    if ids != of_table:
        faults.append(
            f"forecasts and the newest differ by {len((ids - of_table) | (of_table - ids))}"
        )
    newest: dict[str, Json] = {}
    for one in reader.found["forecasts"]:
        key = f"{one['item_id']}@{one['resolution_ms']}"
        if key not in newest or one["cutoff_ms"] > newest[key]["cutoff_ms"]:
            newest[key] = one
    old = [key for key, one in newest.items() if reader.newest.get(key) != one]
    return [*faults, *(f"under {key} is not the newest" for key in old)]


def _close_books(
    found: Account, place: Place, published: Mapping[int, int], said: Sequence[Json]
) -> None:
    """Each cutoff between a shard's first round and its last is named, once and truly."""
    complete = Counter(one["cutoff_ms"] for one in said if one["complete"])
    begun = {one["cutoff_ms"]: one for one in said if not one["complete"]}
    skipped: Counter[int] = Counter()
    for one in said:
        if one["complete"] or one["cutoff_ms"] not in complete:
            skipped.update(_skipped(one))
        if one["published"] != published.get(one["cutoff_ms"], 0) and one["complete"]:
            found.faults.append(f"{one} but {published.get(one['cutoff_ms'], 0)} are there")
        if one["complete"] and one["published"] != one["expected"]:
            found.faults.append(f"{one} is complete")
    for cutoff_ms, one in begun.items():
        if cutoff_ms not in complete and one["published"] != published.get(cutoff_ms, 0):
            found.faults.append(f"{one} but {published.get(cutoff_ms, 0)} are there")
    named = complete.keys() | begun.keys() | skipped.keys()
    found.faults += [f"{place} at {at_ms}: no round says so" for at_ms in published.keys() - named]
    found.faults += [f"{place} at {at_ms}: said twice" for at_ms in complete if complete[at_ms] > 1]
    both = skipped.keys() & (complete.keys() | begun.keys())
    found.faults += [f"{place} at {at_ms}: skipped, and not" for at_ms in both]
    if named:
        cutoffs_ms = set(range(min(named), max(named) + 1, place[1]))
        found.faults += [f"{place} at {at_ms}: not named" for at_ms in cutoffs_ms - named]
    found.complete += [(place, at_ms) for at_ms in complete]
    found.incomplete += [(place, at_ms) for at_ms in begun.keys() - complete.keys()]
    found.skipped += [(place, at_ms) for at_ms in skipped]


def _skipped(one: Json) -> list[int]:
    """The cutoffs that a round says nobody forecast."""
    if not one["skipped"]:
        return []
    step_ms = one["resolution_ms"]
    from_ms = [one["skipped_from_ms"] + number * step_ms for number in range(one["skipped"])]
    assert from_ms[-1] == one["cutoff_ms"] - step_ms, one
    return from_ms
