"""Has one stream of pooled statistics left its baseline? CUSUM and ADWIN; the door to `river`.

A CUSUM finds clear shifts within hours, River's ADWIN small ones within days. Settings bound what
counts: a shift below `min_effect` standard deviations, or one that chance explains, is no alarm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from river.drift import ADWIN

from freshet.online.drift.baseline import STABLE_BUCKETS, Baseline, block_noise
from freshet.online.drift.cusum import Cusum, chance_height
from freshet.stream.config import DriftSettings

# Slacks and heights, in standard deviations of the baseline, and the numbers below were chosen on
# the synthetic shop of tests/online/drift: no alarm in 20 calm weeks of nine streams, a doubled
# category found within 8 hours in 24 of 24 runs (docs/experiments.md, 2026-11-23). The squares that
# spread is made of have a heavier tail than the normal scores of level, hence its larger numbers.
LEVEL_SLACK, LEVEL_HEIGHT = 1.0, 8.0
SPREAD_SLACK, SPREAD_HEIGHT = 1.5, 12.0
# Shops wander by themselves: sales must move by this share of a doubling to count as a departure.
WANDER = 0.3
# Three days of hours fill a bootstrap in blocks of a day; after a day more it is drawn anew.
CALIBRATION_BUCKETS = 72
RECALIBRATE_BUCKETS = 24
# ADWIN's window must differ by so many standard deviations of its mean: chance does in 1.2 %.
ADWIN_NOISE = 2.5
# A shift that ADWIN saw has two days of hours to grow clear, in which nothing of it is learnt.
SUSPICION_BUCKETS = 48


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector objects.

    Attributes:
        onset_ms: Since which bucket.
        size: By how many standard deviations, below 0 where less is sold.
        detector: `cusum` or `adwin`.
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
        self.settings = settings
        self.seed = seed
        self.two_sided = two_sided
        self.slack = LEVEL_SLACK if two_sided else SPREAD_SLACK
        self.least_height = LEVEL_HEIGHT if two_sided else SPREAD_HEIGHT
        self.height = self.least_height
        self.baseline = Baseline(phase_of_ms)
        self.seen = 0
        self._unsettled: deque[tuple[int, float]] = deque()
        self._uncalibrated = 0
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
        departure = self.baseline.standardise(bucket_ms, value)
        wandering = WANDER * leverage / self.baseline.spread
        self._add(bucket_ms, departure, slack=max(self.slack, wandering))
        self._suspect(bucket_ms, departure)
        finding = self._finding(wandering) if self.seen >= self.settings.min_buckets else None
        if learn and finding is None and not self._suspicion:
            self._settle(bucket_ms, value)
        return finding

    def _add(self, bucket_ms: int, departure: float, *, slack: float) -> None:
        self.up.update(bucket_ms, departure, slack=slack)
        if self.two_sided:
            self.down.update(bucket_ms, -departure, slack=slack)

    def _suspect(self, bucket_ms: int, departure: float) -> None:
        """Feed ADWIN once there is a baseline; what it doubts is not learnt for a while."""
        if len(self.baseline) < 2 * self.settings.min_buckets:
            return
        self._adwin.update(departure)
        self._recent.append((bucket_ms, departure))
        if self._adwin.drift_detected:
            self._suspicion = SUSPICION_BUCKETS
        else:
            self._suspicion = max(self._suspicion - 1, 0)

    def _settle(self, bucket_ms: int, value: float) -> None:
        """A bucket is usual once others followed without alarm: a shift must not teach itself."""
        self._unsettled.append((bucket_ms, value))
        # The first buckets are learnt at once: without a baseline there are no alarms to wait for.
        begun = len(self.baseline) >= self.settings.min_buckets
        wait = self.settings.min_buckets if begun else 0
        while len(self._unsettled) > wait:
            self.baseline.learn(*self._unsettled.popleft())
            self._uncalibrated += 1
        if len(self.baseline) >= CALIBRATION_BUCKETS and self._uncalibrated >= RECALIBRATE_BUCKETS:
            self._calibrate()

    def _calibrate(self) -> None:
        """Raise the alarm's height to what such values pass by chance."""
        self._uncalibrated = 0
        by_chance = chance_height(
            self.baseline.standardised(),
            slack=self.slack,
            two_sided=self.two_sided,
            seed=self.seed,
        )
        self.height = max(self.least_height, by_chance)

    def _finding(self, wandering: float) -> Finding | None:
        upwards = self.up.total >= self.down.total
        cusum = self.up if upwards else self.down
        if cusum.total > self.height and cusum.mean >= self.settings.min_effect:
            size = cusum.mean if upwards else -cusum.mean
            return Finding(cusum.onset_ms, size, "cusum")
        return self._adwin_finding(wandering) if self._suspicion else None

    def _adwin_finding(self, wandering: float) -> Finding | None:
        """ADWIN's newest window differs from what came before; believe it if that matters."""
        width = max(int(self._adwin.width), 1)
        newest = list(self._recent)[-width:]
        mean = float(np.mean([departure for _, departure in newest]))
        noise = block_noise(self.baseline.standardised(), len(newest))
        least = max(self.settings.min_effect, ADWIN_NOISE * noise, wandering)
        if abs(mean) < least or (mean < 0 and not self.two_sided):
            return None
        onset_ms, _ = newest[0]
        return Finding(onset_ms, mean, "adwin")


def _adwin(settings: DriftSettings) -> Any:
    """River's own default looks every 32 values only; buckets are too few for that."""
    make: Any = ADWIN
    return make(settings.adwin_delta, clock=1, grace_period=settings.min_buckets)
