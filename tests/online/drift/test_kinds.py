"""Level, timing or spread: told apart by what each would look like hour by hour."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.drift.kinds import Evidence, chances
from freshet.stream.arrays import Floats

HOURS = np.arange(24)
BELL_H = np.exp(-0.5 * ((HOURS - 15) / 4.0) ** 2) + 0.1


def told(level_T: Floats, spread_T: Floats, hour_T: Floats, weight: float = 3.0) -> str:
    found = chances(
        Evidence(
            level_T=level_T,
            weight_T=np.full(len(level_T), weight),
            spread_T=spread_T,
            hour_T=hour_T.astype(np.int64),
            profile_H=BELL_H,
            level_variance=1.2,
            spread_variance=1.2,
        )
    )
    assert sum(found.values()) == pytest.approx(1.0)
    return max(found, key=lambda kind: found[kind])


@pytest.mark.parametrize("shift", [-0.5, 0.6, 1.2])
def test_every_hour_lifted_alike_is_a_level(shift: float) -> None:
    hour_T = np.arange(9, 15)
    assert told(np.full(6, 3.0 * shift), np.zeros(6), hour_T) == "level"


@pytest.mark.parametrize("hours", [-6, 4, 9])
def test_hours_lifted_and_lowered_as_the_moved_profile_says_are_timing(hours: int) -> None:
    hour_T = np.arange(6, 18)
    ratio_T = BELL_H[(hour_T - hours) % 24] / BELL_H[hour_T]
    level_T = 3.0 * np.clip(ratio_T - 1.0, -1.0, 1.4)
    assert told(level_T, np.zeros(12), hour_T) == "timing"


def test_items_that_stray_while_their_sum_is_right_are_spread() -> None:
    noise_T = np.array([0.5, -0.4, 0.2, -0.6, 0.1, 0.3])
    assert told(noise_T, np.full(6, 3.0), np.arange(9, 15)) == "spread"


def test_an_hour_that_is_nearly_closed_promises_no_wonders() -> None:
    # At four in the morning the moved profile would sell many times as much; that is not expected.
    found = chances(
        Evidence(
            level_T=np.array([2.0, 2.0]),
            weight_T=np.array([0.1, 0.1]),
            spread_T=np.zeros(2),
            hour_T=np.array([3, 4]),
            profile_H=np.where(HOURS < 6, 0.0, 1.0),
            level_variance=1.0,
            spread_variance=1.0,
        )
    )
    assert np.isfinite(list(found.values())).all()
