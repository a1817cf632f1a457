"""The owner's decisions, as everybody reads them: how segments in alarm are served and since when,
and at which levels of the network quantiles are served.

A decision is a record of its own, named by the sha256 of its value, and never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from freshet.online.adjust.beginning import Beginning
from freshet.online.adjust.choice import CANDIDATES, Candidate
from freshet.stream.codec import MAX_TIME_MS, decode, encode
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    AdjustmentDecision,
    CalibrationDecision,
    QuantileMap,
    SegmentAdjustment,
)
from freshet.stream.telemetry import get_logger
from freshet.stream.units import DAY_MS

ALL = "all"
"""The alarm of the whole shop: whoever has none of their own is served by it."""
HOLDS_BUCKETS = 24  # without a newer decision nobody decides any more, and all is as it was
KEPT_MS = 35 * DAY_MS
MAX_KEPT = 10_000
CALIBRATION = "calibration:"
"""Begins the key of a decision on levels, so that nobody takes it for the other kind."""

AnyDecision = TypeVar("AnyDecision", AdjustmentDecision, CalibrationDecision)

log = get_logger(__name__)


class Decided(NamedTuple, Generic[AnyDecision]):
    """A decision and its name."""

    sha256: str
    record: AnyDecision


def encoded(record: AdjustmentDecision | CalibrationDecision) -> tuple[str, bytes]:
    """A decision's key, which ends in the sha256 of its value, and the value."""
    value = encode(record)
    name = hashlib.sha256(value).hexdigest()
    return (CALIBRATION + name if isinstance(record, CalibrationDecision) else name), value


class Decisions:
    """What lies on the topic of decisions; one whose key does not name its sha256 is none.

    Args:
        latest_ms: When a record may say that something happened at the latest.
    """

    def __init__(self, latest_ms: Callable[[], int] = lambda: MAX_TIME_MS) -> None:
        self._latest_ms = latest_ms
        self._kept: dict[str, AdjustmentDecision | CalibrationDecision] = {}

    def take(self, key: bytes | None, value: bytes | None, **place: object) -> None:
        """Take in one record, or forget the one under its key; a bad one changes nothing."""
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            self._kept.pop(name, None)
            return
        try:
            record = self._decoded(name, value)
            if name.removeprefix(CALIBRATION) != hashlib.sha256(value).hexdigest():
                raise EventError("its key is not the sha256 of its value")
            if name not in self._kept and len(self._kept) >= MAX_KEPT:
                raise EventError(f"there are {MAX_KEPT} others")
        except EventError as error:
            log.warning("decision_not_read", error=str(error), key=name[:100], **place)
        else:
            self._kept[name] = record

    def _decoded(self, name: str, value: bytes) -> AdjustmentDecision | CalibrationDecision:
        latest_ms = self._latest_ms()
        if name.startswith(CALIBRATION):
            return decode(CalibrationDecision, value, latest_ms=latest_ms)
        return decode(AdjustmentDecision, value, latest_ms=latest_ms)

    def newest(
        self, resolution_ms: int, before_ms: int = MAX_TIME_MS + 1
    ) -> Decided[AdjustmentDecision] | None:
        """The newest on segments that was made before a cutoff, the same for whoever asks when."""
        return self._newest(AdjustmentDecision, resolution_ms, before_ms)

    def newest_maps(
        self, resolution_ms: int, before_ms: int = MAX_TIME_MS + 1
    ) -> Decided[CalibrationDecision] | None:
        """The newest on levels likewise."""
        return self._newest(CalibrationDecision, resolution_ms, before_ms)

    def maps(self, name: str) -> list[QuantileMap]:
        """The maps of a decision on levels; none where it is not known."""
        record = self._kept.get(name)
        return record.maps if isinstance(record, CalibrationDecision) else []

    def _newest(
        self, kind: type[AnyDecision], resolution_ms: int, before_ms: int
    ) -> Decided[AnyDecision] | None:
        found = [
            Decided(name, record)
            for name, record in self._kept.items()
            if isinstance(record, kind)
            and record.resolution_ms == resolution_ms
            and record.as_of_ms < before_ms
        ]
        return max(found, key=lambda one: (one.record.as_of_ms, one.sha256), default=None)

    def stale(self, as_of_ms: int) -> list[str]:
        """Names of those that no forecast younger than five weeks was served by."""
        before_ms = as_of_ms - KEPT_MS
        return [name for name, record in self._kept.items() if record.as_of_ms < before_ms]


@dataclass(eq=False)
class ByDecision:
    """A worker's items, which are served by the decision that is newest before a round.

    Args:
        decisions: What was decided.
        resolution_ms: Of the forecasts.
        segments: The segment of each of some items.
    """

    decisions: Decisions
    resolution_ms: int
    segments: Callable[[Sequence[str]], list[str]]

    def _holding(
        self, newest: Decided[AnyDecision] | None, cutoff_ms: int, holds_buckets: int
    ) -> Decided[AnyDecision] | None:
        """The newest decision; None where it is older than so many buckets."""
        if newest is None:
            return None
        age_ms = cutoff_ms - newest.record.as_of_ms
        return newest if age_ms <= holds_buckets * self.resolution_ms else None


@dataclass(eq=False)
class Adjusted(ByDecision):
    """How items of segments in alarm are served.

    Attributes:
        sha256: The decision that holds; empty where none does.
    """

    sha256: str = field(default="", init=False)
    _by_segment: dict[str, SegmentAdjustment] = field(default_factory=dict, init=False)
    _sample: frozenset[str] = field(default=frozenset(), init=False)

    def begin(self, cutoff_ms: int) -> None:
        """A round begins; what is decided from now on counts for the next one."""
        newest = self.decisions.newest(self.resolution_ms, cutoff_ms)
        decided = self._holding(newest, cutoff_ms, HOLDS_BUCKETS)
        segments = [] if decided is None else decided.record.segments
        self.sha256 = decided.sha256 if decided is not None and segments else ""
        self._by_segment = {one.segment: one for one in segments}
        self._sample = frozenset(item_id for one in segments for item_id in one.sample)

    def of(self, item_ids: Sequence[str]) -> list[Beginning | None]:
        """How each item is served."""
        if all(one.begins_at_ms is None for one in self._by_segment.values()):
            return [None] * len(item_ids)
        return [self._beginning(segment) for segment in self.segments(item_ids)]

    def besides(self, item_ids: Sequence[str]) -> list[str]:
        """Those of some items that are forecast without adjustments besides."""
        beginnings = zip(item_ids, self.of(item_ids), strict=True)
        return [one for one, beginning in beginnings if beginning and one in self._sample]

    def counts(self) -> dict[Candidate, int]:
        """How many segments each adjustment serves."""
        names = [one.how for one in self._by_segment.values()]
        return {name: names.count(name) for name in CANDIDATES if name != "as_it_is"}

    def _beginning(self, segment: str) -> Beginning | None:
        told = self._by_segment.get(segment) or self._by_segment.get(ALL)
        if told is None or told.begins_at_ms is None:
            return None
        return Beginning(told.begins_at_ms, tuple(told.moved))
