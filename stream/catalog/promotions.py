"""Promotions by id: which run at a time, and how much of each bucket they cover for a sku."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.catalog.timeline import BucketSpan, overlaps
from freshet.stream.codec import time_ms
from freshet.stream.errors import EventError
from freshet.stream.schemas import Promotion

MAX_PROMOTIONS = 100_000


class Announced(NamedTuple):
    """A promotion with its times in epoch ms, [starts_ms, ends_ms).

    `announced_ms` is the timestamp of the first record that named it: at an earlier cutoff nobody
    could know of it, whatever later records say.
    """

    promotion: Promotion
    starts_ms: int
    ends_ms: int
    announced_ms: int

    @property
    def covered(self) -> tuple[str, str]:
        """What it is for: ("sku", its sku), or ("category", its category)."""
        if self.promotion.sku is not None:
            return "sku", self.promotion.sku
        return "category", self.promotion.category or ""


class Promotions:
    """The newest record of each; beyond `MAX_PROMOTIONS` the one that ends first is forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, Announced] = {}
        self._names_for: dict[tuple[str, str], set[str]] = {}

    def __iter__(self) -> Iterator[Announced]:
        return iter(self._known.values())

    def __getitem__(self, promotion_id: str) -> Announced:
        return self._known[promotion_id]

    def take(self, promotion: Promotion, timestamp_ms: int) -> str:
        """Take in a record; its id.

        Raises:
            EventError: It ends before it starts, its discount is no share, or it covers nothing.
        """
        name = promotion.promotion_id
        announced = _checked(promotion, timestamp_ms)
        before = self._known.get(name)
        if before is not None:
            first_ms = min(before.announced_ms, timestamp_ms)
            announced = announced._replace(announced_ms=first_ms)
        self.drop(name)
        self._known[name] = announced
        self._names_for.setdefault(announced.covered, set()).add(name)
        if len(self._known) > MAX_PROMOTIONS:
            self.drop(min(self._known, key=lambda other: self._known[other].ends_ms))
        return name

    def drop(self, promotion_id: str) -> None:
        """Forget one, if it is known."""
        known = self._known.pop(promotion_id, None)
        if known is not None:
            self._names_for[known.covered].discard(promotion_id)

    def running(self, now_ms: int) -> list[Promotion]:
        """Those that run at a time, by start and id."""
        found = [known for known in self if known.starts_ms <= now_ms < known.ends_ms]
        found.sort(key=lambda known: (known.starts_ms, known.promotion.promotion_id))
        return [known.promotion for known in found]

    def covering(self, sku: str, category: str) -> list[Announced]:
        """Those for a sku or its category (empty: none), in no order."""
        of_sku = self._names_for.get(("sku", sku), set())
        of_category = self._names_for.get(("category", category), set())
        names = of_sku | of_category
        return [self._known[name] for name in names]

    def cover(
        self, skus: list[str], categories: list[str], span: BucketSpan, as_of_ms: int
    ) -> tuple[Floats, Floats]:
        """How far promotions that were announced by `as_of_ms` cover each bucket, float64[R, S].

        Returns:
            The share of the bucket under a promotion, and the deepest discount times the share
            that it covers. Where several meet, the one that covers most and the one that is worth
            most count; they are not added, for a customer gets one discount.
        """
        rows: list[int] = []
        announced: list[Announced] = []
        for row, (sku, category) in enumerate(zip(skus, categories, strict=True)):
            for known in self.covering(sku, category):
                meets = known.starts_ms < span.end_ms and known.ends_ms > span.start_ms
                if meets and known.announced_ms <= as_of_ms:
                    rows.append(row)
                    announced.append(known)
        row_N: Ints = np.array(rows, np.int64)
        starts_N: Ints = np.array([known.starts_ms for known in announced], np.int64)
        ends_N: Ints = np.array([known.ends_ms for known in announced], np.int64)
        depth_N = np.array([known.promotion.discount for known in announced], np.float64)
        number_M, step_M, share_M = overlaps(starts_N, ends_N, span)
        cell_M = (row_N[number_M], step_M)
        promoted_RS, discount_RS = np.zeros((2, len(skus), span.steps))
        np.maximum.at(promoted_RS, cell_M, share_M)
        np.maximum.at(discount_RS, cell_M, share_M * depth_N[number_M])
        return promoted_RS, discount_RS


def _checked(promotion: Promotion, timestamp_ms: int) -> Announced:
    name = promotion.promotion_id
    starts_ms = time_ms(promotion.starts_at)
    ends_ms = time_ms(promotion.ends_at)
    if not starts_ms < ends_ms:
        raise EventError(f"promotion {name!r} ends at {ends_ms}, not after its start {starts_ms}")
    if not 0 <= promotion.discount <= 1:
        raise EventError(
            f"promotion {name!r} has discount {promotion.discount}; expected a share, 0 to 1"
        )
    # Items without a category have the empty one.
    if promotion.sku is None and not promotion.category:
        raise EventError(f"promotion {name!r} names neither a sku nor a category")
    return Announced(promotion, starts_ms, ends_ms, timestamp_ms)
