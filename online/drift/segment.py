"""Alarms of one segment: its two streams in, what begins and what ends out."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

from freshet.online.drift.baseline import STABLE_BUCKETS
from freshet.online.drift.detectors import Finding, StreamDetector
from freshet.online.drift.pooled import PooledStatistics
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftKind
from freshet.stream.units import DAY_MS, HOUR_MS

# Three buckets in which nothing sold though 9 units were forecast: Poisson sales do so in 1 of
# 8,000 cases, a feed that has stopped always.
SILENT_BUCKETS = 3
SILENT_UNITS = 9.0
# A week of hours: by then the shop is as it is, and what holds on is the new usual.
LONGEST_DRIFT_BUCKETS = 168
# A stream below this tension is at rest.
AT_REST = 0.5


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that holds."""

    alert_id: str
    kind: DriftKind
    onset_ms: int
    size: float
    detector: str


class SegmentDetector:
    """Level and spread of one segment, and the alarms that hold."""

    def __init__(self, segment: str, settings: DriftSettings, resolution_ms: int) -> None:
        self.segment = segment
        self.settings = settings
        phase_of_ms = HOUR_MS if resolution_ms < DAY_MS else DAY_MS
        # The same segment draws the same bootstrap in every process.
        seed = int.from_bytes(hashlib.sha256(segment.encode()).digest()[:4], "big")
        self.level = StreamDetector(settings, phase_of_ms, two_sided=True, seed=seed)
        self.spread = StreamDetector(settings, phase_of_ms, two_sided=False, seed=seed + 1)
        self.active: dict[DriftKind, Alarm] = {}
        self._quiet_buckets = 0
        self._drifting_buckets = 0
        self._recent: deque[PooledStatistics] = deque(maxlen=STABLE_BUCKETS)

    @property
    def tension(self) -> float:
        """0 calm to 1 in alarm."""
        return 1.0 if self.active else self._tension

    @property
    def _tension(self) -> float:
        return max(self.level.tension, self.spread.tension)

    def forget(self) -> None:
        """New weights serve: usual is learnt anew, and an alarm holds until they were quiet."""
        self.level.forget()
        self.spread.forget()
        self._recent.clear()
        self._quiet_buckets = self._drifting_buckets = 0

    def update(self, pooled: PooledStatistics) -> list[tuple[Alarm, bool]]:
        """Take one bucket; returns alarms that begin (True) or end (False) with it."""
        self._recent.append(pooled)
        level, spread = self._look(pooled)
        if level is not None:
            return self._object(self._kind_of(level), level)
        if spread is not None:
            return self._object("spread", spread)
        return self._look_for_calm()

    def percent(self, since_ms: int) -> float | None:
        """Sales since then against the forecasts, beyond what was usual before.

        None where nothing was forecast.
        """
        usual = _ratio([pooled for pooled in self._recent if pooled.bucket_ms < since_ms])
        now = _ratio([pooled for pooled in self._recent if pooled.bucket_ms >= since_ms])
        return None if now is None else 100.0 * (now / (usual or 1.0) - 1.0)

    def _look(self, pooled: PooledStatistics) -> tuple[Finding | None, Finding | None]:
        """What the streams of level and spread object to in this bucket."""
        at_ms, calm = pooled.bucket_ms, not self.active
        level = self.level.update(at_ms, pooled.level, leverage=pooled.leverage, learn=calm)
        spread = self.spread.update(at_ms, pooled.spread, learn=calm and level is None)
        # A shifted level also widens the errors: a spread is news only while the level is at rest.
        if self.active or self.level.tension >= AT_REST:
            spread = None
        return level, spread

    def _object(self, kind: DriftKind, finding: Finding) -> list[tuple[Alarm, bool]]:
        """An alarm holds on; it begins where none of its kind was active."""
        self.level.restart()
        self.spread.restart()
        self._quiet_buckets = 0
        self._drifting_buckets += 1
        if kind in self.active:
            return []
        identity = f"{self.segment}\n{finding.onset_ms}\n{kind}".encode()
        alert_id = hashlib.sha256(identity).hexdigest()[:24]
        alarm = Alarm(alert_id, kind, finding.onset_ms, finding.size, finding.detector)
        self.active[kind] = alarm
        return [(alarm, True)]

    def _kind_of(self, level: Finding) -> DriftKind:
        if self._silent():
            return "data"
        known = self.active.get("level")
        # Up and down within one alarm: not how much is sold has changed, but when.
        return "timing" if known is not None and known.size * level.size < 0 else "level"

    def _silent(self) -> bool:
        newest = list(self._recent)[-SILENT_BUCKETS:]
        expected = sum(pooled.expected for pooled in newest)
        return expected >= SILENT_UNITS and not any(pooled.actual for pooled in newest)

    def _look_for_calm(self) -> list[tuple[Alarm, bool]]:
        if not self.active:
            return []
        self._drifting_buckets += 1
        self._quiet_buckets = self._quiet_buckets + 1 if self._tension < AT_REST else 0
        tired = self._drifting_buckets >= LONGEST_DRIFT_BUCKETS
        if self._quiet_buckets < self.settings.clear_buckets and not tired:
            return []
        ended = [(alarm, False) for alarm in self.active.values()]
        self.active.clear()
        if tired:
            self.forget()
        self._quiet_buckets = self._drifting_buckets = 0
        return ended


def _ratio(buckets: list[PooledStatistics]) -> float | None:
    """Units sold to units forecast, None where none were."""
    expected = sum(pooled.expected for pooled in buckets)
    return sum(pooled.actual for pooled in buckets) / expected if expected > 0 else None
