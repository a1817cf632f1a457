"""Will a flash sale sell out before it ends, and when? A pure estimate from one forecast and the
stock on hand.

Per-step quantiles do not add up, so a forecast carries quantiles of its sums over the first steps
(`cumulative`). Between those, their distance from the mean is taken as straight. Demand from a
later start on is as far from its mean as the sum from the cutoff, times the ratio of their standard
deviations

    sqrt(rho * (sum s_j)^2 + (1 - rho) * sum s_j^2)

with s_j the standard deviations of the steps within, and rho the correlation of two steps that the
longest sum implies. A forecast without sums gets a usual rho: the distance of the summed quantiles
from the mean (rho = 1) shrinks by the same ratio. Within a step, demand is taken as even.

Dimensions: H steps, Q quantile levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import Cumulative, Forecast

STEP_CORRELATION = 0.3
"""Correlation of the errors of two steps where a forecast tells no sums: a strong start mostly
stays strong.
"""


@dataclass(frozen=True, slots=True)
class SellOut:
    """When the stock is gone, and how likely that is before the sale's end.

    Attributes:
        eta_ms_p10, eta_ms_p50, eta_ms_p90: The stock is gone by then with a chance of 10, 50 and 90
            percent; None where the chance is smaller than that at the end of the forecast.
        chance: Of being sold out at `until_ms`, 0 to 1. Levels end at the forecast's outermost
            ones: beyond, 0 or 1.
        until_ms: The sale's end, or the forecast's where that is earlier; `chance` is then a lower
            bound.
        expected_units: Mean demand from now to `until_ms`.
    """

    eta_ms_p10: int | None
    eta_ms_p50: int | None
    eta_ms_p90: int | None
    chance: float
    until_ms: int
    expected_units: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a forecast says of one item.

    Attributes:
        levels: Rising probabilities.
        quantiles: Units by step and level; step h covers `resolution_ms` from `cutoff_ms` + h of
            them.
        cumulative: The same of the sums over the first steps; None in forecasts that do not tell.
    """

    levels: list[float]
    quantiles: list[list[float]]
    cutoff_ms: int
    resolution_ms: int
    cumulative: Cumulative | None = None

    @classmethod
    def of(cls, forecast: Forecast) -> Outlook:
        """That of a forecast record."""
        head = forecast.quantile_levels, forecast.quantiles
        return cls(*head, forecast.cutoff_ms, forecast.resolution_ms, forecast.cumulative)


def estimate_sell_out(
    outlook: Outlook,
    *,
    on_hand: float,
    now_ms: int,
    ends_at_ms: int,
    correlation: float = STEP_CORRELATION,
) -> SellOut:
    """Estimate from a forecast when the stock is gone.

    Args:
        outlook: The forecast.
        on_hand: Units in stock now.
        now_ms: Demand before it is over and does not count.
        ends_at_ms: End of the sale, exclusive.
        correlation: Of two steps, for a forecast without sums.

    Raises:
        InvalidInputError: Levels and quantiles do not fit, or the correlation is outside 0 to 1.

    >>> flat = Outlook([0.1, 0.5, 0.9], [[10.0, 10.0, 10.0]] * 4, cutoff_ms=0, resolution_ms=100)
    >>> sold_out = estimate_sell_out(flat, on_hand=25.0, now_ms=0, ends_at_ms=300)
    >>> sold_out.eta_ms_p10, sold_out.eta_ms_p50, sold_out.eta_ms_p90
    (250, 250, 250)
    >>> sold_out.chance, sold_out.until_ms, sold_out.expected_units
    (1.0, 300, 30.0)
    """
    demand = _Demand.parse(outlook, correlation)
    until_ms = min(ends_at_ms, demand.end_ms)
    inner_ms = [
        t for t in range(demand.cutoff_ms, demand.end_ms, demand.resolution_ms) if now_ms < t
    ]
    edges_ms = [now_ms, *inner_ms, max(now_ms, demand.end_ms)]
    sums_EQ = np.maximum.accumulate([demand.sum_quantiles(now_ms, edge_ms) for edge_ms in edges_ms])
    early, median, late = (
        _crossing(edges_ms, _at_level(sums_EQ, demand.levels_Q, 1.0 - p), on_hand)
        for p in (0.1, 0.5, 0.9)
    )
    return SellOut(
        early,
        median,
        late,
        _chance(demand.levels_Q, demand.sum_quantiles(now_ms, until_ms), on_hand),
        until_ms,
        float(demand.mean_H @ demand.shares(now_ms, until_ms)),
    )


@dataclass(frozen=True, slots=True)
class _Demand:
    """A forecast as arrays, with the mean and the standard deviation of each step, and how far its
    sums spread.
    """

    levels_Q: Floats
    steps_HQ: Floats
    mean_H: Floats
    deviation_H: Floats
    cutoff_ms: int
    resolution_ms: int
    correlation: float
    sum_steps: Ints
    """Numbers of first steps, from 0 on; empty for a forecast without sums."""
    sums_from_mean: Floats
    """By number of steps and level: how far a sum's quantiles are from the sum of the steps' means.
    """

    @classmethod
    def parse(cls, outlook: Outlook, correlation: float) -> _Demand:
        levels_Q, steps_HQ = _checked(outlook)
        if not 0.0 <= correlation <= 1.0:
            raise InvalidInputError(f"the correlation of steps is {correlation}; expected 0 to 1")
        mean_H, deviation_H = _moments(levels_Q, steps_HQ)
        sum_steps, sums_from_mean = np.zeros(0, np.int64), np.zeros((0, len(levels_Q)))
        if outlook.cumulative is not None:
            sums_KQ = _checked_sums(outlook.cumulative, *steps_HQ.shape)
            _, deviation_K = _moments(levels_Q, sums_KQ)
            correlation = _implied_correlation(
                float(deviation_K[-1]), deviation_H[: outlook.cumulative.steps[-1]]
            )
            sum_steps = np.array([0, *outlook.cumulative.steps])
            mean_K = mean_H.cumsum()[sum_steps[1:] - 1]
            sums_from_mean = np.concatenate(
                [np.zeros((1, len(levels_Q))), sums_KQ - mean_K[:, None]]
            )
        times = outlook.cutoff_ms, outlook.resolution_ms
        return cls(
            levels_Q, steps_HQ, mean_H, deviation_H, *times, correlation, sum_steps, sums_from_mean
        )

    @property
    def end_ms(self) -> int:
        return self.cutoff_ms + len(self.steps_HQ) * self.resolution_ms

    def shares(self, from_ms: int, to_ms: int) -> Floats:
        """The share of each step within [from, to)."""
        starts_H = self.cutoff_ms + self.resolution_ms * np.arange(len(self.steps_HQ))
        overlap_H = np.minimum(starts_H + self.resolution_ms, to_ms) - np.maximum(starts_H, from_ms)
        return np.clip(overlap_H / self.resolution_ms, 0.0, 1.0)

    def sum_quantiles(self, from_ms: int, to_ms: int) -> Floats:
        """Quantiles of the demand within [from, to), as the top of this file says."""
        share_H = self.shares(from_ms, to_ms)
        mean, spread = float(share_H @ self.mean_H), self._spread(share_H)
        if spread <= 0.0:
            return share_H @ self.steps_HQ
        if len(self.sum_steps):
            whole = self._spread(self.shares(self.cutoff_ms, to_ms))
            position = (to_ms - self.cutoff_ms) / self.resolution_ms
            wide_Q = np.array(
                [np.interp(position, self.sum_steps, column) for column in self.sums_from_mean.T]
            )
        else:
            whole, wide_Q = float(share_H @ self.deviation_H), share_H @ self.steps_HQ - mean
        return np.maximum(mean + wide_Q * spread / whole, 0.0)

    def _spread(self, share_H: Floats) -> float:
        """Standard deviation of a sum over parts of steps."""
        deviation_H = share_H * self.deviation_H
        variance = self.correlation * deviation_H.sum() ** 2 + (1.0 - self.correlation) * (
            deviation_H @ deviation_H
        )
        return math.sqrt(float(variance))


def _checked(outlook: Outlook) -> tuple[Floats, Floats]:
    if len({len(step) for step in outlook.quantiles}) > 1:
        raise InvalidInputError(
            f"steps have {sorted({len(step) for step in outlook.quantiles})} quantiles; "
            "expected as many each"
        )
    levels_Q, steps_HQ = (
        np.asarray(outlook.levels, np.float64),
        np.asarray(outlook.quantiles, np.float64),
    )
    rising = not (np.diff(levels_Q) <= 0).any()
    if (
        steps_HQ.ndim != 2
        or steps_HQ.shape[1:] != levels_Q.shape
        or not len(steps_HQ)
        or not rising
    ):
        raise InvalidInputError(
            f"quantiles of shape {steps_HQ.shape} with {len(levels_Q)} levels {outlook.levels}; "
            "expected one or more steps, and rising levels, one for each column"
        )
    return levels_Q, steps_HQ


def _checked_sums(cumulative: Cumulative, num_steps: int, num_levels: int) -> Floats:
    steps, widths = cumulative.steps, {len(row) for row in cumulative.quantiles}
    rising = steps == sorted(set(steps)) and steps and steps[0] >= 1 and steps[-1] <= num_steps
    if not rising or widths != {num_levels} or len(steps) != len(cumulative.quantiles):
        raise InvalidInputError(
            f"{len(cumulative.quantiles)} sums of {sorted(widths)} quantiles over the first "
            f"{steps} steps; "
            f"expected {num_levels} quantiles for each of some rising numbers of steps up to "
            f"{num_steps}"
        )
    return np.asarray(cumulative.quantiles, np.float64)


def _implied_correlation(sum_deviation: float, deviation_H: Floats) -> float:
    """The correlation of two steps with which their sum has this standard deviation."""
    apart, together = float(deviation_H @ deviation_H), float(deviation_H.sum()) ** 2
    if together - apart <= 1e-12 * together:
        return 1.0
    return min(max((sum_deviation**2 - apart) / (together - apart), 0.0), 1.0)


def _moments(levels_Q: Floats, steps_HQ: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each step: straight lines between levels, flat beyond the
    outermost.
    """
    level_K = np.concatenate([[0.0], levels_Q, [1.0]])
    value_HK = np.concatenate([steps_HQ[:, :1], steps_HQ, steps_HQ[:, -1:]], 1)
    low_HJ, high_HJ, width_J = value_HK[:, :-1], value_HK[:, 1:], np.diff(level_K)
    mean_H = ((low_HJ + high_HJ) / 2.0) @ width_J
    square_H = ((low_HJ**2 + low_HJ * high_HJ + high_HJ**2) / 3.0) @ width_J
    return mean_H, np.sqrt(np.maximum(square_H - mean_H**2, 0.0))


def _at_level(sums_EQ: Floats, levels_Q: Floats, level: float) -> Floats:
    return np.array([np.interp(level, levels_Q, sums_Q) for sums_Q in sums_EQ])


def _crossing(edges_ms: list[int], demand_E: Floats, on_hand: float) -> int | None:
    """When a demand that grows evenly between edges reaches the stock."""
    if on_hand <= 0.0:
        return edges_ms[0]
    if demand_E[-1] < on_hand:
        return None
    after = int(np.searchsorted(demand_E, on_hand))
    share = float((on_hand - demand_E[after - 1]) / (demand_E[after] - demand_E[after - 1]))
    return round(edges_ms[after - 1] + share * (edges_ms[after] - edges_ms[after - 1]))


def _chance(levels_Q: Floats, sums_Q: Floats, on_hand: float) -> float:
    """That the demand reaches the stock."""
    if on_hand <= sums_Q[0]:
        return 1.0
    if on_hand > sums_Q[-1]:
        return 0.0
    after = int(np.searchsorted(sums_Q, on_hand))
    share = (on_hand - sums_Q[after - 1]) / (sums_Q[after] - sums_Q[after - 1])
    return float(1.0 - (levels_Q[after - 1] + share * (levels_Q[after] - levels_Q[after - 1])))
