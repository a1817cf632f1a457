"""Quantiles of what sells over the first steps together, from the quantiles of each step.

Per-step quantiles do not add up: ten bad days in a row are rarer than one. Each step's distribution
is cut into equally likely values, and paths pick one value of each step such that steps move
together as forecast errors do (a copula by its ranks, as in the Schaake shuffle of Clark et al.
2004). Sums along the paths then have quantiles.

Dimensions: B rows, H horizon steps, Q quantile levels, N paths, K chosen steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from freshet.model.quantiles.dependence import Dependence
from freshet.model.quantiles.marginal import quantile_weights
from freshet.stream.errors import InvalidInputError

NUM_PATHS = 512
SEED = 0  # of the scrambled low-discrepancy sequence: paths are the same on every machine
ROWS_AT_ONCE = 128  # rows whose paths fit a core's cache


class Paths:
    """Which value each path picks at each step.

    The same for all rows, so that it is made once and used often.

    Every step's own distribution is met exactly, whatever the number of paths: each of its N
    equally likely values is picked once. Making one is deterministic given its arguments.

    Args:
        dependence: how steps move together.
        levels: Q rising probabilities of the quantiles that will come.
        steps: H, the longest horizon.
        num_paths: N, a power of two.
        twin: correlation at each step (H numbers from 0 to 1) with the paths that the same other
            arguments make without it, path by path; None: these are those paths.

    Raises:
        InvalidInputError: levels do not rise within 0 and 1, or the number of paths is no power of
            two.
    """

    def __init__(
        self,
        dependence: Dependence,
        levels: Sequence[float],
        steps: int,
        *,
        num_paths: int = NUM_PATHS,
        twin: Sequence[float] | None = None,
    ) -> None:
        bounded = (0.0, *levels, 1.0)
        rising = all(low < high for low, high in pairwise(bounded))
        power_of_two = num_paths >= 2 and num_paths.bit_count() == 1
        if len(levels) < 2 or not rising or not power_of_two:
            raise InvalidInputError(
                f"{num_paths} paths over the levels {list(levels)}; expected a power of two, "
                "and two or more levels that rise between 0 and 1"
            )
        self.dependence = dependence
        self.levels = tuple(levels)
        self.steps = steps
        self.num_paths = num_paths

        # A step's N values are its quantiles at the middles of N equal shares of probability; a
        # path takes the one whose rank its latent number has at that step.
        index_N = torch.arange(num_paths, dtype=torch.float64)
        middle_N = (index_N + 0.5) / num_paths
        sorted_QN = quantile_weights(levels, middle_N)
        latent_HN = latent_paths(dependence, steps, num_paths, twin)
        self.rank_HN = ranks(latent_HN)
        weights_QHN = sorted_QN[:, self.rank_HN]
        self._weights_HQN = weights_QHN.transpose(0, 1).contiguous()

        # What is added before fractions are cut off: spread evenly over a unit, in an order that
        # has nothing to do with the values.
        generator = torch.Generator().manual_seed(SEED)
        random_HN = torch.rand(steps, num_paths, generator=generator)
        order_HN = ranks(random_HN)
        self._rounding_HN = (order_HN + 0.5) / num_paths

    def values(self, quantiles_BHQ: Tensor, whole_B: Tensor | None = None) -> Tensor:
        """Units of every path at every step: [B, H, N].

        Args:
            quantiles_BHQ: as forecast.
            whole_B: rows that sell in whole units. Their fractions become the next whole unit as
                often as they say (a quantile of 0.3 is 0 mostly and 1 at times), so that what
                hardly sells can sell nothing at all.

        Raises:
            InvalidInputError: other levels or more steps than these paths were made for.
        """
        self._check(quantiles_BHQ)
        units = []
        for step in range(quantiles_BHQ.shape[1]):
            units_BN = self._step(quantiles_BHQ[:, step], step, whole_B)
            units.append(units_BN)
        return torch.stack(units, 1)

    def cumulative(
        self, quantiles_BHQ: Tensor, steps: Sequence[int], whole_B: Tensor | None = None
    ) -> Tensor:
        """Quantiles of the sum over the first `steps[k]` steps, at the same levels: [B, K, Q].

        They rise with the levels and with the steps. For one step they are that step's own
        quantiles, brought to whole units in rows that sell in those.

        Raises:
            InvalidInputError: the steps do not rise from at least 1 to at most H, or the quantiles
                do not fit.

        >>> paths = Paths(Dependence(0.0, 0.0, 0.0), [0.25, 0.5, 0.75], 2)
        >>> paths.cumulative(torch.tensor([[[3.0, 3.0, 3.0], [1.0, 1.0, 1.0]]]), [1, 2]).tolist()
        [[[3.0, 3.0, 3.0], [4.0, 4.0, 4.0]]]
        """
        self._check(quantiles_BHQ)
        B, H, Q = quantiles_BHQ.shape
        rising = bool(steps) and list(steps) == sorted(set(steps))
        if not rising or steps[0] < 1 or steps[-1] > H:
            raise InvalidInputError(
                f"sums over the first {list(steps)} steps; expected rising numbers from 1 to {H}"
            )
        found_BKQ = quantiles_BHQ.new_empty(B, len(steps), Q)
        for start in range(0, B, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            some_BHQ = quantiles_BHQ[rows]
            some_whole_B = None if whole_B is None else whole_B[rows]
            found_BKQ[rows] = self._cumulative(some_BHQ, steps, some_whole_B)
        # The first step's own quantiles are exact, the sums' come from paths: a rounding must not
        # let a sum fall.
        return found_BKQ.cummax(1).values

    def _cumulative(
        self, quantiles_BHQ: Tensor, steps: Sequence[int], whole_B: Tensor | None
    ) -> Tensor:
        B = len(quantiles_BHQ)
        sum_BN = quantiles_BHQ.new_zeros(B, self.num_paths)
        found = []
        for step in range(steps[-1]):
            sum_BN += self._step(quantiles_BHQ[:, step], step, whole_B)
            if step + 1 in steps:
                sum_BQ = path_quantiles(sum_BN, self.levels)
                found.append(sum_BQ)
        if steps[0] == 1:
            exact_BQ = quantiles_BHQ[:, 0]
            whole_rows_BQ = found[0]
            found[0] = exact_BQ
            if whole_B is not None:
                found[0] = torch.where(whole_B[:, None], whole_rows_BQ, exact_BQ)
        return torch.stack(found, 1)

    def _step(self, quantiles_BQ: Tensor, step: int, whole_B: Tensor | None) -> Tensor:
        weights_QN = self._weights_HQN[step].to(quantiles_BQ)
        units_BN = quantiles_BQ @ weights_QN
        if whole_B is None:
            return units_BN
        rounding_N = self._rounding_HN[step].to(units_BN)
        whole_BN = (units_BN + rounding_N).floor_()
        return torch.where(whole_B[:, None], whole_BN, units_BN)

    def _check(self, quantiles_BHQ: Tensor) -> None:
        Q = len(self.levels)
        found = tuple(quantiles_BHQ.shape)
        if len(found) != 3 or found[1] > self.steps or found[2] != Q:
            raise InvalidInputError(
                f"quantiles have shape {found}; expected [rows, at most {self.steps} steps, "
                f"{Q} levels]"
            )


def latent_paths(
    dependence: Dependence,
    steps: int,
    num_paths: int,
    twin: Sequence[float] | None = None,
) -> Tensor:
    """Numbers whose steps move together as the dependence says: float64 [H, N].

    They are evenly spread over the paths.
    """
    # A low-discrepancy sequence fills all corners with few paths: one number for the level of the
    # whole path, one a step, and those of the divisor.
    num_normals = 1 + steps + dependence.freedom
    engine = SobolEngine(num_normals, scramble=True, seed=SEED)  # type: ignore[no-untyped-call]
    uniform_NX = engine.draw(num_paths, dtype=torch.float64)
    inside_NX = uniform_NX.clamp(1e-6, 1 - 1e-6)
    even_XN = torch.special.ndtri(inside_NX).T
    latent_HN = _correlated(dependence, even_XN[: 1 + steps])

    if twin is not None:
        # Two scrambled sequences of this kind are not independent of each other: plain random
        # numbers are.
        generator = torch.Generator().manual_seed(SEED)
        fresh_XN = torch.randn(1 + steps, num_paths, dtype=torch.float64, generator=generator)
        apart_HN = _correlated(dependence, fresh_XN)
        # So much of the twin and as much of its own that the variance stays one.
        alike_H1 = torch.tensor(twin, dtype=torch.float64)[:, None]
        own_H1 = (1.0 - alike_H1.square()).sqrt()
        latent_HN = alike_H1 * latent_HN + own_H1 * apart_HN

    if not dependence.freedom:
        return latent_HN
    # One divisor a path, shared by its steps and by twins, makes the t copula: a few paths are far
    # out all along.
    divisor_XN = even_XN[1 + steps :]
    divisor_N: Tensor = divisor_XN.square().mean(0).sqrt()
    return latent_HN / divisor_N


def _correlated(dependence: Dependence, normal_XN: Tensor) -> Tensor:
    """Independent normal numbers, one more than steps, as ones whose steps correlate: [H, N]."""
    steps = len(normal_XN) - 1
    index_H = torch.arange(steps)
    lag_HH = (index_H[:, None] - index_H).abs()
    # The common part is one number for the whole path, so that only the rest needs a matrix.
    own_L = torch.from_numpy(dependence.correlation(steps)) - dependence.common
    own_HH = own_L[lag_HH]
    # Never singular: at least a thousandth of each step is its own.
    even_HH = torch.eye(steps, dtype=torch.float64)
    factor_HH = torch.linalg.cholesky(own_HH + 1e-3 * even_HH)
    common_1N = dependence.common**0.5 * normal_XN[:1]
    found_HN: Tensor = common_1N + factor_HH @ normal_XN[1:]
    return found_HN


def ranks(value_HN: Tensor) -> Tensor:
    """The rank of each value within its row, from 0: int64 [H, N].

    >>> ranks(torch.tensor([[0.3, 0.1, 0.2]])).tolist()
    [[2, 0, 1]]
    """
    # The order says which value comes k-th; the order of that says as which each value comes.
    order_HN = value_HN.argsort(dim=1, stable=True)
    return order_HN.argsort(dim=1, stable=True)


def path_quantiles(value_BN: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles of N equally likely values: [B, Q], straight between the middles of their shares.

    >>> path_quantiles(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), [0.25, 0.5, 0.75]).tolist()
    [[1.5, 2.5, 3.5]]
    """
    N = value_BN.shape[1]
    sorted_BN = _sorted(value_BN)
    level_Q = torch.tensor(levels, dtype=torch.float64)
    place_Q = (level_Q * N - 0.5).clamp(0.0, N - 1.0)
    left_Q = place_Q.floor().long()
    left_Q = left_Q.clamp(max=N - 2)
    share_Q = (place_Q - left_Q).to(value_BN)
    left_Q = left_Q.to(value_BN.device)
    below_BQ = sorted_BN[:, left_Q]
    above_BQ = sorted_BN[:, left_Q + 1]
    return torch.lerp(below_BQ, above_BQ, share_Q)


def _sorted(value_BN: Tensor) -> Tensor:
    # On a CPU numpy's vectorised sort takes a fourteenth of torch's time (0.23 against 3.3 ms for
    # 128 x 512).
    if value_BN.device.type != "cpu":
        return value_BN.sort(dim=1).values
    sorted_BN = np.sort(value_BN.numpy(), axis=1)
    return torch.from_numpy(sorted_BN)
