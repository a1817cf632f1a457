"""Will a flash sale sell out before it ends, and when? From one forecast and the stock on hand.

Demand of single steps does not add up by adding their quantiles: for that all steps would have to
be high together. So a forecast carries quantiles of its sums over the first steps (`cumulative`).
Between those, how far a quantile is from the mean is taken as straight in the number of steps; of
minutes a part of that distance counts (`SHORT_STEP_WIDTH`).

A sale rarely starts at the cutoff. Demand from a later start on is as far from its mean as the sum
from the cutoff, times the ratio of their standard deviations

    sqrt(rho * (sum s_j)^2 + (1 - rho) * sum s_j^2)

with s_j the standard deviations of the steps within, and rho the correlation of two steps that the
longest sum implies. A forecast without sums gets a usual rho: the distance of the added quantiles
from the mean, which is that of rho = 1, shrinks by the same ratio. Within a step, demand is even.

Dimensions: H steps, Q quantile levels, K sums that a forecast tells, E edges of steps in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import Cumulative
from freshet.stream.units import MINUTE_MS

STEP_CORRELATION = 0.3
"""Of the errors of two steps where a forecast tells no sums: a strong start mostly stays strong."""
SHORT_STEP_MS = 30 * MINUTE_MS
SHORT_STEP_WIDTH = 0.8
"""How much of a sum's told distance from its mean counts where steps are shorter than that.

Forecasts by the minute tell of sums too widely: 91 % of 400 simulated sales lay in their intervals
of 80 %. Of .5 to 1 this did best by Winkler's score, on seeds of their own (bench/sellout.py).
"""
SOLD_OUT_CHANCES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class SellOut:
    """When the stock is gone, and how likely that is before the sale's end.

    Attributes:
        eta_ms_p10: The stock is gone by then with a chance of 10 percent; None where the chance is
            smaller than that at the end of the forecast. Likewise 50 and 90.
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
        quantile_levels: Rising probabilities.
        quantiles: Units by step and level.
        edges_ms: When each step begins, and the last one ends.
        cumulative: Quantiles of the sums over the first steps; None in forecasts that do not tell.
    """

    quantile_levels: Sequence[float]
    quantiles: Sequence[Sequence[float]] | Floats | Singles
    edges_ms: Sequence[int] | Ints
    cumulative: Cumulative | None = None


def estimate_sell_out(outlook: Outlook, *, on_hand: float, now_ms: int, ends_at_ms: int) -> SellOut:
    """Estimate from a forecast when the stock is gone.

    Args:
        outlook: The forecast.
        on_hand: Units in stock now.
        now_ms: Demand before it is over and does not count.
        ends_at_ms: End of the sale, exclusive.

    Raises:
        InvalidInputError: Levels, quantiles and sums do not fit.

    >>> flat = Outlook([0.1, 0.5, 0.9], [[10.0, 10.0, 10.0]] * 4, [0, 100, 200, 300, 400])
    >>> sold_out = estimate_sell_out(flat, on_hand=25.0, now_ms=0, ends_at_ms=300)
    >>> sold_out.eta_ms_p10, sold_out.eta_ms_p50, sold_out.eta_ms_p90
    (250, 250, 250)
    >>> sold_out.chance, sold_out.until_ms, sold_out.expected_units
    (1.0, 300, 30.0)
    """
    demand = _Demand.parse(outlook)
    edges_ms = demand.edges_ms(now_ms)
    sums_EQ = np.array([demand.sum_quantiles(now_ms, edge_ms) for edge_ms in edges_ms])
    # Demand never falls as time goes on; the straight lines between sums may by a little.
    sums_EQ = np.maximum.accumulate(sums_EQ)
    until_ms = min(ends_at_ms, demand.end_ms)
    # The stock is gone by t with a chance of 10 % where the 90 % quantile of demand reaches it.
    early, median, late = (
        _crossing(edges_ms, _at_level(sums_EQ, demand.levels_Q, 1.0 - chance), on_hand)
        for chance in SOLD_OUT_CHANCES
    )
    return SellOut(
        eta_ms_p10=early,
        eta_ms_p50=median,
        eta_ms_p90=late,
        chance=_chance(demand.levels_Q, demand.sum_quantiles(now_ms, until_ms), on_hand),
        until_ms=until_ms,
        expected_units=float(demand.mean_H @ demand.shares(now_ms, until_ms)),
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    """How far the sums over the first steps spread, as the forecast tells it.

    Attributes:
        steps: Numbers of first steps, from 0 (a sum of nothing) on.
        from_mean: By number of steps and level: the sum's quantiles less the mean of the sum.
    """

    steps_K: Ints
    from_mean_KQ: Floats

    def at(self, position: float) -> Floats:
        """How far the quantiles of a sum over so many steps, whole or not, are from its mean."""
        columns = self.from_mean_KQ.T
        return np.array([np.interp(position, self.steps_K, column) for column in columns])


@dataclass(frozen=True, slots=True)
class _Demand:
    """A forecast as arrays, with mean and standard deviation of each step.

    Attributes:
        correlation: Of the errors of any two steps.
        sums: None for a forecast that tells none.
    """

    levels_Q: Floats
    steps_HQ: Floats
    mean_H: Floats
    deviation_H: Floats
    edge_ms_E: Ints
    correlation: float
    sums: _Sums | None

    @classmethod
    def parse(cls, outlook: Outlook) -> _Demand:
        levels_Q, steps_HQ = _checked(outlook)
        mean_H, deviation_H = _moments(levels_Q, steps_HQ)
        correlation, sums = STEP_CORRELATION, None
        if outlook.cumulative is not None:
            first_steps = outlook.cumulative.steps
            sums_KQ = _checked_sums(outlook.cumulative, *steps_HQ.shape)
            _, deviation_K = _moments(levels_Q, sums_KQ)
            longest, within_H = float(deviation_K[-1]), deviation_H[: first_steps[-1]]
            correlation = _implied_correlation(longest, within_H)
            mean_K = mean_H.cumsum()[np.array(first_steps) - 1]
            nothing_1Q = np.zeros((1, len(levels_Q)))
            width = SHORT_STEP_WIDTH if _short(outlook) else 1.0
            from_mean_KQ = np.concatenate([nothing_1Q, width * (sums_KQ - mean_K[:, None])])
            sums = _Sums(np.array([0, *first_steps]), from_mean_KQ)
        return cls(
            levels_Q=levels_Q,
            steps_HQ=steps_HQ,
            mean_H=mean_H,
            deviation_H=deviation_H,
            edge_ms_E=np.asarray(outlook.edges_ms, np.int64),
            correlation=correlation,
            sums=sums,
        )

    @property
    def cutoff_ms(self) -> int:
        return int(self.edge_ms_E[0])

    @property
    def end_ms(self) -> int:
        return int(self.edge_ms_E[-1])

    def edges_ms(self, now_ms: int) -> list[int]:
        """Now, every start of a step after it, and the forecast's end."""
        later_ms = [edge_ms for edge_ms in self.edge_ms_E[:-1].tolist() if now_ms < edge_ms]
        return [now_ms, *later_ms, max(now_ms, self.end_ms)]

    def shares(self, from_ms: int, to_ms: int) -> Floats:
        """The share of each step within [from, to)."""
        starts_H, ends_H = self.edge_ms_E[:-1], self.edge_ms_E[1:]
        overlap_H = np.minimum(ends_H, to_ms) - np.maximum(starts_H, from_ms)
        shares_H: Floats = np.clip(overlap_H / (ends_H - starts_H), 0.0, 1.0)
        return shares_H

    def position(self, at_ms: int) -> float:
        """How many steps, whole or not, there are from the cutoff to a time."""
        steps_E = np.arange(len(self.edge_ms_E))
        return float(np.interp(at_ms, self.edge_ms_E, steps_E))

    def sum_quantiles(self, from_ms: int, to_ms: int) -> Floats:
        """Quantiles of the demand within [from, to), as the top of this file says."""
        share_H = self.shares(from_ms, to_ms)
        mean = float(share_H @ self.mean_H)
        spread = self._spread(share_H)
        if spread <= 0.0:
            return share_H @ self.steps_HQ
        if self.sums is not None:
            # The shape of the sum from the cutoff on, as wide as the part that is left.
            wide_Q = self.sums.at(self.position(to_ms))
            wide_spread = self._spread(self.shares(self.cutoff_ms, to_ms))
        else:
            # Added quantiles are those of steps that move together; their deviations add up too.
            wide_Q = share_H @ self.steps_HQ - mean
            wide_spread = float(share_H @ self.deviation_H)
        return np.maximum(mean + wide_Q * spread / wide_spread, 0.0)

    def _spread(self, share_H: Floats) -> float:
        """Standard deviation of a sum over parts of steps."""
        deviation_H = share_H * self.deviation_H
        together = deviation_H.sum() ** 2
        apart = deviation_H @ deviation_H
        variance = self.correlation * together + (1.0 - self.correlation) * apart
        return math.sqrt(float(variance))


def _short(outlook: Outlook) -> bool:
    first_ms, second_ms = outlook.edges_ms[:2]
    return bool(second_ms - first_ms < SHORT_STEP_MS)


def _checked(outlook: Outlook) -> tuple[Floats, Floats]:
    widths = {len(step) for step in outlook.quantiles}
    if len(widths) > 1:
        raise InvalidInputError(f"steps have {sorted(widths)} quantiles; expected as many each")
    levels_Q = np.asarray(outlook.quantile_levels, np.float64)
    steps_HQ = np.asarray(outlook.quantiles, np.float64)
    rising = not (np.diff(levels_Q) <= 0).any()
    a_column_each = steps_HQ.ndim == 2 and steps_HQ.shape[1:] == levels_Q.shape
    edge_ms_E = np.asarray(outlook.edges_ms, np.int64)
    if len(edge_ms_E) != len(steps_HQ) + 1 or (np.diff(edge_ms_E) <= 0).any():
        raise InvalidInputError(
            f"{len(edge_ms_E)} edges of {len(steps_HQ)} steps; expected the start of each and the "
            "end of the last, rising"
        )
    if not a_column_each or not len(steps_HQ) or not rising:
        raise InvalidInputError(
            f"quantiles of shape {steps_HQ.shape} with {len(levels_Q)} levels "
            f"{outlook.quantile_levels}; "
            "expected one or more steps, and rising levels, one for each column"
        )
    return levels_Q, steps_HQ


def _checked_sums(cumulative: Cumulative, num_steps: int, num_levels: int) -> Floats:
    steps = cumulative.steps
    widths = {len(row) for row in cumulative.quantiles}
    rising = steps == sorted(set(steps)) and steps and steps[0] >= 1 and steps[-1] <= num_steps
    if not rising or widths != {num_levels} or len(steps) != len(cumulative.quantiles):
        raise InvalidInputError(
            f"{len(cumulative.quantiles)} sums of {sorted(widths)} quantiles over the first "
            f"{steps} steps; expected {num_levels} quantiles for each of some rising numbers of "
            f"steps up to {num_steps}"
        )
    return np.asarray(cumulative.quantiles, np.float64)


def _implied_correlation(sum_deviation: float, deviation_H: Floats) -> float:
    """The correlation of two steps with which their sum has this standard deviation."""
    apart = float(deviation_H @ deviation_H)
    together = float(deviation_H.sum()) ** 2
    if together - apart <= 1e-12 * together:
        return 1.0  # One step that varies, or none: any correlation gives the same sum.
    return min(max((sum_deviation**2 - apart) / (together - apart), 0.0), 1.0)


def _moments(levels_Q: Floats, steps_HQ: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each row.

    The quantile function is taken as straight between levels and flat beyond the outermost, so its
    moments are integrals of straight pieces from `low` to `high`: (low + high) / 2 for the mean,
    (low^2 + low high + high^2) / 3 for the square, times the probability that a piece spans.
    """
    level_J = np.concatenate([[0.0], levels_Q, [1.0]])
    value_HJ = np.concatenate([steps_HQ[:, :1], steps_HQ, steps_HQ[:, -1:]], 1)
    low_HP, high_HP, width_P = value_HJ[:, :-1], value_HJ[:, 1:], np.diff(level_J)
    mean_H = ((low_HP + high_HP) / 2.0) @ width_P
    square_H = ((low_HP**2 + low_HP * high_HP + high_HP**2) / 3.0) @ width_P
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
    before = after - 1
    share = float((on_hand - demand_E[before]) / (demand_E[after] - demand_E[before]))
    return round(edges_ms[before] + share * (edges_ms[after] - edges_ms[before]))


def _chance(levels_Q: Floats, sums_Q: Floats, on_hand: float) -> float:
    """That the demand reaches the stock: straight between levels, 0 or 1 beyond the outermost."""
    if on_hand <= sums_Q[0]:
        return 1.0
    if on_hand > sums_Q[-1]:
        return 0.0
    after = int(np.searchsorted(sums_Q, on_hand))
    before = after - 1
    share = (on_hand - sums_Q[before]) / (sums_Q[after] - sums_Q[before])
    return float(1.0 - (levels_Q[before] + share * (levels_Q[after] - levels_Q[before])))
