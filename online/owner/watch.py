"""The scores of all workers in, what follows from them out: alerts of drift, and at which levels of
the network quantiles are served.

Durable effects of a turn, together: the alerts of all buckets that became whole, the newest
decision on levels where a day is over, and the state that led to them. A crash before leaves none
of them, and the next owner finds the same again, since what it finds depends on the scores alone;
after it the next one goes on behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from freshet.online.adjust.decision import ALL, encoded
from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.score import without_adjustments
from freshet.online.owner.buckets import ScoredBuckets
from freshet.online.owner.calibrating import Calibrator
from freshet.online.owner.memory import packed, state_records
from freshet.stream.codec import MAX_TIME_MS, decode, encode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.failpoints import failpoint
from freshet.stream.kafka import Outgoing, TableRecord, Writes
from freshet.stream.schemas import CalibrationDecision, DriftAlert, Score, ShardScored
from freshet.stream.telemetry import get_logger

SEASONS_BEFORE_DRIFT = 2
# A small state is written with every bucket, a large one with every alert and seldom besides.
BYTES_A_BUCKET = 1_000_000
MAX_READS_A_TURN = 20

log = get_logger(__name__)


class Feed(Protocol):
    """Scores, and how far shards are scored; see `TableReader`."""

    def poll(self, max_wait_ms: int = ...) -> list[TableRecord]:
        """What comes next."""

    def next_offsets(self, topic: str) -> dict[int, int]:
        """How far a topic is read."""

    def ends(self, topic: str) -> dict[tuple[str, int], int]:
        """Where a topic ends now."""

    def reached(self, ends: Mapping[tuple[str, int], int]) -> bool:
        """Whether it is read so far."""


@dataclass(slots=True)
class Beginning:
    """What a watch goes on from.

    Attributes:
        silent_until_ms: What is found in buckets that end by then was told before.
        alarms: That held then, where the monitor does not know them.
    """

    silent_until_ms: int = -1
    alarms: Sequence[DriftAlert] = ()


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What a watch is made of."""

    feed: Feed
    monitor: DriftMonitor
    buckets: ScoredBuckets
    writes: Writes
    holds: Callable[[], bool]
    """Whether the lease is ours at this moment."""
    beginning: Beginning = field(default_factory=Beginning)
    latest_ms: Callable[[], int] = lambda: MAX_TIME_MS
    calibrator: Calibrator | None = None
    """None where quantiles are served at the network's own levels."""


class DriftWatch:
    """Waits for whole buckets, feeds the monitor, and tells what it finds.

    Args:
        settings: All of them.
        parts: What it works with.
    """

    def __init__(self, settings: Settings, parts: WatchParts) -> None:
        self._parts, self._topics = parts, settings.kafka.topics
        self._beginning = parts.beginning
        main = settings.main
        self._resolution_ms, self._segment_by = main.resolution_ms, settings.drift.segment_by
        self._seasons_ms = SEASONS_BEFORE_DRIFT * main.season_length * main.resolution_ms
        # Up to when buckets are whole once the scores are read up to these ends.
        self._until_ms, self._ends = -1, {("", 0): 0}
        # What is not told yet, and what its records are.
        self._alerts: list[DriftAlert] = []
        self._levels: CalibrationDecision | None = None
        self._untold: list[Outgoing] = []
        self._since_state, self._state_bytes = 0, 0

    def turn(self) -> bool:
        """Look at the buckets that have become whole, if any; whether there may be more to do.

        Raises:
            FencedError: Another process owns what is shared.
            BrokerError: The broker is away; the next turn tries again.
        """
        if self._untold:
            self._tell()
        more = self._read()
        until_ms = self._parts.buckets.until_ms()
        if until_ms > self._until_ms:
            # Whatever belongs to them was acknowledged before it was said that they are whole.
            self._ends = self._parts.feed.ends(self._topics.scores)
            self._until_ms = until_ms
        if self._until_ms <= self._parts.buckets.decided_until_ms:
            return more
        if not self._parts.feed.reached(self._ends):
            return True
        self._decide(self._until_ms)
        return more

    def _read(self) -> bool:
        """Take in what has come; whether there is more at once."""
        for _ in range(MAX_READS_A_TURN):
            records = self._parts.feed.poll(50)
            for record in records:
                self._take(record)
            if not records:
                return False
        return True

    def _take(self, record: TableRecord) -> None:
        if record.value is None:
            return
        latest_ms = self._parts.latest_ms()
        try:
            if record.topic == self._topics.scored:
                mark = decode(ShardScored, record.value, latest_ms=latest_ms)
                self._parts.buckets.mark(mark)
            else:
                score = decode(Score, record.value, latest_ms=latest_ms)
                place = record.partition, record.offset
                self._parts.buckets.add(score, record.value, *place)
        except EventError as error:
            place_of = {"partition": record.partition, "offset": record.offset}
            log.warning("record_not_read", error=str(error), topic=record.topic, **place_of)

    def _decide(self, until_ms: int) -> None:
        before = self._since_state
        for bucket_ms, scores in self._parts.buckets.take(until_ms):
            self._alerts += self._look(bucket_ms, scores)
            self._since_state += 1
        due = self._since_state * BYTES_A_BUCKET > self._state_bytes
        if self._alerts or self._levels or (due and self._since_state > before):
            self._untold = self._records()
            self._tell()

    def _look(self, bucket_ms: int, scores: list[Score]) -> list[DriftAlert]:
        """Feed a bucket, as forecasts would have been without adjustments.

        Before the state holds two seasons, forecasts are wrong for want of history, not because the
        shop changed.
        """
        monitor, begun_ms = self._parts.monitor, self._parts.buckets.begun_ms
        told_before = bucket_ms + self._resolution_ms <= self._beginning.silent_until_ms
        if not told_before:
            self._adopt()
        if begun_ms is None or bucket_ms < begun_ms + self._seasons_ms:
            return []
        left_out = {score.item_id for score in scores if score.promoted}
        # The moment at which the last of its scores was made, whoever looks at them and when.
        now_ms = max(score.scored_at_ms for score in scores)
        plain = without_adjustments(scores)
        alerts = monitor.update(bucket_ms, plain, now_ms=now_ms, left_out=left_out)
        levels = self._calibrated(bucket_ms, plain, now_ms)
        if told_before:
            return []
        self._levels = levels or self._levels
        return alerts

    def _calibrated(
        self, bucket_ms: int, plain: list[Score], now_ms: int
    ) -> CalibrationDecision | None:
        """What a segment in alarm sells differently is no fault of its levels."""
        calibrator, in_alarm = self._parts.calibrator, self._parts.monitor.active()
        if calibrator is None:
            return None
        heard = [] if ALL in in_alarm else plain
        return calibrator.take(bucket_ms, heard, left_out=in_alarm, now_ms=now_ms)

    def _adopt(self) -> None:
        """What was told before is over: alarms that held then go on."""
        for alarm in self._beginning.alarms:
            self._parts.monitor.adopt(alarm)
        self._beginning.alarms = ()

    def _records(self) -> list[Outgoing]:
        """The alerts, and the state behind them: whoever reads on reads them in this order."""
        told = self._levels_told()
        buckets, scores = self._parts.buckets, self._topics.scores
        offsets = buckets.offsets(self._parts.feed.next_offsets(scores))
        state = packed(self._parts.monitor, self._segment_by, self._parts.calibrator)
        self._state_bytes, self._since_state = len(state), 0
        told += [
            Outgoing(self._topics.drift, alert.segment.encode(), encode(alert))
            for alert in self._alerts
        ]
        return told + state_records(
            self._topics.owner,
            state,
            resolution_ms=self._resolution_ms,
            decided_until_ms=buckets.decided_until_ms,
            offsets={f"{scores}:{number}": offset for number, offset in offsets.items()},
            tensions=self._parts.monitor.tensions(),
        )

    def _levels_told(self) -> list[Outgoing]:
        calibrator, record = self._parts.calibrator, self._levels
        if calibrator is None or record is None:
            return []
        key, value = encoded(record)
        stale = calibrator.told(key, record.as_of_ms)
        topic = self._topics.decisions
        return [
            Outgoing(topic, key.encode(), value),
            *(Outgoing(topic, name.encode(), None) for name in stale),
        ]

    def _tell(self) -> None:
        if not self._parts.holds():
            return
        failpoint("before_drift")
        self._parts.writes.write(self._untold)
        failpoint("after_drift")
        for alert in self._alerts:
            log.warning("drift", segment=alert.segment, state=alert.state, text=alert.description)
        if self._levels is not None:
            log.info("levels_decided", maps=len(self._levels.maps), as_of_ms=self._levels.as_of_ms)
        self._alerts, self._levels, self._untold = [], None, []
