"""What the shop says in advance besides prices and promotions, laid onto buckets by slot.

Dimensions: N covariates, R items, U groups of items that the same ones meet, W stretches of one
winner each, M pairs of a stretch and a bucket, S steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.catalog.fill import Filling
from freshet.stream.catalog.hours import Elapsed, ShopCalendar
from freshet.stream.catalog.intervals import Interval, Intervals, IntervalTable
from freshet.stream.catalog.scopes import Items, Scope, ScopeIndex, Spread, spread
from freshet.stream.catalog.timeline import BucketSpan, Meetings, meetings
from freshet.stream.catalog.versions import Known
from freshet.stream.catalog.winners import winners
from freshet.stream.codec import time_ms
from freshet.stream.schemas import Covariate
from freshet.stream.slots import Slot

MAX_COVARIATES = 1_000_000

_NONE: Ints = np.zeros(0, np.int64)
NOTHING = Intervals(ScopeIndex.of(_NONE, []), _NONE, _NONE, np.zeros(0), _NONE)


class Covariates:
    """Every version of each covariate; beyond `MAX_COVARIATES` those that end first are dropped.

    Of those that hold at one moment for one item, the one of the narrower scope counts, then the
    one that was announced later; what the calendar says counts where none holds.

    Args:
        slots: The slot of each name.
        calendar: Public holidays and opening hours.
    """

    def __init__(self, slots: Mapping[str, Slot], calendar: ShopCalendar) -> None:
        self._slots = slots
        self._flags = {slot.place for slot in slots.values() if slot.flag}
        self._calendar = calendar
        self._table: IntervalTable[None] = IntervalTable()

    def take(self, covariate: Covariate, known: Known) -> int:
        """Take in a version; how many old ones were dropped for want of room."""
        scope = Scope(covariate.scope.sku, covariate.scope.category, covariate.scope.region)
        times = time_ms(covariate.starts_at), time_ms(covariate.ends_at)
        slot = self._slots[covariate.name].place
        interval = Interval(*times, scope, covariate.value, None, slot)
        self._table.put(covariate.covariate_id, known, interval)
        return self._table.drop_oldest() if len(self._table) > MAX_COVARIATES else 0

    def delete(self, covariate_id: str, known: Known) -> None:
        """It ends when its tombstone was sent, if it did not before."""
        self._table.delete(covariate_id, known)

    def forget_before(self, before_ms: int) -> int:
        """Drop what no question about later times needs; how many versions.

        Those that ended stay, for they say that their slot is in use.
        """
        return self._table.forget_before(before_ms, ended_too=False)

    def cover(self, items: Items, span: BucketSpan, as_of_ms: int) -> list[Filling]:
        """What fills each slot of which anything is known: [U, S] and the group of each item.

        A flag is the share of the bucket for which it was up, weighted by its value: 0 where
        nothing is said, unless nothing at all is known of it. A number is the mean over that part
        of the bucket in which one holds; NaN where none does.
        """
        during = self._table.during(span.start_ms, span.end_ms, as_of_ms)
        fillings = []
        for slot in sorted({*self._calendar.slots, *during.in_use}):
            found = during.by_slot.get(slot, NOTHING)
            if slot in self._flags:
                fillings.append(self._flag(slot, found, items, span, slot in during.in_use))
            elif found is not NOTHING:
                fillings.append(_number(slot, found, items, span))
        return fillings

    def _flag(
        self, slot: int, found: Intervals, items: Items, span: BucketSpan, in_use: bool
    ) -> Filling:
        calendar_R = self._calendar.calendars(slot, items.regions)
        met = spread(found.by_scope, items, calendar_R)
        held, values_M = _held(found, met, span)
        amount_US = np.zeros((len(met.first_U), span.steps))
        length_M = held.until_M - held.from_M
        np.add.at(amount_US, (held.number_M, held.step_M), values_M * length_M)
        calendar_U = calendar_R[met.first_U]
        for calendar in np.unique(calendar_U).tolist():
            elapsed = self._calendar.elapsed(slot, calendar, span.start_ms, span.end_ms)
            _add_calendar(amount_US, calendar_U == calendar, elapsed, held, span, in_use)
        share_US = amount_US / np.maximum(span.widths(), 1)
        return Filling(slot, met.group_R, np.clip(share_US, 0.0, 1.0))


def _number(slot: int, found: Intervals, items: Items, span: BucketSpan) -> Filling:
    met = spread(found.by_scope, items)
    held, values_M = _held(found, met, span)
    length_M = (held.until_M - held.from_M).astype(np.float64)
    amount_US, length_US = np.zeros((2, len(met.first_U), span.steps))
    np.add.at(amount_US, (held.number_M, held.step_M), values_M * length_M)
    np.add.at(length_US, (held.number_M, held.step_M), length_M)
    mean_US = np.full_like(amount_US, np.nan)
    np.divide(amount_US, length_US, out=mean_US, where=length_US > 0)
    return Filling(slot, met.group_R, mean_US)


def _held(found: Intervals, met: Spread, span: BucketSpan) -> tuple[Meetings, Floats]:
    """Where one holds: group (`number_M`), bucket, from when until when; and its value."""
    starts_P = np.maximum(found.starts_N[met.number_P], span.start_ms) - span.start_ms
    ends_P = np.minimum(found.ends_N[met.number_P], span.end_ms) - span.start_ms
    held = winners(met.group_P, starts_P, ends_P, found.rank_N[met.number_P])
    pairs = meetings(held.starts_W + span.start_ms, held.ends_W + span.start_ms, span)
    values_M = found.values_N[met.number_P[held.winner_W]][pairs.number_M]
    return pairs._replace(number_M=held.group_W[pairs.number_M]), values_M


def _add_calendar(
    amount_US: Floats,
    of_calendar_U: Bools,
    elapsed: Elapsed | None,
    held: Meetings,
    span: BucketSpan,
    in_use: bool,
) -> None:
    """Add what a calendar says wherever no covariate holds, in ms; NaN where it says nothing."""
    if elapsed is None:
        if not in_use:
            amount_US[of_calendar_U] = np.nan
        return
    whole_S = np.diff(elapsed.until(span.edges()))
    amount_US[of_calendar_U] += whole_S
    own_M = of_calendar_U[held.number_M]
    covered_M = elapsed.until(held.until_M[own_M]) - elapsed.until(held.from_M[own_M])
    np.subtract.at(amount_US, (held.number_M[own_M], held.step_M[own_M]), covered_M)
