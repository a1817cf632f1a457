"""Scores of forecasts that were adjusted for a drift, beside what would have been served."""

from __future__ import annotations

from dataclasses import dataclass

from freshet.stream.schemas import Score

MAX_BUCKETS = 24 * 21
MAX_SEGMENTS = 64


@dataclass(slots=True)
class ServedBucket:
    """Loss of forecasts that were served differently, and of what would have been served."""

    served: float = 0.0
    shadow: float = 0.0
    steps: int = 0


class ServedApart:
    """Scores of forecasts that were adjusted for a drift, by segment and bucket start; bounded."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[int, ServedBucket]] = {}
        self._newest: dict[str, tuple[int, str]] = {}
        self._scored: dict[str, int] = {}

    def take(self, score: Score) -> None:
        """Count a score that was not counted before."""
        start_ms, segment = score.bucket_start_ms, score.segment
        if segment in self._scored or any(step.adjusted for step in score.steps):
            self._scored[segment] = max(self._scored.get(segment, 0), start_ms)
        besides = {step.step: step.pinball for step in score.unadjusted}
        for step in score.steps:
            if step.adjusted and step.step in besides:
                bucket = self._of(segment).setdefault(start_ms, ServedBucket())
                bucket.served += step.pinball
                bucket.shadow += besides[step.step]
                bucket.steps += 1
                newest = self._newest.get(segment, (0, ""))
                self._newest[segment] = max(newest, (start_ms, score.item_id))

    def since(self, segment: str, from_ms: int) -> dict[int, ServedBucket]:
        """The buckets of a segment that start then or later."""
        known = self._buckets.get(segment, {})
        return {start_ms: known[start_ms] for start_ms in sorted(known) if start_ms >= from_ms}

    def newest_item(self, segment: str) -> str:
        """An item of the segment that was served differently lately, or nothing."""
        return self._newest.get(segment, (0, ""))[1]

    def ended(self, segment: str) -> bool:
        """Whether the newest scored bucket had nothing that was served differently."""
        return self._scored.get(segment, 0) > self._newest.get(segment, (0, ""))[0]

    def _of(self, segment: str) -> dict[int, ServedBucket]:
        buckets = self._buckets.pop(segment, {})
        if len(self._buckets) >= MAX_SEGMENTS:
            longest_ago = next(iter(self._buckets))
            for known in (self._buckets, self._newest, self._scored):
                known.pop(longest_ago, None)
        self._buckets[segment] = buckets
        if len(buckets) >= MAX_BUCKETS:
            del buckets[min(buckets)]
        return buckets
