"""Random tensors for synthetic series: one object, so that no draw forgets the generator.

Dimensions: B rows, S steps, K cosines of a walk, N intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WALK_COSINES = 10  # what a walk costs grows with them; with fewer, it soon looks like a season
MAX_RATE = 1e6
# Floors that keep the tails of the approximate gamma finite.
MIN_UNIT, MIN_ROOT = 1e-6, 1e-3
EARLIEST_START = -0.1  # of the steps
# Lengths beyond any series: such an interval begins at some step and never ends.
FOREVER = (1e9, 2e9)

# Options, each with its probability.
Shares = Sequence[tuple[float, float]]


class Seeded:
    """Random tensors of B rows on the generator's device."""

    def __init__(self, generator: torch.Generator, rows: int) -> None:
        self.generator = generator
        self.rows = rows
        self.device = generator.device

    def index(self, steps: int) -> Tensor:
        """0, 1, 2 and so on: int64 [S]."""
        return torch.arange(steps, device=self.device)

    def ones(self) -> Tensor:
        """1.0 for every row, as a spread for instance: [B]."""
        return torch.ones(self.rows, device=self.device)

    def unit(self, *shape: int) -> Tensor:
        """Uniform in [0, 1): [B, *shape]."""
        return self._unit((self.rows, *shape))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in [low, high): [B, *shape]."""
        unit = self.unit(*shape)
        return low + (high - low) * unit

    def normal(self, spread: float | Tensor, *shape: int) -> Tensor:
        """Normal around 0: [B, *shape]."""
        return self._standard((self.rows, *shape)) * spread

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Log-uniform in [low, high), every factor of ten as likely as the next: [B, *shape]."""
        exponent = self.uniform(math.log(low), math.log(high), *shape)
        return exponent.exp()

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers in [low, high): int64 [B, *shape]."""
        return torch.randint(
            low,
            high,
            (self.rows, *shape),
            generator=self.generator,
            device=self.device,
        )

    def chance(self, probability: float, *shape: int) -> Tensor:
        """1.0 with the given probability, else 0.0: [B, *shape].

        A float, so that what happens in some rows only is a product with it.
        """
        unit = self.unit(*shape)
        return (unit < probability).float()

    def choice(self, shares: Shares) -> Tensor:
        """One option a row, each with its own probability: float32 [B]."""
        options, weights = zip(*shares, strict=True)
        table = torch.tensor(options, device=self.device)
        chances = torch.tensor(weights, device=self.device)
        chosen_B = torch.multinomial(
            chances,
            self.rows,
            replacement=True,
            generator=self.generator,
        )
        return table[chosen_B]

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts; rates above 1e6 are capped."""
        capped = rate.clamp(0.0, MAX_RATE)
        return torch.poisson(capped, generator=self.generator)

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma with scale 1, close enough for demand.

        torch._standard_gamma takes its randomness through the generator on the CPU only, so the
        cube of a normal (Wilson and Hilferty 1931) serves on every device. It is poor for shapes
        below 1, hence Gamma(a) = Gamma(a + 1) * U ** (1 / a).
        """
        raised = shape + 1.0
        # The cube root of a gamma over its shape is nearly normal, with variance 1 / (9 shape).
        normal = self._standard(shape.shape)
        deviation = normal / (3.0 * raised.sqrt())
        root = 1.0 - 1.0 / (9.0 * raised) + deviation
        # The power of a uniform takes the raised shape back down to the one asked for.
        unit = self._unit(shape.shape)
        boost = unit.clamp(min=MIN_UNIT) ** (1.0 / shape)
        cube = root.clamp(min=MIN_ROOT) ** 3
        return raised * cube * boost

    def walk(self, spread: Tensor, steps: int, memory: Tensor) -> Tensor:
        """A random path [B, S] of the given spread [B], which forgets over `memory` [B] steps.

        Real demand drifts as an autoregression does: tomorrow is like today, next year is not. Its
        correlation exp(-lag / memory) is the Fourier transform of a Cauchy distribution, so cosines
        whose frequencies are drawn from one add up to such a path (random features, Rahimi and
        Recht 2007): stationary from the first step on, and without a loop over steps.
        """
        # The tangent of a uniform angle is half a Cauchy; a cosine needs no negative frequencies.
        angle_BK = self.uniform(0.0, math.pi / 2, WALK_COSINES)
        frequency_BK = angle_BK.tan() / memory[:, None]
        phase_BK = self.uniform(0.0, math.tau, WALK_COSINES)
        index_S = torch.arange(steps, device=self.device, dtype=torch.float32)
        turned_BKS = frequency_BK[:, :, None] * index_S
        sum_BS = (turned_BKS + phase_BK[:, :, None]).cos().sum(1)
        # A cosine at a random phase has variance 1/2, and variances add up.
        unit_spread = math.sqrt(2.0 / WALK_COSINES)
        scale_B1 = (spread * unit_spread)[:, None]
        return sum_BS * scale_B1

    def intervals(self, steps: int, count: int, shortest: float, longest: float) -> Tensor:
        """`count` random intervals a row, 1.0 inside and 0.0 outside: [B, N, S]."""
        # Some begin before the first step, so that series also start in the middle of one.
        start_BN = self.uniform(EARLIEST_START, 1.0, count) * steps
        start_BN1 = start_BN.floor()[..., None]
        length_BN = self.log_uniform(max(shortest, 1.0), max(longest, 2.0), count)
        end_BN1 = start_BN1 + length_BN.ceil()[..., None]
        index_S = self.index(steps)
        begun_BNS = index_S >= start_BN1
        running_BNS = index_S < end_BN1
        return (begun_BNS & running_BNS).float()

    def _unit(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def _standard(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)
