"""Scores what has become final: pending forecasts in, records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from freshet.model.baselines.yardsticks import seasonal_naive
from freshet.model.batch import KNOWN_SLOTS
from freshet.online.adjust.decision import Decisions
from freshet.online.drift.pending import Due, PendingForecasts
from freshet.online.drift.score import Actual, StepScores, judge, score_records
from freshet.online.forecast.context import Contexts
from freshet.stream.arrays import Floats
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.schemas import Score

PROMOTION = KNOWN_SLOTS.index("promotion")


@dataclass(frozen=True, slots=True)
class ScoredBucket:
    """What a final bucket brought; `unknown` counts steps whose actual is not known any more."""

    bucket_ms: int
    scores: list[Score]
    unknown: int


class Scorer:
    """Holds final buckets against what was forecast of them.

    Args:
        contexts: Actuals, and the history for the yardstick.
        pending: What waits to be scored.
        segments: The segment of each of some items.
        season_length: Steps of the seasonal naive yardstick.
        holds: Whether an item's windows are held; of others nothing is known.
        unadjusted: What waits of forecasts that were made without adjustments besides.
        decisions: Which maps of levels forecasts were served by.
    """

    def __init__(
        self,
        contexts: Contexts,
        pending: PendingForecasts,
        *,
        segments: Callable[[Sequence[str]], list[str]],
        season_length: int,
        holds: Callable[[str], bool] = lambda _: True,
        unadjusted: PendingForecasts | None = None,
        decisions: Decisions | None = None,
    ) -> None:
        self.contexts = contexts
        self.pending = pending
        self._segments = segments
        self._season_length = season_length
        self._holds = holds
        self._unadjusted = unadjusted
        self._decisions = decisions

    def score(self, bucket_ms: int, now_ms: int) -> ScoredBucket:
        """Score every open step about a final bucket.

        Nothing is closed, so it may be repeated until published.
        """
        due = self.pending.due(bucket_ms)
        all_ids = [item_id for step in due for item_id in step.item_ids]
        actuals = self._actuals(sorted(set(all_ids)), bucket_ms)
        besides = self._unadjusted.due(bucket_ms) if self._unadjusted else []
        resolution_ms = self.contexts.reader.resolution_ms
        scores = score_records(
            self._judged(due, actuals),
            actuals,
            bucket_start_ms=bucket_ms,
            resolution_ms=resolution_ms,
            scored_at_ms=now_ms,
            unadjusted=self._judged(besides, actuals),
        )
        unknown = sum(item_id not in actuals for item_id in all_ids)
        return ScoredBucket(bucket_ms, scores, unknown)

    def _judged(
        self, due: list[Due], actuals: Mapping[str, Actual]
    ) -> list[tuple[Due, StepScores]]:
        judged = []
        for step in due:
            # An unknown actual is judged as 0 here and then left out by `score_records`.
            units_I = np.array([actuals[i].units if i in actuals else 0.0 for i in step.item_ids])
            naive_IQ = self._naive(step)
            judged.append((step, judge(step, units_I, naive_IQ, self._levels_of(step))))
        return judged

    def _levels_of(self, due: Due) -> dict[int, list[float]]:
        """By map, the network's level behind each published quantile."""
        if not due.calibration_id or self._decisions is None:
            return {}
        maps = self._decisions.maps(due.calibration_id)
        return {number: one.levels for number, one in enumerate(maps, 1) if one.levels}

    def _actuals(self, item_ids: list[str], bucket_ms: int) -> dict[str, Actual]:
        # Without a row, an item that is held sold nothing.
        item_ids = [item_id for item_id in item_ids if self._holds(item_id)]
        if not item_ids:
            return {}
        units_I1, in_stock_I1 = self.contexts.actuals(item_ids, bucket_ms, 1)
        units, in_stock = units_I1[:, 0].tolist(), in_stock_I1[:, 0].tolist()
        promoted = self._promoted(item_ids, bucket_ms)
        found = map(Actual, units, in_stock, self._segments(item_ids), promoted)
        actuals = zip(item_ids, found, strict=True)
        return {item_id: actual for item_id, actual in actuals if isfinite(actual.units)}

    def _naive(self, due: Due) -> Floats:
        """The yardstick's quantiles for one step: [I, Q], NaN without history.

        It sees what the forecast saw: the history before the same cutoff.
        """
        naive_IQ = np.full((len(due.item_ids), len(due.quantile_levels)), np.nan)
        found = [self.contexts.reader.row(item_id) for item_id in due.item_ids]
        known_I = np.array([row is not None for row in found], bool)
        rows = np.array([row for row in found if row is not None], np.int64)
        if len(rows):
            history_BT = self.contexts.target(rows, due.cutoff_ms, self.contexts.context_length)
            levels_Q = np.array(due.quantile_levels)
            naive_BHQ = seasonal_naive(history_BT, due.step, self._season_length, levels_Q)
            naive_IQ[known_I] = naive_BHQ[:, due.step - 1]
        return naive_IQ

    def _promoted(self, item_ids: list[str], bucket_ms: int) -> list[bool]:
        grid = self.contexts.grid
        span = BucketSpan.between([bucket_ms, grid.end_ms(grid.bucket(bucket_ms))])
        known_I1K = self.contexts.shop.known(item_ids, span)
        promoted_I = known_I1K[:, 0, PROMOTION] > 0
        return [bool(promoted) for promoted in promoted_I]
