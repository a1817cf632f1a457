"""From a window of any table to the network's slots, and batches of it as of any earlier cutoff.

Dimensions: N series, T context steps, H horizon steps, S = T + H, K known slots, P past slots, F
static features, B rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import PAST_SLOTS, Batch
from freshet.model.effects.beginnings import begun
from freshet.model.effects.columns import (
    buyable,
    known_in_slots,
    past_in_slots,
    static_numbers,
)
from freshet.model.effects.newcomers import newcomers
from freshet.model.effects.outliers import bought_clicks, without_spikes
from freshet.model.effects.second import beside, second_forecast
from freshet.model.effects.shared import SharedEffects, find_shared, sized
from freshet.model.expectation import short_season
from freshet.model.features import DISCOUNT, EFFECT, EVENT, PROMOTION
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints, Singles

CLICKS = tuple(range(PAST_SLOTS.index("in_stock")))
LOUD = [PROMOTION, DISCOUNT, EVENT]


@dataclass(frozen=True, slots=True)
class Dressed:
    """A window in the network's terms.

    Attributes:
        target_NT: float32 units, multiplied by `factor_N`; NaN where missing.
        past_NTP: float32 in the order of PAST_SLOTS.
        known_NSK: float32 in the order of KNOWN_SLOTS; slot `effect` as a forecast may use it.
        taught_NS: float32 slot `effect` as training may use it: no step knows its own outcome.
        static_NF: float32 static features.
        time_ms_NS: int64 start of each step.
        resolution_ms: nominal length of a step.
        factor_N: what amounts were multiplied by; forecasts are divided by it.
        local_ms_NS: what the clock of the series' place shows at each step; None: UTC.
        own_N: float32 how much of each series' forecast at the window's end is its own; None: all.
        pooled_NHQ: float32 what its siblings sell then, or a second forecast of it, in the size of
            the targets.
    """

    target_NT: Singles
    past_NTP: Singles
    known_NSK: Singles
    taught_NS: Singles
    static_NF: Singles
    time_ms_NS: Ints
    resolution_ms: int
    factor_N: Floats
    local_ms_NS: Ints | None = None
    own_N: Singles | None = None
    pooled_NHQ: Singles | None = None

    def rows(self, index: Ints) -> Dressed:
        """Some of the series."""
        each = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {name: values[index] for name, values in each.items() if np.ndim(values)}
        return replace(self, **chosen)

    def batch(
        self, rows: Ints, ends: Ints, *, context: int, horizon: int, train: bool = False
    ) -> tuple[Batch, Tensor]:
        """Contexts of some rows that end before step `ends`, and the actuals after it: [B, H].

        Actuals are NaN where they are not known.

        Args:
            rows: series of each batch row.
            ends: first step after each row's cutoff, at most T.
            context: steps before it; what lies before the window's first step is NaN.
            horizon: steps from it on; what lies beyond the window's last step is NaN.
            train: give the slot `effect` as training may use it. Without, it holds what the whole
                window taught, which only a cutoff at its end may know.
        """
        first_B = ends - context
        steps = context + horizon
        target_BS = _cut(self.target_NT, rows, first_B, steps)
        past_BTP = _cut(self.past_NTP, rows, first_B, context)
        known_BSK = _cut(self.known_NSK, rows, first_B, steps)
        if train:
            known_BSK[..., EFFECT] = _cut(self.taught_NS, rows, first_B, steps)
        # Counted back from the last step: months before it differ in length, and padding has none.
        last_B = np.clip(ends - 1, 0, None)
        last_ms_B = self.time_ms_NS[rows, last_B]
        start_ms_B = last_ms_B - (context - 1) * self.resolution_ms
        batch = Batch(
            target_BT=torch.from_numpy(target_BS[:, :context]),
            past_BTP=torch.from_numpy(past_BTP),
            known_BSK=torch.from_numpy(known_BSK),
            static_BF=torch.from_numpy(self.static_NF[rows]),
            start_ms_B=torch.from_numpy(start_ms_B),
            resolution_ms=self.resolution_ms,
            local_ms_BS=self._local(rows, first_B, steps),
        )
        if (ends == self.target_NT.shape[1]).all():
            batch = self._pooled(batch, rows, horizon)
        actual_BH = target_BS[:, context:]
        return batch, torch.from_numpy(actual_BH)

    def _pooled(self, batch: Batch, rows: Ints, horizon: int) -> Batch:
        """The batch with what siblings sell, where they are known."""
        if self.own_N is None or self.pooled_NHQ is None or self.pooled_NHQ.shape[1] != horizon:
            return batch
        return replace(
            batch,
            own_B=torch.from_numpy(self.own_N[rows]),
            pooled_BHQ=torch.from_numpy(self.pooled_NHQ[rows]),
        )

    def _local(self, rows: Ints, first: Ints, steps: int) -> Tensor | None:
        """What the clock shows: [B, steps]; on even steps beyond the window's own."""
        if self.local_ms_NS is None:
            return None
        index_BS = first[:, None] + np.arange(steps)
        inside_BS = index_BS.clip(0, self.local_ms_NS.shape[1] - 1)
        beyond_ms_BS = (index_BS - inside_BS) * self.resolution_ms
        return torch.from_numpy(self.local_ms_NS[rows[:, None], inside_BS] + beyond_ms_BS)


def dress(
    window: Window, shared: SharedEffects | None = None, *, begin_N: Ints | None = None
) -> Dressed:
    """A window in the network's slots; only data before the cutoff decide what goes where.

    Each series is dressed alone: what it gets depends on itself and on `shared`, to the last bit.

    Args:
        window: what is known at the cutoff.
        shared: what all series do alike, found in any window of the same columns; None: in this.
        begin_N: the step from which on each series is what it now is; 0: it always was, -1 or None:
            look for it.

    Raises:
        InvalidInputError: the columns are others than those that `shared` was found in, or the
            window's country is not known.
    """
    window = buyable(window)
    shared = find_shared(window) if shared is None else shared
    # Everything that takes logarithms of sales needs them in their final size.
    window, factor_N = sized(window, continuous=shared.continuous)
    closed_NS = shared.closing.steps(window)
    effect_NS, taught_NS = shared.effects(window, closed_NS)
    known_NSK = known_in_slots(window, closed_NS, shared.places)
    known_NSK[..., EFFECT] = _some(effect_NS)
    told_NT = np.asarray((known_NSK[:, : window.context_length, LOUD] > 0).any(-1))
    tamed_NT = without_spikes(window.target_NT, told_NT)
    plain_NT = _plain(tamed_NT, effect_NS, closed_NS)
    period = short_season(window.resolution_ms)
    begun_NT = begun(tamed_NT, plain_NT, period, begin_N)
    begun_window = replace(window, target_NT=begun_NT)
    siblings = newcomers(begun_window, factor_N, closed_NS, effect_NS, shared.pools)
    opinion = second_forecast(begun_window, closed_NS, factor_N == 1.0, shared.second)
    others = beside(siblings, opinion)
    return Dressed(
        target_NT=begun_NT.astype(np.float32),
        past_NTP=bought_clicks(past_in_slots(window), window.target_NT, CLICKS, period),
        known_NSK=known_NSK,
        taught_NS=_some(taught_NS),
        static_NF=static_numbers(window, shared.scales),
        time_ms_NS=window.time_ms_NS,
        resolution_ms=window.resolution_ms,
        factor_N=factor_N,
        local_ms_NS=window.local_ms_NS,
        own_N=None if others is None else others.own_N,
        pooled_NHQ=None if others is None else others.pooled_NHQ,
    )


def _plain(target_NT: Floats, effect_NS: Floats, closed_NS: Bools) -> Floats:
    """Targets without what is shared; missing where nothing can sell."""
    T = target_NT.shape[1]
    plain_NT = target_NT * np.exp(-effect_NS[:, :T])
    return np.where(closed_NS[:, :T], np.nan, plain_NT)


def dressed_for(
    window: Window, context_length: int, shared: SharedEffects | None = None
) -> Dressed:
    """The newest steps of a window, dressed by what all of it taught.

    As many steps as a network reads, so that a series is the same whoever dresses it, and from
    however long a history.

    Raises:
        InvalidInputError: as `dress`.
    """
    shared = find_shared(window) if shared is None else shared
    return dress(window.newest(context_length), shared)


def _cut(values: Singles, rows: Ints, first: Ints, steps: int) -> Singles:
    """Steps [first, first + steps) of some rows, NaN where the array has none."""
    index_S = np.arange(steps)
    index_BS = first[:, None] + index_S
    outside_BS = (index_BS < 0) | (index_BS >= values.shape[1])
    inside_BS = np.where(outside_BS, 0, index_BS)
    cut: Singles = values[rows[:, None], inside_BS]
    cut[outside_BS] = np.nan
    return cut


def _some(effect_NS: Floats) -> Singles:
    """Effects as float32; missing in a series that has none, so that the slot counts as empty."""
    found_N1 = np.any(effect_NS != 0.0, axis=1, keepdims=True)
    some_NS = np.where(found_N1, effect_NS, np.nan)
    return some_NS.astype(np.float32)
