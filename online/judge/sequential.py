"""How sure one must be at each of several looks, so that all of them together err as often as said.

A challenger that is looked at on seven mornings, at 5 % each time, passes by chance on one of them
far more often than in 5 % of trials. So the error is spent by how much evidence there
is by then (alpha spending, Lan & DeMets 1983), at looks that are declared before the first. Pure.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from freshet.stream.arrays import Floats

# Of the distribution of what went on: so many points, out to so many standard deviations.
# The power of the share of evidence that says how much is spent by then: little on the first day,
# which is like no other. At 1 an equal challenger passes twice as often on real shops' days.
SPENT_LATE = 2
GRID_POINTS = 801
GRID_REACH = 8.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The looks of one trial, declared before the first of them.

    Attributes:
        error: Chance that an equal challenger passes at any of them.
        shares: How much of all the evidence there is at each look, rising to 1.
    """

    error: float
    shares: tuple[float, ...]

    @classmethod
    def of_days(cls, error: float, *, first_days: int, num_looks: int) -> Plan:
        """A look after the first days, and one after each day that follows.

        >>> Plan.of_days(0.05, first_days=2, num_looks=3).shares
        (0.5, 0.75, 1.0)
        """
        total = first_days + num_looks - 1
        return cls(error, tuple((first_days + look) / total for look in range(num_looks)))

    @property
    def last(self) -> int:
        """The number of the last look, counted from 0."""
        return len(self.shares) - 1

    def level(self, look: int) -> float:
        """The one-sided level of a look: a p-value below it ends the trial."""
        return levels(self.shares, self.error)[look]


def error_of_attempt(error: float, attempt: int) -> float:
    """The share of an alert's error that its attempt may spend, the first is number 0.

    Each has half of what is left, so that all attempts together keep the error of the alert,
    however many there are.

    >>> [error_of_attempt(0.05, attempt) for attempt in range(3)]
    [0.025, 0.0125, 0.00625]
    """
    return float(error * 0.5 ** (attempt + 1))


@lru_cache(maxsize=256)
def levels(shares: tuple[float, ...], error: float) -> tuple[float, ...]:
    """One-sided levels of each look, of which together `error` is spent.

    The score of an equal challenger is a Brownian motion, looked at when it is `shares` old. Each
    bound is where what did not cross an earlier one crosses with the chance that is due (Armitage,
    McPherson & Rowe 1969).

    >>> levels((1.0,), 0.05)
    (0.05,)
    >>> [round(level, 4) for level in levels((0.5, 1.0), 0.05)]
    [0.0125, 0.0446]
    """
    found = [error * shares[0] ** SPENT_LATE]
    bound = float(-ndtri(found[0])) * shares[0] ** 0.5
    grid_G, density_G = _start(shares[0], bound)
    for before, share in itertools.pairwise(shares):
        step, due = share - before, error * (share**SPENT_LATE - before**SPENT_LATE)
        reach = GRID_REACH * share**0.5

        def excess(
            bound: float,
            grid_G: Floats = grid_G,
            density_G: Floats = density_G,
            step: float = step,
            due: float = due,
        ) -> float:
            crossing_G = ndtr((grid_G - bound) / step**0.5)
            return float(np.trapezoid(density_G * crossing_G, grid_G)) - due

        bound = float(brentq(excess, -reach, reach))
        found.append(float(ndtr(-bound / share**0.5)))
        grid_G, density_G = _next(grid_G, density_G, step, np.linspace(-reach, bound, GRID_POINTS))
    return tuple(found)


def _start(share: float, bound: float) -> tuple[Floats, Floats]:
    """Where the score of a trial that goes on may be after the first look, and how likely."""
    grid_G = np.linspace(-GRID_REACH * share**0.5, bound, GRID_POINTS)
    return grid_G, _normal(grid_G, share)


def _next(grid_G: Floats, density_G: Floats, step: float, onto_G: Floats) -> tuple[Floats, Floats]:
    """The same a step later: what it was, spread by a normal step."""
    spread_GG = _normal(onto_G[:, None] - grid_G, step)
    spread_G: Floats = np.asarray(np.trapezoid(spread_GG * density_G, grid_G, axis=1))
    return onto_G, spread_G


def _normal(values: Floats, variance: float) -> Floats:
    density: Floats = np.exp(-0.5 * values**2 / variance) / np.sqrt(2.0 * np.pi * variance)
    return density
