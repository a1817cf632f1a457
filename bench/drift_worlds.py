"""Shops by the hour whose forecasts are scored: made up, or drawn from what base weights earn.

A made-up shop has 8 categories of 15 items, a day profile, busier weekends, over-dispersed counts,
good and bad days, and a slow wandering of the whole shop, each category and each item that nobody
can foresee. Its forecaster knows the profile with errors, learns the level from the last days, and
is biased and wrongly sure of itself, as real ones are.

Dimensions: N items, L hours, K scored steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from freshet.online.drift.pooled import ScoreBatch
from freshet.online.drift.score import NORMAL_SPREAD_80, SMALLEST_SCALE, randomised_pit
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.schemas import WIRE_LEVELS

LEVELS_Q = np.array(WIRE_LEVELS)
NORMAL_Q = np.array([NormalDist().inv_cdf(level) for level in WIRE_LEVELS])
STEPS = (1, 3, 6, 12, 24)
CATEGORIES, ITEMS = 8, 15
WARM_UP = 168
LEVEL_MEMORY = 36.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some hours of a shop."""

    pit_NLK: Floats
    median_NLK: Floats
    residual_NLK: Floats
    units_NL: Floats
    left_out_NL: Bools
    segment_N: Ints

    @property
    def hours(self) -> int:
        return int(self.units_NL.shape[1])

    def rows(self, first: int, last: int) -> Scored:
        """Some of the hours."""
        part = slice(first, last)
        return Scored(
            self.pit_NLK[:, part],
            self.median_NLK[:, part],
            self.residual_NLK[:, part],
            self.units_NL[:, part],
            self.left_out_NL[:, part],
            self.segment_N,
        )

    def hours_drawn(self, hour_L: Ints) -> Scored:
        """The given hours, in that order."""
        return Scored(
            self.pit_NLK[:, hour_L],
            self.median_NLK[:, hour_L],
            self.residual_NLK[:, hour_L],
            self.units_NL[:, hour_L],
            self.left_out_NL[:, hour_L],
            self.segment_N,
        )

    def batches(self) -> Iterator[ScoreBatch]:
        """Hour after hour, as the monitor takes them."""
        order_N = np.argsort(self.segment_N, kind="stable")
        num_items, _, num_steps = self.pit_NLK.shape
        names = [f"c{number}" for number in range(int(self.segment_N.max()) + 1)]
        item_R = np.repeat(np.arange(num_items), num_steps)
        for hour in range(self.hours):
            yield ScoreBatch(
                segments=names,
                segment_I=self.segment_N[order_N],
                actual_I=self.units_NL[order_N, hour],
                left_out_I=self.left_out_NL[order_N, hour],
                item_R=item_R,
                pit_R=self.pit_NLK[order_N, hour].reshape(-1),
                median_R=self.median_NLK[order_N, hour].reshape(-1),
                residual_R=self.residual_NLK[order_N, hour].reshape(-1),
            )


def score(
    quantiles_NLKQ: Floats,
    units_NL: Floats,
    left_out_NL: Bools,
    segment_N: Ints,
    rng: np.random.Generator,
) -> Scored:
    """Hold sales against forecasts, as the worker does."""
    N, L, K, Q = quantiles_NLKQ.shape
    flat_RQ = np.asarray(quantiles_NLKQ, float).reshape(-1, Q)
    actual_R = np.repeat(units_NL.reshape(-1).astype(float), K)
    median_R = flat_RQ[:, WIRE_LEVELS.index(0.5)]
    width_R = flat_RQ[:, WIRE_LEVELS.index(0.9)] - flat_RQ[:, WIRE_LEVELS.index(0.1)]
    scale_R = np.maximum(width_R / NORMAL_SPREAD_80, SMALLEST_SCALE)
    pit_R = randomised_pit(actual_R, flat_RQ, LEVELS_Q, scale_R, rng.random(len(actual_R)))
    residual_R = (actual_R - median_R) / scale_R
    shape = (N, L, K)
    return Scored(
        pit_R.reshape(shape),
        median_R.reshape(shape),
        residual_R.reshape(shape),
        units_NL.astype(float),
        left_out_NL,
        segment_N,
    )


@dataclass(frozen=True, slots=True)
class Nature:
    """What a made-up shop is like; sizes are standard deviations of logarithms."""

    wander: float = 0.03
    day: float = 0.0
    hour_bias: float = 0.1
    weekday_bias: float = 0.0
    level: float = 0.5
    bulk: float = 0.0
    promotions: bool = False
    sold_out: bool = False


NATURES = {
    "plain": Nature(),
    "biased": Nature(hour_bias=0.25, weekday_bias=0.1),
    "wandering": Nature(wander=0.05, day=0.05),
    "heavy_tails": Nature(bulk=0.02),
    "sparse": Nature(level=-1.5),
    "promotions": Nature(promotions=True, sold_out=True),
}


@dataclass(frozen=True, slots=True)
class Change:
    """From `hour` on one category sells differently."""

    hour: int
    category: int
    kind: str
    size: float


def wander(rng: np.random.Generator, rows: int, hours: int, size: float) -> Floats:
    """Factors that stray by themselves and come back within a day."""
    noise = rng.normal(0.0, size * np.sqrt(1 - 0.9**2), (rows, hours))
    for hour in range(1, hours):
        noise[:, hour] += 0.9 * noise[:, hour - 1]
    return np.exp(noise)


def made_up(seed: int, nature: Nature, hours: int, change: Change | None = None) -> Scored:
    """A shop from its seed; the change leaves all before it as it was."""
    rng = np.random.default_rng(seed)
    length = WARM_UP + hours
    at_L = np.arange(length)
    category_N = np.repeat(np.arange(CATEGORIES), ITEMS)
    num = len(category_N)
    level_N1 = np.exp(rng.normal(nature.level, 1.8, num)).clip(0.02, 200)[:, None]
    dispersion_N = rng.uniform(0.02, 0.3, num)
    day_H = np.exp(-0.5 * ((np.arange(24) - 15) / 5.0) ** 2) + 0.15
    day_NH = (day_H / day_H.mean() * np.exp(rng.normal(0, 0.25, (CATEGORIES, 24))))[category_N]
    known_NL = level_N1 * day_NH[:, at_L % 24]
    weekend_L = np.isin(at_L // 24 % 7, [5, 6])
    true_NL = known_NL * (1 + 0.2 * weekend_L) * wander(rng, 1, length, nature.wander)
    true_NL = true_NL * wander(rng, CATEGORIES, length, nature.wander)[category_N]
    true_NL = true_NL * wander(rng, num, length, 0.08)
    days_CD = np.exp(rng.normal(0, nature.day, (CATEGORIES, length // 24 + 1)))
    true_NL = true_NL * days_CD[category_N][:, at_L // 24]
    left_out_NL = np.zeros((num, length), bool)
    if nature.promotions:
        true_NL, left_out_NL = _promoted(rng, true_NL, category_N)
    if change is not None:
        true_NL = _changed(true_NL, category_N, change)
    if nature.bulk:
        bulk_NL = (rng.random(true_NL.shape) < nature.bulk) * rng.pareto(1.5, true_NL.shape)
        true_NL = true_NL * (1 + np.minimum(bulk_NL, 20.0))
    # Four times the variance beyond Poisson's own, and of that too.
    spread_NL = np.ones(true_NL.shape)
    if change is not None and change.kind == "spread":
        spread_NL[category_N == change.category, WARM_UP + change.hour :] = change.size
    shape_NL = 1 / dispersion_N[:, None] * np.ones(true_NL.shape)
    sold_NL = rng.poisson(true_NL * rng.gamma(shape_NL, 1 / shape_NL))
    packs_NL = rng.binomial(sold_NL, 1 / spread_NL)
    units_NL = np.where(spread_NL > 1, spread_NL * packs_NL, sold_NL).astype(float)
    if nature.sold_out:
        units_NL, gone_NL = _sold_out(rng, units_NL)
        left_out_NL = left_out_NL | gone_NL
    errors_NH = np.exp(rng.normal(0, nature.hour_bias, (CATEGORIES, 24)))[category_N]
    weekday_CD = np.exp(rng.normal(0, nature.weekday_bias, (CATEGORIES, 7)))
    believed_NL = known_NL * errors_NH[:, at_L % 24] * (1 + 0.15 * weekend_L)
    believed_NL = believed_NL * weekday_CD[category_N][:, at_L // 24 % 7]
    believed_NL = believed_NL * np.exp(rng.normal(0, 0.1, num))[:, None]
    sure_N = dispersion_N * np.exp(rng.normal(0, 0.3, num)) + 0.01
    factor_NL = _learnt(units_NL, believed_NL, left_out_NL)
    quantiles = []
    for step in STEPS:
        # Known at the cutoff, which is the start of the first of the steps.
        cutoff_L = np.maximum(at_L - step + 1, 0)
        quantiles.append(_gamma(believed_NL * factor_NL[:, cutoff_L], sure_N))
    made_NLKQ = np.stack(quantiles, axis=2)[:, WARM_UP:]
    return score(made_NLKQ, units_NL[:, WARM_UP:], left_out_NL[:, WARM_UP:], category_N, rng)


def _changed(true_NL: Floats, category_N: Ints, change: Change) -> Floats:
    rows, since = category_N == change.category, WARM_UP + change.hour
    true_NL = true_NL.copy()
    if change.kind == "level":
        true_NL[rows, since:] *= 1 + change.size
    elif change.kind == "timing":
        true_NL[rows, since:] = np.roll(true_NL[rows], int(change.size), axis=1)[:, since:]
    return true_NL


def _promoted(rng: np.random.Generator, true_NL: Floats, category_N: Ints) -> tuple[Floats, Bools]:
    """Announced promotions of items: they sell more, their neighbours a little less."""
    promoted_NL = np.zeros(true_NL.shape, bool)
    halo_NL = np.ones(true_NL.shape)
    for _ in range(true_NL.shape[1] // 24):
        item, since = int(rng.integers(len(true_NL))), int(rng.integers(true_NL.shape[1]))
        until = since + int(rng.integers(3, 48))
        promoted_NL[item, since:until] = True
        halo_NL[category_N == category_N[item], since:until] *= 0.96
    lift = np.exp(rng.normal(0.6, 0.4))
    return true_NL * np.where(promoted_NL, lift, halo_NL), promoted_NL


def _sold_out(rng: np.random.Generator, units_NL: Floats) -> tuple[Floats, Bools]:
    gone_NL = np.zeros(units_NL.shape, bool)
    for _ in range(units_NL.shape[1] // 12):
        item, since = int(rng.integers(len(units_NL))), int(rng.integers(units_NL.shape[1]))
        gone_NL[item, since : since + int(rng.integers(2, 30))] = True
    return np.where(gone_NL, 0.0, units_NL), gone_NL


def _learnt(units_NL: Floats, believed_NL: Floats, left_out_NL: Bools) -> Floats:
    """Level factor known at each hour's start, from about the last 36 hours."""
    sold = expected = np.full(len(units_NL), 10.0)
    factor_NL = np.ones(units_NL.shape)
    kept_NL = ~left_out_NL
    for hour in range(units_NL.shape[1]):
        factor_NL[:, hour] = sold / expected
        kept = kept_NL[:, hour]
        sold = np.where(kept, (sold - 10) * (1 - 1 / LEVEL_MEMORY) + units_NL[:, hour] + 10, sold)
        expected = np.where(
            kept, (expected - 10) * (1 - 1 / LEVEL_MEMORY) + believed_NL[:, hour] + 10, expected
        )
    return factor_NL


def _gamma(mean_NL: Floats, dispersion_N: Floats) -> Floats:
    """Wilson and Hilferty's approximation for a gamma of a count's mean and variance."""
    variance_NL = mean_NL + dispersion_N[:, None] * mean_NL**2
    shape = (mean_NL**2 / variance_NL)[..., None]
    scale = (variance_NL / mean_NL)[..., None]
    cube = 1 - 1 / (9 * shape) + NORMAL_Q / (3 * np.sqrt(shape))
    return np.maximum(shape * scale * np.maximum(cube, 0.0) ** 3 - 0.3, 0.0)


def of_base_weights(path: Path, seed: int) -> Scored:
    """What base weights earned on a shop, calm."""
    kept = np.load(path)
    rng = np.random.default_rng(seed)
    left_out_NL = kept["promoted"] | ~kept["in_stock"]
    return score(kept["quantiles"], kept["units"], left_out_NL, kept["segment"], rng)


def drifted(path: Path, label: str, segment: int, calm: Scored, seed: int) -> tuple[Scored, int]:
    """The same shop with the planted drift in one segment; and its onset."""
    kept = np.load(path)
    rows = kept["segment"] == segment
    onset = int(kept[f"{label}_onset"][segment])
    made = kept[f"{label}_quantiles"][rows]
    last = onset + made.shape[1]
    part = slice(onset, last)
    left_out = (kept["promoted"] | ~kept["in_stock"])[rows, part]
    rng = np.random.default_rng(seed)
    units = kept[f"{label}_units"][rows, part]
    new = score(made, units, left_out, kept["segment"][rows], rng)
    arrays = {}
    for name in ("pit_NLK", "median_NLK", "residual_NLK", "units_NL"):
        value = getattr(calm, name).copy()
        value[rows, part] = getattr(new, name)
        arrays[name] = value
    return replace(calm, **arrays).rows(0, last), onset
