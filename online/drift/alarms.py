"""The alarms of one segment: which hold, since when, and when they are over. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from freshet.stream.schemas import DriftKind

# A week of hours: by then the shop is as it is, and what holds on is the new usual.
LONGEST_DRIFT_BUCKETS = 168
# Below this tension a segment is at rest: of a calm hour the highest of all scores is about half.
AT_REST = 0.7


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that holds.

    Attributes:
        alert_id: A hash of segment, onset and kind.
        kind: What changed.
        onset_ms: Since which bucket.
        size: In standard deviations of a bucket, below 0 where less is sold.
        detector: Who found it.
        share: What was sold of what was forecast, where that can be told.
    """

    alert_id: str
    kind: DriftKind
    onset_ms: int
    size: float
    detector: str
    share: float | None = None


def alarm_id(segment: str, onset_ms: int, kind: DriftKind) -> str:
    """The same alarm has the same id in every process."""
    return hashlib.sha256(f"{segment}\n{onset_ms}\n{kind}".encode()).hexdigest()[:24]


@dataclass(slots=True)
class Held:
    """What holds in one segment, and for how long."""

    alarms: dict[DriftKind, Alarm] = field(default_factory=dict)
    quiet_buckets: int = 0
    drifting_buckets: int = 0

    def begin(self, alarm: Alarm) -> bool:
        """Whether it is news: one alarm of a kind at a time."""
        if alarm.kind in self.alarms:
            return False
        self.alarms[alarm.kind] = alarm
        return True

    def over(self, tension: float, *, objects: bool, clear_buckets: int) -> bool:
        """Count a bucket; whether the alarms end with it, since it was quiet or went on too long.

        Args:
            tension: How near the segment is to another alarm.
            objects: It is past that.
            clear_buckets: So many quiet buckets in a row are enough.
        """
        self.drifting_buckets += 1
        if objects:
            self.quiet_buckets = 0
            return False
        self.quiet_buckets = self.quiet_buckets + 1 if tension < AT_REST else 0
        return self.quiet_buckets >= clear_buckets or self.tired

    @property
    def tired(self) -> bool:
        """It went on for so long that it is the new usual."""
        return self.drifting_buckets >= LONGEST_DRIFT_BUCKETS
