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
# With fewer series a median is one of them; with more it does not change and takes longer.
SHOCK_ROWS_MIN, SHOCK_ROWS_MAX = 30, 256
SHOCK_WEEKS = 4  # on either side; what lasts longer is trend
MAX_SHOCK = 1.0  # log units


class PastWindows:
    """Draws training windows whose labels end before the newest horizon.

    A history holds only a few hundred dates, however many series share them, and a network would
    learn them by heart. So dates are shifted by whole weeks, and what all series did alike on a
    date, beyond what is expected, is exchanged for what they did on another one: as much of it as
    the future holds to be unsure of, and nothing to remember.
    """

    def __init__(self, dressed: Dressed, horizon: int, config: FreshetConfig) -> None:
        self.dressed = dressed
        self.context = config.context_length
        self.patch = config.patch_length
        # The network reads and writes whole patches.
        self.horizon = _whole(horizon, self.patch)
        T = dressed.target_NT.shape[1]
        self.last = max(T - horizon, 0)
        # Each series begins with its first value; one without any begins after the end.
        seen_NT = np.isfinite(dressed.target_NT)
        begin_N = np.where(seen_NT.any(1), seen_NT.argmax(1), T)
        shortest = min(SHORTEST_CONTEXT, max(self.last // 2, 1))
        # Rows with some context and at least one label.
        self.rows = np.flatnonzero(begin_N + shortest + 1 < self.last)
        # Half of a long history as context: a window with little of it looks unlike what is
        # forecast.
        middle = min(self.last // 2, self.context // 2)
        begin_B = begin_N[self.rows]
        self.lowest = np.maximum(begin_B + shortest, middle)
        self.shocks_T = shared_shocks(dressed, self.last)

    def __call__(self, generator: torch.Generator, rows: int = 128) -> tuple[Batch, Tensor]:
        """Windows at random; labels past the last one that may be learned are NaN."""
        drawn_B = torch.randint(len(self.rows), (rows,), generator=generator)
        pick_B = drawn_B.numpy()
        share_B = torch.rand(rows, generator=generator).numpy()
        # Any end is as likely as another: the newest weeks alone would teach a single season. Ends
        # near the newest label keep a part of their horizon.
        lowest_B = self.lowest[pick_B]
        room_B = self.last - lowest_B
        ends_B = (lowest_B + share_B * room_B).astype(np.int64)
        # No longer than the longest history drawn, since padding costs as much as data.
        context = min(self.context, int(ends_B.max()))
        batch, actual_BH = self.dressed.batch(
            self.rows[pick_B],
            ends_B,
            context=_whole(context, self.patch),
            horizon=self.horizon,
            train=True,
        )
        if self.shocks_T is not None:
            ratio_BH = self._other_shocks(self.shocks_T, ends_B, generator)
            actual_BH *= torch.from_numpy(ratio_BH)
        # Labels from the newest horizon on belong to the hold-out.
        steps_BH = ends_B[:, None] + np.arange(self.horizon)
        actual_BH[torch.from_numpy(steps_BH >= self.last)] = torch.nan
        return self._moved(batch, generator), actual_BH

    def _moved(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with the dates of each row moved by whole weeks, so that weekdays stay.

        A month is no whole number of weeks: rows of months stay where they are.
        """
        weeks = SHIFT_WEEKS if self.dressed.resolution_ms <= WEEK_MS else 0
        shape = batch.start_ms_B.shape
        weeks_B = torch.randint(-weeks, weeks + 1, shape, generator=generator)
        moved_ms_B = batch.start_ms_B + weeks_B * WEEK_MS
        return replace(batch, start_ms_B=moved_ms_B)

    def _other_shocks(
        self, shocks_T: Floats, ends_B: Ints, generator: torch.Generator
    ) -> NDArray[np.float32]:
        """Factors [B, H] that turn each label's shared shock into that of another stretch.

        The other stretch lies in the past too and has the same weekdays.
        """
        # Steps longer than a week have no shocks.
        week_steps = round(WEEK_MS / self.dressed.resolution_ms)
        num_weeks = max((self.last - self.horizon) // week_steps, 1)
        drawn_B = torch.randint(2**31, ends_B.shape, generator=generator)
        # The same place in the week as the own labels, in some week of the past.
        place_B = ends_B % week_steps
        week_B = drawn_B.numpy() % num_weeks
        first_B = place_B + week_steps * week_B
        steps_H = np.arange(self.horizon)
        own_BH = ends_B[:, None] + steps_H
        own_BH = np.minimum(own_BH, self.last - 1)
        other_BH = first_B[:, None] + steps_H
        other_BH = np.minimum(other_BH, self.last - 1)
        # Take the own shock out and put the other one in: a difference of logarithms.
        change_BH = shocks_T[other_BH] - shocks_T[own_BH]
        ratio_BH: Floats = np.exp(change_BH)
        return ratio_BH.astype(np.float32)

    def hold_out(self, seed: int) -> tuple[Batch, Tensor]:
        """The newest horizon of some of the series."""
        random = np.random.default_rng(seed)
        some_B = random.permutation(self.rows)[:HOLD_OUT_ROWS]
        rows_B = np.sort(some_B)
        ends_B = np.full(len(rows_B), self.last)
        return self.dressed.batch(
            rows_B,
            ends_B,
            context=self.context,
            horizon=self.horizon,
            train=True,
        )


def _whole(steps: int, patch: int) -> int:
    """The steps, up to the next multiple of a patch.

    >>> _whole(14, 16), _whole(16, 16)
    (16, 16)
    """
    return steps + -steps % patch


def shared_shocks(dressed: Dressed, end: int) -> Floats | None:
    """What all series did alike on each date before step `end`, beyond what is expected of each.

    Log units [T], bounded: the median over series of what profiles leave over, less its own mean
    over the weeks around. None where steps are shorter than a day or longer than a week, or where
    the series are few or do not share their dates.
    """
    N = len(dressed.target_NT)
    # Rows at equal distances, since neighbours in a table are often alike.
    num_rows = min(N, SHOCK_ROWS_MAX)
    rows_B = np.linspace(0, N - 1, num_rows).astype(np.int64)
    half_width = SHOCK_WEEKS * WEEK_MS // dressed.resolution_ms
    width = 1 + 2 * half_width
    if not _comparable(dressed, rows_B) or end <= width:
        return None
    left_BT = _left_over(dressed, rows_B, end)
    # A median: one series' own promotion or stock-out is no shock that all share.
    median = left_BT.nanmedian(0).values
    median_T = np.nan_to_num(median.double().numpy())
    # What lasts for weeks is trend, which a network should learn; only what is gone soon is shock.
    # At the edges the mean is over the steps that there are.
    window = np.ones(width)
    counted_T = np.convolve(np.ones_like(median_T), window, "same")
    sum_T = np.convolve(median_T, window, "same")
    slow_T = sum_T / counted_T
    shocks_T: Floats = np.clip(median_T - slow_T, -MAX_SHOCK, MAX_SHOCK)
    return shocks_T


def _comparable(dressed: Dressed, rows_B: Ints) -> bool:
    """Whether these series share their dates, are enough, and have steps of a day to a week."""
    time_ms_BS = dressed.time_ms_NS[rows_B]
    first_ms_1S = dressed.time_ms_NS[:1]
    same_dates = bool((time_ms_BS == first_ms_1S).all())
    enough = len(rows_B) >= SHOCK_ROWS_MIN
    return same_dates and enough and DAY_MS <= dressed.resolution_ms <= WEEK_MS


def _left_over(dressed: Dressed, rows_B: Ints, end: int) -> Tensor:
    """Log units by which each step differs from what its series' profiles expect: [B, T]."""
    ends_B = np.full(len(rows_B), end)
    batch, _ = dressed.batch(rows_B, ends_B, context=end, horizon=1, train=True)
    closed_BT = batch.known_BSK[:, :end, CLOSED] > 0.5
    scaled = scale_target(batch.target_BT, closed_BT)
    scale_B = scaled.scaling.scale_B
    values_BSK, _ = known_channels(batch.known_BSK, scaled)
    own = profiles(scaled, values_BSK, batch.start_ms_B, batch.resolution_ms)
    # On the network's scale a step of z is `scale_B` log units.
    left_z_BT = scaled.z_BT - own.expected_BS[:, :end]
    left_BT = left_z_BT * scale_B[:, None]
    left_BT[scaled.observed_BT == 0] = torch.nan
    return left_BT
