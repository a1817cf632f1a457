"""Drift is found within hours, and calm weeks stay calm: measured on a synthetic shop with an
imperfect forecaster.

The shop has 8 categories of 15 items, a day profile, busier weekends, over-dispersed counts, and
slow wandering of the whole shop, each category and each item that no forecaster can foresee. The
forecaster knows the profile with errors, learns the level from the last days, and is biased and
wrongly sure of itself, as real ones are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest

from freshet.online.drift.monitor import ALL, DriftMonitor
from freshet.online.drift.pending import Due
from freshet.online.drift.score import Actual, judge, score_records
from freshet.stream.arrays import Floats
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import WIRE_LEVELS, DriftAlert, Score
from freshet.stream.units import HOUR_MS

pytestmark = pytest.mark.slow  # weeks of scores; test_alerts_by_hand.py is the quick one

STEPS = (1, 6, 24)  # three of the five that a worker scores by default
WARM_UP_HOURS = 168
LEVEL_SCORES_Q = np.array([NormalDist().inv_cdf(level) for level in WIRE_LEVELS])


@dataclass(frozen=True)
class Change:
    """From this hour on the sales of one category are multiplied."""

    hour: int
    factor: float
    category: int = 3
    profile_shift: int = 0


def gamma_quantiles(mean_I: Floats, dispersion_I: Floats) -> Floats:
    """Wilson and Hilferty's approximation for a gamma distribution of a count's mean and
    variance.
    """
    variance_I = mean_I + dispersion_I * mean_I**2
    shape_I1, scale_I1 = (mean_I**2 / variance_I)[:, None], (variance_I / mean_I)[:, None]
    cube = 1 - 1 / (9 * shape_I1) + LEVEL_SCORES_Q / (3 * np.sqrt(shape_I1))
    return np.maximum(shape_I1 * scale_I1 * np.maximum(cube, 0.0) ** 3 - 0.3, 0.0)


def wander(rng: np.random.Generator, rows: int, hours: int, size: float) -> Floats:
    noise = rng.normal(0.0, size * np.sqrt(1 - 0.9**2), (rows, hours))
    for hour in range(1, hours):
        noise[:, hour] += 0.9 * noise[:, hour - 1]
    return np.exp(noise)


@dataclass
class SyntheticShop:
    """Sales and forecasts of a seeded shop, as the scores a worker would publish."""

    seed: int
    hours: int
    change: Change | None = None
    wandering: float = 0.03
    versions: tuple[tuple[int, str], ...] = ((0, "base"),)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        hours = np.arange(self.hours + WARM_UP_HOURS)
        self.category = np.repeat(np.arange(8), 15)
        level = np.exp(rng.normal(0.5, 1.8, 120)).clip(0.05, 200)[:, None]
        self.dispersion = rng.uniform(0.02, 0.3, 120)
        day = np.exp(-0.5 * ((np.arange(24) - 15) / 5.0) ** 2) + 0.15
        day = (day / day.mean() * np.exp(rng.normal(0, 0.25, (8, 24))))[self.category]
        weekend = np.isin(hours // 24 % 7, [5, 6])
        known = level * day[:, hours % 24]
        true = known * (1 + 0.2 * weekend) * wander(rng, 1, len(hours), self.wandering)
        true *= wander(rng, 8, len(hours), self.wandering)[self.category] * wander(
            rng, 120, len(hours), 0.08
        )
        if self.change is not None:
            self._apply(true, self.change)
        shape = 1 / self.dispersion[:, None]
        self.units = rng.poisson(true * rng.gamma(shape, 1 / shape, true.shape)).astype(float)
        errors = np.exp(rng.normal(0, 0.1, (8, 24)))[self.category][:, hours % 24]
        self.known = (
            known * errors * (1 + 0.15 * weekend) * np.exp(rng.normal(0, 0.1, 120))[:, None]
        )
        self.believed = self.dispersion * np.exp(rng.normal(0, 0.3, 120)) + 0.01
        self.factor = self._learnt_level()

    def _apply(self, true: Floats, change: Change) -> None:
        rows, start = self.category == change.category, WARM_UP_HOURS + change.hour
        true[rows, start:] *= change.factor
        if change.profile_shift:
            true[rows, start:] = np.roll(true[rows], change.profile_shift, axis=1)[:, start:]

    def _learnt_level(self) -> Floats:
        """Level factor known at each hour's start, from about the last 36 hours."""
        sold = expected = np.full(120, 10.0)
        factor = np.ones(self.units.shape)
        for hour in range(self.units.shape[1]):
            factor[:, hour] = sold / expected
            sold = (sold - 10) * (1 - 1 / 36) + self.units[:, hour] + 10
            expected = (expected - 10) * (1 - 1 / 36) + self.known[:, hour] + 10
        return factor

    def scores(self, hour: int) -> list[Score]:
        bucket = WARM_UP_HOURS + hour
        ids = [f"i{number}|r" for number in range(120)]
        judged = []
        for step in STEPS:
            cutoff = bucket - step + 1
            version = next(
                name
                for since, name in reversed(self.versions)
                if cutoff >= since + WARM_UP_HOURS or not since
            )
            quantiles = gamma_quantiles(
                self.known[:, bucket] * self.factor[:, cutoff], self.believed
            )
            forecast_ids = [f"{number}:{cutoff}:{self.seed}" for number in range(120)]
            due = Due(
                step,
                cutoff * HOUR_MS,
                version,
                WIRE_LEVELS,
                ids,
                forecast_ids,
                quantiles.astype(np.float32),
            )
            judged.append((due, judge(due, self.units[:, bucket])))
        actuals = {
            ids[row]: Actual(float(self.units[row, bucket]), True, f"c{self.category[row]}")
            for row in range(len(ids))
        }
        return score_records(
            judged,
            actuals,
            bucket_start_ms=hour * HOUR_MS,
            resolution_ms=HOUR_MS,
            scored_at_ms=hour * HOUR_MS,
        )


def alerts_of(
    shop: SyntheticShop, monitor: DriftMonitor | None = None, hours: int | None = None
) -> list[DriftAlert]:
    """What is found in the first hours, by default in all."""
    monitor = monitor or DriftMonitor(DriftSettings(), HOUR_MS)
    found: list[DriftAlert] = []
    for hour in range(hours or shop.hours):
        found += monitor.update(hour * HOUR_MS, shop.scores(hour), now_ms=hour * HOUR_MS)
    return found


@cache
def shifted(seed: int, factor: float, hour: int, hours: int = 14) -> list[DriftAlert]:
    """What is found within some hours of a shift."""
    shop = SyntheticShop(seed, hour + 60, Change(hour, factor))
    return alerts_of(shop, hours=hour + hours)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_calm_week_of_nine_streams_raises_no_alarm(seed: int) -> None:
    assert alerts_of(SyntheticShop(seed, 24 * 7)) == []


@pytest.mark.parametrize("seed", [10, 11, 12])
@pytest.mark.parametrize(
    ("factor", "hour", "within"), [(2.0, 20, 12), (2.0, 48, 10), (0.5, 120, 12)]
)
def test_a_doubled_or_halved_category_is_found_within_hours(
    seed: int, factor: float, hour: int, within: int
) -> None:
    found = [
        alert
        for alert in shifted(seed, factor, hour)
        if alert.segment == "c3" and alert.state == "drift"
    ]
    first = found[0]
    assert hour <= first.detected_at_ms // HOUR_MS <= hour + within
    assert abs(first.onset_ms // HOUR_MS - hour) <= 10
    assert first.kind == "level" and (first.size > 0) == (factor > 1)
    words = ("half", "third", "quarter less") if factor < 1 else ("twice", "times", "a half")
    assert any(word in first.description for word in words) and first.action


@pytest.mark.parametrize("seed", [10, 11, 12])
def test_nobody_else_is_accused_of_the_shift(seed: int) -> None:
    assert {alert.segment for alert in shifted(seed, 2.0, 20, hours=60)} == {"c3"}


def test_an_alarm_ends_with_the_same_id_once_the_forecasts_have_followed() -> None:
    found = alerts_of(SyntheticShop(11, 24 * 9, Change(48, 2.0)))
    mine = [alert for alert in found if alert.segment == "c3"]
    assert [alert.state for alert in mine[:2]] == ["drift", "stable"]
    assert mine[0].alert_id == mine[1].alert_id and mine[1].detected_at_ms > mine[0].detected_at_ms


def test_a_moved_day_profile_is_called_timing() -> None:
    found = alerts_of(SyntheticShop(12, 24 * 6, Change(72, 1.0, profile_shift=8)))
    mine = [alert for alert in found if alert.segment == "c3" and alert.state == "drift"]
    assert mine[0].detected_at_ms // HOUR_MS <= 72 + 24
    assert "timing" in {alert.kind for alert in mine}


def test_the_same_scores_give_the_same_alerts_after_a_restart_and_repeats_change_nothing() -> None:
    shop = SyntheticShop(11, 80, Change(48, 2.0))
    whole = alerts_of(shop)
    rebuilt = DriftMonitor(DriftSettings(), HOUR_MS)
    for hour in range(50):
        rebuilt.update(hour * HOUR_MS, shop.scores(hour), now_ms=hour * HOUR_MS)
    assert rebuilt.update(20 * HOUR_MS, shop.scores(20), now_ms=0) == []
    later = []
    for hour in range(50, 80):
        later += rebuilt.update(hour * HOUR_MS, shop.scores(hour), now_ms=hour * HOUR_MS)
    assert later == [alert for alert in whole if alert.detected_at_ms >= 50 * HOUR_MS] and later


def test_an_alarm_from_before_a_restart_is_ended_when_its_segment_is_quiet() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    (raised,) = [alert for alert in shifted(11, 2.0, 20, hours=60) if alert.state == "drift"]
    monitor.adopt(raised)
    found = alerts_of(SyntheticShop(1, 40), monitor)
    assert [(alert.alert_id, alert.state) for alert in found] == [(raised.alert_id, "stable")]


def test_the_whole_shop_is_a_segment_of_its_own() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    monitor.update(0, SyntheticShop(0, 1).scores(0), now_ms=0)
    assert set(monitor.tensions()) == {ALL, *(f"c{number}" for number in range(8))}
