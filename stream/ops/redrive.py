"""Dead letters and late records sent again, to the partitions they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freshet.stream.config import Settings
from freshet.stream.events.dead_letter import (
    HeaderList,
    Source,
    notes_of,
    source_of,
    without_notes,
)
from freshet.stream.events.limits import LINE_HEADER
from freshet.stream.events.redrive import REDRIVE_HEADER
from freshet.stream.kafka import (
    Consumer,
    Outgoing,
    Publisher,
    RecordsRefusedError,
    Silence,
    TopicPartition,
    broker_errors,
    consumer,
    log_range,
    partitions_of,
    send,
    take,
)
from freshet.stream.kafka.topics import DEAD_LETTER_SUFFIX, TABLES
from freshet.stream.ops.dead_letters import DeadLetterFilter
from freshet.stream.ops.superseded import superseded

REDRIVE_BATCH = 1_000
POLL_MS = 50
EVERYTHING = DeadLetterFilter()


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many dead letters were sent again, were not wanted, or stay, and why.

    Attributes:
        sent: Sent again.
        cut: Stay: part of the record is missing, or it is of another topic.
        superseded: Stay: their table holds something newer of the same key.
        refused: Stay: Kafka does not take them, for their size.
        skipped: Not wanted.
    """

    sent: int = 0
    cut: int = 0
    superseded: int = 0
    refused: int = 0
    skipped: int = 0

    @property
    def tried(self) -> int:
        """Those that count towards the most that may be sent."""
        return self.sent + self.cut + self.superseded + self.refused

    def __add__(self, other: Redriven) -> Redriven:
        return Redriven(
            self.sent + other.sent,
            self.cut + other.cut,
            self.superseded + other.superseded,
            self.refused + other.refused,
            self.skipped + other.skipped,
        )

    def __str__(self) -> str:
        stay = {
            "cut": self.cut,
            "superseded by newer records": self.superseded,
            "refused by Kafka": self.refused,
        }
        reasons = ", ".join(f"{count} were {why}" for why, count in stay.items() if count)
        return f"{self.sent} dead letters" + (f" ({reasons} and stay)" if reasons else "")


def redrive(
    settings: Settings,
    wanted: DeadLetterFilter = EVERYTHING,
    *,
    most: int | None = None,
    from_start: bool = False,
) -> Redriven:
    """Send dead letters once more, for instance after a field map was corrected.

    Without filters it goes on where the last redrive ended (kept in the group
    `<group_prefix>.redrive`); with a filter, or `from_start`, it looks at all dead letters. Each
    record carries the header `freshet-redrive: topic-partition-offset` of its original. Sending
    one twice is harmless: windows count a header once (`freshet.stream.events.redrive`), a table's
    letter stays where something newer of its key is there, the copy sent before too, and readers
    of the other topics go by the times and ids inside the records. Durable effects, in order: the
    records are acknowledged, then the position is kept.

    Args:
        settings: Where to connect.
        wanted: Which dead letters.
        most: Send at most so many; None is all there are now.
        from_start: Look at all of them, also those sent before.

    Raises:
        BrokerError: The broker does not answer or a topic does not exist.
    """
    done = Redriven()
    for topic in wanted.topics_there(settings):
        left = None if most is None else most - done.tried
        done += _redrive_topic(settings, topic, wanted, left, from_start=from_start)
    return done


def _redrive_topic(
    settings: Settings, topic: str, wanted: DeadLetterFilter, most: int | None, *, from_start: bool
) -> Redriven:
    sources = _sources(settings, topic)
    counts = partitions_of(settings, [topic, *sources])
    client = consumer(settings, "redrive", auto_offset_reset="earliest", enable_partition_eof=True)
    # The late topic is shared by both event topics: one of them redriven says nothing of the
    # other's records.
    keep = not wanted.narrows() and not (wanted.late and wanted.topic is not None)
    try:
        ranges = {number: log_range(client, topic, number) for number in range(counts[topic])}
        ends = {number: end for number, (first, end) in ranges.items() if end > first}
        if not ends:
            return Redriven()
        client.assign(_starts(client, topic, counts[topic], from_start=from_start or not keep))
        with Publisher(settings) as publisher:
            sender = _Sender(settings, publisher, wanted, {name: counts[name] for name in sources})
            return _redrive(client, sender, ends, most, keep=keep, silence=Silence(settings.kafka))
    finally:
        client.close()


def _sources(settings: Settings, topic: str) -> list[str]:
    """The topics whose records lie on a dead-letter topic, or on the late topic."""
    topics = settings.kafka.topics
    if topic == topics.late:
        return [topics.orders, topics.clicks]
    return [topic.removesuffix(DEAD_LETTER_SUFFIX)]


def _redrive(
    client: Consumer,
    sender: _Sender,
    ends: dict[int, int],
    most: int | None,
    *,
    keep: bool,
    silence: Silence,
) -> Redriven:
    """Up to the given ends: what fails again meanwhile is left for the next redrive."""
    done = Redriven()
    while ends and (most is None or done.tried < most):
        left = REDRIVE_BATCH if most is None else min(REDRIVE_BATCH, most - done.tried)
        taken = take(client, left, POLL_MS)
        silence.note(bool(taken.messages or taken.ends))
        records = [source_of(message) for message in taken.messages]
        records = [record for record in records if record.offset < ends.get(record.partition, 0)]
        done += sender.send(records)
        if keep:
            _keep_position(client, records)
        passed = {partition for _, partition in taken.ends}
        passed |= {
            record.partition for record in records if record.offset + 1 >= ends[record.partition]
        }
        ends = {number: end for number, end in ends.items() if number not in passed}
    return done


class _Sender:
    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        wanted: DeadLetterFilter,
        partitions: dict[str, int],
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._wanted = wanted
        self._partitions = partitions

    def send(self, dead_letters: Sequence[Source]) -> Redriven:
        """Send what is wanted, whole and still the newest; returns when it is acknowledged."""
        wanted = [letter for letter in dead_letters if self._wanted.lets_through(letter)]
        whole = [
            (letter, original)
            for letter in wanted
            if (original := original_of(letter, self._partitions)) is not None
        ]
        stale = self._superseded([letter for letter, _ in whole])
        records = [original for index, (_, original) in enumerate(whole) if index not in stale]
        refused = self._refused(records)
        return Redriven(
            sent=len(records) - refused,
            cut=len(wanted) - len(whole),
            superseded=len(stale),
            refused=refused,
            skipped=len(dead_letters) - len(wanted),
        )

    def _superseded(self, letters: Sequence[Source]) -> set[int]:
        tables = self._settings.kafka.topics.of(*TABLES)
        (topic, *others) = self._partitions
        return (
            set() if others or topic not in tables else superseded(self._settings, topic, letters)
        )

    def _refused(self, records: Sequence[Outgoing]) -> int:
        """Send these; how many Kafka never takes: one of them must not hold up the others."""
        try:
            send(self._publisher, records)
        except RecordsRefusedError as error:
            if not all(refusal.unfit for refusal in error.refusals):
                raise
            return len(error.refusals)
        return 0


def _starts(client: Consumer, topic: str, count: int, *, from_start: bool) -> list[TopicPartition]:
    starts = [TopicPartition(topic, number, 0) for number in range(count)]
    if from_start:
        return starts
    with broker_errors("asking where the last redrive ended"):
        committed = client.committed(starts, 10.0)
    return [TopicPartition(topic, at.partition, max(0, at.offset)) for at in committed]


def _keep_position(client: Consumer, records: list[Source]) -> None:
    newest = {
        record.partition: TopicPartition(record.topic, record.partition, record.offset + 1)
        for record in records
    }
    if newest:
        with broker_errors("keeping where this redrive is"):
            client.commit(offsets=list(newest.values()), asynchronous=False)


def original_of(dead_letter: Source, partitions: dict[str, int]) -> Outgoing | None:
    """The record as it first came, with its redrive header; None when it cannot go back.

    It cannot when part of it was cut or it is of none of these topics. It goes to the partition it
    came from, where its redrive header is remembered, and keeps the header it may have: the place
    of the very first record.

    Args:
        dead_letter: From a dead-letter topic or the late topic.
        partitions: The topics it may go back to, and how many partitions each has.
    """
    notes = notes_of(dead_letter.headers)
    if notes.cut or notes.topic not in partitions or not notes.partition.isdecimal():
        return None
    first_place = notes.redriven_from or notes.place
    line = _line_of(dead_letter.headers)
    if line is not None and not first_place.endswith(line):
        # Each bad line of an order is a letter of its own, of the same place.
        first_place += line
    headers = [pair for pair in without_notes(dead_letter.headers) if pair[0] != REDRIVE_HEADER]
    headers.append((REDRIVE_HEADER, first_place.encode()))
    # A partition that is no more: the key decides.
    partition = int(notes.partition) if int(notes.partition) < partitions[notes.topic] else -1
    return Outgoing(notes.topic, dead_letter.key, dead_letter.value, headers, partition)


def _line_of(headers: HeaderList) -> str | None:
    """`#N` of a letter that holds line N alone; None of one that holds a whole record."""
    said = [value for name, value in headers if name == LINE_HEADER and value]
    return "#" + said[-1].decode("utf-8", "replace") if said else None
