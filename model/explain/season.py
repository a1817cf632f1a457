"""The usual course of a week, a day or a year in one row's sales, and the sales without it.

A forecast knows it from earlier sales alone, so that it is taken away there: what is left has the
row's level, its trend and its promotions, and weekdays that are alike.
Dimensions: T context steps, P phases of the season.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.features import CLOSED, DISCOUNT, EVENT, PROMOTION
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

CYCLES = 2  # a season counts as seen where it was seen so often
# Below this share of the level a phase is filled up to it: what hardly sells cannot be divided.
LEAST_SHARE = 0.2
LOUD = (PROMOTION, DISCOUNT, EVENT)
MONTH_MS = 28 * DAY_MS


@dataclass(frozen=True, slots=True)
class Season:
    """A cycle that sales may follow.

    Attributes:
        steps: of one cycle.
        words: how a merchant calls what differs within it.
    """

    steps: int
    words: str


def seasonal(one: Batch) -> Season | None:
    """The longest usual cycle that a row's sales show twice; None where there is none."""
    seen_T = torch.isfinite(one.target_BT[0])
    steps = len(seen_T) - int(seen_T.int().argmax()) if bool(seen_T.any()) else 0
    return next((s for s in _seasons(one.resolution_ms) if steps >= CYCLES * s.steps), None)


def _seasons(resolution_ms: int) -> list[Season]:
    """Cycles of steps of this length, the longest first."""
    if resolution_ms >= MONTH_MS:
        return [Season(12, "The time of year")]
    if resolution_ms >= WEEK_MS:
        return [Season(52, "The time of year")]
    found = []
    if WEEK_MS % resolution_ms == 0:
        both = "The time of day and the weekday" if resolution_ms < DAY_MS else "The weekday"
        found.append(Season(WEEK_MS // resolution_ms, both))
    if resolution_ms <= HOUR_MS:
        found.append(Season(DAY_MS // resolution_ms, "The time of day"))
    return found


def without_season(one: Batch, season: Season) -> Tensor:
    """The row's target as if all phases of the season sold alike: [T], missing where it was.

    Each phase is held against a moving average of one cycle, and divided by what it usually sells
    of that; steps with promotions, discounts, events and closed ones do not say what is usual.
    """
    target_T = one.target_BT[0].double().numpy()
    known_TK = torch.nan_to_num(one.known_BSK[0, : len(target_T)]).numpy()
    closed_T = known_TK[:, CLOSED] > 0
    quiet_T = np.isfinite(target_T) & ~closed_T & ~(known_TK[:, LOUD] > 0).any(1)
    level_T = moving_mean(np.where(quiet_T, target_T, np.nan), season.steps)
    phase_T = np.arange(len(target_T)) % season.steps
    share_T = _shares(target_T, level_T, quiet_T, phase_T)[phase_T]
    divided_T = target_T / np.maximum(share_T, LEAST_SHARE)
    plain_T = np.where(share_T < LEAST_SHARE, np.maximum(level_T, target_T), divided_T)
    plain_T = np.where(closed_T | ~np.isfinite(plain_T), target_T, plain_T)
    return torch.from_numpy(plain_T).to(one.target_BT)


def _shares(target_T: Floats, level_T: Floats, quiet_T: Bools, phase_T: Ints) -> Floats:
    """What each phase sells of the level, 1 on average: [P]; 1 where nobody knows.

    >>> level, quiet, phase = np.full(4, 4.0), np.ones(4, bool), np.array([0, 1, 0, 1])
    >>> _shares(np.array([2.0, 6.0, 2.0, 6.0]), level, quiet, phase).tolist()
    [0.5, 1.5]
    """
    P = int(phase_T.max()) + 1
    there_T = quiet_T & np.isfinite(level_T)
    sold_P = np.bincount(phase_T[there_T], target_T[there_T], P)
    usual_P = np.bincount(phase_T[there_T], level_T[there_T], P)
    known_P = usual_P > 0
    if not known_P.any():
        return np.ones(P)
    share_P = np.where(known_P, sold_P / np.where(known_P, usual_P, 1.0), np.nan)
    mean = float(np.nanmean(share_P))
    return np.where(known_P & (mean > 0), share_P / max(mean, 1e-12), 1.0)


def moving_mean(values_T: Floats, steps: int) -> Floats:
    """The mean of the values that are known in one cycle around each step; NaN where none is.

    >>> moving_mean(np.array([1.0, 2.0, np.nan, 4.0]), 3).tolist()
    [1.5, 1.5, 3.0, 4.0]
    """
    kernel = np.ones(steps)
    known_T = np.isfinite(values_T)
    sums_T = _around(np.where(known_T, values_T, 0.0), kernel)
    count_T = _around(known_T.astype(np.float64), kernel)
    return np.where(count_T > 0, sums_T / np.maximum(count_T, 1.0), np.nan)


def _around(values_T: Floats, kernel: Floats) -> Floats:
    whole = np.convolve(values_T, kernel)
    first = len(kernel) // 2
    return whole[first : first + len(values_T)]
