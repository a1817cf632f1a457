"""How many visitors each item has at a time and how many of them buy: the shop's ground truth.

An item's rate of visits is a product: how well it sells at all, times the day's and the week's
profile of its category, times growth, launch and planted drift, times the pull of its price.

Dimensions: S skus, I items, R regions, Q quarters of an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from freshet.stream.arrays import Bools, Floats
from freshet.stream.source.simulator.catalogue import Catalogue
from freshet.stream.source.simulator.goods import CATEGORIES, REGIONS
from freshet.stream.source.simulator.plan import COUPON_LIFT, FLASH_LIFT, PlantedDrift, ShopPlan
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

QUARTER_MS = 15 * MINUTE_MS
QUARTERS = HOUR_MS // QUARTER_MS
NIGHT_FLOOR = 0.10
TRAFFIC_POWER = 0.6
"""How much of a price's pull, as a power, brings visits; the rest makes more of them buy."""
MAX_CONVERSION = 0.95
DAY_NOISE = 0.05
THURSDAY = 3  # Weekday of 1 January 1970, Monday being 0.
YEAR_MS = 365 * DAY_MS

LEAD_MEDIAN_MS = 14 * MINUTE_MS
LEAD_SIGMA = 0.6
LEAD_RANGE_MS = (3 * MINUTE_MS, 60 * MINUTE_MS)


@dataclass(frozen=True, slots=True)
class HourDemand:
    """One hour by quarter: visits (none before the launch), the share that buys, the price paid."""

    visits_IQ: Floats
    conversion_SQ: Floats
    price_SQ: Floats


class Demand:
    """Rates of the shop, before chance and stock."""

    def __init__(self, catalogue: Catalogue, plan: ShopPlan) -> None:
        categories = range(len(CATEGORIES))
        self._catalogue = catalogue
        self._plan = plan
        self._day_profiles = np.stack([_day_profile(category) for category in categories])
        self._week_profiles = np.stack([_week_profile(category) for category in categories])

    def hour(self, start_ms: int) -> HourDemand:
        """The rates in `[start_ms, start_ms + 1 h)`.

        Promotions, price steps and drift begin and end on full hours, so one look an hour will do.
        """
        catalogue = self._catalogue
        discount_S, lift_S = self._promoted(start_ms)
        drift_S, later_S, elasticity_S = self._drifted(start_ms)
        paid_S = np.round(self.shelf_prices(start_ms) * (1.0 - discount_S), 2)
        # Constant elasticity: 1 % cheaper than the first price draws `elasticity` % more demand.
        pull_S = lift_S * (paid_S / catalogue.price_S) ** -elasticity_S
        more_buyers_S = pull_S ** (1.0 - TRAFFIC_POWER)
        conversion_S = np.minimum(catalogue.conversion_S * more_buyers_S, MAX_CONVERSION)
        usual_S = drift_S * self._trend(start_ms) * self._launched(start_ms)
        base_S = usual_S * pull_S**TRAFFIC_POWER
        times_SQ = base_S[:, None] * self._season(start_ms, later_S)
        # As many visits as make the mean number of order lines when the usual share of them buys.
        lines_SR = catalogue.lines_per_hour_I.reshape(-1, len(REGIONS))
        visits_SR = lines_SR / catalogue.conversion_S[:, None]
        visits_SRQ = visits_SR[:, :, None] * times_SQ[:, None, :] / QUARTERS
        quarters = np.ones((1, QUARTERS))
        return HourDemand(
            visits_IQ=visits_SRQ.reshape(-1, QUARTERS),
            conversion_SQ=conversion_S[:, None] * quarters,
            price_SQ=paid_S[:, None] * quarters,
        )

    def shelf_prices(self, at_ms: int) -> Floats:
        """Catalogue price of each sku, without promotions."""
        prices_S: Floats = np.round(self._catalogue.price_S * self._plan.price_ratios(at_ms), 2)
        return prices_S

    def expected_units(self, start_ms: int) -> Floats:
        """Mean units ordered per item in the hour from `start_ms`, if nothing were ever sold out.

        Orders trail visits by the lead, so the hour before counts too. Chance (counts, hourly and
        daily noise, all of mean 1) averages out; returns are not subtracted.
        """
        two_hours = [self._buyers_IQ(start_ms - HOUR_MS), self._buyers_IQ(start_ms)]
        lines_I = np.concatenate(two_hours, axis=1) @ _lead_shares()
        units_I: Floats = lines_I * np.repeat(self._catalogue.mean_quantity_S, len(REGIONS))
        return units_I

    def _buyers_IQ(self, start_ms: int) -> Floats:
        """Visits of each quarter that will end in an order line."""
        hour = self.hour(start_ms)
        buyers_IQ: Floats = hour.visits_IQ * np.repeat(hour.conversion_SQ, len(REGIONS), axis=0)
        return buyers_IQ

    def day_noise(self, start_ms: int) -> Floats:
        """What the weather does to each category on that day, mean 1, per sku."""
        rng = generator(self._plan.seed, "days", start_ms // DAY_MS)
        # The mean of a lognormal is exp(mu + sigma^2 / 2), so this mu makes it 1.
        logs_C = rng.normal(-(DAY_NOISE**2) / 2, DAY_NOISE, len(CATEGORIES))
        noise_S: Floats = np.exp(logs_C)[self._catalogue.category_S]
        return noise_S

    def _promoted(self, at_ms: int) -> tuple[Floats, Floats]:
        """The discount of each sku, and how much its being on show draws beside the price."""
        discount_S = np.zeros(self._catalogue.num_skus)
        lift_S = np.ones(self._catalogue.num_skus)
        for sale in self._plan.active(at_ms):
            covers_S = sale.covers(self._catalogue)
            discount_S = np.maximum(discount_S, sale.promotion.discount * covers_S)
            lift = FLASH_LIFT if sale.flash else COUPON_LIFT
            lift_S = np.maximum(lift_S, np.where(covers_S > 0, lift, 1.0))
        return discount_S, lift_S

    def _drifted(self, at_ms: int) -> tuple[Floats, Floats, Floats]:
        """What planted drifts do to each sku: to its rate, its hours and its elasticity."""
        factor_S = np.ones(self._catalogue.num_skus)
        later_S = np.zeros(self._catalogue.num_skus)
        elasticity_S = self._catalogue.elasticity_S.copy()
        for drift in self._plan.drifts:
            hit_S = self._hit(drift) & (at_ms >= drift.at_ms)
            factor_S[hit_S] *= drift.level
            later_S[hit_S] += drift.hours_later
            elasticity_S[hit_S] *= drift.elasticity
        return factor_S, later_S, elasticity_S

    def _hit(self, drift: PlantedDrift) -> Bools:
        named = [drift.names(category) for category in CATEGORIES]
        return np.array(named)[self._catalogue.category_S]

    def _season(self, start_ms: int, later_S: Floats) -> Floats:
        """Day and week profile at the middle of each quarter, [S, Q], mean 1 over a week."""
        middle_Q = start_ms + (np.arange(QUARTERS) + 0.5) * QUARTER_MS
        # Customers who come later today behave as others did that many hours ago.
        moved_SQ = middle_Q[None, :] - later_S[:, None] * HOUR_MS
        quarter_SQ = (moved_SQ % DAY_MS // QUARTER_MS).astype(np.int64)
        weekday = (start_ms // DAY_MS + THURSDAY) % 7
        category_S1 = self._catalogue.category_S[:, None]
        by_day_SQ = self._day_profiles[category_S1, quarter_SQ]
        season_SQ: Floats = by_day_SQ * self._week_profiles[category_S1, weekday]
        return season_SQ

    def _trend(self, at_ms: int) -> Floats:
        """Each sku's steady growth and a swing of 8 % that takes a quarter; 1 at the start."""
        years = (at_ms - self._plan.start_ms) / YEAR_MS
        phase_S = self._phases
        now_S = np.sin(2 * np.pi * (years * 4 + phase_S))
        swing_S = now_S - np.sin(2 * np.pi * phase_S)
        trend_S: Floats = np.exp(self._catalogue.growth_S * years + 0.08 * swing_S)
        return trend_S

    @cached_property
    def _phases(self) -> Floats:
        return generator(self._plan.seed, "swings").random(self._catalogue.num_skus)

    def _launched(self, at_ms: int) -> Floats:
        """0 before the launch, then rising over a few days to 1."""
        days = (at_ms - self._plan.launch_S) / DAY_MS
        # 30 % of the later sales on the first day, 1 - 1/e of the rest after two.
        rising = 1.0 - 0.7 * np.exp(-np.maximum(days, 0.0) / 2.0)
        risen: Floats = np.where(days < 0, 0.0, rising)
        return risen


def _day_profile(category: int) -> Floats:
    """Traffic in each quarter of the day, mean 1: a bell for each peak on a floor for the night."""
    hours = (np.arange(24 * QUARTERS) + 0.5) / QUARTERS
    profile = np.full(24 * QUARTERS, NIGHT_FLOOR)
    for peak, width, weight in CATEGORIES[category].peaks:
        # Around the clock: 23:00 is two hours from 01:00.
        distance = (hours - peak + 12) % 24 - 12
        profile += weight * np.exp(-(distance**2) / (2 * width**2))
    mean_one: Floats = profile / profile.mean()
    return mean_one


def _week_profile(category: int) -> Floats:
    """Traffic of Monday to Sunday, mean 1."""
    weekend = CATEGORIES[category].weekend
    days = np.array([0.97, 0.94, 0.96, 1.0, 1.08, weekend, weekend * 0.96])
    mean_one: Floats = days / days.mean()
    return mean_one


def draw_leads(rng: np.random.Generator, num: int) -> Floats:
    """Milliseconds from a visit to its order."""
    return _leads(rng.standard_normal(num))


def _leads(normal: Floats) -> Floats:
    """Standard normal draws or quantiles to leads: lognormal, cut at both ends."""
    leads: Floats = np.clip(LEAD_MEDIAN_MS * np.exp(LEAD_SIGMA * normal), *LEAD_RANGE_MS)
    return leads


@lru_cache(maxsize=1)
def _lead_shares() -> Floats:
    """Which share of the orders from visits of a quarter falls into this hour.

    Quarters 0 to 3 are those of the hour before, 4 to 7 those of this hour. The midpoint rule over
    the visit's place in its quarter and over the lead's quantiles stands for the double integral.
    """
    normal = np.array([NormalDist().inv_cdf((i + 0.5) / 400) for i in range(400)])
    lead_L = _leads(normal)
    within_W = (np.arange(100) + 0.5) / 100 * QUARTER_MS
    quarter_T = np.arange(2 * QUARTERS) * QUARTER_MS
    order_TWL = quarter_T[:, None, None] + within_W[None, :, None] + lead_L
    in_hour_TWL = (order_TWL >= HOUR_MS) & (order_TWL < 2 * HOUR_MS)
    share_T: Floats = np.mean(in_hour_TWL, axis=(1, 2))
    return share_T
