"""What will happen in the simulated shop and when: promotions, price steps, launches, drift."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.source.simulator.catalogue import Catalogue
from freshet.stream.source.simulator.faults import Faults
from freshet.stream.source.simulator.goods import CATEGORIES, Category
from freshet.stream.source.simulator.promotions import (
    ANNOUNCE_MS,
    ScheduledPromotion,
    live_flash_sale,
    regular_promotions,
)
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

PRICE_STEP_DAYS = 12
TOUR_SECONDS = 300
"""Wall seconds for which a run without a given length is meant to be watched."""
DRIFT_SHARE = 0.15
"""Of the live part before a drift is planted: enough to see what is usual."""
FLASH_LIFT = 1.5
COUPON_LIFT = 1.1


@dataclass(frozen=True, slots=True)
class PlantedDrift:
    """A lasting change of demand in some categories from `at_ms` on.

    `level` multiplies the rate, `hours_later` moves the day's profile, `elasticity` multiplies the
    reaction to prices.
    """

    at_ms: int
    categories: tuple[str, ...]
    level: float = 1.0
    hours_later: float = 0.0
    elasticity: float = 1.0

    def names(self, category: Category) -> bool:
        """Whether it hits a category."""
        return category.name in self.categories


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the live part of a run shows, and how many faults the whole stream carries."""

    name: str
    flash_sale: bool = False
    drift: bool = False
    promotions_go_on: bool = False
    launch: bool = False
    faults: Faults = field(default_factory=Faults)


SMALL_FAULTS = Faults(duplicates=0.005, late=0.002, too_late=0.0005, future=0.0002, broken=0.0005)
SCENARIOS = {
    "calm": Scenario("calm", faults=SMALL_FAULTS),
    "flash_sale": Scenario(
        "flash_sale", flash_sale=True, promotions_go_on=True, launch=True, faults=SMALL_FAULTS
    ),
    "drift": Scenario("drift", flash_sale=True, drift=True, faults=SMALL_FAULTS),
}


def find_scenario(name: str) -> Scenario:
    """The preset of that name.

    Raises:
        InvalidInputError: There is none.
    """
    if name not in SCENARIOS:
        raise InvalidInputError(
            f"unknown scenario {name!r}; expected one of {', '.join(SCENARIOS)}"
        )
    return SCENARIOS[name]


@dataclass(frozen=True)
class ShopPlan:
    """Everything that is decided before the first event.

    Args:
        live_start_ms: Where history ends and the live part begins.
        live_ms: How long the live part is meant to be; planted events are placed relative to it.
    """

    seed: int
    catalogue: Catalogue
    scenario: Scenario
    start_ms: int
    live_start_ms: int
    live_ms: int
    drifts: tuple[PlantedDrift, ...]
    planted: tuple[ScheduledPromotion, ...]
    launch_S: Floats

    @property
    def drift_at_ms(self) -> int | None:
        """When the first planted drift sets in."""
        return min((drift.at_ms for drift in self.drifts), default=None)

    def facts(self) -> dict[str, object]:
        """What will happen, in plain values, for whoever shows or checks a run."""
        sales = [sale for sale in self.planted if sale.flash]
        return {
            "start_ms": self.start_ms,
            "live_start_ms": self.live_start_ms,
            "drift_at_ms": self.drift_at_ms,
            "drifts": [asdict(drift) for drift in self.drifts],
            "flash_sales": [
                {
                    "promotion_id": sale.promotion.promotion_id,
                    "sku": sale.promotion.sku,
                    "starts_ms": sale.starts_ms,
                    "ends_ms": sale.ends_ms,
                    "discount": sale.promotion.discount,
                }
                for sale in sales
            ],
        }

    def promotions(self, from_ms: int, to_ms: int) -> list[ScheduledPromotion]:
        """Promotions that start in `[from_ms, to_ms)`, in the order of their start."""
        first_week = max(0, (from_ms - self.start_ms) // WEEK_MS)
        last_week = (to_ms - 1 - self.start_ms) // WEEK_MS
        sales = list(self.planted)
        for week in range(first_week, last_week + 1):
            sales += self._week(week)
        found = [sale for sale in sales if from_ms <= sale.starts_ms < to_ms]
        return sorted(found, key=lambda sale: (sale.starts_ms, sale.promotion.promotion_id))

    def active(self, at_ms: int) -> list[ScheduledPromotion]:
        """Promotions that run at a time; none runs for a week."""
        started = self.promotions(at_ms - WEEK_MS, at_ms + 1)
        return [sale for sale in started if sale.ends_ms > at_ms]

    def announced(self, from_ms: int, to_ms: int) -> list[ScheduledPromotion]:
        """Promotions that the shop tells about in `[from_ms, to_ms)`."""
        near = self.promotions(from_ms, to_ms + ANNOUNCE_MS[1] + HOUR_MS)
        return [sale for sale in near if from_ms <= sale.announced_ms < to_ms]

    def price_ratios(self, at_ms: int) -> Floats:
        """Shelf price over the first price, per sku; steps come six hours into some days."""
        day = (at_ms - self.start_ms - 6 * HOUR_MS) // DAY_MS
        return _price_ratios(self.seed, self.catalogue.num_skus, max(int(day), -1))

    def _week(self, week: int) -> list[ScheduledPromotion]:
        sales = regular_promotions(self.seed, week, self.start_ms + week * WEEK_MS, self.catalogue)
        return [sale for sale in sales if self._allowed(sale)]

    def _allowed(self, sale: ScheduledPromotion) -> bool:
        if sale.starts_ms < self.start_ms + DAY_MS:
            return False
        if sale.sku >= 0 and sale.starts_ms < self.launch_S[sale.sku]:
            return False
        return self.scenario.promotions_go_on or sale.ends_ms <= self.live_start_ms


@lru_cache(maxsize=64)
def _price_ratios(seed: int, num_skus: int, day: int) -> Floats:
    """The newest step of each sku up to a day; 1 before its first.

    Prices step every PRICE_STEP_DAYS days on average, around the first price and not around the
    last one, so that they never wander off. Looking back from the day needs no state.
    """
    ratio_S = np.ones(num_skus)
    found_S = np.zeros(num_skus, dtype=bool)
    for past in range(day, -1, -1):
        rng = generator(seed, "prices", past)
        step_S = np.exp(np.clip(rng.normal(0.0, 0.10, num_skus), -0.22, 0.22))
        newest_S = (rng.random(num_skus) < 1.0 / PRICE_STEP_DAYS) & ~found_S
        ratio_S[newest_S] = step_S[newest_S]
        found_S |= newest_S
        if found_S.all():
            break
    return ratio_S


def make_plan(
    seed: int,
    catalogue: Catalogue,
    scenario: Scenario,
    *,
    start_ms: int,
    live_start_ms: int,
    live_ms: int,
) -> ShopPlan:
    """Decide promotions, launches and drift.

    The flash sale of the live part is for an article of the busiest category and drift hits other
    categories, so that one does not hide the other.
    """
    lines_S = catalogue.lines_per_hour_S
    num_categories = min(len(CATEGORIES), catalogue.num_skus)
    lines_C = np.bincount(catalogue.category_S, lines_S, num_categories)
    by_lines = np.argsort(-lines_C, kind="stable")
    plan = ShopPlan(
        seed=seed,
        catalogue=catalogue,
        scenario=scenario,
        start_ms=start_ms,
        live_start_ms=live_start_ms,
        live_ms=live_ms,
        drifts=_drifts(by_lines, live_start_ms, live_ms) if scenario.drift else (),
        planted=(),
        launch_S=_launches(seed, catalogue, scenario, start_ms, live_start_ms, live_ms),
    )
    if not scenario.flash_sale:
        return plan
    of_busiest = (catalogue.category_S == by_lines[0]) & (plan.launch_S < live_start_ms)
    skus = np.flatnonzero(of_busiest)
    best = int(skus[np.argmax(lines_S[skus])]) if len(skus) else int(np.argmax(lines_S))
    # Before the drift, which comes after DRIFT_SHARE of the live part, where there is one.
    first, last = (0.08, 0.12) if scenario.drift else (0.10, 0.20)
    window_ms = (live_start_ms + round(first * live_ms), live_start_ms + round(last * live_ms))
    return replace(plan, planted=(live_flash_sale(catalogue, best, window_ms),))


def _drifts(by_lines: Ints, live_start_ms: int, live_ms: int) -> tuple[PlantedDrift, ...]:
    """One category sells more, another at other hours; with few categories, only the first."""
    at_ms = live_start_ms + round(DRIFT_SHARE * live_ms / HOUR_MS) * HOUR_MS
    names = [CATEGORIES[int(category)].name for category in by_lines]
    if len(names) < 3:
        return (PlantedDrift(at_ms, (names[-1],), level=2.2),)
    return (
        PlantedDrift(at_ms, (names[1],), level=2.2),
        PlantedDrift(at_ms, (names[2],), level=1.3, hours_later=9.0, elasticity=1.5),
    )


def _launches(
    seed: int,
    catalogue: Catalogue,
    scenario: Scenario,
    start_ms: int,
    live_start_ms: int,
    live_ms: int,
) -> Floats:
    """When each sku is first sold: nearly all before the history, two within it, one live if asked.

    The launched ones are neither the shop's best nor its worst, so that what is missing before
    them changes little.
    """
    launch_S = np.full(catalogue.num_skus, -np.inf)
    quarter = catalogue.num_skus // 4
    three_quarters = 3 * catalogue.num_skus // 4
    middle = np.argsort(catalogue.lines_per_hour_S)[quarter:three_quarters]
    chosen = generator(seed, "launches").permutation(middle)[:3]
    history_ms = live_start_ms - start_ms
    times = [start_ms + 0.35 * history_ms, start_ms + 0.70 * history_ms]
    if scenario.launch:
        times.append(live_start_ms + 0.25 * live_ms)
    for sku, time_ms in zip(chosen, times, strict=False):
        launch_S[sku] = round(time_ms / HOUR_MS) * HOUR_MS
    return launch_S
