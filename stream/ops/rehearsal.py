"""What a load of history would bring, counted before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from freshet.stream.clock import wall_now_ms
from freshet.stream.config import Settings
from freshet.stream.events.decoder import EventKind
from freshet.stream.ops.trial import RawRecord, Tried, trial
from freshet.stream.source.history import History, OldRecord

AT_ONCE: Final = 50_000
COMMONEST: Final = 3
KINDS: Final[tuple[EventKind, ...]] = ("orders", "clicks")


@dataclass(slots=True)
class Rehearsal:
    """What records would become, and what those that count hold.

    Attributes:
        became: How many orders and clicks became what.
        reasons: Why others do not count.
        units: Sold units less returned ones.
        clicks: Clicks on items.
        series: Item ids.
        first_ms, last_ms: When the first and the last of them happened; of an order, was made.
    """

    became: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    units: float = 0.0
    clicks: int = 0
    series: set[str] = field(default_factory=set)
    first_ms: int | None = None
    last_ms: int | None = None

    def take(self, one: Tried) -> None:
        """Count one record."""
        self.became[one.became] += 1
        if one.reason:
            self.reasons[f"{one.became}: {one.reason}"] += 1
        if one.became != "applied":
            return
        for line in one.lines:
            self.series.add(line.item_id)
            self.units += line.quantity or 0.0
            self.clicks += line.kind is not None
        at_ms = one.time_ms if one.created_ms is None else one.created_ms
        if at_ms is not None:
            self.first_ms = at_ms if self.first_ms is None else min(at_ms, self.first_ms)
            self.last_ms = at_ms if self.last_ms is None else max(at_ms, self.last_ms)

    def as_text(self) -> str:
        """For people.

        >>> Rehearsal(Counter(applied=2), units=3.0, series={"a"}, first_ms=0, last_ms=1).as_text()
        '2 records: 2 applied; 3 units of 1 series, 1970-01-01 to 1970-01-01 (UTC)'
        """
        became = ", ".join(f"{count:,} {name}" for name, count in self.became.most_common())
        text = f"{self.became.total():,} records: {became or 'none'}"
        if self.first_ms is not None and self.last_ms is not None:
            what = f"{self.units:,.10g} units" + (f", {self.clicks:,} clicks" * bool(self.clicks))
            days = f"{_day(self.first_ms)} to {_day(self.last_ms)} (UTC)"
            text += f"; {what} of {len(self.series):,} series, {days}"
        for reason, count in self.reasons.most_common(COMMONEST):
            text += f"\n{count:,} x {reason}"
        return text


def rehearse(settings: Settings, history: History) -> Rehearsal:
    """Judge all of history as ingest would, and send nothing."""
    found = Rehearsal()
    now_ms = wall_now_ms()
    for part in _parts(history.records):
        for kind in KINDS:
            own = [record for record in part if record.kind == kind]
            raw = [RawRecord(one.value, one.key, one.headers, now_ms) for one in own]
            for tried in trial(settings, kind, raw, old=True).tried if raw else ():
                found.take(tried)
    return found


def _parts(records: Iterable[OldRecord]) -> Iterator[list[OldRecord]]:
    left = iter(records)
    while part := list(islice(left, AT_ONCE)):
        yield part


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d}"
