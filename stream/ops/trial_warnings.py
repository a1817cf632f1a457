"""What a person would want to know of a map that takes records, and perhaps takes them wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from freshet.stream.codec import MAX_TIME_MS
from freshet.stream.config import Settings
from freshet.stream.event_settings import Rule
from freshet.stream.events.decoder import EventKind
from freshet.stream.ops.trial import Trial, Tried
from freshet.stream.schemas import item_id_parts
from freshet.stream.units import DAY_MS

YEAR_MS: Final = 365 * DAY_MS
UNITS: Final = ("s", "ms", "us", "ns")
ENOUGH: Final = 3
"""So few prices or regions may be alike by chance."""
DEAREST: Final = 500
"""Whole prices of which half are at least this may be cents."""


def warnings_of(settings: Settings, kind: EventKind, trial: Trial, now_ms: int) -> list[str]:
    """Each a sentence; none where nothing is odd."""
    good = [one for one in trial.tried if one.became in ("applied", "duplicate", "late_dropped")]
    return [
        *_times(settings, kind, good, now_ms),
        *_paths(kind, trial),
        *_regions(settings, kind, good),
        *_cents(good),
        *_wrapped(trial),
    ]


# Times --------------------------------------------------------------------------------------------


def _times(
    settings: Settings, kind: EventKind, good: Sequence[Tried], now_ms: int
) -> Iterator[str]:
    found = [one.time_ms if one.created_ms is None else one.created_ms for one in good]
    times_ms = [time_ms for time_ms in found if time_ms is not None]
    first = [time_ms for time_ms in times_ms if time_ms < YEAR_MS]
    old = [time_ms for time_ms in times_ms if YEAR_MS <= time_ms < now_ms - YEAR_MS]
    future = [time_ms for time_ms in times_ms if time_ms > now_ms + DAY_MS]
    unit = _likely_unit(settings, kind, times_ms, now_ms)
    if first:
        yield f"{_of(first, times_ms)} are in 1970{unit}"
    if old:
        yield f"{_of(old, times_ms)} are over a year old, the oldest of {_day(min(old))}{unit}"
    if future:
        latest = _day(max(future))
        yield f"{_of(future, times_ms)} are in the future, the latest of {latest}{unit}"


def _of(some: Sequence[int], times_ms: Sequence[int]) -> str:
    return f"{len(some)} of {len(times_ms)} times"


def _likely_unit(settings: Settings, kind: EventKind, times_ms: Sequence[int], now_ms: int) -> str:
    """Under which unit the times would be of late, if they are not."""
    said = settings.events.fields_of(kind).get("event_time")
    form = said.time if isinstance(said, Rule) else ""
    unit = form if form in UNITS else settings.events.time_unit
    if not times_ms or form not in ("", *UNITS):
        return ""
    middle_ms = median(times_ms)
    for other in UNITS:
        moved_ms = middle_ms * 1_000.0 ** (UNITS.index(unit) - UNITS.index(other))
        if other != unit and now_ms - 10 * YEAR_MS < moved_ms < now_ms + DAY_MS:
            told = f'time = "{other}"'
            return f"; with {told} in the map they would be of {_day(int(moved_ms))}"
    return ""


def _day(time_ms: int) -> str:
    moment = datetime.fromtimestamp(min(time_ms, MAX_TIME_MS) / 1_000, UTC)
    return moment.date().isoformat()


# Paths --------------------------------------------------------------------------------------------


def _paths(kind: EventKind, trial: Trial) -> Iterator[str]:
    for one in trial.never_seen:
        near = f"; nearest seen: {one.nearest!r}" if one.nearest else ""
        yield f"events.{kind}.fields.{one.field}: no record has {one.path}{near}"


def _wrapped(trial: Trial) -> Iterator[str]:
    """One record that holds many, as the answer of a REST interface does."""
    if len(trial.records) != 1 or trial.counts["applied"]:
        return
    for name, inner in trial.records[0].items() if isinstance(trial.records[0], dict) else ():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield (
                f"the one record holds {len(inner)} objects at {name!r}; if these are the records, "
                f"jq -c '.{name}[]' makes a line of each"
            )


# Lines --------------------------------------------------------------------------------------------


def _regions(settings: Settings, kind: EventKind, good: Sequence[Tried]) -> Iterator[str]:
    names = settings.events.series_by
    if "region" not in names:
        return
    default = _default(settings.events.fields_of(kind).get("region"))
    at = names.index("region")
    regions = [item_id_parts(line.item_id)[at] for one in good for line in one.lines]
    if default is not None and len(regions) >= ENOUGH and set(regions) == {default}:
        yield (
            f"every region is the map's default {default!r}: events.{kind}.fields.region says "
            'where it is, and events.series_by = ["sku"] that there is none'
        )


def _default(said: Any) -> str | None:
    return str(said.default) if isinstance(said, Rule) and said.default is not None else None


def _cents(good: Sequence[Tried]) -> Iterator[str]:
    found = [line.unit_price for one in good for line in one.lines]
    prices = [price for price in found if price]
    whole = all(price == int(price) for price in prices)
    if len(prices) < ENOUGH or not whole or median(prices) < DEAREST:
        return
    if any(price % 100 for price in prices):
        middle = median(prices)
        yield (
            f"all {len(prices)} prices are whole numbers, half of them from {middle:g} on: if they "
            "are cents, the map says scale = 0.01"
        )
