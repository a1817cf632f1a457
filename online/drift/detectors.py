"""Have the forecasts of a segment stopped being right? Detectors on scored forecasts; the only door
to `river`.

Each segment has two streams, level and spread, standardised by its own baseline. A CUSUM
finds clear shifts within hours, River's ADWIN small ones within days. Settings bound what counts: a
shift below `min_effect` standard deviations, or one that chance explains, is no alarm.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from river.drift import ADWIN

from freshet.online.drift.baseline import (
    STABLE_BUCKETS,
    Baseline,
    Cusum,
    block_noise,
    chance_height,
)
from freshet.online.drift.pooled import (
    Item,
    PooledStatistics,
    items_by_segment,
    pool,
    serving_version,
)
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert, DriftKind, Score
from freshet.stream.units import DAY_MS, HOUR_MS

ALL = "all"
LEVEL_SLACK, LEVEL_HEIGHT = 1.0, 8.0
SPREAD_SLACK, SPREAD_HEIGHT = 1.5, 12.0
# Shops wander by themselves: the level must move by this share of a doubling before it counts as a
# departure.
WANDER = 0.3
CALIBRATION_BUCKETS = 72
RECALIBRATE_BUCKETS = 24
ADWIN_NOISE = 2.5
SUSPICION_BUCKETS = 48  # after ADWIN saw a change, for which it may grow clear
SILENT_BUCKETS = 3
SILENT_UNITS = 9.0
LONGEST_DRIFT_BUCKETS = 168
ACTIONS: dict[DriftKind, str] = {
    "level": "fine-tune on the newest data; if a price, promotion or assortment change "
    "explains it, announce it",
    "spread": "fine-tune on the newest data; until then trust the wide quantiles, not the "
    "narrow ones",
    "timing": "fine-tune on the newest data: the shape of the day has changed",
    "data": "check the order feed of this segment before anything else; do not train on it",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector objects: since when, by how many standard deviations, and which detector it
    was.
    """

    onset_ms: int
    size: float
    detector: str


class StreamDetector:
    """CUSUM (both ways for a level, upwards for a spread) and ADWIN on one stream.

    Args:
        settings: Bounds on what is an alarm.
        phase_of_ms: An hour, or a day for daily buckets.
        two_sided: A level may fall as well as rise.
        seed: Of the calibration's bootstrap.
    """

    def __init__(
        self, settings: DriftSettings, phase_of_ms: int, *, two_sided: bool, seed: int
    ) -> None:
        self.settings, self.seed, self.two_sided = settings, seed, two_sided
        self.slack, self.height = (
            (LEVEL_SLACK, LEVEL_HEIGHT) if two_sided else (SPREAD_SLACK, SPREAD_HEIGHT)
        )
        self.baseline = Baseline(phase_of_ms)
        self._unsettled: deque[tuple[int, float]] = deque()
        self._uncalibrated = self.seen = 0
        self.restart()

    def restart(self) -> None:
        """Begin the sums anew; the baseline stays."""
        self.up, self.down = Cusum(), Cusum()
        self._adwin = _adwin(self.settings)
        self._recent: deque[tuple[int, float]] = deque(maxlen=STABLE_BUCKETS)
        self._unsettled.clear()
        self._suspicion = 0

    def forget(self) -> None:
        """New weights: what is usual is learnt anew."""
        self.baseline.forget()
        self.seen = 0
        self.restart()

    @property
    def tension(self) -> float:
        """How near an alarm is, from 0 to 1."""
        return min(1.0, max(self.up.total, self.down.total) / self.height)

    def update(
        self, bucket_ms: int, value: float, *, leverage: float = 0.0, learn: bool
    ) -> Finding | None:
        """Take one bucket; a finding is returned on each bucket on which it holds.

        Args:
            bucket_ms: Start of the bucket.
            value: The stream's value.
            leverage: What a doubling of sales would add to it.
            learn: The segment is calm, so this may become part of what is usual.
        """
        self.seen += 1
        y = self.baseline.standardise(bucket_ms, value)
        slack = max(self.slack, WANDER * leverage / self.baseline.spread)
        self.up.update(bucket_ms, y, slack=slack)
        if self.two_sided:
            self.down.update(bucket_ms, -y, slack=slack)
        self._suspect(bucket_ms, y)
        finding = self._finding(leverage) if self.seen >= self.settings.min_buckets else None
        if learn and finding is None and not self._suspicion:
            self._settle(bucket_ms, value)
        return finding

    def _suspect(self, bucket_ms: int, y: float) -> None:
        """Feed ADWIN once there is something to compare with; what it doubts is not learnt for a
        while.
        """
        if len(self.baseline) < 2 * self.settings.min_buckets:
            return
        self._adwin.update(y)
        self._recent.append((bucket_ms, y))
        self._suspicion = (
            SUSPICION_BUCKETS if self._adwin.drift_detected else max(self._suspicion - 1, 0)
        )

    def _settle(self, bucket_ms: int, value: float) -> None:
        """A bucket becomes usual once others have followed without an alarm: a shift must not teach
        itself.
        """
        self._unsettled.append((bucket_ms, value))
        wait = 0 if len(self.baseline) < self.settings.min_buckets else self.settings.min_buckets
        while len(self._unsettled) > wait:
            self.baseline.learn(*self._unsettled.popleft())
            self._uncalibrated += 1
        if len(self.baseline) >= CALIBRATION_BUCKETS and self._uncalibrated >= RECALIBRATE_BUCKETS:
            self._uncalibrated = 0
            stable = self.baseline.standardised()
            by_chance = chance_height(
                stable, slack=self.slack, two_sided=self.two_sided, seed=self.seed
            )
            self.height = max(LEVEL_HEIGHT if self.two_sided else SPREAD_HEIGHT, by_chance)

    def _finding(self, leverage: float) -> Finding | None:
        cusum, sign = max(((self.up, 1.0), (self.down, -1.0)), key=lambda pair: pair[0].total)
        if cusum.total > self.height and cusum.mean >= self.settings.min_effect:
            return Finding(cusum.onset_ms, sign * cusum.mean, "cusum")
        return self._adwin_finding(leverage) if self._suspicion else None

    def _adwin_finding(self, leverage: float) -> Finding | None:
        """ADWIN's newest window differs from what came before; believe it if that matters."""
        newest = list(self._recent)[-max(int(self._adwin.width), 1) :]
        mean = float(np.mean([value for _, value in newest]))
        noise = block_noise(self.baseline.standardised(), len(newest))
        least = max(
            self.settings.min_effect, ADWIN_NOISE * noise, WANDER * leverage / self.baseline.spread
        )
        if abs(mean) < least or (mean < 0 and not self.two_sided):
            return None
        return Finding(newest[0][0], mean, "adwin")


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that holds."""

    alert_id: str
    kind: DriftKind
    onset_ms: int
    size: float
    detector: str


class SegmentDetector:
    """Level and spread of one segment, and what is said about them."""

    def __init__(self, segment: str, settings: DriftSettings, resolution_ms: int) -> None:
        self.segment, self.settings = segment, settings
        phase_of_ms = HOUR_MS if resolution_ms < DAY_MS else DAY_MS
        seed = int.from_bytes(hashlib.sha256(segment.encode()).digest()[:4], "big")
        self.level = StreamDetector(settings, phase_of_ms, two_sided=True, seed=seed)
        self.spread = StreamDetector(settings, phase_of_ms, two_sided=False, seed=seed + 1)
        self.active: dict[DriftKind, Alarm] = {}
        self._quiet = self._drifting = 0
        self._recent: deque[PooledStatistics] = deque(maxlen=STABLE_BUCKETS)

    @property
    def score(self) -> float:
        """0 calm to 1 in alarm."""
        return 1.0 if self.active else max(self.level.tension, self.spread.tension)

    def forget(self) -> None:
        """New weights serve: what is usual is learnt anew; an alarm holds until they have been
        quiet.
        """
        self.level.forget()
        self.spread.forget()
        self._recent.clear()
        self._quiet = self._drifting = 0

    def update(self, pooled: PooledStatistics) -> list[tuple[Alarm, bool]]:
        """Take one bucket; returns alarms that begin (True) or end (False) with it."""
        self._recent.append(pooled)
        at_ms, calm = pooled.bucket_ms, not self.active
        level = self.level.update(at_ms, pooled.level, leverage=pooled.leverage, learn=calm)
        spread = self.spread.update(at_ms, pooled.spread, learn=calm and level is None)
        # A shifted level also widens the errors: a spread is news only while the level is at rest.
        if spread is not None and (self.active or self.level.tension >= 0.5):
            spread = None
        finding = level or spread
        if finding is None:
            return self._look_for_calm()
        kind = self._kind_of(finding) if level else "spread"
        self.level.restart()
        self.spread.restart()
        self._quiet, self._drifting = 0, self._drifting + 1
        return [(self._begin(kind, finding), True)] if kind not in self.active else []

    def _kind_of(self, level: Finding) -> DriftKind:
        newest = list(self._recent)[-SILENT_BUCKETS:]
        silent = (
            not any(e.actual for e in newest) and sum(e.expected for e in newest) >= SILENT_UNITS
        )
        if silent:
            return "data"
        known = self.active.get("level")
        # Up and down within one alarm: not how much is sold has changed, but when.
        return "timing" if known is not None and known.size * level.size < 0 else "level"

    def _begin(self, kind: DriftKind, finding: Finding) -> Alarm:
        identity = f"{self.segment}\n{finding.onset_ms}\n{kind}".encode()
        alert_id = hashlib.sha256(identity).hexdigest()[:24]
        alarm = Alarm(alert_id, kind, finding.onset_ms, finding.size, finding.detector)
        self.active[kind] = alarm
        return alarm

    def _look_for_calm(self) -> list[tuple[Alarm, bool]]:
        if not self.active:
            return []
        self._drifting += 1
        at_rest = max(self.level.tension, self.spread.tension) < 0.5
        self._quiet = self._quiet + 1 if at_rest else 0
        tired = self._drifting >= LONGEST_DRIFT_BUCKETS
        if self._quiet < self.settings.clear_buckets and not tired:
            return []
        ended = [(alarm, False) for alarm in self.active.values()]
        self.active.clear()
        if tired:
            self.forget()
        self._quiet = self._drifting = 0
        return ended

    def percent(self, since_ms: int) -> float | None:
        """Sales since then against the forecasts, beyond what was usual before; None where nothing
        was forecast.
        """
        before = [e for e in self._recent if e.bucket_ms < since_ms]
        after = [e for e in self._recent if e.bucket_ms >= since_ms]
        expected, usual_expected = sum(e.expected for e in after), sum(e.expected for e in before)
        if expected <= 0:
            return None
        usual = sum(e.actual for e in before) / usual_expected if usual_expected > 0 else 1.0
        return 100.0 * (sum(e.actual for e in after) / expected / (usual or 1.0) - 1.0)


class DriftMonitor:
    """All segments of a shop, fed with the scores of one final bucket after the other.

    Its state follows from the scores alone, so a restarted worker rebuilds it from the scores
    topic.
    """

    def __init__(self, settings: DriftSettings, resolution_ms: int) -> None:
        self.settings, self.resolution_ms = settings, resolution_ms
        self.segments: dict[str, SegmentDetector] = {}
        self.version = ""
        self._newest_ms = -1

    def tensions(self) -> dict[str, float]:
        """Segment to how near an alarm is: 0 calm to 1 in alarm."""
        return {segment: detector.score for segment, detector in self.segments.items()}

    def update(
        self, bucket_ms: int, scores: list[Score], *, now_ms: int, left_out: Collection[str] = ()
    ) -> list[DriftAlert]:
        """Take all scores of one bucket and return what changed; buckets come in rising order,
        others are ignored.

        Segments in alarm are left out of `all`, which would only repeat them. When other weights
        begin to serve, what is usual is learnt anew.
        """
        if bucket_ms <= self._newest_ms or not scores:
            return []
        self._newest_ms = bucket_ms
        self._follow(serving_version(scores))
        items = items_by_segment(scores, self.version, left_out=left_out)
        changes = [
            change
            for segment in sorted(items)
            for change in self._feed(segment, bucket_ms, items[segment])
        ]
        calm = [
            item
            for segment in sorted(items)
            if not self.segments[segment].active
            for item in items[segment]
        ]
        if len(items) > 1 and calm:
            changes += self._feed(ALL, bucket_ms, calm)
        return [self._alert(detector, alarm, begins, now_ms) for detector, alarm, begins in changes]

    def adopt(self, alert: DriftAlert) -> None:
        """An alarm that was raised before a restart and not ended: it ends when its segment is
        quiet.
        """
        detector = self._detector(alert.segment)
        if alert.state == "drift" and alert.kind not in detector.active:
            known = Alarm(alert.alert_id, alert.kind, alert.onset_ms, alert.size, alert.detector)
            detector.active[alert.kind] = known

    def _follow(self, version: str) -> None:
        if version and version != self.version:
            if self.version:
                for detector in self.segments.values():
                    detector.forget()
            self.version = version

    def _detector(self, segment: str) -> SegmentDetector:
        if segment not in self.segments:
            self.segments[segment] = SegmentDetector(segment, self.settings, self.resolution_ms)
        return self.segments[segment]

    def _feed(
        self, segment: str, bucket_ms: int, items: list[Item]
    ) -> list[tuple[SegmentDetector, Alarm, bool]]:
        detector = self._detector(segment)
        return [(detector, *change) for change in detector.update(pool(bucket_ms, items))]

    def _alert(
        self, detector: SegmentDetector, alarm: Alarm, begins: bool, now_ms: int
    ) -> DriftAlert:
        return DriftAlert(
            alert_id=alarm.alert_id,
            segment=detector.segment,
            state="drift" if begins else "stable",
            kind=alarm.kind,
            detector=alarm.detector,
            detected_at_ms=now_ms,
            onset_ms=alarm.onset_ms,
            size=round(alarm.size, 3),
            weights_version=self.version,
            description=_describe(detector, alarm)
            if begins
            else f"{detector.segment}: forecasts are right again",
            action=ACTIONS[alarm.kind] if begins else "nothing",
        )


def _describe(detector: SegmentDetector, alarm: Alarm) -> str:
    """One sentence for a person."""
    name = "the whole shop" if detector.segment == ALL else detector.segment
    percent = detector.percent(alarm.onset_ms)
    if alarm.kind == "data":
        return (
            f"{name}: nothing was sold in the last {SILENT_BUCKETS} buckets, though sales "
            "were forecast"
        )
    if alarm.kind == "spread":
        return f"{name}: errors are larger than forecast, by {alarm.size:.1f} standard deviations"
    if alarm.kind == "timing":
        return f"{name}: sales fall at other times of the day than forecast"
    side = "above" if alarm.size > 0 else "below"
    share = "" if percent is None or (percent > 0) != (alarm.size > 0) else f" ({percent:+.0f} %)"
    return (
        f"{name}: sales run {side} the forecasts{share}, by {abs(alarm.size):.1f} standard "
        "deviations"
    )


def _adwin(settings: DriftSettings) -> Any:
    """River's own default looks every 32 values only; buckets are too few for that."""
    make: Any = ADWIN
    return make(settings.adwin_delta, clock=1, grace_period=settings.min_buckets)
