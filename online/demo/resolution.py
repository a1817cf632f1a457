"""Counts of one resolution of a demo: how often each forecast was made, and what it was worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from freshet.stream.arrays import Floats
from freshet.stream.schemas import ForecastRound, ScoredStep
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

LOW, HIGH = 0.1, 0.9
MAX_LATENCIES = 200_000
MAX_KNOWN = 20_000  # cutoffs, rounds, buckets that are remembered; a week of minutes is 10,080
PLURALS = {SECOND_MS: "seconds", MINUTE_MS: "minutes", HOUR_MS: "hours", DAY_MS: "days"}


class ForecastHead(msgspec.Struct):
    """The fields of a forecast that are counted; the quantiles are not even decoded."""

    forecast_id: str
    item_id: str
    resolution_ms: int
    cutoff_ms: int
    issued_at_ms: int
    weights_version: str
    status: str


def plural(resolution_ms: int) -> str:
    """What people call buckets of a width.

    >>> plural(3_600_000), plural(900_000)
    ('hours', 'steps of 900,000 ms')
    """
    return PLURALS.get(resolution_ms, f"steps of {resolution_ms:,} ms")


@dataclass(slots=True)
class ResolutionTally:
    """Running counts of one resolution.

    Attributes:
        published: Forecasts.
        repeated: Of them those of an item and cutoff that had one already.
        begun, complete: Rounds of a shard at a cutoff, and of them those that were finished.
        covered: Scored steps whose 80 % interval held the actual.
        inside: Of the PITs, which chance spreads over a count's probability, those from .1 to .9:
            as served, and as the network forecast.
        matured: Scored steps.
    """

    resolution_ms: int
    published: int = 0
    repeated: int = 0
    begun: int = 0
    complete: int = 0
    covered: int = 0
    inside: list[int] = field(default_factory=lambda: [0, 0])
    matured: int = 0
    _first_ms: int | None = None
    _num_cutoffs: int = 0
    _newest_ms: int = 0
    _items: dict[int, set[str]] = field(default_factory=dict)
    _latencies_ms: list[float] = field(default_factory=list)
    _rounds: dict[tuple[int, int], bool] = field(default_factory=dict)
    _skipped: dict[int, int] = field(default_factory=dict)
    _losses: Floats = field(default_factory=lambda: np.zeros(3))
    _recent: dict[int, Floats] = field(default_factory=dict)

    def forecast(self, head: ForecastHead, speed: float) -> None:
        """Count a forecast; `speed` turns differences of the clock into waiting time."""
        self.published += 1
        items = self._items_at(head.cutoff_ms)
        self.repeated += head.item_id in items
        items.add(head.item_id)
        if len(self._latencies_ms) < MAX_LATENCIES:
            self._latencies_ms.append((head.issued_at_ms - head.cutoff_ms) / speed)

    def _items_at(self, cutoff_ms: int) -> set[str]:
        items = self._items.get(cutoff_ms)
        if items is None:
            items = self._items[cutoff_ms] = set()
            self._num_cutoffs += 1
            self._first_ms = min(cutoff_ms, self._first_ms or cutoff_ms)
            self._newest_ms = max(cutoff_ms, self._newest_ms)
            _forget_oldest(self._items)
        return items

    def round(self, told: ForecastRound) -> None:
        """Count a shard's round; a later record of the same cutoff takes its place."""
        key = (told.shard, told.cutoff_ms)
        before = self._rounds.get(key)
        if before is None:
            self.begun += 1
            self._skipped[told.shard] = self._skipped.get(told.shard, 0) + told.skipped
        self.complete += told.complete and not before
        self._rounds[key] = told.complete or bool(before)
        _forget_oldest(self._rounds)

    def step(self, bucket_ms: int, actual: float, step: ScoredStep) -> None:
        """Count a scored step."""
        self.matured += 1
        self.covered += step.covered_80
        network = step if step.network is None else step.network
        for place, pit in enumerate((step.pit, network.pit)):
            self.inside[place] += LOW <= pit <= HIGH
        # Seasonal naive needs a season of history; only steps that have both compare the two.
        if step.seasonal_naive_pinball is not None:
            row = np.array([step.pinball, step.seasonal_naive_pinball, actual])
            self._losses += row
            bucket = self._recent.setdefault(bucket_ms, np.zeros(3))
            bucket += row
            _forget_oldest(self._recent)

    def wql(self, newest_buckets: int | None = None) -> tuple[float, float] | None:
        """(served, seasonal naive) weighted quantile loss, over the steps that both could forecast.

        Args:
            newest_buckets: Only the newest so many scored buckets; None is all of them.
        """
        losses = self._losses
        if newest_buckets is not None:
            newest = sorted(self._recent)[-newest_buckets:]
            losses = sum((self._recent[start_ms] for start_ms in newest), np.zeros(3))
        served, naive, actual = losses
        return (float(served / actual), float(naive / actual)) if actual else None

    def forecast_section(self) -> dict[str, Any]:
        """What was published.

        `skipped` is of the shard that named most cutoffs as skipped.
        """
        p50 = p99 = None
        if self._latencies_ms:
            p50, p99 = np.percentile(self._latencies_ms, (50, 99)).tolist()
        return {
            "published": self.published,
            "repeated": self.repeated,
            "cutoffs": self._num_cutoffs,
            "rounds": {"complete": self.complete, "incomplete": self.begun - self.complete},
            "skipped": max(self._skipped.values(), default=0),
            "latency_ms": {"p50": p50, "p99": p99},
        }

    def score_section(self) -> dict[str, Any]:
        """What it was worth."""
        served, naive = self.wql() or (None, None)
        return {
            "matured": self.matured,
            "wql": served,
            "seasonal_naive_wql": naive,
            "coverage_80": self.covered / self.matured if self.matured else None,
            "randomised_80": self.inside[0] / self.matured if self.matured else None,
            "randomised_80_of_network": self.inside[1] / self.matured if self.matured else None,
        }

    def missing_cutoffs(self) -> int:
        """Cutoffs between the first and the last that have no forecast.

        >>> tally = ResolutionTally(10)
        >>> _ = [tally._items_at(cutoff_ms) for cutoff_ms in (100, 130)]
        >>> tally.missing_cutoffs()
        2
        """
        if self._first_ms is None:
            return 0
        # Where clocks change a day is an hour longer or shorter.
        steps = round((self._newest_ms - self._first_ms) / self.resolution_ms)
        return steps + 1 - self._num_cutoffs


def _forget_oldest(known: dict[Any, Any]) -> None:
    """Drop what was remembered first where it is too much."""
    if len(known) > MAX_KNOWN:
        del known[next(iter(known))]
