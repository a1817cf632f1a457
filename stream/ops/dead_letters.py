"""Dead letters and late records for people: `freshet dlq list`, `show` and `redrive`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.events.dead_letter import (
    ERROR_PREFIX,
    SOURCE_PREFIX,
    HeaderList,
    Outgoing,
    Source,
    source_of,
)
from freshet.stream.events.redrive import REDRIVE_HEADER
from freshet.stream.kafka import (
    Consumer,
    Publisher,
    TableReader,
    TableRecord,
    TopicPartition,
    broker_errors,
    consumer,
    log_range,
    partitions_of,
    take,
)
from freshet.stream.kafka.topics import dead_letter_topic

REDRIVE_BATCH = 1_000
LATE = "late"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: all that every given filter lets through.

    Attributes:
        topic: Only letters of this source topic; None is orders and clicks.
        late: Records of the late topic instead of dead letters.
        error: Only this stage or this error class, in any case of letters.
        from_ms: Only letters written at or after it (the record timestamp of the dead letter).
        to_ms: Only letters written before it.
    """

    topic: str | None = None
    late: bool = False
    error: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def narrows(self) -> bool:
        """Whether anything but the topic is asked for."""
        return (self.error, self.from_ms, self.to_ms) != (None, None, None)

    def lets_through(self, letter: Source) -> bool:
        """Whether a letter is wanted."""
        said = _said(letter.headers)
        names = {_stage(said).lower(), _class(said).lower()}
        return (
            self.topic in (None, _of(said, "topic"))
            and (self.error is None or self.error.lower() in names)
            and (self.from_ms is None or letter.timestamp_ms >= self.from_ms)
            and (self.to_ms is None or letter.timestamp_ms < self.to_ms)
        )

    def topics(self, settings: Settings) -> list[str]:
        """The topics to look in.

        Raises:
            ConfigError: The source topic is not an event topic.
        """
        known = [settings.kafka.topics.orders, settings.kafka.topics.clicks]
        if self.topic is not None and self.topic not in known:
            raise ConfigError(
                f"{self.topic} is not an event topic", hint=f"choose one of {', '.join(known)}"
            )
        if self.late:
            return [settings.kafka.topics.late]
        return [dead_letter_topic(name) for name in known if self.topic in (None, name)]


# Showing ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LetterView:
    """One letter as people see it; `place` is topic-partition-offset of the record that could not
    be used.
    """

    place: str
    stage: str
    error_class: str
    message: str
    written_at_ms: int
    key: bytes | None
    value: bytes | None
    cut: bool
    redriven: bool
    headers: HeaderList

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; bytes that are not UTF-8 are shown with replacement characters."""
        headers = [[name, _shown(value)] for name, value in self.headers]
        return {
            **asdict(self),
            "key": _shown(self.key),
            "value": _shown(self.value),
            "headers": headers,
        }

    def as_text(self) -> str:
        """For people: one line, the value at most 80 characters."""
        value = "(null)" if self.value is None else repr((_shown(self.value) or "")[:80])
        return f"{self.place}  {self.stage}/{self.error_class}: {self.message}  {value}"

    def as_page(self) -> str:
        """For people: everything, a line each, the value last and whole."""
        lines = [
            f"place    {self.place}" + ("  (sent again before)" if self.redriven else ""),
            f"error    {self.stage}/{self.error_class}: {self.message}",
            f"written  {self.written_at_ms} ms",
            f"key      {_shown(self.key)!r}",
            *(f"header   {name}: {_shown(value)}" for name, value in self.headers),
            "(cut: part of the record did not fit)" if self.cut else "",
            "(null)" if self.value is None else _shown(self.value) or "",
        ]
        return "\n".join(line for line in lines if line)


def list_letters(
    settings: Settings, wanted: Wanted = Wanted(), *, most: int = 100
) -> list[LetterView]:
    """Letters that are in the log now, in the order of their partitions.

    Args:
        settings: Where to connect.
        wanted: Which.
        most: At most so many.

    Raises:
        BrokerError: The broker does not answer, or there is no dead-letter topic.
    """
    found: list[LetterView] = []
    for letter in _letters(settings, wanted):
        found.append(view_of(letter))
        if len(found) == most:
            break
    return found


def show_letter(settings: Settings, place: str) -> LetterView:
    """The newest letter of a place, topic-partition-offset as `list` shows it.

    Raises:
        InvalidInputError: There is none.
    """
    found = None
    for wanted in (Wanted(), Wanted(late=True)):
        for letter in _letters(settings, wanted):
            if _place_of(_said(letter.headers)) == place:
                found = letter
    if found is None:
        raise InvalidInputError(
            f"no letter of {place!r} is in the log", hint="`freshet dlq list` shows the places"
        )
    return view_of(found)


def _letters(settings: Settings, wanted: Wanted) -> Iterator[Source]:
    with TableReader(settings, wanted.topics(settings)) as reader:
        while not reader.caught_up:
            yield from filter(wanted.lets_through, map(_as_source, reader.poll()))


def _as_source(record: TableRecord) -> Source:
    headers = list(record.headers)
    return Source(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp_ms,
        record.key,
        record.value,
        headers,
    )


def view_of(letter: Source) -> LetterView:
    """What the headers of a letter say."""
    said = _said(letter.headers)
    return LetterView(
        place=_place_of(said),
        stage=_stage(said),
        error_class=_class(said),
        message=said.get(f"{ERROR_PREFIX}message", ""),
        written_at_ms=letter.timestamp_ms,
        key=letter.key,
        value=letter.value,
        cut=_cut(said),
        redriven=REDRIVE_HEADER in said,
        headers=_without_ours(letter.headers),
    )


def _shown(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


def _said(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}


def _of(said: dict[str, str], name: str) -> str:
    return said.get(ERROR_PREFIX + name) or said.get(SOURCE_PREFIX + name, "?")


def _stage(said: dict[str, str]) -> str:
    return said.get(f"{ERROR_PREFIX}stage", LATE)


def _class(said: dict[str, str]) -> str:
    return said.get(f"{ERROR_PREFIX}class", "TooLate")


def _place_of(said: dict[str, str]) -> str:
    return "-".join(_of(said, name) for name in ("topic", "partition", "offset"))


def _cut(said: dict[str, str]) -> bool:
    return any(f"{ERROR_PREFIX}{part}_bytes" in said for part in ("value", "key", "headers"))


def _without_ours(headers: HeaderList) -> HeaderList:
    return [
        (name, value)
        for name, value in headers
        if not name.startswith((ERROR_PREFIX, SOURCE_PREFIX))
    ]


# Sending again ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did: letters sent again, those left because part of them was cut, those not
    wanted.
    """

    sent: int = 0
    cut: int = 0
    skipped: int = 0

    def __add__(self, other: Redriven) -> Redriven:
        return Redriven(self.sent + other.sent, self.cut + other.cut, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.sent} letters" + (f" ({self.cut} were cut and stay)" if self.cut else "")


def redrive(
    settings: Settings,
    wanted: Wanted = Wanted(),
    *,
    most: int | None = None,
    from_start: bool = False,
) -> Redriven:
    """Send letters to the partitions they came from once more, for instance after a field map was
    corrected.

    Without filters it goes on where the last redrive ended (kept in the group
    `<group_prefix>.redrive`); with a filter, or `from_start`, it looks at all letters. Sending one
    twice is harmless: each record carries the header `freshet-redrive: topic-partition-offset` of
    its original, and windows count a header once (`freshet.stream.events.redrive`). Durable
    effects, in order: the records are acknowledged, then the position is kept.

    Args:
        settings: Where to connect.
        wanted: Which letters.
        most: Send at most so many; None is all there are now.
        from_start: Look at all of them, also those sent before.

    Raises:
        BrokerError: The broker does not answer or a topic does not exist.
    """
    done = Redriven()
    for letters in wanted.topics(settings):
        left = None if most is None else most - done.sent - done.cut
        done += _redrive_topic(settings, letters, wanted, left, from_start)
    return done


def _redrive_topic(
    settings: Settings, letters: str, wanted: Wanted, most: int | None, from_start: bool
) -> Redriven:
    events = [settings.kafka.topics.orders, settings.kafka.topics.clicks]
    counts = partitions_of(settings, [letters, *events])
    client = consumer(settings, "redrive", auto_offset_reset="earliest", enable_partition_eof=True)
    # The late topic is shared by both event topics: one of them redriven says nothing of the
    # other's letters.
    keep = not wanted.narrows() and not (wanted.late and wanted.topic is not None)
    try:
        ends = {number: log_range(client, letters, number)[1] for number in range(counts[letters])}
        client.assign(_starts(client, letters, counts[letters], from_start or not keep))
        with Publisher(settings) as publisher:
            sender = _Sender(publisher, wanted, {topic: counts[topic] for topic in events})
            return _redrive(client, sender, ends, most, keep=keep)
    finally:
        client.close()


def _redrive(
    client: Consumer, sender: _Sender, ends: dict[int, int], most: int | None, *, keep: bool
) -> Redriven:
    """Up to the given ends: what fails again meanwhile is left for the next redrive."""
    done = Redriven()
    while ends and (most is None or done.sent + done.cut < most):
        left = REDRIVE_BATCH if most is None else min(REDRIVE_BATCH, most - done.sent - done.cut)
        taken = take(client, left, 200)
        letters = [source_of(message) for message in taken.messages]
        letters = [letter for letter in letters if letter.offset < ends.get(letter.partition, 0)]
        done += sender.send(letters)
        if keep:
            _keep_position(client, letters)
        passed = {
            letter.partition for letter in letters if letter.offset + 1 >= ends[letter.partition]
        }
        passed |= {partition for _, partition in taken.ends}
        ends = {number: end for number, end in ends.items() if number not in passed}
    return done


class _Sender:
    def __init__(self, publisher: Publisher, wanted: Wanted, partitions: dict[str, int]) -> None:
        self._publisher, self._wanted, self._partitions = publisher, wanted, partitions

    def send(self, letters: Iterable[Source]) -> Redriven:
        """Send what is wanted and whole; returns when it is acknowledged."""
        done = Redriven()
        for letter in letters:
            if not self._wanted.lets_through(letter):
                done += Redriven(skipped=1)
                continue
            record = again(letter, self._partitions)
            if record is None:
                done += Redriven(cut=1)
                continue
            self._publisher.produce(
                record.topic,
                record.value,
                key=record.key,
                partition=record.partition,
                headers=record.headers,
            )
            done += Redriven(sent=1)
        self._publisher.flush()
        return done


def _starts(client: Consumer, letters: str, count: int, from_start: bool) -> list[TopicPartition]:
    wanted = [TopicPartition(letters, number, 0) for number in range(count)]
    if from_start:
        return wanted
    with broker_errors("asking where the last redrive ended"):
        committed = client.committed(wanted, 10.0)
    return [TopicPartition(letters, at.partition, max(0, at.offset)) for at in committed]


def _keep_position(client: Consumer, letters: list[Source]) -> None:
    newest = {
        letter.partition: TopicPartition(letter.topic, letter.partition, letter.offset + 1)
        for letter in letters
    }
    if newest:
        with broker_errors("keeping where this redrive is"):
            client.commit(offsets=list(newest.values()), asynchronous=False)


def again(letter: Source, partitions: dict[str, int]) -> Outgoing | None:
    """A letter as it goes back, without our notes; None when part of it was cut or it is of no
    event topic.

    It goes to the partition it came from, where its redrive header is remembered, and keeps the
    header it may have: the place of the very first record.

    Args:
        letter: From a dead-letter topic or the late topic.
        partitions: The event topics and how many partitions each has.
    """
    said = _said(letter.headers)
    topic, number = _of(said, "topic"), _of(said, "partition")
    if _cut(said) or topic not in partitions or not number.isdigit():
        return None
    place = said.get(REDRIVE_HEADER) or _place_of(said)
    kept = [pair for pair in _without_ours(letter.headers) if pair[0] != REDRIVE_HEADER]
    partition = int(number) if int(number) < partitions[topic] else -1
    return Outgoing(
        topic, letter.key, letter.value, [*kept, (REDRIVE_HEADER, place.encode())], partition
    )
