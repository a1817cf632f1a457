"""Promotions of the simulated shop: those of every week, and the flash sale of the live part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from freshet.stream.arrays import Floats
from freshet.stream.schemas import Promotion
from freshet.stream.source.simulator.catalogue import Catalogue
from freshet.stream.source.simulator.goods import CATEGORIES, Category
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import DAY_MS, HOUR_MS

FLASH_SALES_PER_WEEK = 3
COUPONS_PER_WEEK = 2
ANNOUNCE_MS = (6 * HOUR_MS, 48 * HOUR_MS)


@dataclass(frozen=True, slots=True)
class ScheduledPromotion:
    """A promotion and when it is told of; one of `sku` and `category` is an index, not -1."""

    promotion: Promotion
    announced_ms: int
    starts_ms: int
    ends_ms: int
    sku: int = -1
    category: int = -1

    @property
    def flash(self) -> bool:
        """Whether it is a flash sale, with its own stock."""
        return self.promotion.flash_sale

    def covers(self, catalogue: Catalogue) -> Floats:
        """1 for the skus it is for, else 0."""
        if self.sku >= 0:
            covered_S = np.arange(catalogue.num_skus) == self.sku
        else:
            covered_S = catalogue.category_S == self.category
        covers_S: Floats = covered_S.astype(np.float64)
        return covers_S


@lru_cache(maxsize=64)
def regular_promotions(
    seed: int, week: int, week_start_ms: int, catalogue: Catalogue
) -> list[ScheduledPromotion]:
    """The flash sales of some of the better selling half, and the coupons, of one week."""
    rng = generator(seed, "promotions", week)
    best = np.argsort(-catalogue.lines_per_hour_S)[: max(1, catalogue.num_skus // 2)]
    sales = []
    for number in range(FLASH_SALES_PER_WEEK):
        start_ms = week_start_ms + _day_and_hour(rng, 1, 14)
        sku = int(best[rng.integers(len(best))])
        length_ms = int(rng.integers(3, 7)) * HOUR_MS
        promotion = _flash_sale(f"FLASH-{week:03d}-{number}", catalogue, sku, start_ms, length_ms)
        sales.append(_planned(promotion, _lead_ms(rng), sku=sku))
    for number in range(COUPONS_PER_WEEK):
        start_ms = week_start_ms + _day_and_hour(rng, 0, 12)
        category = int(rng.integers(min(len(CATEGORIES), catalogue.num_skus)))
        promotion = Promotion(
            promotion_id=f"COUPON-{week:03d}-{number}",
            category=CATEGORIES[category].name,
            starts_at=start_ms,
            ends_at=start_ms + int(rng.integers(24, 49)) * HOUR_MS,
            discount=float(rng.choice([0.10, 0.15])),
            kind="coupon",
        )
        sales.append(_planned(promotion, _lead_ms(rng), category=category))
    return sales


def _day_and_hour(rng: np.random.Generator, from_hour: int, to_hour: int) -> int:
    """From the start of a week to some hour, in [from, to), of some day; in ms."""
    return int(rng.integers(7)) * DAY_MS + int(rng.integers(from_hour, to_hour)) * HOUR_MS


def _lead_ms(rng: np.random.Generator) -> int:
    """How long before its start a promotion is announced."""
    return int(rng.integers(*ANNOUNCE_MS))


def _flash_sale(
    name: str, catalogue: Catalogue, sku: int, start_ms: int, length_ms: int
) -> Promotion:
    # Who hardly looks at prices must be offered more.
    discount = 0.40 if catalogue.elasticity_S[sku] < 1.5 else 0.30
    return Promotion(
        promotion_id=name,
        sku=catalogue.skus[sku],
        starts_at=start_ms,
        ends_at=start_ms + length_ms,
        discount=discount,
        kind="flash_sale",
    )


def _planned(
    promotion: Promotion, lead_ms: int, *, sku: int = -1, category: int = -1
) -> ScheduledPromotion:
    starts_ms, ends_ms = int(promotion.starts_at), int(promotion.ends_at)
    return ScheduledPromotion(promotion, starts_ms - lead_ms, starts_ms, ends_ms, sku, category)


def live_flash_sale(
    catalogue: Catalogue, sku: int, window_ms: tuple[int, int]
) -> ScheduledPromotion:
    """Starts within the window, at the full hour when most customers of that category come."""
    category = CATEGORIES[int(catalogue.category_S[sku])]
    first_ms = -(-window_ms[0] // HOUR_MS) * HOUR_MS
    starts_ms = range(first_ms, max(first_ms, window_ms[1]) + 1, HOUR_MS)
    best_ms = max(starts_ms, key=lambda start_ms: _traffic(category, start_ms))
    promotion = _flash_sale("FLASH-LIVE", catalogue, sku, best_ms, 5 * HOUR_MS)
    return _planned(promotion, 9 * HOUR_MS, sku=sku)


def _traffic(category: Category, start_ms: int) -> float:
    """How many customers come an hour and a half after a time, against other times."""
    hour = start_ms / HOUR_MS % 24 + 1.5
    traffic = 0.0
    for peak, width, weight in category.peaks:
        distance = (hour - peak + 12) % 24 - 12
        traffic += weight * np.exp(-(distance**2) / (2 * width * width))
    return float(traffic)
