"""A second forecast of weeks whose covariates are known, which stands beside the network's.

A series' newest level times what its covariates do (`freshet.model.effects.demand`), and chance
around it as of a negative binomial. It knows no season, and the network no elasticities of other
series: the mean of their quantiles is better than either, the more so the noisier sales are and the
less of them was seen.

Dimensions: N series, T context steps, H horizon steps, S = T + H, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.effects.demand import Demand, fit_demand
from freshet.model.effects.newcomers import Levels, Newcomers, quantiles_of
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats
from freshet.stream.units import WEEK_MS

HALF_LIFE = 13.0  # weeks, of the level
LEVEL_STEPS = 4.0  # of the level of the whole past that stand beside the newest steps
LEAST_LEVEL = 1e-3
# A series' own chance is told by its own steps and by so many of the table's.
CHANCE_STEPS = 4.0
CHANCES = (0.01, 3.0)
# How much this forecast counts: at most; at half of that where a step's relative variance is so
# large (Rossmann's stores are at .01: what they do is a season that this forecast does not know);
# and at half of it after so many weeks, when the network has seen seasons.
MOST = 0.6
NOISY = 0.05
LONG_WEEKS = 208.0


@dataclass(frozen=True, slots=True)
class Second:
    """What all series of a table say for it.

    Attributes:
        demand: what covariates do.
        chance: variance of sales over the square of what is expected, beyond Poisson's.
    """

    demand: Demand
    chance: float


class Opinion(NamedTuple):
    """A second forecast: how much it counts in each series, [N], and its quantiles, [N, H, Q]."""

    share_N: Floats
    quantiles_NHQ: Floats


class _Seen(NamedTuple):
    """Sales and what is usual of covariates such as theirs, 0 where nothing was seen: [N, T]."""

    sold_NT: Floats
    usual_NT: Floats
    seen_NT: Bools

    @classmethod
    def of(cls, window: Window, closed_NS: Bools, usual_NS: Floats) -> _Seen:
        T = window.context_length
        seen_NT = np.isfinite(window.target_NT) & ~closed_NS[:, :T]
        sold_NT = np.where(seen_NT, window.target_NT, 0.0)
        usual_NT = np.where(seen_NT, usual_NS[:, :T], 0.0)
        return cls(sold_NT, usual_NT, seen_NT)

    def memory(self) -> Floats:
        """What each step still counts: [N, T]."""
        T = self.seen_NT.shape[1]
        age_T = np.arange(T - 1, -1, -1)
        counts_T = 0.5 ** (age_T / HALF_LIFE)
        return np.where(self.seen_NT, counts_T, 0.0)

    def level(self) -> Floats:
        """What a series sells lately where covariates are usual: [N]."""
        # A tenth of a unit more on both sides: of nothing there is no ratio.
        whole_N = (self.sold_NT.sum(1) + 0.1) / (self.usual_NT.sum(1) + 0.1)
        memory_NT = self.memory()
        lately_N = (memory_NT * self.sold_NT).sum(1)
        usual_N = (memory_NT * self.usual_NT).sum(1)
        # A mean that leans on the whole past's: a few steps say little of a level.
        sold_N = lately_N + LEVEL_STEPS * whole_N
        level_N = sold_N / (usual_N + LEVEL_STEPS)
        return np.asarray(np.maximum(level_N, LEAST_LEVEL))

    def beyond(self, level_N: Floats) -> tuple[Floats, Floats]:
        """Sums of squared differences beyond Poisson's, and of squared expectations: [N] each.

        Weighted so that large weeks do not decide alone: their ratio is the chance.
        """
        expected_NT = level_N[:, None] * self.usual_NT
        weight_NT = 1.0 / (1.0 + expected_NT / 2.0) ** 2
        # A negative binomial's variance is m + chance * m^2, and Poisson's is m.
        beyond_NT = (self.sold_NT - expected_NT) ** 2 - expected_NT
        beyond_N = (weight_NT * beyond_NT).sum(1)
        expected_N = (weight_NT * expected_NT**2).sum(1)
        return beyond_N, expected_N

    def chance(self, level_N: Floats, shared: float) -> Floats:
        """Variance over the square of what is expected, leaning on that of all series: [N]."""
        beyond_N, expected_N = self.beyond(level_N)
        count_N = np.maximum(self.seen_NT.sum(1), 1)
        leaning_N = CHANCE_STEPS * expected_N / count_N
        both_N = np.maximum(expected_N + leaning_N, 1e-9)
        chance_N = (beyond_N + leaning_N * shared) / both_N
        return np.asarray(np.clip(chance_N, *CHANCES))

    def unsure(self, noise_N: Floats) -> Floats:
        """The relative variance of a level, where a step's is `noise_N`: [N].

        A mean of so many steps, the older ones counting less, knows the level that well.
        """
        memory_NT = self.memory()
        squares_N = (memory_NT**2).sum(1)
        whole_N = memory_NT.sum(1) + LEVEL_STEPS
        unsure_N = noise_N * squares_N / whole_N**2
        return np.asarray(np.maximum(unsure_N, 1e-6))

    def share(self, noise_N: Floats) -> Floats:
        """How much this forecast counts, where a step's relative variance is `noise_N`: [N]."""
        count_N = self.seen_NT.sum(1)
        noisy_N = MOST * noise_N / (noise_N + NOISY)
        share_N = noisy_N * LONG_WEEKS / (LONG_WEEKS + count_N)
        return np.where(count_N > 0, share_N, 0.0)


def find_second(window: Window, closed_NS: Bools) -> Second | None:
    """What all series say, learnt from everything before the cutoff; None of other steps."""
    if window.resolution_ms != WEEK_MS or not window.known_names:
        return None
    demand = fit_demand(window, closed_NS)
    if demand is None:
        return None
    usual_NS = np.exp(demand.effects(window, closed_NS))
    seen = _Seen.of(window, closed_NS, usual_NS)
    beyond_N, expected_N = seen.beyond(seen.level())
    chance = beyond_N.sum() / max(expected_N.sum(), 1e-9)
    return Second(demand, float(np.clip(chance, *CHANCES)))


def second_forecast(
    window: Window, closed_NS: Bools, counts_N: Bools, second: Second | None
) -> Opinion | None:
    """A second forecast of each series for itself; None where there is none.

    Args:
        window: what is known of the series.
        closed_NS: where nothing can sell.
        counts_N: which series sell whole units.
        second: what all series say.
    """
    if second is None:
        return None
    usual_NS = np.exp(second.demand.effects(window, closed_NS))
    seen = _Seen.of(window, closed_NS, usual_NS)
    level_N = seen.level()
    chance_N = seen.chance(level_N, second.chance)
    # A step's variance over its square: chance's and Poisson's.
    noise_N = chance_N + 1.0 / level_N
    shape_N = 1.0 / seen.unsure(noise_N)
    ones_N1 = np.ones((len(window), 1))
    levels = Levels(ones_N1, shape_N[:, None], level_N[:, None], 1.0 / chance_N)
    ahead = slice(window.context_length, None)
    usual_NH = np.where(closed_NS[:, ahead], 0.0, usual_NS[:, ahead])
    quantiles_NHQ = _told(levels, usual_NH, counts_N)
    return Opinion(seen.share(noise_N), quantiles_NHQ)


def _told(levels: Levels, usual_NH: Floats, counts_N: Bools) -> Floats:
    """Quantiles of each step, whole ones of what is counted, 0 where nothing can sell."""
    found_NHQ = quantiles_of(levels, usual_NH, np.array(QUANTILE_LEVELS))
    # Less a little, so that rounding does not make 3.0000001 a 4.
    ceiled_NHQ = np.ceil(found_NHQ - 1e-6)
    whole_NHQ = np.where(counts_N[:, None, None], ceiled_NHQ, found_NHQ)
    above_NHQ = np.maximum(whole_NHQ, 0.0)
    return np.where(usual_NH[..., None] > 0, above_NHQ, 0.0)


def beside(siblings: Newcomers | None, opinion: Opinion | None) -> Newcomers | None:
    """What stands beside the network: what siblings say of the young, the second forecast of all.

    The network keeps its share of what siblings leave to the series itself.
    """
    if opinion is None:
        return siblings
    young_N = np.zeros(len(opinion.share_N)) if siblings is None else 1.0 - siblings.own_N
    second_N = (1.0 - young_N) * opinion.share_N
    others_N = young_N + second_N
    part_N = second_N / np.maximum(others_N, 1e-12)
    part_N11 = part_N[:, None, None]
    mixed_NHQ = part_N11 * opinion.quantiles_NHQ
    if siblings is not None:
        mixed_NHQ = mixed_NHQ + (1.0 - part_N11) * siblings.pooled_NHQ
    own_N = (1.0 - others_N).astype(np.float32)
    return Newcomers(own_N, mixed_NHQ.astype(np.float32))
