"""Where forecasts by the hour and by the day share a cutoff: they say the same of whole days.

Days go first. The first days of items that were seen for a few days only are mixed with what their
hours say of them. The sums over hours then end in the days' sums, as these were published.

Dimensions: B rows, D whole days, K sums over first steps, W wire levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from freshet.model.batch import Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.coherence import mixed, moved_sums, young
from freshet.online.forecast.context import Contexts
from freshet.online.forecast.provenance import context_sha256
from freshet.online.forecast.publish import Numbers, published, significant, wire_columns
from freshet.online.forecast.sums import StepSums
from freshet.stream.arrays import Floats, Ints
from freshet.stream.config import ServedResolution
from freshet.stream.schemas import WIRE_LEVELS, Adjustments, Cumulative, Forecast
from freshet.stream.store.grid import Grid

MAX_DAYS = 4  # whose sums are all among those that are published
MEDIAN = WIRE_LEVELS.index(0.5)


class OfDays(Protocol):
    """What names a forecast by the day."""

    @property
    def forecast_id(self) -> str: ...
    @property
    def item_id(self) -> str: ...
    @property
    def cutoff_ms(self) -> int: ...
    @property
    def quantile_levels(self) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a published forecast by the day says of its first days together."""

    forecast_id: str
    sums_DW: Floats


class DaySums:
    """What the newest forecasts by the day say, by item; those of one cutoff are kept."""

    def __init__(self) -> None:
        self._cutoff_ms = -1
        self._said: dict[str, Said] = {}

    def take(self, record: OfDays, first: list[float], sums: Cumulative | None) -> None:
        """Keep what a record says; of several for one item and cutoff the first counts.

        Args:
            record: Which forecast it is.
            first: Its quantiles of the first day.
            sums: Those of the first days together.
        """
        if sums is None or record.cutoff_ms < self._cutoff_ms:
            return
        if tuple(record.quantile_levels) != WIRE_LEVELS:
            return
        if record.cutoff_ms > self._cutoff_ms:
            self._cutoff_ms = record.cutoff_ms
            self._said.clear()
        if record.item_id in self._said:
            return
        days = [number for number, step in enumerate(sums.steps[:MAX_DAYS], 1) if step == number]
        sums_DW = np.array([first, *sums.quantiles[1 : len(days)]])
        self._said[record.item_id] = Said(record.forecast_id, sums_DW)

    def of(self, item_id: str, cutoff_ms: int) -> Said | None:
        """What was said of an item at a cutoff."""
        return self._said.get(item_id) if cutoff_ms == self._cutoff_ms else None


class Gap:
    """How far medians of days and of the sums over their hours lie apart, over many items."""

    def __init__(self) -> None:
        self.items = 0
        self._apart = self._units = 0.0

    def add(self, hours_BD: Floats, days_BD: Floats) -> None:
        """Hold sums over the first whole days against each other."""
        self.items += len(days_BD)
        self._apart += float(np.abs(hours_BD - days_BD).sum())
        self._units += float(days_BD.sum())

    @property
    def wape(self) -> float:
        """Summed distance over the summed medians of the days; NaN where nothing was compared.

        >>> gap = Gap()
        >>> gap.add(np.array([[9.0, 21.0]]), np.array([[10.0, 20.0]]))
        >>> round(gap.wape, 3)
        0.067
        """
        if not self.items:
            return float("nan")
        return self._apart / self._units if self._units else float(self._apart > 0)


class FollowsDays:
    """A round by the hour: its sums over whole days are those that the days' forecasts said.

    Args:
        day_sums: What they said.
        cutoff_ms: Of the round; a midnight.
        ends: After how many steps the first whole days end.

    Attributes:
        forecast: How far both lay apart as the network forecast them.
        published: How far they lie apart as published.
    """

    def __init__(self, day_sums: DaySums, cutoff_ms: int, ends: Sequence[int]) -> None:
        self.ends = list(ends)
        self.forecast, self.published = Gap(), Gap()
        self._day_sums, self._cutoff_ms = day_sums, cutoff_ms

    def agreed(
        self, item_ids: Sequence[str], batch: Batch, numbers: Numbers, forecaster: BatchForecaster
    ) -> Numbers:
        """The numbers of a micro-batch, with the days' sums where days were said."""
        del batch, forecaster
        found = {row: said for row, item_id in enumerate(item_ids) if (said := self._of(item_id))}
        if not found:
            return numbers
        rows = list(found)
        goal_BDW = np.stack([said.sums_DW[: len(self.ends)] for said in found.values()])
        at_D = [numbers.sum_steps.index(end) for end in self.ends]
        self.forecast.add(numbers.sums_BKW[rows][:, at_D, MEDIAN], goal_BDW[..., MEDIAN])
        sums_BKW = numbers.sums_BKW.copy()
        moved_BKW = moved_sums(sums_BKW[rows], numbers.sum_steps, self.ends, goal_BDW)
        sums_BKW[rows] = significant(moved_BKW)
        adjusted = {row: Adjustments(sums_from=said.forecast_id) for row, said in found.items()}
        return numbers._replace(sums_BKW=sums_BKW, adjustments=adjusted)

    def count(self, records: Iterable[Forecast]) -> None:
        """Hold published records against the days'."""
        for record in records:
            said, sums = self._of(record.item_id), record.cumulative
            if said is None or sums is None:
                continue
            quantiles = [sums.quantiles[sums.steps.index(end)] for end in self.ends]
            hours_1D = np.array(quantiles)[None, :, MEDIAN]
            self.published.add(hours_1D, said.sums_DW[None, : len(self.ends), MEDIAN])

    def gaps(self) -> dict[str, float]:
        """Both distances, where anything was compared."""
        found = {"published": self.published, "forecast": self.forecast}
        return {name: gap.wape for name, gap in found.items() if gap.items}

    def _of(self, item_id: str) -> Said | None:
        said = self._day_sums.of(item_id, self._cutoff_ms)
        return said if said is not None and len(said.sums_DW) >= len(self.ends) else None


@dataclass(frozen=True, slots=True)
class Hours:
    """What makes forecasts of the hours that follow a round of days.

    Attributes:
        contexts: They cover the round's cutoff.
        sums: How their steps move together.
        ends: After how many steps the first whole days end.
    """

    contexts: Contexts
    sums: StepSums
    ends: list[int]

    def sums_over_days(self, batch: Batch, forecaster: BatchForecaster) -> Floats:
        """What hours say of the first whole days together: [B, D, W]."""
        levels = forecaster.quantile_levels
        steps_BHQ = forecaster.forecast(batch)
        sums_BDQ = self.sums.quantiles(batch.target_BT, steps_BHQ, levels, steps=self.ends)
        return published(sums_BDQ, wire_columns(levels))


class LeadsHours:
    """A round by the day, before that of the same hours.

    Args:
        cutoff_ms: Of the round.
        hours: None where they have not come so far.
    """

    ends: Sequence[int] = ()

    def gaps(self) -> dict[str, float]:
        """None: the hours that follow tell them."""
        return {}

    def __init__(self, cutoff_ms: int, hours: Hours | None) -> None:
        self._cutoff_ms, self._hours = cutoff_ms, hours

    def agreed(
        self, item_ids: Sequence[str], batch: Batch, numbers: Numbers, forecaster: BatchForecaster
    ) -> Numbers:
        """The numbers of a micro-batch; the first days of young items are mixed with their hours.

        Sums begin with the first day's own quantiles, and none is less than those.
        """
        sums_BKW = numbers.sums_BKW.copy()
        sums_BKW[:, 0] = numbers.steps_BHW[:, 0]
        numbers = numbers._replace(sums_BKW=np.maximum.accumulate(sums_BKW, 1))
        if self._hours is None:
            return numbers
        seen_B = torch.isfinite(batch.target_BT).sum(1).cpu().numpy()
        row_of = self._hours.contexts.reader.row
        found = {row: row_of(item_ids[row]) for row in np.flatnonzero(young(seen_B)).tolist()}
        hours_row = {row: other for row, other in found.items() if other is not None}
        if not hours_row:
            return numbers
        batch = self._hours.contexts.batch(list(hours_row.values()), self._cutoff_ms)
        of_hours_BDW = self._hours.sums_over_days(batch, forecaster)
        adjusted = {
            row: Adjustments(mixed_with=sha256)
            for row, sha256 in zip(hours_row, context_sha256(batch), strict=True)
        }
        mixed_days = self._mixed(list(hours_row), of_hours_BDW, seen_B, numbers)
        return mixed_days._replace(adjustments=adjusted)

    def _mixed(
        self, rows: list[int], of_hours_BDW: Floats, seen_B: Ints, numbers: Numbers
    ) -> Numbers:
        """With the first days of these rows mixed with what their hours say of them."""
        D = of_hours_BDW.shape[1]
        goal_BDW = significant(mixed(numbers.sums_BKW[rows, :D], of_hours_BDW, seen_B[rows]))
        steps_BHW, sums_BKW = numbers.steps_BHW.copy(), numbers.sums_BKW.copy()
        steps_BHW[rows, 0] = goal_BDW[:, 0]
        days = list(range(1, D + 1))
        sums_BKW[rows] = significant(moved_sums(sums_BKW[rows], numbers.sum_steps, days, goal_BDW))
        return numbers._replace(steps_BHW=steps_BHW, sums_BKW=sums_BKW)


def whole_day_ends(cutoff_ms: int, days: Grid, hours: ServedResolution, most: int) -> list[int]:
    """After how many steps of a forecast the first whole days end; none where no day begins.

    >>> from freshet.stream.settings import BY_HOUR
    >>> from freshet.stream.units import DAY_MS
    >>> midnight = 1_774_738_800_000  # in Berlin, on the day on which clocks go forward
    >>> whole_day_ends(midnight, Grid(DAY_MS, "Europe/Berlin"), BY_HOUR, 35)
    [23, 47]
    """
    first = days.bucket(cutoff_ms)
    if days.start_ms(first) != cutoff_ms:
        return []
    ends: list[int] = []
    for edge_ms in days.span_edges(first, min(most, MAX_DAYS)).tolist()[1:]:
        step, rest_ms = divmod(edge_ms - cutoff_ms, hours.resolution_ms)
        # A day that the zone skipped has no hours, and one of 23 1/2 no whole number of them.
        if rest_ms or step > hours.prediction_length or step == (ends or [0])[-1]:
            break
        ends.append(step)
    return ends
