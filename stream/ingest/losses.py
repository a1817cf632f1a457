"""What a run of ingest makes of its records: its books, and why those are lost that are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from freshet.stream.events.hints import LATE, OLD, hint_of, skip_hint
from freshet.stream.ingest.outbox import FoldedBatch
from freshet.stream.ingest.versions import JudgedBatch
from freshet.stream.kafka import Key, Message
from freshet.stream.store.layout import BESIDE, OUTCOMES

MAX_CAUSES: Final = 1_000
MOST_TOLD: Final = 3
LOST: Final = ("late_dropped", "dead_letter", OLD)


@dataclass(slots=True)
class Cause:
    """Why records of a topic are lost: how many, the first of them, and what to change."""

    topic: str
    error: str
    example: str
    text: str
    hint: str
    count: int = 0

    def __str__(self) -> str:
        told = f"{self.count} x {self.error}, such as {self.example}: {self.text}"
        return told if self.hint in self.text else f"{told}; {self.hint}"


def lost_share(counts: Mapping[str, int]) -> float:
    """The share of a topic's own records that enter no window, or none that anybody looks at.

    >>> lost_share({"read": 30, "skipped": 10, "late_dropped": 1, "dead_letter": 2, "old": 3})
    0.3
    """
    ours = counts.get("read", 0) - counts.get("skipped", 0)
    return sum(counts.get(name, 0) for name in LOST) / ours if ours else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """The books of a run by topic, and why records are lost, the commonest cause first."""

    books: Mapping[str, Mapping[str, int]]
    causes: Sequence[Cause]
    max_lost_share: float

    @property
    def too_much(self) -> list[str]:
        """The topics of which more is lost than may be."""
        books = self.books.items()
        return [topic for topic, counts in books if lost_share(counts) > self.max_lost_share]

    def as_text(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if not self.books:
            yield "this run read nothing"
        for topic, counts in self.books.items():
            outcomes = " + ".join(f"{counts[name]} {name}" for name in OUTCOMES)
            yield f"{topic}: {counts['read']} read = {outcomes}"
            beside = [f"{counts[name]} {name}" for name in (*BESIDE, OLD) if counts[name]]
            if beside:
                yield f"  beside: {', '.join(beside)}"
        for cause in self.causes[:MOST_TOLD]:
            yield f"lost of {cause.topic}: {cause}"
        more = self.causes[MOST_TOLD:]
        if more:
            yield f"and {len(more)} more reasons, of {sum(cause.count for cause in more)} records"
        for topic in self.too_much:
            share = lost_share(self.books[topic])
            limit = f"ingest.max_lost_share = {self.max_lost_share:g}"
            yield f"{share:.1%} of {topic} is lost, which is more than {limit}"


class Ledger:
    """The books of this run, whatever the partitions' whole lives were.

    Args:
        section_of: Where in the settings the map of each topic is.
        max_lost_share: What of a topic may be lost.
    """

    def __init__(self, section_of: Mapping[str, str], max_lost_share: float) -> None:
        self._section_of = section_of
        self._max_lost_share = max_lost_share
        self._books: dict[str, Counter[str]] = {}
        self._causes: dict[tuple[str, str, str], Cause] = {}
        self._skipped: Counter[tuple[str, str]] = Counter()

    def add(self, batch: FoldedBatch) -> Counter[str]:
        """Take in a batch of events that was applied; what became of its records."""
        (topic, _), fold = batch.key, batch.fold
        names = ("read", *OUTCOMES, *BESIDE)
        counts = Counter({name: getattr(fold.counts, name) for name in names})
        counts[OLD] = len(fold.old)
        for letter in fold.dead:
            self._lose(batch.key, batch.messages[letter.index], letter.error_class, letter.message)
        for places, error, text in (
            (fold.too_late, LATE, "too late for its windows"),
            (fold.old, OLD, "its event_time is over a year before it was sent"),
        ):
            for place in places:
                self._lose(batch.key, batch.messages[place], error, text)
        for reason, count in fold.skip_reasons.items():
            self._skipped[topic, reason] += count
        return self._book(topic, counts)

    def keep(self, key: Key, messages: Sequence[Message], batch: JudgedBatch) -> Counter[str]:
        """Take in a batch of a table that was stored; what became of its records."""
        for place, error in batch.dead:
            self._lose(key, messages[place], type(error).__name__, error.message)
        dead = len(batch.dead)
        applied = len(batch.versions) - dead
        counts = {"applied": applied, "dead_letter": dead, "skipped": batch.skipped}
        return self._book(key[0], Counter({"read": len(messages), **counts}))

    def why(self, topic: str) -> str:
        """The commonest cause of a topic."""
        return next((str(cause) for cause in self._commonest() if cause.topic == topic), "")

    def why_skipped(self, topic: str) -> str:
        """What most of a topic's skipped records are skipped for."""
        for (of, reason), _ in self._skipped.most_common():
            if of == topic:
                return f"{reason}; {skip_hint(self._section(topic), reason)}"
        return ""

    def report(self) -> Report:
        """The books as they stand."""
        books = {topic: self._books[topic] for topic in sorted(self._books)}
        return Report(books, self._commonest(), self._max_lost_share)

    def _book(self, topic: str, counts: Counter[str]) -> Counter[str]:
        self._books.setdefault(topic, Counter()).update(counts)
        return counts

    def _commonest(self) -> list[Cause]:
        return sorted(self._causes.values(), key=lambda cause: -cause.count)

    def _section(self, topic: str) -> str:
        return self._section_of.get(topic, "events")

    def _lose(self, key: Key, message: Message, error: str, text: str) -> None:
        hint = hint_of(self._section(key[0]), error, text)
        name = (key[0], error, hint)
        if name not in self._causes:
            if len(self._causes) >= MAX_CAUSES:
                return
            example = f"{key[0]}-{key[1]}-{message.offset()}"
            self._causes[name] = Cause(key[0], error, example, text, hint)
        self._causes[name].count += 1
