"""How the errors of a forecast's steps move together, learnt from where past actuals fell.

The steps of one forecast are tied by a Student t copula (Demarta and McNeil 2005): their places in
their own distributions correlate by `common + persistent * decay ** distance`. The common part is a
level that was judged wrong for the whole horizon, the persistent part a mood that passes. Few
degrees of freedom say that some forecasts are wrong all along while most are right all along; a
Gaussian copula makes the former too rare and the usual sum too wide.

Dimensions: B rows, H horizon steps, Q quantile levels, L distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from freshet.model.quantiles.marginal import places
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS

MOST = 0.98  # of a step's variance is shared with others at most
DECAYS = np.concatenate([np.linspace(0.05, 0.9, 18), np.linspace(0.91, 0.99, 9)])
FREEDOM = 3  # fewer made the middle too narrow, more the tails too thin (bench/cumulative.py)
PRIOR_ROWS = 32.0  # the prior weighs as much as so many forecasts


@dataclass(frozen=True, slots=True)
class Dependence:
    """How two steps of one forecast move together, by their distance.

    Attributes:
        common: correlation that all steps of a horizon share, 0 to 1.
        persistent: correlation that fades with the distance, 0 to 1; at most 1 together with
            `common`.
        decay: what one more step of distance leaves of the persistent part, 0 to 1.
        freedom: degrees of freedom of the t copula; 0 for a Gaussian one.

    Raises:
        InvalidInputError: a value is outside its range.
    """

    common: float
    persistent: float
    decay: float
    freedom: int = FREEDOM

    def __post_init__(self) -> None:
        own = 1.0 - self.common - self.persistent
        parts = (self.common, self.persistent, self.decay, own)
        # A little below zero is what arithmetic leaves of it.
        inside = all(-1e-9 <= part <= 1.0 for part in parts)
        if not inside or self.freedom < 0:
            raise InvalidInputError(
                f"a dependence with {self.common} common and {self.persistent} persistent that "
                f"decays by {self.decay}, freedom {self.freedom}; expected each from 0 to 1, "
                "at most 1 for the first two together, freedom >= 0"
            )

    def correlation(self, steps: int) -> Floats:
        """Correlation of a step with itself and the ones after it, by distance: [steps].

        >>> Dependence(0.2, 0.4, 0.5).correlation(3).round(2).tolist()
        [1.0, 0.4, 0.3]
        """
        distance_L = np.arange(steps, dtype=np.float64)
        fading_L = self.decay**distance_L
        found_L = self.common + self.persistent * fading_L
        found_L[0] = 1.0
        return found_L


INDEPENDENT = Dependence(0.0, 0.0, 0.0, freedom=0)
"""Steps that know nothing of each other."""
WITHOUT_HISTORY = Dependence(0.9, 0.08, 0.9)
"""Where nothing was ever observed, the level is the question, and it is wrong for all steps alike.
"""
DEFAULTS = (
    (HOUR_MS // 2, Dependence(0.09, 0.46, 0.95)),
    (HOUR_MS, Dependence(0.14, 0.4, 0.85)),
)
DEFAULT = Dependence(0.03, 0.3, 0.97)


def default_dependence(resolution_ms: int) -> Dependence:
    """What the shipped weights' errors on unseen synthetic series showed, by resolution.

    Measured by bench/cumulative.py.

    >>> default_dependence(3_600_000) == default_dependence(86_400_000)
    False
    """
    for longest_ms, found in DEFAULTS:
        if resolution_ms <= longest_ms:
            return found
    return DEFAULT


def estimate_dependence(
    actual_BH: Tensor,
    quantiles_BHQ: Tensor,
    levels: Sequence[float],
    *,
    prior: Dependence = INDEPENDENT,
    prior_rows: float = PRIOR_ROWS,
) -> Dependence:
    """The dependence that past forecasts and their actuals show, drawn to a prior where few.

    Args:
        actual_BH: what came, NaN where missing.
        quantiles_BHQ: what had been forecast.
        levels: Q rising probabilities.
        prior: what to believe before any forecast was seen.
        prior_rows: how many forecasts the prior counts for.
    """
    found_place_BH, found_variance_BH = places(actual_BH, quantiles_BHQ, levels)
    place_BH = found_place_BH.double().cpu().numpy()
    variance_BH = found_variance_BH.double().cpu().numpy()
    H = place_BH.shape[1]
    seen_BH = np.isfinite(place_BH)
    place_BH = np.where(seen_BH, place_BH, 0.0)
    variance_BH = np.where(seen_BH, variance_BH, 0.0)

    # A pair of coarse steps shows only so much of its correlation: the product of what each one's
    # place can vary.
    product_L = _products_by_distance(place_BH)
    weight_L = _products_by_distance(variance_BH)
    # Places vary more than their forecasts say where fans are too narrow: that is no correlation.
    squares = (place_BH**2).sum()
    spread = max(squares / max(variance_BH.sum(), 1e-9), 1e-3)
    covariance_L = product_L / spread
    rank_L = np.clip(covariance_L / np.maximum(weight_L, 1e-9), -1.0, 1.0)
    # Correlations of ranks are a little nearer to zero than those of the numbers beneath (Pearson
    # 1907).
    seen_L = 2.0 * np.sin(np.pi / 6.0 * rank_L)

    # A forecast of H steps has H - l pairs at distance l, and so do the prior's.
    pairs_L = H - np.arange(H, dtype=np.float64)
    prior_L = prior_rows * pairs_L
    believed_L = prior.correlation(H)
    total_L = weight_L + prior_L
    sum_L = weight_L * seen_L + prior_L * believed_L
    correlation_L = sum_L / np.maximum(total_L, 1e-9)
    return fit_dependence(correlation_L, total_L)


def _products_by_distance(value_BH: Floats) -> Floats:
    """Sums over rows of the products of steps that lie 0, 1, ... H - 1 apart: [L]."""
    H = value_BH.shape[1]
    sums: list[float] = []
    for lag in range(H):
        earlier_BX = value_BH[:, : H - lag]
        later_BX = value_BH[:, lag:]
        sums.append((earlier_BX * later_BX).sum())
    return np.array(sums)


def fit_dependence(correlation_L: Floats, weight_L: Floats) -> Dependence:
    """The dependence whose correlations come nearest to these, by weighted squares.

    Distance 0 does not count.

    >>> fit_dependence(Dependence(0.2, 0.4, 0.5).correlation(12), np.ones(12))
    Dependence(common=0.2, persistent=0.4, decay=0.5, freedom=3)
    """
    others_L = correlation_L[1:]
    weight_L = weight_L[1:]
    if not len(others_L) or weight_L.sum() <= 0:
        return INDEPENDENT
    # For a given decay the rest is linear, so decays are tried one by one.
    fits = [_fit(others_L, weight_L, decay) for decay in DECAYS]
    _, best = min(fits, key=lambda fit: fit[0])
    return best


def _fit(correlation_L: Floats, weight_L: Floats, decay: float) -> tuple[float, Dependence]:
    """Squared error and the best common and persistent part >= 0 for one decay."""
    distance_L = np.arange(1, len(correlation_L) + 1)
    fading_L = decay**distance_L
    # Weighted squares are plain squares of rows that are scaled by the root of their weight.
    root_L = np.sqrt(weight_L)
    design_LX = np.stack([root_L, root_L * fading_L], 1)
    wanted_L = root_L * correlation_L

    # Least squares with two unknowns >= 0: either both are, or the best lies where one is nothing.
    both_X = np.linalg.lstsq(design_LX, wanted_L, rcond=None)[0]
    product_X = design_LX.T @ wanted_L
    square_X = (design_LX**2).sum(0)
    alone_X = np.maximum(product_X, 0.0) / square_X
    choices = [alone_X * [1.0, 0.0], alone_X * [0.0, 1.0]]
    if (both_X >= 0).all():
        choices.append(both_X)

    errors: list[float] = []
    for place, parts_X in enumerate(choices):
        choices[place] = parts_X * min(1.0, MOST / max(parts_X.sum(), MOST))
        error_L = design_LX @ choices[place] - wanted_L
        errors.append(float((error_L**2).sum()))
    best = int(np.argmin(errors))
    common, persistent = (round(float(part), 4) for part in choices[best])
    found = Dependence(common, persistent, round(float(decay), 4))
    return errors[best], found
