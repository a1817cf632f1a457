"""All segments of a shop: the scores of one final bucket after the other in, drift alerts out."""

from __future__ import annotations

from collections.abc import Collection

from freshet.online.drift.pooled import Item, items_by_segment, pool, serving_version
from freshet.online.drift.segment import SILENT_BUCKETS, Alarm, SegmentDetector
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftAlert, DriftKind, Score

ALL = "all"
ACTIONS: dict[DriftKind, str] = {
    "level": (
        "fine-tune on the newest data; "
        "if a price, promotion or assortment change explains it, announce it"
    ),
    "spread": (
        "fine-tune on the newest data; until then trust the wide quantiles, not the narrow ones"
    ),
    "timing": "fine-tune on the newest data: the shape of the day has changed",
    "data": "check the order feed of this segment before anything else; do not train on it",
}

Change = tuple[SegmentDetector, Alarm, bool]
"""Whose alarm, which, and whether it begins or ends."""


class DriftMonitor:
    """All segments of a shop, fed with the scores of one final bucket after the other.

    Its state follows from the scores alone, so a restarted worker rebuilds it from the scores
    topic.
    """

    def __init__(self, settings: DriftSettings, resolution_ms: int) -> None:
        self.settings = settings
        self.resolution_ms = resolution_ms
        self.segments: dict[str, SegmentDetector] = {}
        self.version = ""
        self._newest_ms = -1

    def tensions(self) -> dict[str, float]:
        """Segment to how near an alarm is: 0 calm to 1 in alarm."""
        return {segment: detector.tension for segment, detector in self.segments.items()}

    def update(
        self, bucket_ms: int, scores: list[Score], *, now_ms: int, left_out: Collection[str] = ()
    ) -> list[DriftAlert]:
        """Take the scores of one bucket, of its own resolution alone, and return what changed.

        Buckets come in rising order, others are ignored. Segments in alarm are left out of `all`,
        which would only repeat them. When other weights begin to serve, what is usual is learnt
        anew.
        """
        scores = [score for score in scores if score.resolution_ms == self.resolution_ms]
        if bucket_ms <= self._newest_ms or not scores:
            return []
        self._newest_ms = bucket_ms
        self._follow(serving_version(scores))
        items = items_by_segment(scores, self.version, left_out=left_out)
        changes: list[Change] = []
        calm: list[Item] = []
        for segment in sorted(items):
            changes += self._feed(segment, bucket_ms, items[segment])
            if not self.segments[segment].active:
                calm += items[segment]
        if len(items) > 1 and calm:
            changes += self._feed(ALL, bucket_ms, calm)
        return [self._alert(*change, now_ms) for change in changes]

    def adopt(self, alert: DriftAlert) -> None:
        """An alarm from before a restart that was not ended: it ends when its segment is quiet.

        One of another resolution is another monitor's.
        """
        if not alert.concerns(self.resolution_ms):
            return
        detector = self._detector(alert.segment)
        if alert.state == "drift" and alert.kind not in detector.active:
            detector.active[alert.kind] = Alarm(
                alert.alert_id, alert.kind, alert.onset_ms, alert.size, alert.detector
            )

    def _follow(self, version: str) -> None:
        if not version or version == self.version:
            return
        for detector in self.segments.values():
            detector.forget()
        self.version = version

    def _detector(self, segment: str) -> SegmentDetector:
        if segment not in self.segments:
            self.segments[segment] = SegmentDetector(segment, self.settings, self.resolution_ms)
        return self.segments[segment]

    def _feed(self, segment: str, bucket_ms: int, items: list[Item]) -> list[Change]:
        detector = self._detector(segment)
        found = detector.update(pool(bucket_ms, items))
        return [(detector, alarm, begins) for alarm, begins in found]

    def _alert(
        self, detector: SegmentDetector, alarm: Alarm, begins: bool, now_ms: int
    ) -> DriftAlert:
        over = f"{detector.segment}: forecasts are right again"
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
            description=_describe(detector, alarm) if begins else over,
            action=ACTIONS[alarm.kind] if begins else "nothing",
            resolution_ms=self.resolution_ms,
        )


def _describe(detector: SegmentDetector, alarm: Alarm) -> str:
    """One sentence for a person."""
    name = "the whole shop" if detector.segment == ALL else detector.segment
    deviations = f"by {abs(alarm.size):.1f} standard deviations"
    if alarm.kind == "data":
        silence = f"nothing was sold in the last {SILENT_BUCKETS} buckets"
        return f"{name}: {silence}, though sales were forecast"
    if alarm.kind == "spread":
        return f"{name}: errors are larger than forecast, {deviations}"
    if alarm.kind == "timing":
        return f"{name}: sales fall at other times of the day than forecast"
    side = "above" if alarm.size > 0 else "below"
    percent = detector.percent(alarm.onset_ms)
    # The mean of normal scores and the sum of units may disagree on the sign: then say one only.
    agrees = percent is not None and (percent > 0) == (alarm.size > 0)
    share = f" ({percent:+.0f} %)" if agrees else ""
    return f"{name}: sales run {side} the forecasts{share}, {deviations}"
