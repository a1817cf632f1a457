"""Random tensors for synthetic series: one object, so that no draw forgets the generator.

Dimensions: B rows, S steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Seeded:
    """Random tensors of B rows on the generator's device."""

    def __init__(self, generator: torch.Generator, rows: int) -> None:
        self.generator = generator
        self.rows = rows
        self.device = generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in [low, high): [B, *shape]."""
        unit = torch.rand(self.rows, *shape, generator=self.generator, device=self.device)
        return low + (high - low) * unit

    def normal(self, spread: float | Tensor, *shape: int) -> Tensor:
        """Normal around 0: [B, *shape]."""
        return torch.randn(self.rows, *shape, generator=self.generator, device=self.device) * spread

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Log-uniform in [low, high): [B, *shape]."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers in [low, high): int64 [B, *shape]."""
        return torch.randint(
            low, high, (self.rows, *shape), generator=self.generator, device=self.device
        )

    def chance(self, probability: float, *shape: int) -> Tensor:
        """1.0 with the given probability, else 0.0: [B, *shape]."""
        return (self.uniform(0.0, 1.0, *shape) < probability).float()

    def choice(self, options: list[float], weights: list[float]) -> Tensor:
        """One of the options per row: float32 [B]."""
        table = torch.tensor(options, device=self.device)
        chances = torch.tensor(weights, device=self.device)
        chosen = torch.multinomial(chances, self.rows, replacement=True, generator=self.generator)
        return table[chosen]

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts; rates above 1e6 are capped."""
        return torch.poisson(rate.clamp(0.0, 1e6), generator=self.generator)

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma with scale 1, close enough for demand.

        torch._standard_gamma takes its randomness through the generator on the CPU only, so the
        cube of a normal (Wilson and Hilferty 1931) serves on every device. It is poor for shapes
        below 1, hence Gamma(a) = Gamma(a + 1) * U ** (1 / a).
        """
        raised = shape + 1.0
        normal = torch.randn(shape.shape, generator=self.generator, device=self.device)
        root = 1.0 - 1.0 / (9.0 * raised) + normal / (3.0 * raised.sqrt())
        unit = torch.rand(shape.shape, generator=self.generator, device=self.device)
        boost = unit.clamp(min=1e-6) ** (1.0 / shape)
        return raised * root.clamp(min=1e-3) ** 3 * boost

    def walk(self, spread: Tensor, steps: int, memory: Tensor) -> Tensor:
        """A smooth random path [B, S] of the given spread [B] and memory [B] (in steps).

        A sum of ten random cosines whose frequencies follow a heavy tail: stationary, cheap and
        without a loop over steps.
        """
        terms = 10
        frequency = self.uniform(0.0, math.pi / 2, terms).tan() / memory[:, None]
        phase = self.uniform(0.0, 2 * math.pi, terms)
        index_S = torch.arange(steps, device=self.device, dtype=torch.float32)
        angle = frequency[:, :, None] * index_S + phase[:, :, None]
        return angle.cos().sum(1) * (spread * math.sqrt(2.0 / terms))[:, None]

    def intervals(
        self, steps: int, count: int, shortest: float, longest: float
    ) -> tuple[Tensor, Tensor]:
        """`count` random intervals a row as masks [B, count, S], and their starts [B, count]."""
        # Some begin before the first step.
        start = (self.uniform(-0.1, 1.0, count) * steps).floor()
        length = self.log_uniform(max(shortest, 1.0), max(longest, 2.0), count).ceil()
        index_S = torch.arange(steps, device=self.device)
        inside = (index_S >= start[..., None]) & (index_S < (start + length)[..., None])
        return inside.float(), start
