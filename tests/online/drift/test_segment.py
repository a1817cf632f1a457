"""What one segment's two streams say: silence, spread, small shifts, and nothing about noise."""

from __future__ import annotations

import numpy as np

from freshet.online.drift.pooled import PooledStatistics
from freshet.online.drift.segment import SegmentDetector
from freshet.stream.config import DriftSettings
from freshet.stream.units import HOUR_MS


def test_a_feed_that_falls_silent_is_a_data_alarm() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    rng = np.random.default_rng(0)
    found = []
    for hour in range(60):
        silent = hour >= 40
        level = -12.0 if silent else float(rng.normal())
        pooled = PooledStatistics(hour * HOUR_MS, level, 0.0, 6.0, 0.0 if silent else 50.0, 50.0)
        found += detector.update(pooled)
    assert [(alarm.kind, alarm.onset_ms // HOUR_MS) for alarm, begins in found if begins] == [
        ("data", 40)
    ]


def test_errors_that_grow_without_a_shift_are_a_spread_alarm() -> None:
    detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
    rng = np.random.default_rng(0)
    found = []
    for hour in range(60):
        pooled = PooledStatistics(
            hour * HOUR_MS,
            float(rng.normal()),
            float(rng.normal()) + 5.0 * (hour >= 40),
            6.0,
            50,
            50,
        )
        found += detector.update(pooled)
    assert [alarm.kind for alarm, begins in found if begins] == ["spread"]


def test_a_small_lasting_shift_is_found_by_adwin_and_one_below_the_least_effect_is_not() -> None:
    def detect(shift: float) -> list[str]:
        detector = SegmentDetector("c", DriftSettings(), HOUR_MS)
        rng = np.random.default_rng(3)
        found = []
        for hour in range(600):
            pooled = PooledStatistics(
                hour * HOUR_MS, float(rng.normal()) + shift * (hour >= 300), 0.0, 1.0, 50, 50
            )
            found += [alarm.detector for alarm, begins in detector.update(pooled) if begins]
        return found

    assert "adwin" in detect(0.9)
    assert detect(0.2) == []
