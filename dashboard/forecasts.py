"""Forecasts by item at one resolution: the newest, and what earlier ones said of each bucket.

Dimensions: S steps, L levels, K sums, B buckets of the ring, Q the three quantiles kept of past
forecasts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import msgspec
import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.errors import EventError
from freshet.stream.schemas import WIRE_LEVELS, Cumulative, Forecast
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

MAX_ITEMS = 20_000
SILENT_BUCKETS = 48
MAX_STEPS = 512
PAST_BUCKETS = 192
PAST_LEVELS = (0.1, 0.5, 0.9)


def leads_of(resolution_ms: int) -> dict[str, int]:
    """How far ahead past forecasts are kept, in steps: one, and the next longer unit of time.

    >>> leads_of(60_000), leads_of(3_600_000), leads_of(86_400_000), leads_of(604_800_000)
    ({'step': 1, 'hour': 60}, {'step': 1, 'day': 24}, {'step': 1, 'week': 7}, {'step': 1})
    """
    for name, width_ms in (("hour", HOUR_MS), ("day", DAY_MS), ("week", WEEK_MS)):
        if width_ms > resolution_ms:
            return {"step": 1, name: width_ms // resolution_ms}
    return {"step": 1}


@dataclass(slots=True)
class ItemForecasts:
    """One item's newest forecast and a ring of past ones.

    Attributes:
        newest: The record, without its tables of numbers, which take a twentieth as arrays.
        quantiles_SL: S is 0 while the shop is warming up.
        sums_KL: Those of the first `sum_steps`; None in records that do not tell.
    """

    newest: Forecast
    quantiles_SL: Singles
    expected_S: Singles
    sum_steps: list[int] = field(default_factory=list)
    sums_KL: Singles | None = None
    past_bucket: dict[str, Ints] = field(default_factory=dict)
    past_BQ: dict[str, Singles] = field(default_factory=dict)

    @property
    def edges_ms(self) -> Ints:
        """When each step begins and the last one ends, int64[S + 1]; the cutoff alone without."""
        return _edges_ms(self.newest, len(self.quantiles_SL))

    @property
    def end_ms(self) -> int:
        """When the last step ends."""
        return int(self.edges_ms[-1])

    def keep(self, lead: str, bucket: int, quantiles_Q: Singles) -> bool:
        """Remember what was forecast for a bucket; False where that, or a later one, is known."""
        if lead not in self.past_bucket:
            self.past_bucket[lead] = np.full(PAST_BUCKETS, -1, np.int64)
            self.past_BQ[lead] = np.zeros((PAST_BUCKETS, len(PAST_LEVELS)), np.float32)
        slot = bucket % PAST_BUCKETS
        if bucket <= self.past_bucket[lead][slot]:
            return False
        self.past_bucket[lead][slot] = bucket
        self.past_BQ[lead][slot] = quantiles_Q
        return True

    def past(self, lead: str) -> tuple[Ints, Singles]:
        """Bucket numbers in ascending order, and what was forecast for them at `PAST_LEVELS`."""
        if lead not in self.past_bucket:
            return np.zeros(0, np.int64), np.zeros((0, len(PAST_LEVELS)), np.float32)
        buckets = self.past_bucket[lead]
        order = np.argsort(buckets)[int((buckets < 0).sum()) :]
        return buckets[order], self.past_BQ[lead][order]


class ForecastBook:
    """All items' forecasts at one resolution, the item heard of last at the end.

    Of an item and cutoff the first record counts, whatever its weights: there is only one. An older
    one is kept as a past forecast, for the topic of the newest may be read before the log.

    Beyond `MAX_ITEMS` a new one takes the place of one that was silent for `SILENT_BUCKETS`, or is
    counted in `refused`.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.resolution_ms = grid.resolution_ms
        self.leads = leads_of(grid.resolution_ms)
        self.items: dict[str, ItemForecasts] = {}
        self.seen = 0
        self.refused = 0
        self.newest_cutoff_ms = 0
        self.issued_ms = 0
        self.weights_version = ""

    def apply(self, forecast: Forecast) -> bool:
        """Take a forecast in; False when it is seen already, or of another resolution.

        Raises:
            EventError: Its quantiles are not a finite [steps, levels] table over rising levels, or
                its sums none over rising numbers of those steps, or its steps do not follow each
                other.
        """
        if forecast.resolution_ms != self.resolution_ms:
            return False
        known = self.items.get(forecast.item_id)
        if known is not None and forecast.cutoff_ms == known.newest.cutoff_ms:
            return False
        levels, quantiles_SL = _checked(forecast)
        entry = ItemForecasts(
            newest=_without_numbers(forecast),
            quantiles_SL=quantiles_SL,
            expected_S=quantiles_SL @ mean_weights(levels),
        )
        if forecast.cumulative is not None:
            entry.sum_steps = forecast.cumulative.steps
            entry.sums_KL = np.asarray(forecast.cumulative.quantiles, np.float32)
        if known is None:
            if not self._room():
                self.refused += 1
                return False
        elif forecast.cutoff_ms < known.newest.cutoff_ms:
            return self._take_past(known, entry, levels)
        else:
            entry.past_bucket, entry.past_BQ = known.past_bucket, known.past_BQ
        self._take(entry, levels)
        return True

    def _take(self, entry: ItemForecasts, levels: Floats) -> None:
        newest = entry.newest
        self.items.pop(newest.item_id, None)
        self.items[newest.item_id] = entry
        self._keep_past(entry, entry, levels)
        self.seen += 1
        self.issued_ms = max(self.issued_ms, newest.issued_at_ms)
        if newest.cutoff_ms >= self.newest_cutoff_ms:
            self.newest_cutoff_ms = newest.cutoff_ms
            self.weights_version = newest.weights_version

    def _take_past(self, known: ItemForecasts, older: ItemForecasts, levels: Floats) -> bool:
        kept = self._keep_past(known, older, levels)
        self.seen += kept
        return kept

    def _room(self) -> bool:
        """Whether there is room for one more item; who was silent for long makes it."""
        if len(self.items) < MAX_ITEMS:
            return True
        longest_silent, entry = next(iter(self.items.items()))
        silent_ms = self.newest_cutoff_ms - entry.newest.cutoff_ms
        if silent_ms < SILENT_BUCKETS * self.resolution_ms:
            return False
        del self.items[longest_silent]
        return True

    def _keep_past(self, entry: ItemForecasts, said: ItemForecasts, levels: Floats) -> bool:
        """Keep in `entry` what another forecast of it `said`; whether any of that was new."""
        starts_ms, new = said.edges_ms, False
        for lead, step in self.leads.items():
            if step <= len(said.quantiles_SL):
                kept_Q = np.interp(PAST_LEVELS, levels, said.quantiles_SL[step - 1])
                bucket = self.grid.bucket(int(starts_ms[step - 1]))
                new |= entry.keep(lead, bucket, kept_Q.astype(np.float32))
        return new


def _without_numbers(forecast: Forecast) -> Forecast:
    return msgspec.structs.replace(forecast, quantiles=[], cumulative=None, conversion=None)


def _edges_ms(forecast: Forecast, num_steps: int) -> Ints:
    starts_ms = forecast.step_starts_ms
    if starts_ms is None:
        return forecast.cutoff_ms + forecast.resolution_ms * np.arange(num_steps + 1)
    last_ms = starts_ms[-1] if starts_ms else forecast.cutoff_ms
    ends_at_ms = forecast.ends_at_ms or last_ms + forecast.resolution_ms
    return np.array([*starts_ms, ends_at_ms], np.int64)


def _checked(forecast: Forecast) -> tuple[Floats, Singles]:
    if forecast.status == "warming_up" and not forecast.quantiles:
        return np.asarray(WIRE_LEVELS), np.zeros((0, len(WIRE_LEVELS)), np.float32)
    name = f"forecast {forecast.forecast_id} of {forecast.item_id}"
    levels = np.asarray(forecast.quantile_levels, np.float64)
    steps = len(forecast.quantiles)
    even = 0 < steps <= MAX_STEPS and all(len(row) == len(levels) for row in forecast.quantiles)
    if not _rising_within_0_and_1(levels) or not even:
        raise EventError(
            f"{name}: expected [1..{MAX_STEPS} steps, levels] quantiles over rising levels, "
            f"found {steps} steps over levels {forecast.quantile_levels}"
        )
    quantiles_SL = np.asarray(forecast.quantiles, np.float32)
    if not np.isfinite(quantiles_SL).all():
        raise EventError(f"{name} has quantiles that are not finite")
    rises_ms = np.diff(_edges_ms(forecast, steps))
    if len(rises_ms) != steps or not (rises_ms > 0).all():
        raise EventError(
            f"{name}: expected rising starts of {steps} steps and an end after them, found "
            f"{len(forecast.step_starts_ms or [])} starts and {forecast.ends_at_ms}"
        )
    if forecast.cumulative is not None:
        _check_sums(forecast, forecast.cumulative)
    return levels, quantiles_SL


def _rising_within_0_and_1(levels: Floats) -> bool:
    if not len(levels) or levels[0] <= 0 or levels[-1] >= 1:
        return False
    return bool((np.diff(levels) > 0).all())


def _check_sums(forecast: Forecast, sums: Cumulative) -> None:
    num_steps = len(forecast.quantiles)
    bounded = itertools.pairwise([0, *sums.steps, num_steps + 1])
    rising = all(low < high for low, high in bounded)
    even = len(sums.steps) == len(sums.quantiles) > 0
    fits = even and all(len(row) == len(forecast.quantile_levels) for row in sums.quantiles)
    if not rising or not fits or not np.isfinite(np.asarray(sums.quantiles, np.float32)).all():
        raise EventError(
            f"forecast {forecast.forecast_id} of {forecast.item_id}: expected finite sums at every "
            f"level over rising numbers of steps up to {num_steps}, found "
            f"{len(sums.quantiles)} over steps {sums.steps}"
        )


def mean_weights(levels: Floats) -> Singles:
    """Weights that turn quantiles into a mean, of a line straight between levels and flat outside.

    Means of steps add up to the mean of their sum, which medians of sparse items do not.

    >>> mean_weights(np.array([0.25, 0.5, 0.75])).tolist()
    [0.375, 0.25, 0.375]
    """
    middles = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    return np.diff(middles).astype(np.float32)
