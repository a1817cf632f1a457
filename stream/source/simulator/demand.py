"""How many visitors each item has at a time and how many of them buy: the shop's ground truth.

Letters: S sku, I item, Q quarter hour of an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from freshet.stream.arrays import Floats
from freshet.stream.source.simulator.catalogue import Catalogue
from freshet.stream.source.simulator.goods import CATEGORIES, REGIONS
from freshet.stream.source.simulator.plan import COUPON_LIFT, FLASH_LIFT, PlantedDrift, ShopPlan
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

QUARTER_MS = 15 * MINUTE_MS
QUARTERS = HOUR_MS // QUARTER_MS
NIGHT_FLOOR = 0.10
TRAFFIC_POWER = 0.6
MAX_CONVERSION = 0.95
DAY_NOISE = 0.05
YEAR_MS = 365 * DAY_MS

LEAD_MEDIAN_MS, LEAD_SIGMA = 14 * MINUTE_MS, 0.6
LEAD_RANGE_MS = (3 * MINUTE_MS, 60 * MINUTE_MS)


@dataclass(frozen=True, slots=True)
class HourDemand:
    """One hour: visits per quarter, the share that buys, the price paid, and whether the item
    exists yet.
    """

    visits_IQ: Floats
    conversion_SQ: Floats
    price_SQ: Floats


class Demand:
    """Rates of the shop, before chance and stock."""

    def __init__(self, catalogue: Catalogue, plan: ShopPlan) -> None:
        self._catalogue = catalogue
        self._plan = plan
        self._profiles = np.stack([_day_profile(index) for index in range(len(CATEGORIES))])
        self._weekends = np.stack([_week_profile(index) for index in range(len(CATEGORIES))])

    def hour(self, start_ms: int) -> HourDemand:
        """The rates in `[start_ms, start_ms + 1 h)`; promotions and price steps change on full
        hours only.
        """
        catalogue = self._catalogue
        discount_S, lift_S = self._promoted(start_ms)
        price_S = np.round(catalogue.price_S * self._plan.price_ratios(start_ms), 2)
        paid_S = np.round(price_S * (1.0 - discount_S), 2)
        level_S, later_S, elasticity_S = self._drifted(start_ms)
        lift_S = lift_S * (paid_S / catalogue.price_S) ** -elasticity_S
        conversion_S = np.minimum(
            catalogue.conversion_S * lift_S ** (1.0 - TRAFFIC_POWER), MAX_CONVERSION
        )
        base_S = level_S * self._trend(start_ms) * self._launched(start_ms) * lift_S**TRAFFIC_POWER
        season_SQ = self._season(start_ms, later_S)
        visits_S = (
            catalogue.lines_per_hour_I.reshape(-1, len(REGIONS)) / catalogue.conversion_S[:, None]
        )
        visits_IQ = (
            visits_S[:, :, None] * (base_S[:, None] * season_SQ)[:, None, :] / QUARTERS
        ).reshape(-1, QUARTERS)
        quarters = np.ones((1, QUARTERS))
        return HourDemand(visits_IQ, conversion_S[:, None] * quarters, paid_S[:, None] * quarters)

    def shelf_prices(self, at_ms: int) -> Floats:
        """Catalogue price of each sku, without promotions."""
        prices: Floats = np.round(self._catalogue.price_S * self._plan.price_ratios(at_ms), 2)
        return prices

    def expected_units(self, start_ms: int) -> Floats:
        """Mean units ordered per item in the hour from `start_ms`, if nothing were ever sold out.

        Orders trail visits by the lead, so the hour before counts too. Chance (counts, hourly and
        daily noise, all of mean 1) averages out; returns are not subtracted.
        """
        before, now = (self._lines_IQ(hour) for hour in (start_ms - HOUR_MS, start_ms))
        lines_IQ = np.concatenate([before, now], axis=1)
        units: Floats = (lines_IQ @ _lead_shares()) * np.repeat(
            self._catalogue.mean_quantity_S, len(REGIONS)
        )
        return units

    def _lines_IQ(self, start_ms: int) -> Floats:
        hour = self.hour(start_ms)
        lines: Floats = hour.visits_IQ * np.repeat(hour.conversion_SQ, len(REGIONS), axis=0)
        return lines

    def day_noise(self, start_ms: int) -> Floats:
        """What the weather does to each category on that day, mean 1, per sku."""
        day = start_ms // DAY_MS
        noise = np.exp(
            generator(self._plan.seed, "days", day).normal(
                -(DAY_NOISE**2) / 2, DAY_NOISE, len(CATEGORIES)
            )
        )
        by_sku: Floats = noise[self._catalogue.category_S]
        return by_sku

    def _promoted(self, at_ms: int) -> tuple[Floats, Floats]:
        discount_S, lift_S = np.zeros(self._catalogue.num_skus), np.ones(self._catalogue.num_skus)
        for sale in self._plan.active(at_ms):
            covers = sale.covers(self._catalogue)
            discount_S = np.maximum(discount_S, sale.promotion.discount * covers)
            lift_S = np.maximum(
                lift_S, np.where(covers > 0, FLASH_LIFT if sale.flash else COUPON_LIFT, 1.0)
            )
        return discount_S, lift_S

    def _drifted(self, at_ms: int) -> tuple[Floats, Floats, Floats]:
        level_S, later_S = np.ones(self._catalogue.num_skus), np.zeros(self._catalogue.num_skus)
        elasticity_S = self._catalogue.elasticity_S.copy()
        for drift in self._plan.drifts:
            hit = self._hit(drift) & (at_ms >= drift.at_ms)
            level_S[hit] *= drift.level
            later_S[hit] += drift.hours_later
            elasticity_S[hit] *= drift.elasticity
        return level_S, later_S, elasticity_S

    def _hit(self, drift: PlantedDrift) -> np.ndarray:
        return np.isin(
            self._catalogue.category_S,
            [i for i, c in enumerate(CATEGORIES) if c.name in drift.categories],
        )

    def _season(self, start_ms: int, later_S: Floats) -> Floats:
        """Day and week profile at the middle of each quarter, mean 1 over a week."""
        categories = self._catalogue.category_S[:, None]
        middle_SQ = (
            start_ms
            + (np.arange(QUARTERS)[None, :] + 0.5) * QUARTER_MS
            - later_S[:, None] * HOUR_MS
        )
        quarter_SQ = (middle_SQ % DAY_MS // QUARTER_MS).astype(np.int64)
        weekday = (start_ms // DAY_MS + 3) % 7
        season: Floats = (
            self._profiles[categories, quarter_SQ] * self._weekends[categories, weekday]
        )
        return season

    def _trend(self, at_ms: int) -> Floats:
        """Each sku's slow growth and a slower swing, 1 at the start."""
        years = (at_ms - self._plan.start_ms) / YEAR_MS
        swing_S = self._swings
        trend: Floats = np.exp(
            self._catalogue.growth_S * years
            + 0.08 * (np.sin(2 * np.pi * (years * 4 + swing_S)) - np.sin(2 * np.pi * swing_S))
        )
        return trend

    @cached_property
    def _swings(self) -> Floats:
        return generator(self._plan.seed, "swings").random(self._catalogue.num_skus)

    def _launched(self, at_ms: int) -> Floats:
        """0 before the launch, then rising over a few days to 1."""
        days = (at_ms - self._plan.launch_S) / DAY_MS
        risen: Floats = np.where(days < 0, 0.0, 1.0 - 0.7 * np.exp(-np.maximum(days, 0.0) / 2.0))
        return risen


def _day_profile(category: int) -> Floats:
    """Level of each quarter of the day, mean 1."""
    hours = (np.arange(24 * QUARTERS) + 0.5) / QUARTERS
    profile = np.full(24 * QUARTERS, NIGHT_FLOOR)
    for peak, width, weight in CATEGORIES[category].peaks:
        distance = (hours - peak + 12) % 24 - 12
        profile += weight * np.exp(-(distance**2) / (2 * width**2))
    mean_one: Floats = profile / profile.mean()
    return mean_one


def _week_profile(category: int) -> Floats:
    """Level of Monday to Sunday, mean 1."""
    weekend = CATEGORIES[category].weekend
    days = np.array([0.97, 0.94, 0.96, 1.0, 1.08, weekend, weekend * 0.96])
    mean_one: Floats = days / days.mean()
    return mean_one


def draw_leads(rng: np.random.Generator, num: int) -> Floats:
    """Milliseconds from a visit to its order."""
    leads: Floats = np.clip(
        LEAD_MEDIAN_MS * np.exp(LEAD_SIGMA * rng.standard_normal(num)), *LEAD_RANGE_MS
    )
    return leads


@lru_cache(maxsize=1)
def _lead_shares() -> Floats:
    """Share of orders from visits in a quarter (0-3 the hour before, 4-7 this hour) that fall into
    this hour.

    Midpoint rule over the visit's place in its quarter and over the lead's quantiles.
    """
    normal = np.array([NormalDist().inv_cdf((i + 0.5) / 400) for i in range(400)])
    leads = np.clip(LEAD_MEDIAN_MS * np.exp(LEAD_SIGMA * normal), *LEAD_RANGE_MS)
    within = (np.arange(100) + 0.5) / 100 * QUARTER_MS
    orders = np.arange(2 * QUARTERS)[:, None, None] * QUARTER_MS + within[None, :, None] + leads
    shares: Floats = np.mean((orders >= HOUR_MS) & (orders < 2 * HOUR_MS), axis=(1, 2))
    return shares
