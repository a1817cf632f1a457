"""Dead letters and late records for people to look at: found by a filter, listed, shown whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, InvalidInputError
from freshet.stream.events.dead_letter import HeaderList, Notes, Source, notes_of, without_notes
from freshet.stream.kafka import TableReader, TableRecord, cluster
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.schemas import RECORDS

MAX_VALUE_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: all that every given filter lets through.

    Attributes:
        topic: Only those of this source topic; None is every topic.
        late: Records of the late topic instead of dead letters.
        error: Only this stage or this error class, upper or lower case.
        from_ms: Only those written at or after it (the record timestamp of the dead letter).
        to_ms: Only those written before it.
    """

    topic: str | None = None
    late: bool = False
    error: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def narrows(self) -> bool:
        """Whether anything but the topic is asked for."""
        return (self.error, self.from_ms, self.to_ms) != (None, None, None)

    def lets_through(self, dead_letter: Source) -> bool:
        """Whether a dead letter is wanted."""
        notes = notes_of(dead_letter.headers)
        errors = {notes.stage.lower(), notes.error_class.lower()}
        return (
            self.topic in (None, notes.topic)
            and (self.error is None or self.error.lower() in errors)
            and (self.from_ms is None or dead_letter.timestamp_ms >= self.from_ms)
            and (self.to_ms is None or dead_letter.timestamp_ms < self.to_ms)
        )

    def topics(self, settings: Settings) -> list[str]:
        """The topics to look in.

        Raises:
            ConfigError: The source topic is none that freshet reads.
        """
        known = list(settings.kafka.topics.of(*RECORDS))
        if self.topic is not None and self.topic not in known:
            hint = f"choose one of {', '.join(known)}"
            raise ConfigError(f"{self.topic} is no topic that freshet reads", hint=hint)
        if self.late:
            return [settings.kafka.topics.late]
        return [dead_letter_topic(name) for name in known if self.topic in (None, name)]

    def topics_there(self, settings: Settings) -> list[str]:
        """The topics to look in, but those that nobody named and that do not exist.

        A cluster that was set up by an older freshet has dead-letter topics of its events alone.

        Raises:
            ConfigError: The source topic is none that freshet reads.
            BrokerError: The broker does not answer.
        """
        names = self.topics(settings)
        if self.late or self.topic is not None:
            return names
        there = cluster(settings).partitions
        return [name for name in names if name in there] or names


EVERYTHING = DeadLetterFilter()


@dataclass(frozen=True, slots=True)
class DeadLetterView:
    """One dead letter as people see it.

    `place` is topic-partition-offset of the record that could not be used.
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
        """For people: one line, the value cut short."""
        value = "(null)"
        if self.value is not None:
            value = repr((_shown(self.value) or "")[:MAX_VALUE_CHARACTERS])
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


def list_dead_letters(
    settings: Settings, wanted: DeadLetterFilter = EVERYTHING, *, most: int = 100
) -> list[DeadLetterView]:
    """Dead letters that are in the log now, in the order of their partitions.

    Args:
        settings: Where to connect.
        wanted: Which.
        most: At most so many.

    Raises:
        BrokerError: The broker does not answer, or there is no dead-letter topic.
    """
    found: list[DeadLetterView] = []
    for dead_letter in _dead_letters(settings, wanted):
        found.append(_view_of(dead_letter))
        if len(found) == most:
            break
    return found


def show_dead_letter(settings: Settings, place: str) -> DeadLetterView:
    """The newest dead letter of a place, topic-partition-offset as `list` shows it.

    Raises:
        InvalidInputError: There is none.
    """
    newest = None
    for wanted in (EVERYTHING, DeadLetterFilter(late=True)):
        for dead_letter in _dead_letters(settings, wanted):
            if notes_of(dead_letter.headers).place == place:
                newest = dead_letter
    if newest is None:
        hint = "`freshet dlq list` shows the places"
        raise InvalidInputError(f"no dead letter of {place!r} is in the log", hint=hint)
    return _view_of(newest)


def _dead_letters(settings: Settings, wanted: DeadLetterFilter) -> Iterator[Source]:
    with TableReader(settings, wanted.topics_there(settings)) as reader:
        yield from filter(wanted.lets_through, map(_as_source, reader.to_end()))


def _as_source(record: TableRecord) -> Source:
    return Source(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp_ms,
        record.key,
        record.value,
        list(record.headers),
    )


def _view_of(dead_letter: Source) -> DeadLetterView:
    notes: Notes = notes_of(dead_letter.headers)
    return DeadLetterView(
        place=notes.place,
        stage=notes.stage,
        error_class=notes.error_class,
        message=notes.message,
        written_at_ms=dead_letter.timestamp_ms,
        key=dead_letter.key,
        value=dead_letter.value,
        cut=notes.cut,
        redriven=bool(notes.redriven_from),
        headers=without_notes(dead_letter.headers),
    )


def _shown(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")
