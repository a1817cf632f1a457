"""Orders that say what they are: which versions count, and against which state each is held.

A version that is not above the known one is a duplicate. An order that nothing is known of and that
was made longer ago than orders are kept may have been forgotten, so it is late and not new.
Verdicts are those of judging record by record in log order. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.store.orders import OrderStates, expiry_ms
from freshet.stream.units import DAY_MS

KNOWN: Final = -1
NOTHING: Final = -2

Admit = Callable[[int], bool]
"""Whether the dictionary has room for the items of the version at a position; asked in log order.
"""


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of orders in log order, those that are late or from the future left out.

    Attributes:
        order: Which order it is of, a place in what is known.
        version: Its number.
        created_ms: When the order was made.
        watermark_ms: Before the record.
        patient: Whether it is never late, being history.
    """

    order: Ints
    version: Ints
    created_ms: Ints
    watermark_ms: Ints
    patient: Bools


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of each version.

    Attributes:
        applied: It counts.
        late: Its order may have been forgotten.
        refused: The dictionary has no room for its items.
        same: A duplicate of the version that stands.
        before: What stood before it: the position of a version, KNOWN or NOTHING.
        kept_day: The day from which its order is kept once it counts.
    """

    applied: Bools
    late: Bools
    refused: Bools
    same: Bools
    before: Ints
    kept_day: Ints

    @property
    def duplicate(self) -> Bools:
        """Neither of the others."""
        other: Bools = ~(self.applied | self.late | self.refused)
        return other


def judge(
    versions: Versions, known: OrderStates, *, keep_ms: int, admit: Admit | None = None
) -> Judged:
    """Judge versions in log order.

    Args:
        versions: What may count.
        known: What is known of their orders before the first of them.
        keep_ms: How long after the day on which it was made an order is kept, in watermark time.
        admit: None admits all, and is fast.
    """
    judged = _by_version(versions, known)
    old = versions.created_ms + keep_ms < versions.watermark_ms
    if admit is not None:
        _one_by_one(np.arange(len(old)), versions, known, judged, keep_ms=keep_ms, admit=admit)
    elif old.any():
        slow = np.zeros(len(known), np.bool_)
        slow[versions.order[old]] = True
        places = np.flatnonzero(slow[versions.order])
        _one_by_one(places, versions, known, judged, keep_ms=keep_ms, admit=None)
    return judged


def _by_version(versions: Versions, known: OrderStates) -> Judged:
    """Verdicts where no order is old and all find room: a version counts if it is the highest."""
    place = np.argsort(versions.order, kind="stable")
    order = versions.order[place]
    numbers = np.concatenate((known.version, versions.version))
    rank = np.unique(numbers, return_inverse=True)[1] + 1
    rank_known = np.where(known.known, rank[: len(known)], 0)
    # One rising column for all orders, so that one running maximum serves them all.
    step = len(numbers) + 1
    height = order * step + rank[len(known) :][place]
    highest = np.maximum.accumulate(height)
    earlier = np.concatenate(([-1], highest[:-1]))[: len(height)]
    standing = np.maximum(earlier, order * step + rank_known[order])
    applied = height > standing
    last = np.maximum.accumulate(np.where(applied, np.arange(len(place)), -1))
    last = np.concatenate(([-1], last[:-1]))[: len(place)]
    first = np.searchsorted(order, order)
    nothing_yet = np.where(known.known[order], KNOWN, NOTHING)
    before = np.where(last >= first, place[last], nothing_yet)
    return Judged(
        applied=_back(applied, place),
        late=np.zeros(len(place), np.bool_),
        refused=np.zeros(len(place), np.bool_),
        same=_back(height == standing, place),
        before=_back(before, place),
        kept_day=np.where(
            known.known[versions.order],
            known.kept_day[versions.order],
            versions.created_ms // DAY_MS,
        ),
    )


def _back(column: np.ndarray, place: Ints) -> np.ndarray:
    """A sorted column in log order again."""
    back = np.empty_like(column)
    back[place] = column
    return back


def _one_by_one(
    places: Ints,
    versions: Versions,
    known: OrderStates,
    judged: Judged,
    *,
    keep_ms: int,
    admit: Admit | None,
) -> None:
    """Judge the versions at some places again, in log order; all of an order's or none."""
    standing: dict[int, tuple[int, int, int]] = {}
    for i in places.tolist():
        order, version = int(versions.order[i]), int(versions.version[i])
        watermark_ms = int(versions.watermark_ms[i])
        created_ms, patient = int(versions.created_ms[i]), bool(versions.patient[i])
        before, highest, kept_day = standing.get(order) or _stored(known, order)
        if before != NOTHING and expiry_ms(kept_day, keep_ms) <= watermark_ms:
            before = NOTHING
        alive = before != NOTHING
        old = created_ms + keep_ms < watermark_ms
        judged.before[i] = before
        judged.same[i] = alive and version == highest
        judged.late[i] = not alive and old and not patient
        newer = not alive or version > highest
        judged.refused[i] = newer and not judged.late[i] and admit is not None and not admit(i)
        judged.applied[i] = newer and not (judged.late[i] or judged.refused[i])
        if judged.applied[i]:
            days = [created_ms // DAY_MS]
            days += [kept_day] if alive else []
            days += [watermark_ms // DAY_MS] if old and patient else []
            judged.kept_day[i] = max(days)
            standing[order] = (i, version, max(days))


def _stored(known: OrderStates, order: int) -> tuple[int, int, int]:
    """What stands before the first version of an order: where, its number and its day."""
    if not known.known[order]:
        return NOTHING, 0, 0
    return KNOWN, int(known.version[order]), int(known.kept_day[order])
