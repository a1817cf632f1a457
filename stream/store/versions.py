"""How versions of the shop's tables lie in Redis, and their one writer's calls: claim and append.

A version is one record of a table's key; all are kept, not the newest alone. They lie outside
generations: how events are folded changes nothing about them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import redis

from freshet.stream.config import Settings
from freshet.stream.errors import LogLostError, OtherFormatError
from freshet.stream.store.connection import translated
from freshet.stream.store.layout import Answer
from freshet.stream.store.script import Script
from freshet.stream.units import DAY_MS

PARTITIONS_KEY: Final = "freshet:side:partitions"
"""Set of "<topic>:<partition>" whose versions an ingest keeps, or is about to."""

FORMAT: Final = "versions:1"
MAX_REMOVED: Final = 1_000
DRESSED_AGAIN_MS: Final = 7 * DAY_MS
"""For how long a forecast's batch can be dressed again as it was."""


@dataclass(frozen=True, slots=True)
class VersionKeys:
    """The names of one partition's keys; one hash tag, so that all share a Redis Cluster slot.

    >>> VersionKeys("freshet.catalog.v1", 3).log
    '{freshet:side:freshet.catalog.v1:3}:s'
    """

    topic: str
    partition: int

    @property
    def prefix(self) -> str:
        return f"{{freshet:side:{self.topic}:{self.partition}}}"

    @property
    def header(self) -> str:
        """Hash: epoch, owner, next offset, books."""
        return f"{self.prefix}:h"

    @property
    def log(self) -> str:
        """Stream: the versions, `<offset>-<owner>`, so that a rewritten one has another id.

        Fields are `k` (key), `t` (the record's timestamp in ms) and `v` (value), which a tombstone
        lacks; a dead letter has `d` instead.
        """
        return f"{self.prefix}:s"

    @property
    def newest(self) -> str:
        """Hash: key -> "<as of in ms>:<offset>" of the newest version, by as of, ties by offset."""
        return f"{self.prefix}:n"

    @property
    def leaving(self) -> str:
        """Sorted set: offsets of what is superseded, scored by the time from which it is."""
        return f"{self.prefix}:l"

    @property
    def all(self) -> list[str]:
        """The keys that a script is given, in its order."""
        return [self.header, self.log, self.newest, self.leaving]


_WRITTEN: Final = (
    "first_offset",
    "frontier_ms",
    "reached_end",
    "read",
    "applied",
    "dead_letter",
    "skipped",
)


_TEXTS: Final = ("owner", "topic_id", "fingerprint")


@dataclass(frozen=True, slots=True)
class VersionHeader:
    """What a partition's versions say about themselves; `fingerprint` is their format.

    `reached_end` says that an owner once stood at the log's end; `versions` how many are stored;
    `dropped` how many had to leave early since there were too many, all of them superseded by
    `dropped_until_ms`.
    """

    epoch: int = 0
    owner: str = ""
    fingerprint: str = ""
    topic_id: str = ""
    first_offset: int | None = None
    next_offset: int | None = None
    frontier_ms: int = 0
    reached_end: int = 0
    read: int = 0
    applied: int = 0
    dead_letter: int = 0
    skipped: int = 0
    versions: int = 0
    dropped: int = 0
    dropped_until_ms: int = 0

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> VersionHeader:
        """From the hash as Redis gives it; unknown fields are ignored."""
        values: dict[str, Any] = {}
        for raw_name, raw in fields.items():
            name = raw_name.decode()
            if name in cls.__slots__:
                text = raw.decode()
                values[name] = text if name in _TEXTS else int(text)
        return cls(**values)

    @property
    def written_by(self) -> int:
        """The second half of the ids of entries that this owner writes."""
        return int(self.owner, 16) or 1


class Version(NamedTuple):
    """One record as it is stored; a null value is a tombstone, and `dead` is in no table.

    `as_of_ms` is from when on it is in force.
    """

    offset: int
    timestamp_ms: int
    as_of_ms: int
    key: bytes
    value: bytes | None
    dead: bool = False

    def arguments(self) -> tuple[Any, ...]:
        """As append.lua describes them."""
        kind = "d" if self.dead else "t" if self.value is None else "v"
        value = b"" if self.value is None or self.dead else self.value
        return kind, self.offset, self.as_of_ms, self.timestamp_ms, self.key, value


@dataclass(frozen=True, slots=True)
class Append:
    """The next versions of a partition; header and books in absolute values.

    `horizon_ms` is the time before which nobody asks: what was superseded by then leaves, and so do
    the `drop` next ones to leave.
    """

    header: VersionHeader
    expected_offset: int | None
    versions: Sequence[Version] = ()
    horizon_ms: int = 0
    drop: int = 0

    def arguments(self) -> list[Any]:
        """The script's ARGV, as append.lua describes them."""
        header, expected = self.header, self.expected_offset
        args: list[Any] = [header.epoch, header.owner, "" if expected is None else expected]
        args += [header.next_offset, header.written_by, self.horizon_ms, MAX_REMOVED, self.drop]
        args.append(len(_WRITTEN))
        for name in _WRITTEN:
            args += (name, getattr(header, name))
        for version in self.versions:
            args += version.arguments()
        return args


class VersionStore:
    """Versions as their one writer sees them. Every call blocks for one round trip."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._claim = Script(client, "claim")
        self._append = Script(client, "append")

    def name(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Say which partitions there are, so that a reader knows what it waits for."""
        if partitions:
            members = [f"{topic}:{partition}" for topic, partition in partitions]
            with translated(self._client):
                self._client.sadd(PARTITIONS_KEY, *members)

    def claim(self, topic: str, partition: int, topic_id: str = "") -> VersionHeader:
        """Become the partition's owner: the epoch rises and all earlier owners are fenced.

        Raises:
            LogLostError: The versions are of another topic of that name, deleted since; nothing
                was claimed.
            OtherFormatError: Another version of freshet wrote them; nothing was claimed.
        """
        self.name([(topic, partition)])
        keys = VersionKeys(topic, partition)
        with translated(self._client):
            reply = self._claim([keys.header], [FORMAT, secrets.token_hex(8), topic_id])
        if reply[0] == b"RECREATED":
            raise other_topic(topic, partition, reply[1].decode(), topic_id)
        if reply[0] == b"REFUSED":
            raise other_versions(topic, reply[1].decode())
        return VersionHeader.parse(dict(zip(reply[1::2], reply[2::2], strict=True)))

    def append(self, topic: str, partition: int, append: Append) -> tuple[Answer, VersionHeader]:
        """Write versions and offset, whole or not at all; the same call again is harmless.

        Returns:
            What became of it, and the header with what Redis itself counted.

        Raises:
            StoreUnavailableError: No answer; the write may or may not have happened, so call again
                or claim again.
            StoreError: What is stored is damaged; nothing was written.
        """
        keys = VersionKeys(topic, partition)
        with translated(self._client):
            said = self._append(keys.all, append.arguments())
        answer = Answer(said[0].decode())
        return answer, VersionHeader.parse(dict(zip(said[1::2], said[2::2], strict=True)))

    def header(self, topic: str, partition: int) -> VersionHeader | None:
        """The stored header, or None when the partition was never claimed."""
        with translated(self._client):
            fields: dict[Any, Any] = self._client.hgetall(VersionKeys(topic, partition).header)
        return VersionHeader.parse(fields) if fields else None

    def headers(self, partitions: Sequence[tuple[str, int]]) -> list[VersionHeader]:
        """The headers of many, in one round trip; an empty one of what was never claimed."""
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            for key in partitions:
                pipe.hgetall(VersionKeys(*key).header)
            return list(map(VersionHeader.parse, pipe.execute()))

    def partitions(self) -> list[tuple[str, int]]:
        """Every partition whose versions are kept, sorted."""
        with translated(self._client):
            members: set[Any] = self._client.smembers(PARTITIONS_KEY)
        return sorted(map(partition_of, members))

    def forget(self, topic: str) -> int:
        """Delete all versions of a topic; how many there were."""
        mine = [key for key in self.partitions() if key[0] == topic]
        headers = self.headers(mine)
        with translated(self._client):
            for key in mine:
                # The header goes with the rest: whoever owned the partition is behind now.
                self._client.unlink(*VersionKeys(*key).all)
        return sum(header.versions for header in headers)


def kept_ms(settings: Settings) -> int:
    """For how long what is superseded may still be asked for.

    That is the longest context, or all of the windows that shared effects are learnt from, by
    forecasts of the last week.
    """
    windows = settings.windows
    retained = {width.resolution_ms: width.buckets for width in windows.resolutions}
    asked_ms = [
        max(one.context_length, retained[one.resolution_ms]) * one.resolution_ms
        for one in settings.served
    ]
    late_ms = windows.out_of_order_ms + windows.allowed_lateness_ms
    return max(asked_ms) + DRESSED_AGAIN_MS + late_ms


def check_format(topic: str, header: VersionHeader) -> None:
    """Whether versions may be read, and written on.

    Raises:
        OtherFormatError: Another version of freshet wrote them.
    """
    if header.fingerprint not in ("", FORMAT):
        raise other_versions(topic, header.fingerprint)


def other_versions(topic: str, found: str) -> OtherFormatError:
    """The error of whoever meets versions of another format."""
    return OtherFormatError(
        f"the versions of {topic} in Redis have format {found}, and this version of freshet reads "
        f"{FORMAT}",
        hint=f"it waits: run the version that wrote them, or `freshet windows forget {topic}`, and "
        "ingest of this version reads what the log has once more",
    )


def partition_of(member: bytes) -> tuple[str, int]:
    """A topic and a partition's number.

    >>> partition_of(b"shop:items:3")
    ('shop:items', 3)
    """
    topic, _, partition = member.decode().rpartition(":")
    return topic, int(partition)


def forget_hint(topic: str) -> str:
    """What a person can do when a table's log is another one than its versions are of."""
    return (
        f"`freshet windows forget {topic}` gives up its versions, and ingest reads what the log "
        "holds now; or bring back the Redis or the topic that belong together"
    )


def other_topic(topic: str, partition: int, stored: str, ours: str) -> LogLostError:
    """Its topic was deleted and made again."""
    return LogLostError(
        f"{topic}:{partition}: the versions in Redis are of topic id {stored}, and {topic} is now "
        f"{ours}: it was deleted and made again, so offsets no longer mean the same records",
        hint=forget_hint(topic),
    )
