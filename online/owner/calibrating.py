"""At which levels of the network quantiles are served: learnt from all scores, decided once a day.

What it knows follows from the scores alone, in whatever order those of a bucket come. It is kept
with what the owner knows of drift, and its decisions are written in the same transaction.

Dimensions: S segments, K bands of steps, C classes of volume, R scored steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from freshet.online.adjust.decision import ALL, KEPT_MS
from freshet.online.adjust.evidence import OF_SHOP, OWN, SHOP, Evidence
from freshet.online.drift.pooled import of_most, serving_versions
from freshet.stream.arrays import Floats, Ints
from freshet.stream.schemas import WIRE_LEVELS, CalibrationDecision, QuantileMap, Score
from freshet.stream.units import DAY_MS

# By the network's .9 quantile: below one unit most buckets sell none; where many are sold the
# steps between counts matter no more.
VOLUMES = (1.0, 4.0, 16.0)
MAX_SEGMENTS = 512  # with evidence of their own; others are served as the shop is
MAX_MAPS = 2_048  # of one decision
# Weights that begin to serve were begun from those before, so what these needed is half believed.
HELD_OVER = 0.5
AXIS = {
    "counts": 0,
    "today": 0,
    "gain_today": 1,
    "gain": 1,
    "square": 1,
    "serving": 0,
}
"""Where each part of the evidence has its segments."""


class Calibrator:
    """The evidence of one resolution, and what follows from it.

    Args:
        score_steps: The steps that are scored: each ends a band, the last one goes on to the end.
        resolution_ms: Of the forecasts.
    """

    def __init__(self, score_steps: Sequence[int], resolution_ms: int) -> None:
        self._ends = sorted(set(score_steps))
        self._resolution_ms = resolution_ms
        self._day_ms = max(DAY_MS, resolution_ms)
        self._rows = {ALL: SHOP}
        self._versions = [""]
        self._day = -1
        self._told: list[tuple[str, int]] = []
        self._evidence = Evidence.none(1, len(self._ends), len(VOLUMES) + 1)
        self._maps = self._evidence.maps()

    def take(
        self, bucket_ms: int, scores: Sequence[Score], *, left_out: Collection[str], now_ms: int
    ) -> CalibrationDecision | None:
        """Take the scores of one bucket; where it begins a day, what the days before it decide.

        Args:
            bucket_ms: Its start; buckets come in rising order.
            scores: Of forecasts without adjustments for a drift.
            left_out: Segments that say nothing, since they are in alarm.
            now_ms: When the last of the scores was made: no round began before it that might be
                served by this decision.
        """
        day = bucket_ms // self._day_ms
        decided = None
        if day > self._day:
            decided = self._decided(now_ms) if self._day >= 0 else None
            self._day = day
        row_R, step_R, high_R, pit_R = self._heard(scores, left_out)
        band_R = np.minimum(np.searchsorted(self._ends, step_R), len(self._ends) - 1)
        volume_R = np.searchsorted(VOLUMES, high_R, side="right")
        self._evidence.take((row_R, band_R, volume_R), pit_R, self._maps)
        return decided

    # Hear -----------------------------------------------------------------------------------------

    def _heard(
        self, scores: Sequence[Score], left_out: Collection[str]
    ) -> tuple[Ints, Ints, Floats, Floats]:
        """Steps of the versions that serve, of items that could sell what was asked for.

        Of each the row of its segment, the step, the network's .9 quantile, and the PIT.
        """
        by_segment: dict[str, list[Score]] = {}
        for score in sorted(scores, key=lambda score: score.item_id):
            by_segment.setdefault(score.segment, []).append(score)
        versions = serving_versions(scores, self._known())
        self._follow(SHOP, of_most(versions))
        heard: list[tuple[int, int, float, float]] = []
        for segment in sorted(by_segment):
            row = None if segment in left_out else self._row(segment)
            if row is not None:
                version = versions.get(segment, "")
                self._follow(row, version)
                heard += _told(row, by_segment[segment], version)
        columns = list(zip(*heard, strict=True)) or [(), (), (), ()]
        whole = [np.array(column, np.int64) for column in columns[:2]]
        row_R, step_R = whole
        high_R, pit_R = (np.array(column, np.float64) for column in columns[2:])
        return row_R, step_R, high_R, pit_R

    def _known(self) -> dict[str, str]:
        """What served each segment that was heard of."""
        of_rows = ((name, self._versions[row]) for name, row in self._rows.items() if row != SHOP)
        return {name: version for name, version in of_rows if version}

    def _row(self, segment: str) -> int | None:
        """Of a segment; a new one gets the next, as long as there are some."""
        if segment in self._rows:
            return self._rows[segment] or None
        if len(self._rows) > MAX_SEGMENTS:
            return None
        self._rows[segment] = len(self._rows)
        self._versions.append("")
        one = Evidence.none(1, *self._evidence.serving.shape[1:])
        for name, axis in AXIS.items():
            both = (getattr(self._evidence, name), getattr(one, name))
            setattr(self._evidence, name, np.concatenate(both, axis))
        # Of whom nothing is known yet, the shop's map is the best guess.
        self._maps = np.concatenate([self._maps, self._maps[:1]])
        return self._rows[segment]

    def _follow(self, row: int, version: str) -> None:
        before = self._versions[row]
        self._versions[row] = version or before
        if before and version and version != before:
            self._evidence.loosen(row, HELD_OVER)
            self._maps = self._evidence.maps()

    # Decide ---------------------------------------------------------------------------------------

    def _decided(self, now_ms: int) -> CalibrationDecision | None:
        """The day that is over counts from now on; None: nothing is served differently, as before.

        A round that begins before everybody may have read it is not served by it.
        """
        before = self._evidence.serving.any()
        self._evidence.end_day()
        self._maps = self._evidence.maps()
        if not before and not self._evidence.serving.any():
            return None
        width_ms = self._resolution_ms
        return CalibrationDecision(
            resolution_ms=width_ms,
            as_of_ms=(now_ms // width_ms + 1) * width_ms,
            quantile_levels=list(WIRE_LEVELS),
            maps=list(self._all_maps())[:MAX_MAPS],
        )

    def _all_maps(self) -> Iterator[QuantileMap]:
        """Of the shop first, then of each segment that is served otherwise."""
        serving, as_shop = self._evidence.serving, self._evidence.as_shop()
        certainty = self._evidence.certainty()
        for row, band, volume in np.argwhere(serving).tolist():
            levels = self._maps[row, band, volume].tolist()
            yield self._map(row, band, volume, levels, certainty[OWN, row, band, volume])
        objects = serving[SHOP] & ~serving & ~as_shop
        for row, band, volume in np.argwhere(objects).tolist():
            yield self._map(row, band, volume, [], certainty[OF_SHOP, row, band, volume])

    def _map(
        self, row: int, band: int, volume: int, levels: list[float], certainty: float
    ) -> QuantileMap:
        edges = [0.0, *VOLUMES, None]
        last = band == len(self._ends) - 1
        return QuantileMap(
            segment=list(self._rows)[row],
            first_step=1 if band == 0 else self._ends[band - 1] + 1,
            last_step=None if last else self._ends[band],
            from_units=edges[volume] or 0.0,
            below_units=edges[volume + 1],
            levels=levels,
            certainty=round(float(certainty), 2),
        )

    # Keep -----------------------------------------------------------------------------------------

    def told(self, name: str, as_of_ms: int) -> list[str]:
        """A decision goes out; those that no forecast needs any more."""
        stale = [old for old, at_ms in self._told if at_ms < as_of_ms - KEPT_MS]
        self._told = [one for one in self._told if one[0] not in stale] + [(name, as_of_ms)]
        return stale

    def state(self) -> dict[str, Any]:
        """Everything it knows, as numbers and arrays."""
        return {
            "names": list(self._rows),
            "versions": self._versions,
            "day": self._day,
            "told": [list(one) for one in self._told],
        } | {name: getattr(self._evidence, name) for name in AXIS}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another one's state.

        Raises:
            ValueError, KeyError, TypeError: It is of other bands or classes, or no state.
        """
        names = list(state["names"])
        like = Evidence.none(len(names), *self._evidence.serving.shape[1:])
        found = {name: np.array(state[name]) for name in AXIS}
        for name, value in found.items():
            expected = getattr(like, name).shape
            if value.shape != expected:
                raise ValueError(f"{name} is {value.shape}, expected {expected}")
        self._rows = {str(name): row for row, name in enumerate(names)}
        self._versions = [str(version) for version in state["versions"]]
        self._day = int(state["day"])
        self._told = [(str(name), int(at_ms)) for name, at_ms in state["told"]]
        self._evidence = Evidence(**found)
        self._maps = self._evidence.maps()


def _told(
    row: int, scores: Iterable[Score], version: str
) -> Iterator[tuple[int, int, float, float]]:
    for score in scores:
        if score.promoted or not score.in_stock:
            continue
        for step in score.steps:
            # Version 1 did not say how much the network forecast at most.
            if step.weights_version == version and step.high is not None:
                pit = step.pit if step.network is None else step.network.pit
                yield row, step.step, step.high, pit
