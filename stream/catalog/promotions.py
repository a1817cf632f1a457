"""Promotions by id: which run at a time, and how much of each bucket they cover for an item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from freshet.stream.catalog.fill import Filling
from freshet.stream.catalog.intervals import Interval, IntervalTable
from freshet.stream.catalog.scopes import Items, Scope, spread
from freshet.stream.catalog.timeline import BucketSpan, overlaps
from freshet.stream.catalog.versions import Known
from freshet.stream.codec import time_ms
from freshet.stream.schemas import Promotion
from freshet.stream.slots import DISCOUNT, PROMOTION

MAX_PROMOTIONS = 1_000_000


class Announced(NamedTuple):
    """A promotion with its times in epoch ms, [starts_ms, ends_ms), and since when it is known."""

    promotion: Promotion
    starts_ms: int
    ends_ms: int
    announced_ms: int


class Version(NamedTuple):
    """What was announced of a promotion at some time, and held until `until_ms` at the latest."""

    promotion: Promotion
    starts_ms: int
    ends_ms: int
    announced_ms: int
    until_ms: int


class Promotions:
    """Every version of each promotion; beyond `MAX_PROMOTIONS` those that end first are dropped."""

    def __init__(self) -> None:
        self._table: IntervalTable[Promotion] = IntervalTable()

    def __iter__(self) -> Iterator[Announced]:
        """Those that stand by the newest records, in no order."""
        return (Announced(*standing) for standing in self._table.standing())

    def __getitem__(self, promotion_id: str) -> Announced:
        return Announced(*self._table.standing_of(promotion_id))

    def take(self, promotion: Promotion, known: Known) -> int:
        """Take in a version; how many old ones were dropped for want of room."""
        # One that names a sku is for that sku alone, whatever its category.
        category = promotion.category if promotion.sku is None else None
        scope = Scope(promotion.sku, category, None)
        times = time_ms(promotion.starts_at), time_ms(promotion.ends_at)
        interval = Interval(*times, scope, promotion.discount, promotion, PROMOTION)
        self._table.put(promotion.promotion_id, known, interval)
        return self._table.drop_oldest() if len(self._table) > MAX_PROMOTIONS else 0

    def delete(self, promotion_id: str, known: Known) -> None:
        """It ends when its tombstone was sent, if it did not before."""
        self._table.delete(promotion_id, known)

    def forget_before(self, before_ms: int) -> int:
        """Drop what no question about later times needs; how many versions."""
        return self._table.forget_before(before_ms, ended_too=True)

    def versions(self, from_ms: int, to_ms: int) -> Iterator[Version]:
        """All that was ever announced of some of [from, to), in no order."""
        return (Version(*known) for known in self._table.versions(from_ms, to_ms))

    def running(self, now_ms: int) -> list[Promotion]:
        """Those that run at a time by the newest records, by start and id."""
        standing = self._table.standing(touching=(now_ms, now_ms + 1))
        return [known.promotion for known in _in_order(standing)]

    def covering(self, sku: str, category: str, from_ms: int, to_ms: int) -> list[Announced]:
        """Those for a sku or its category (empty: none) that touch [from, to), the same way."""
        scopes = [Scope(sku, None, None), Scope(None, category, None)]
        return _in_order(self._table.standing(touching=(from_ms, to_ms), scopes=scopes))

    def cover(self, items: Items, span: BucketSpan, as_of_ms: int) -> list[Filling]:
        """How far promotions, as they were known at `as_of_ms`, cover each bucket.

        The share of the bucket under a promotion, and the deepest discount times the share that it
        covers. Where several meet, the one that covers most and the one that is worth most count;
        they are not added, for a customer gets one discount.
        """
        during = self._table.during(span.start_ms, span.end_ms, as_of_ms)
        found = during.by_slot.get(PROMOTION)
        if found is None:
            nobody_R, zeros = np.zeros(len(items.skus), np.int64), np.zeros((1, span.steps))
            return [Filling(place, nobody_R, zeros) for place in (PROMOTION, DISCOUNT)]
        met = spread(found.by_scope, items)
        starts_P, ends_P = found.starts_N[met.number_P], found.ends_N[met.number_P]
        pair_M, step_M, share_M = overlaps(starts_P, ends_P, span)
        cell_M = (met.group_P[pair_M], step_M)
        promoted_US, discount_US = np.zeros((2, len(met.first_U), span.steps))
        np.maximum.at(promoted_US, cell_M, share_M)
        depth_M = found.values_N[met.number_P[pair_M]]
        np.maximum.at(discount_US, cell_M, share_M * depth_M)
        return [
            Filling(PROMOTION, met.group_R, promoted_US),
            Filling(DISCOUNT, met.group_R, discount_US),
        ]


def _in_order(standing: Iterable[tuple[Promotion, int, int, int]]) -> list[Announced]:
    """By start and id."""
    found = [Announced(*one) for one in standing]
    return sorted(found, key=lambda known: (known.starts_ms, known.promotion.promotion_id))
