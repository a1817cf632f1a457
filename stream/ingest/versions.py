"""One partition of a shop's table, as ingest keeps it: judge a batch of records, append it, again.

Nothing here is durable but what `append` writes. So a crash anywhere, and a Redis that came back
older, are the same case: claim again, seek to `header.next_offset`, append the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from freshet.stream.catalog.records import announced_ms, usable
from freshet.stream.catalog.translate import Translator
from freshet.stream.codec import MAX_TIME_MS, time_ms
from freshet.stream.config import Settings
from freshet.stream.errors import EventError, LogLostError
from freshet.stream.failpoints import failpoint
from freshet.stream.kafka import Key, Message, headers_of
from freshet.stream.schemas import InventoryLevel, Record, ShopTable
from freshet.stream.slots import covariate_slots
from freshet.stream.store.layout import Answer
from freshet.stream.store.versions import (
    Append,
    Version,
    VersionHeader,
    VersionStore,
    forget_hint,
    kept_ms,
)


@dataclass(frozen=True, slots=True)
class JudgedBatch:
    """Records of a partition in log order, as they are to be stored, and why some are unusable.

    `dead` names records by their place in the batch; `skipped` counts those that are none of ours,
    which have no version.
    """

    versions: Sequence[Version]
    dead: Sequence[tuple[int, EventError]]
    next_offset: int
    skipped: int = 0


class PartitionVersions:
    """The one writer of a partition's versions; not thread-safe.

    Args:
        store: Where they go.
        table: What the topic holds.
        place: Topic and partition.
        settings: What decides what is usable, and how long versions are kept.
        latest_ms: When a record may say that something happened at the latest.
        header: As it was claimed.
        reached_ms: Up to when events have come; contexts end no earlier.
    """

    def __init__(
        self,
        store: VersionStore,
        table: ShopTable,
        place: tuple[str, int],
        settings: Settings,
        latest_ms: Callable[[], int],
        header: VersionHeader,
        reached_ms: Callable[[], int] = lambda: MAX_TIME_MS,
    ) -> None:
        self._reached_ms = reached_ms
        self.table = table
        self.topic, self.partition = place
        self.header = header
        self._store = store
        self._slots = covariate_slots(settings.covariates.flags, settings.covariates.numbers)
        self._translator = Translator(settings)
        self._kept_ms = kept_ms(settings)
        self._latest_ms = latest_ms

    def start_at(self, log_start_offset: int) -> None:
        """Begin a partition that has no versions yet; nothing is written before an `append`."""
        assert self.header.next_offset is None, f"{self.topic}:{self.partition} has begun"
        self.header = replace(self.header, first_offset=log_start_offset)

    @property
    def next_offset(self) -> int:
        """Where the next batch begins."""
        header = self.header
        offset = header.first_offset if header.next_offset is None else header.next_offset
        assert offset is not None, "start_at comes before the first append"
        return offset

    def judge(self, messages: Sequence[Message]) -> JudgedBatch:
        """Which records can be used, by the code that readers use them with; at least one.

        Raises:
            SchemaRegistryAwayError: A schema is not known yet, and nobody answers.
        """
        versions = []
        dead = []
        for place, message in enumerate(messages):
            try:
                version = self._judged(message)
            except EventError as error:
                dead.append((place, error))
                version = _unusable(message)
            if version is not None:
                versions.append(version)
        next_offset = (messages[-1].offset() or 0) + 1
        return JudgedBatch(versions, dead, next_offset, len(messages) - len(versions))

    def _judged(self, message: Message) -> Version | None:
        """The version that a record is, in our own words; None where it is none of ours."""
        offset, timestamp_ms = message.offset() or 0, message.timestamp()[1]
        told = self._translator.read(
            self.table, message.key(), message.value(), timestamp_ms, headers_of(message)
        )
        if told is None:
            return None
        key, value = told
        if key is None:
            raise EventError(f"a record of {self.topic} without a key: nothing could supersede it")
        as_of_ms = timestamp_ms
        if value is not None:
            latest_ms = self._latest_ms()
            record = usable(self.table, value, latest_ms=latest_ms, slots=self._slots)
            as_of_ms = in_force_ms(record, timestamp_ms)
        return Version(offset, timestamp_ms, max(0, as_of_ms), key, value)

    def append(self, batch: JudgedBatch) -> Answer:
        """Write a batch, whole or not at all, and move on when it is in.

        APPLIED, ALREADY: it is in. GAP: Redis is older than this object; claim again and seek.
        FENCED: another owner has the partition; drop it until it is reassigned. After GAP and
        FENCED this object must not be used.

        Raises:
            StoreUnavailableError: No answer; append the same batch again, or claim again.
        """
        usable_ms = [version.timestamp_ms for version in batch.versions if not version.dead]
        header = replace(
            self.header,
            next_offset=batch.next_offset,
            frontier_ms=max([self.header.frontier_ms, *usable_ms]),
            read=self.header.read + len(batch.versions) + batch.skipped,
            applied=self.header.applied + len(usable_ms),
            dead_letter=self.header.dead_letter + len(batch.dead),
            skipped=self.header.skipped + batch.skipped,
        )
        failpoint("before_append")
        answer = self._append(header, batch.versions)
        failpoint("after_append")
        return answer

    def stand_at(self, end: int) -> Answer:
        """Say that everything before this end of the log is in; `append` says what it answers."""
        header = self.header
        offset = max(end, self.next_offset)
        if header.reached_end and header.next_offset == offset:
            return Answer.ALREADY
        return self._append(replace(header, next_offset=offset, reached_end=1))

    def compared(self, stored: VersionHeader) -> Answer:
        """What an `append` would answer by the stored header; ALREADY where it is ours."""
        mine = self.header
        same_epoch = stored.epoch == mine.epoch
        if stored.epoch > mine.epoch or (same_epoch and stored.owner != mine.owner):
            return Answer.FENCED
        same = same_epoch and stored.next_offset == mine.next_offset
        return Answer.ALREADY if same else Answer.GAP

    def drop(self, count: int) -> Answer:
        """Have up to so many superseded versions leave before their time."""
        return self._append(replace(self.header, next_offset=self.next_offset), drop=count)

    def _append(
        self, header: VersionHeader, versions: Sequence[Version] = (), drop: int = 0
    ) -> Answer:
        # Neither a record that is stamped ahead of the clock makes anything old, nor one of today
        # while events of years ago are still to come.
        now_ms = min(header.frontier_ms, self._latest_ms(), self._reached_ms())
        append = Append(
            header=header,
            expected_offset=self.header.next_offset,
            versions=versions,
            horizon_ms=max(0, now_ms - self._kept_ms),
            drop=drop,
        )
        answer, stored = self._store.append(self.topic, self.partition, append)
        if answer in (Answer.APPLIED, Answer.ALREADY):
            self.header = stored
        return answer


def in_force_ms(record: Record, timestamp_ms: int) -> int:
    """The time by which a record supersedes others of its key, or is superseded itself.

    >>> from freshet.stream.schemas import CatalogEntry
    >>> in_force_ms(InventoryLevel(sku="a", on_hand=1, as_of="1970-01-01T00:00:07Z"), 9_000)
    7000
    >>> in_force_ms(CatalogEntry(sku="a"), 9_000)
    9000
    """
    if isinstance(record, InventoryLevel):
        return time_ms(record.as_of)
    return announced_ms(record, timestamp_ms)


def check_inside(key: Key, position: int, first: int, end: int) -> None:
    """Refuse a stored offset that the log no longer holds, or never held.

    Raises:
        LogLostError: The versions cannot be continued.
    """
    topic, partition = key
    if not first <= position <= end:
        raise LogLostError(
            f"{topic}:{partition}: the versions in Redis end at offset {position}, "
            f"and the log holds {first} to {end}: what was said between is gone",
            hint=forget_hint(topic),
        )


def _unusable(message: Message) -> Version:
    """Marks that there was a record at its offset."""
    timestamp_ms = message.timestamp()[1]
    return Version(
        offset=message.offset() or 0,
        timestamp_ms=timestamp_ms,
        as_of_ms=max(0, timestamp_ms),
        key=message.key() or b"",
        value=None,
        dead=True,
    )
