"""All segments of a shop: the scores of one final bucket after the other in, drift alerts out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from freshet.online.drift.alarms import Alarm
from freshet.online.drift.plain import State
from freshet.online.drift.pooled import ScoreBatch, batch_of, of_most, pool, serving_versions
from freshet.online.drift.scan import height
from freshet.online.drift.segments import Change, Segments
from freshet.online.drift.words import ACTIONS, ALL, describe
from freshet.stream.config import UTC, DriftSettings
from freshet.stream.schemas import DriftAlert, Score
from freshet.stream.store.grid import Grid

# Level, rise and spread.
STREAMS_PER_SEGMENT = 3
# Many items show small faults that they share: a wrong hour or a good day stands out more in all.
SHOP_NOISIER = 2.0


class DriftMonitor:
    """All segments of a shop, fed with the scores of one final bucket after the other.

    Its state follows from the scores alone, in whatever order those of a bucket come, so a
    restarted worker rebuilds it from the scores topic; `state` and `restore` carry it elsewhere.

    Args:
        settings: Bounds on what is an alarm.
        resolution_ms: Of the forecasts that are watched.
        time_zone: Whose clock says which hour and weekday it is.
    """

    def __init__(
        self, settings: DriftSettings, resolution_ms: int, *, time_zone: str = UTC
    ) -> None:
        self.settings = settings
        self.grid = Grid(resolution_ms, time_zone)
        self.resolution_ms = resolution_ms
        self.versions: dict[str, str] = {}
        """What serves each segment."""
        self.segments = Segments(settings)
        self.shop = Segments(settings, [ALL], SHOP_NOISIER)
        self._newest_ms = -1

    @property
    def height(self) -> float:
        """What a score must pass: all streams share one budget."""
        num_streams = STREAMS_PER_SEGMENT * (len(self.segments.names) + 1)
        return height(self.settings.false_alerts, num_streams)

    def tensions(self) -> dict[str, float]:
        """Segment to how near an alarm is: 0 calm to 1 in alarm."""
        return self.segments.tensions() | self.shop.tensions()

    def active(self) -> dict[str, list[str]]:
        """Segments in alarm, and of which kinds."""
        both = self.segments.active | self.shop.active
        return {segment: sorted(alarms) for segment, alarms in both.items()}

    def update(
        self, bucket_ms: int, scores: list[Score], *, now_ms: int, left_out: Collection[str] = ()
    ) -> list[DriftAlert]:
        """Take the scores of one bucket, of its own resolution alone, and return what changed.

        Buckets come in rising order, others are ignored. When other weights begin to serve a
        segment, what is usual of it is held less firmly.
        """
        scores = [score for score in scores if score.resolution_ms == self.resolution_ms]
        if bucket_ms <= self._newest_ms or not scores:
            return []
        self._follow(serving_versions(scores, self.versions))
        batch = batch_of(scores, self.versions, left_out=left_out)
        return self.take(bucket_ms, batch, now_ms=now_ms)

    def take(self, bucket_ms: int, batch: ScoreBatch, *, now_ms: int) -> list[DriftAlert]:
        """Take a bucket in columns; segments in alarm are left out of `all`, which would repeat
        them.
        """
        if bucket_ms <= self._newest_ms:
            return []
        self._newest_ms = bucket_ms
        (shown_ms,) = self.grid.shown_ms(np.array([bucket_ms])).tolist()
        times = (bucket_ms, shown_ms)
        changes: list[Change] = []
        if len(batch.segment_I):
            pooled = pool(batch)
            changes = self.segments.update(times, batch.segments, pooled, self.height)
        if len(batch.segments) > 1:
            whole = pool(_as_one(batch, self.segments.active))
            changes += self.shop.update(times, [ALL], whole, self.height)
        return [self._alert(*change, now_ms) for change in changes]

    def adopt(self, alert: DriftAlert) -> None:
        """An alarm from before a restart that was not ended: it ends when its segment is quiet.

        One of another resolution is another monitor's.
        """
        if not alert.concerns(self.resolution_ms) or alert.state != "drift":
            return
        alarm = Alarm(alert.alert_id, alert.kind, alert.onset_ms, alert.size, alert.detector)
        self._home(alert.segment).adopt(alert.segment, alarm)

    def state(self) -> State:
        """Everything it knows, as numbers and arrays."""
        return {
            "versions": [list(pair) for pair in self.versions.items()],
            "newest_ms": self._newest_ms,
            "segments": self.segments.state(),
            "shop": self.shop.state(),
        }

    def restore(self, state: State) -> None:
        """Go on from the state of another monitor with the same settings."""
        self.versions, self._newest_ms = dict(state["versions"]), state["newest_ms"]
        self.segments.restore(state["segments"])
        self.shop.restore(state["shop"])

    def _home(self, segment: str) -> Segments:
        return self.shop if segment == ALL else self.segments

    @property
    def version(self) -> str:
        """What serves most segments; empty before the first."""
        return of_most(self.versions)

    def _follow(self, versions: dict[str, str]) -> None:
        before = self.version
        changed = [name for name, was in self.versions.items() if versions[name] != was]
        self.versions = versions
        self.segments.loosen(changed)
        if before not in ("", self.version):
            self.shop.loosen([ALL])

    def _alert(self, segment: str, alarm: Alarm, begins: bool, now_ms: int) -> DriftAlert:
        over = f"{segment}: forecasts are right again"
        said = describe(segment, alarm.kind, alarm.size, alarm.share)
        return DriftAlert(
            alert_id=alarm.alert_id,
            segment=segment,
            state="drift" if begins else "stable",
            kind=alarm.kind,
            detector=alarm.detector,
            detected_at_ms=now_ms,
            onset_ms=alarm.onset_ms,
            size=round(alarm.size, 3),
            weights_version=self.versions.get(segment, self.version),
            description=said if begins else over,
            action=ACTIONS[alarm.kind] if begins else "nothing",
            resolution_ms=self.resolution_ms,
        )


def _as_one(batch: ScoreBatch, in_alarm: Collection[str]) -> ScoreBatch:
    """The whole shop as one segment, without the segments in alarm."""
    silent_S = np.array([segment in in_alarm for segment in batch.segments])
    return replace(
        batch,
        segments=[ALL],
        segment_I=np.zeros_like(batch.segment_I),
        left_out_I=batch.left_out_I | silent_S[batch.segment_I],
    )
