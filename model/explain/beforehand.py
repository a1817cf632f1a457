"""Whether promotions were set on days that were good already: what sold just before they began.

Nobody sees what promoted days would have sold without. But luck lasts for days: where somebody saw
a good week coming, the days before a promotion sell more than others do, and what promoted days
sell more is not the promotion's alone. Event studies look for the same ("pre-trends").
Dimensions: N series, T context steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.model.explain.plan import promoted_steps
from freshet.model.explain.season import moving_mean
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints

BEFORE = 2  # steps that lie just before a promotion
AFTER = 7  # steps in which cupboards may still be full: they compare with nothing
LEVEL_SEASONS = 4  # around a step, whose mean is its level
FEWEST = 20  # steps before promotions, of all series together
SURE = 3.0  # standard errors


@dataclass(frozen=True, slots=True)
class Beforehand:
    """What was sold just before promotions began, in log units above the usual.

    Attributes:
        above: the mean, of all series.
        error: its standard error.
        steps: how many steps told it.
    """

    above: float
    error: float
    steps: int

    @property
    def sure(self) -> bool:
        """Whether it is more than luck."""
        return self.steps >= FEWEST and self.above > SURE * self.error

    def sentence(self) -> str:
        """In words."""
        more = 100.0 * float(np.expm1(self.above))
        return (
            f"On the {BEFORE} steps before promotions of this table began sales were {more:.0f} % "
            "above their usual already: they were set on good days, and part of this would have "
            "come without them."
        )


def beforehand(window: Window) -> Beforehand:
    """What the series of a window sold just before their promotions, against their other days."""
    promoted_NT = promoted_steps(window)
    near: list[float] = []
    others: list[float] = []
    for target_T, promoted_T in zip(window.target_NT, promoted_NT, strict=True):
        before_T, plain_T = _kinds(promoted_T)
        left_T = _above_usual(target_T, plain_T, window.season_length)
        near.extend(left_T[before_T & np.isfinite(left_T)])
        others.extend(left_T[plain_T & np.isfinite(left_T)])
    if len(near) < FEWEST or len(others) < FEWEST:
        return Beforehand(0.0, np.inf, len(near))
    above = float(np.mean(near) - np.mean(others))
    # Neighbouring steps share their luck: two of one promotion count as one.
    error = float(np.std(near) / np.sqrt(len(near) / BEFORE))
    return Beforehand(above, error, len(near))


def _kinds(promoted_T: Bools) -> tuple[Bools, Bools]:
    """Steps just before a promotion, and plain ones: not promoted, not near one.

    >>> before, plain = _kinds(np.arange(13) == 4)
    >>> np.flatnonzero(before).tolist(), np.flatnonzero(plain).tolist()
    ([2, 3], [0, 1, 12])
    """
    before_T = np.zeros_like(promoted_T)
    after_T = np.zeros_like(promoted_T)
    for step in range(1, AFTER + 1):
        after_T[step:] |= promoted_T[:-step]
        if step <= BEFORE:
            before_T[:-step] |= promoted_T[step:]
    return before_T & ~promoted_T & ~after_T, ~(before_T | promoted_T | after_T)


def _above_usual(target_T: Floats, plain_T: Bools, season: int) -> Floats:
    """Log sales less those of plain steps of the same phase and around it: [T]."""
    log_T = np.log1p(target_T)
    phase_T = np.arange(len(target_T)) % season
    known_T = plain_T & np.isfinite(log_T)
    left_T = log_T - _means(log_T, known_T, phase_T, season)[phase_T]
    level_T = moving_mean(np.where(known_T, left_T, np.nan), LEVEL_SEASONS * season + 1)
    return np.asarray(left_T - level_T)


def _means(log_T: Floats, known_T: Bools, phase_T: Ints, season: int) -> Floats:
    sum_P = np.bincount(phase_T[known_T], log_T[known_T], season)
    count_P = np.bincount(phase_T[known_T], minlength=season)
    return np.where(count_P > 0, sum_P / np.maximum(count_P, 1), np.nan)
