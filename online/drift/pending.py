"""Which steps of which forecasts still wait for their bucket to become final.

Dimensions: I items, K scored steps, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Bools, Ints, Singles
from freshet.stream.config import UTC
from freshet.stream.store.grid import Grid
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """The scored steps of forecasts that share cutoff and weights.

    Attributes:
        cutoff_ms: Step s (from 1) is about the bucket `s - 1` buckets after the one it begins.
        weights_version: Who made them.
        quantile_levels: The published probabilities, rising.
        item_ids: I items.
        forecast_ids: I ids, as published.
        quantiles_IKQ: The published, rounded values for the steps that are scored.
        adjusted_I: Which were served differently because their segment drifts; None: none of them.
        calibration_id: The decision by whose maps steps were served at other levels of the network.
        maps_IK: Which of its maps, from 1 on; 0 is none. None: none of them.
    """

    cutoff_ms: int
    weights_version: str
    quantile_levels: tuple[float, ...]
    item_ids: list[str]
    forecast_ids: list[str]
    quantiles_IKQ: Singles
    adjusted_I: Bools | None = None
    calibration_id: str = ""
    maps_IK: Ints | None = None

    def rows(self, rows: list[int]) -> Issued:
        """The same of some items."""
        return Issued(
            self.cutoff_ms,
            self.weights_version,
            self.quantile_levels,
            [self.item_ids[row] for row in rows],
            [self.forecast_ids[row] for row in rows],
            self.quantiles_IKQ[rows],
            None if self.adjusted_I is None else self.adjusted_I[rows],
            self.calibration_id,
            None if self.maps_IK is None else self.maps_IK[rows],
        )


@dataclass(frozen=True, slots=True)
class Due:
    """One step of some forecasts of one cutoff, to be scored on one bucket."""

    step: int
    cutoff_ms: int
    weights_version: str
    quantile_levels: tuple[float, ...]
    item_ids: list[str]
    forecast_ids: list[str]
    quantiles_IQ: Singles
    adjusted_I: Bools | None = None
    calibration_id: str = ""
    maps_I: Ints | None = None


@dataclass(slots=True)
class _Block:
    """What was added at once, and which of its steps are still open."""

    issued: Issued
    open_IK: Bools

    def due(self, step: int, column: int) -> Due | None:
        """The open rows of one scored step, None without any."""
        rows = np.flatnonzero(self.open_IK[:, column]).tolist()
        if not rows:
            return None
        part = self.issued.rows(rows)
        return Due(
            step,
            part.cutoff_ms,
            part.weights_version,
            part.quantile_levels,
            part.item_ids,
            part.forecast_ids,
            part.quantiles_IKQ[:, column],
            part.adjusted_I,
            part.calibration_id,
            None if part.maps_IK is None else part.maps_IK[:, column],
        )


class PendingForecasts:
    """Forecast steps that wait for their bucket to become final; each leaves exactly once.

    Args:
        score_steps: Steps ahead that are scored, from 1.
        resolution_ms: Length of a bucket.
        max_cutoffs: Beyond it the oldest cutoff is dropped unscored, with a warning.
        time_zone: Whose midnights begin the buckets of a day.
    """

    def __init__(
        self,
        score_steps: tuple[int, ...],
        resolution_ms: int,
        max_cutoffs: int,
        *,
        time_zone: str = UTC,
    ) -> None:
        self.score_steps = tuple(sorted(set(score_steps)))
        self.resolution_ms = resolution_ms
        self.grid = Grid(resolution_ms, time_zone)
        self.max_cutoffs = max_cutoffs
        self._blocks: dict[int, list[_Block]] = {}
        # Where a forecast id stands: its block and the row in it.
        self._places: dict[str, tuple[_Block, int]] = {}
        # Items by cutoff, so that a forecast made twice waits once.
        self._made: dict[int, set[str]] = {}

    @property
    def cutoffs(self) -> list[int]:
        """Cutoffs with open steps, oldest first."""
        return sorted(self._blocks)

    def items_at(self, cutoff_ms: int) -> set[str]:
        """Items with a forecast at a cutoff that still has open steps."""
        return set(self._made.get(cutoff_ms, ()))

    def add(self, issued: Issued) -> None:
        """Keep these until scored; of several for one item and cutoff the first wins."""
        new = self._new_rows(issued)
        if not new:
            return
        if len(new) < len(issued.item_ids):
            issued = issued.rows(new)
        block = _Block(issued, np.ones(issued.quantiles_IKQ.shape[:2], bool))
        self._blocks.setdefault(issued.cutoff_ms, []).append(block)
        for row, forecast_id in enumerate(issued.forecast_ids):
            self._places[forecast_id] = (block, row)
        while len(self._blocks) > self.max_cutoffs:
            self._drop_oldest()

    def close(self, forecast_id: str, step: int) -> None:
        """This step was scored before (by the process that ran here earlier)."""
        if forecast_id in self._places and step in self.score_steps:
            block, row = self._places[forecast_id]
            block.open_IK[row, self.score_steps.index(step)] = False

    def due_buckets(self, final_ms: int | None) -> list[int]:
        """Starts of the buckets, oldest first, that are final and have an open step."""
        if final_ms is None:
            return []
        due = set()
        for cutoff_ms, blocks in self._blocks.items():
            for column, step in enumerate(self.score_steps):
                bucket = self.grid.bucket(cutoff_ms) + step - 1
                final = self.grid.end_ms(bucket) <= final_ms
                if final and any(block.open_IK[:, column].any() for block in blocks):
                    due.add(self.grid.start_ms(bucket))
        return sorted(due)

    def due(self, bucket_ms: int) -> list[Due]:
        """The open steps about one bucket; they stay open until `close_bucket`."""
        found = []
        for column, step in enumerate(self.score_steps):
            for block in self._blocks.get(self._cutoff_ms(bucket_ms, step), []):
                due = block.due(step, column)
                if due is not None:
                    found.append(due)
        return found

    def close_bucket(self, bucket_ms: int) -> None:
        """Every step about this bucket is done, scored or not; cutoffs without open steps go."""
        for column, step in enumerate(self.score_steps):
            for block in self._blocks.get(self._cutoff_ms(bucket_ms, step), []):
                block.open_IK[:, column] = False
        for cutoff_ms, blocks in list(self._blocks.items()):
            if not any(block.open_IK.any() for block in blocks):
                self._forget(cutoff_ms)

    def _cutoff_ms(self, bucket_ms: int, step: int) -> int:
        """The cutoff whose step this bucket is."""
        return self.grid.start_ms(self.grid.bucket(bucket_ms) - (step - 1))

    def _new_rows(self, issued: Issued) -> list[int]:
        """Rows whose item has no forecast of this cutoff yet; they count as made."""
        made = self._made.setdefault(issued.cutoff_ms, set())
        new = []
        for row, item_id in enumerate(issued.item_ids):
            if item_id not in made:
                made.add(item_id)
                new.append(row)
        return new

    def _drop_oldest(self) -> None:
        oldest_ms = min(self._blocks)
        steps = sum(int(block.open_IK.sum()) for block in self._blocks[oldest_ms])
        log.warning("dropped_unscored", cutoff_ms=oldest_ms, steps=steps)
        self._forget(oldest_ms)

    def _forget(self, cutoff_ms: int) -> None:
        self._made.pop(cutoff_ms, None)
        for block in self._blocks.pop(cutoff_ms):
            for forecast_id in block.issued.forecast_ids:
                self._places.pop(forecast_id, None)
