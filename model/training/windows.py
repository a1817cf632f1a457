"""Training windows from the past of a table, drawn so that a network cannot learn dates by heart.

Dimensions: N series, T context steps, H horizon steps, B rows of a batch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.effects.slots import Dressed
from freshet.model.features import CLOSED, known_channels, scale_target
from freshet.model.network import FreshetConfig
from freshet.model.profiles import profiles
from freshet.stream.arrays import Floats, Ints
from freshet.stream.units import DAY_MS, WEEK_MS

SHORTEST_CONTEXT = 32  # steps of history before a training window
SHIFT_WEEKS = 150  # dates are moved by up to three years either way
HOLD_OUT_ROWS = 512
SHOCK_ROWS_MIN, SHOCK_ROWS_MAX = 30, 256
SHOCK_WEEKS = 4


class PastWindows:
    """Draws training windows whose labels end before the newest horizon.

    A history holds only a few hundred dates, however many series share them, and a network would
    learn them by heart. So dates are shifted by whole weeks, and what all series did alike on a
    date, beyond what is expected, is exchanged for what they did on another one: as much of it as
    the future holds to be unsure of, and nothing to remember.
    """

    def __init__(self, dressed: Dressed, horizon: int, config: FreshetConfig) -> None:
        self.dressed = dressed
        self.context, self.patch = config.context_length, config.patch_length
        self.horizon = horizon + -horizon % self.patch
        T = dressed.target_NT.shape[1]
        self.last = max(T - horizon, 0)
        seen_NT = np.isfinite(dressed.target_NT) & (np.arange(T) < self.last)
        begin_N = np.where(seen_NT.any(1), seen_NT.argmax(1), T)
        shortest = min(SHORTEST_CONTEXT, max(self.last // 2, 1))
        self.rows = np.flatnonzero(begin_N + shortest + 1 < self.last)
        # Half of a long history as context: a window with little of it looks unlike what is
        # forecast.
        middle = min(self.last // 2, self.context // 2)
        earliest = np.maximum(begin_N[self.rows] + shortest, middle)
        self.lowest = np.minimum(earliest, self.last - 1)
        self.shocks_T = shared_shocks(dressed, self.last)

    def __call__(self, generator: torch.Generator, rows: int = 128) -> tuple[Batch, Tensor]:
        """Windows at random; labels past the last one that may be learned are NaN."""
        pick = torch.randint(len(self.rows), (rows,), generator=generator).numpy()
        share = torch.rand(rows, generator=generator).numpy()
        # Ends near the newest label keep a part of their horizon.
        ends = (self.lowest[pick] + share * (self.last - self.lowest[pick])).astype(np.int64)
        context = min(self.context, int(ends.max()))
        context += -context % self.patch
        batch, actual_BH = self.dressed.batch(
            self.rows[pick], ends, context=context, horizon=self.horizon, train=True
        )
        if self.shocks_T is not None:
            actual_BH *= torch.from_numpy(self._other_shocks(self.shocks_T, ends, generator))
        late_BH = ends[:, None] + np.arange(self.horizon) >= self.last
        actual_BH[torch.from_numpy(late_BH)] = torch.nan
        weeks = SHIFT_WEEKS if self.dressed.resolution_ms <= WEEK_MS else 0
        shift_B = torch.randint(-weeks, weeks + 1, (rows,), generator=generator) * WEEK_MS
        return replace(batch, start_ms_B=batch.start_ms_B + shift_B), actual_BH

    def _other_shocks(
        self, shocks_T: Floats, ends: Ints, generator: torch.Generator
    ) -> NDArray[np.float32]:
        """Factors [B, H] that turn each label's shared shock into that of another stretch.

        The other stretch lies in the past too and has the same weekdays.
        """
        season = max(round(WEEK_MS / self.dressed.resolution_ms), 1)
        steps_H = np.arange(self.horizon)
        cycles_B = torch.randint(2**31, (len(ends),), generator=generator).numpy()
        num_cycles = max((self.last - self.horizon) // season, 1)
        first_B = ends % season + season * (cycles_B % num_cycles)
        own_BH = np.minimum(ends[:, None] + steps_H, self.last - 1)
        other_BH = np.minimum(first_B[:, None] + steps_H, self.last - 1)
        ratio_BH: Floats = np.exp(shocks_T[other_BH] - shocks_T[own_BH])
        return ratio_BH.astype(np.float32)

    def hold_out(self, seed: int) -> tuple[Batch, Tensor]:
        """The newest horizon of some of the series."""
        rows = np.sort(np.random.default_rng(seed).permutation(self.rows)[:HOLD_OUT_ROWS])
        ends = np.full(len(rows), self.last)
        return self.dressed.batch(
            rows, ends, context=self.context, horizon=self.horizon, train=True
        )


def shared_shocks(dressed: Dressed, end: int) -> Floats | None:
    """What all series did alike on each date before step `end`, beyond what is expected of each.

    Log units [T], bounded: the median over series of what profiles leave over, less its own mean
    over the weeks around. None where steps are shorter than a day or longer than a week, or where
    the series are few or do not share their dates.
    """
    N = len(dressed.target_NT)
    rows = np.linspace(0, N - 1, min(N, SHOCK_ROWS_MAX)).astype(np.int64)
    width = 1 + 2 * (SHOCK_WEEKS * WEEK_MS // dressed.resolution_ms)
    if not _comparable(dressed, rows) or end <= width:
        return None
    left_BT = _left_over(dressed, rows, end)
    # A median: one series' own promotion or stock-out is no shock that all share.
    median_T = np.nan_to_num(left_BT.nanmedian(0).values.double().numpy())
    # What lasts for weeks is trend, which a network should learn; only what is gone soon is shock.
    window = np.ones(width)
    counted_T = np.convolve(np.ones_like(median_T), window, "same")
    slow_T = np.convolve(median_T, window, "same") / counted_T
    shocks_T: Floats = np.clip(median_T - slow_T, -1.0, 1.0)
    return shocks_T


def _comparable(dressed: Dressed, rows: Ints) -> bool:
    """Whether these series share their dates, are enough, and have steps of a day to a week."""
    same_dates = bool((dressed.time_ms_NS[rows] == dressed.time_ms_NS[:1]).all())
    enough = len(rows) >= SHOCK_ROWS_MIN
    return same_dates and enough and DAY_MS <= dressed.resolution_ms <= WEEK_MS


def _left_over(dressed: Dressed, rows: Ints, end: int) -> Tensor:
    """Log units by which each step differs from what its series' profiles expect: [B, T]."""
    ends = np.full(len(rows), end)
    batch, _ = dressed.batch(rows, ends, context=end, horizon=1, train=True)
    scaled = scale_target(batch.target_BT, batch.known_BSK[:, :end, CLOSED] > 0.5)
    values_BSK, _ = known_channels(batch.known_BSK, scaled.scaling.scale_B)
    own = profiles(scaled, values_BSK, batch.start_ms_B, batch.resolution_ms)
    left_BT = (scaled.z_BT - own.expected_BS[:, :end]) * scaled.scaling.scale_B[:, None]
    left_BT[scaled.observed_BT == 0] = torch.nan
    return left_BT
