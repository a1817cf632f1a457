"""Will a flash sale sell out before it ends, and when? A pure estimate from one forecast and the stock on hand.

Per-step quantiles do not add up: their sum is right only when the steps are high or low together. The sum's quantile
here is between that and independence. With m the forecast's mean over the steps, c(p) the sum of the steps' p-quantiles
and s_j their standard deviations, it is

    m + (c(p) - m) * sqrt(rho * (sum s_j)^2 + (1 - rho) * sum s_j^2) / sum s_j

where rho is the correlation of two steps' errors: 1 adds the quantiles, 0 is independence. The shape (a long upper
tail) stays that of the steps. Within a step, demand is taken as even.

Dimensions: H steps, Q quantile levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.errors import InvalidInputError

Floats = npt.NDArray[np.float64]

STEP_CORRELATION = 0.3
"""Correlation of the errors of two steps of one forecast: a sale that starts strong mostly stays strong."""


@dataclass(frozen=True, slots=True)
class SellOut:
    """When the stock is gone, and how likely that is before the sale's end.

    Attributes:
        eta_ms_p10, eta_ms_p50, eta_ms_p90: The stock is gone by then with a chance of 10, 50 and 90 percent; None where
            the chance is smaller than that at the end of the forecast.
        chance: Of being sold out at `until_ms`, 0 to 1. Levels end at the forecast's outermost ones: beyond, 0 or 1.
        until_ms: The sale's end, or the forecast's where that is earlier; `chance` is then a lower bound.
        expected_units: Mean demand from now to `until_ms`.
    """

    eta_ms_p10: int | None
    eta_ms_p50: int | None
    eta_ms_p90: int | None
    chance: float
    until_ms: int
    expected_units: float


def estimate_sell_out(
    levels: list[float],
    quantiles: list[list[float]],
    *,
    cutoff_ms: int,
    resolution_ms: int,
    on_hand: float,
    now_ms: int,
    ends_at_ms: int,
    correlation: float = STEP_CORRELATION,
) -> SellOut:
    """Estimate from a forecast's `quantiles[step][level]`; step h covers `resolution_ms` from `cutoff_ms` + h of them.

    Args:
        levels: Rising probabilities.
        quantiles: Units per step.
        on_hand: Units in stock now.
        now_ms: Demand before it is over and does not count.
        ends_at_ms: End of the sale, exclusive.

    Raises:
        InvalidInputError: Levels and quantiles do not fit, or the correlation is outside 0 to 1.

    >>> flat = [[10.0, 10.0, 10.0]] * 4
    >>> estimate_sell_out([0.1, 0.5, 0.9], flat, cutoff_ms=0, resolution_ms=100, on_hand=25.0, now_ms=0, ends_at_ms=300)
    SellOut(eta_ms_p10=250, eta_ms_p50=250, eta_ms_p90=250, chance=1.0, until_ms=300, expected_units=30.0)
    """
    demand = _Demand.parse(levels, quantiles, cutoff_ms, resolution_ms, correlation)
    until_ms = min(ends_at_ms, demand.end_ms)
    inner_ms = [t for t in range(cutoff_ms, demand.end_ms, resolution_ms) if now_ms < t]
    edges_ms = [now_ms, *inner_ms, max(now_ms, demand.end_ms)]
    sums_EQ = np.maximum.accumulate([demand.sum_quantiles(now_ms, edge_ms) for edge_ms in edges_ms])
    early, median, late = (
        _crossing(edges_ms, _at_level(sums_EQ, demand.levels_Q, 1.0 - p), on_hand) for p in (0.1, 0.5, 0.9)
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
    """A forecast as arrays, with the mean and the standard deviation of each step."""

    levels_Q: Floats
    steps_HQ: Floats
    mean_H: Floats
    deviation_H: Floats
    cutoff_ms: int
    resolution_ms: int
    correlation: float

    @classmethod
    def parse(
        cls, levels: list[float], quantiles: list[list[float]], cutoff_ms: int, resolution_ms: int, correlation: float
    ) -> _Demand:
        if len({len(step) for step in quantiles}) > 1:
            raise InvalidInputError(
                f"steps have {sorted({len(step) for step in quantiles})} quantiles; expected as many each"
            )
        levels_Q, steps_HQ = np.asarray(levels, np.float64), np.asarray(quantiles, np.float64)
        if (
            steps_HQ.ndim != 2
            or steps_HQ.shape[1:] != levels_Q.shape
            or not len(steps_HQ)
            or (np.diff(levels_Q) <= 0).any()
        ):
            raise InvalidInputError(
                f"quantiles of shape {steps_HQ.shape} with {len(levels)} levels {levels}; "
                "expected one or more steps, and rising levels, one for each column"
            )
        if not 0.0 <= correlation <= 1.0:
            raise InvalidInputError(f"the correlation of steps is {correlation}; expected 0 to 1")
        mean_H, deviation_H = _moments(levels_Q, steps_HQ)
        return cls(levels_Q, steps_HQ, mean_H, deviation_H, cutoff_ms, resolution_ms, correlation)

    @property
    def end_ms(self) -> int:
        return self.cutoff_ms + len(self.steps_HQ) * self.resolution_ms

    def shares(self, from_ms: int, to_ms: int) -> Floats:
        """The share of each step within [from, to)."""
        starts_H = self.cutoff_ms + self.resolution_ms * np.arange(len(self.steps_HQ))
        overlap_H = np.minimum(starts_H + self.resolution_ms, to_ms) - np.maximum(starts_H, from_ms)
        return np.clip(overlap_H / self.resolution_ms, 0.0, 1.0)

    def sum_quantiles(self, from_ms: int, to_ms: int) -> Floats:
        """Quantiles of the demand within [from, to), by the formula above."""
        share_H = self.shares(from_ms, to_ms)
        mean, together_Q = float(share_H @ self.mean_H), share_H @ self.steps_HQ
        deviation_H = share_H * self.deviation_H
        if (total := float(deviation_H.sum())) <= 0.0:
            return together_Q
        variance = self.correlation * total**2 + (1.0 - self.correlation) * float(deviation_H @ deviation_H)
        return np.maximum(mean + (together_Q - mean) * math.sqrt(variance) / total, 0.0)


def _moments(levels_Q: Floats, steps_HQ: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each step: straight lines between levels, flat beyond the outermost."""
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
