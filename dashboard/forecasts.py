"""Forecasts by item: the newest, and what earlier ones said of each bucket a step and a day ahead.

Dimensions: S steps, L levels, B buckets of the ring, Q the three quantiles kept of past forecasts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.errors import EventError
from freshet.stream.schemas import Cumulative, Forecast
from freshet.stream.units import DAY_MS

MAX_ITEMS = 20_000
SILENT_BUCKETS = 48
MAX_STEPS = 512
PAST_BUCKETS = 192
PAST_LEVELS = (0.1, 0.5, 0.9)
LEADS = ("step", "day")


@dataclass(slots=True)
class ItemForecasts:
    """One item's newest forecast and a ring of past ones."""

    newest: Forecast
    quantiles_SL: Singles
    expected_S: Singles
    past_bucket: dict[str, Ints] = field(default_factory=dict)
    past_BQ: dict[str, Singles] = field(default_factory=dict)

    def keep(self, lead: str, bucket: int, quantiles_Q: Singles) -> None:
        """Remember what was forecast for a bucket."""
        if lead not in self.past_bucket:
            self.past_bucket[lead] = np.full(PAST_BUCKETS, -1, np.int64)
            self.past_BQ[lead] = np.zeros((PAST_BUCKETS, len(PAST_LEVELS)), np.float32)
        slot = bucket % PAST_BUCKETS
        self.past_bucket[lead][slot] = bucket
        self.past_BQ[lead][slot] = quantiles_Q

    def past(self, lead: str) -> tuple[Ints, Singles]:
        """Bucket numbers in ascending order, and what was forecast for them at `PAST_LEVELS`."""
        if lead not in self.past_bucket:
            return np.zeros(0, np.int64), np.zeros((0, len(PAST_LEVELS)), np.float32)
        buckets = self.past_bucket[lead]
        order = np.argsort(buckets)[int((buckets < 0).sum()) :]
        return buckets[order], self.past_BQ[lead][order]


class ForecastBook:
    """All items' forecasts at one resolution, the item heard of last at the end.

    Beyond `MAX_ITEMS` a new one takes the place of one that was silent for `SILENT_BUCKETS`, or is
    counted in `refused`.
    """

    def __init__(self, resolution_ms: int) -> None:
        self.resolution_ms = resolution_ms
        self.items: dict[str, ItemForecasts] = {}
        self.seen = 0
        self.refused = 0
        self.newest_cutoff_ms = 0
        self.issued_ms = 0
        self.weights_version = ""
        self._day_steps = max(1, DAY_MS // resolution_ms)

    def apply(self, forecast: Forecast) -> bool:
        """Take a forecast in; False when it is seen already, older, or of another resolution.

        Raises:
            EventError: Its quantiles are not a finite [steps, levels] table over rising levels, or
                its sums none over rising numbers of those steps.
        """
        if forecast.resolution_ms != self.resolution_ms:
            return False
        entry = self.items.get(forecast.item_id)
        if entry is not None and not _newer(forecast, entry.newest):
            return False
        levels, quantiles_SL = _checked(forecast)
        if entry is None and not self._room():
            self.refused += 1
            return False
        expected_S = quantiles_SL @ mean_weights(levels)
        self.seen += 1
        self.issued_ms = max(self.issued_ms, forecast.issued_at_ms)
        entry = self.items.pop(forecast.item_id, None)
        if entry is None:
            entry = ItemForecasts(forecast, quantiles_SL, expected_S)
        self.items[forecast.item_id] = entry
        entry.newest = forecast
        entry.quantiles_SL = quantiles_SL
        entry.expected_S = expected_S
        self._keep_past(entry, levels)
        if forecast.cutoff_ms >= self.newest_cutoff_ms:
            self.newest_cutoff_ms = forecast.cutoff_ms
            self.weights_version = forecast.weights_version
        return True

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

    def _keep_past(self, entry: ItemForecasts, levels: Floats) -> None:
        first = entry.newest.cutoff_ms // self.resolution_ms
        for lead, step in zip(LEADS, (1, self._day_steps), strict=True):
            if step <= len(entry.quantiles_SL):
                kept_Q = np.interp(PAST_LEVELS, levels, entry.quantiles_SL[step - 1])
                entry.keep(lead, first + step - 1, kept_Q.astype(np.float32))


def _newer(forecast: Forecast, known: Forecast) -> bool:
    """First of a kind wins: the same cutoff and weights again is a repeat."""
    if forecast.cutoff_ms != known.cutoff_ms:
        return forecast.cutoff_ms > known.cutoff_ms
    return (
        forecast.weights_version != known.weights_version
        and forecast.issued_at_ms >= known.issued_at_ms
    )


def _checked(forecast: Forecast) -> tuple[Floats, Singles]:
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
