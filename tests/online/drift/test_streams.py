"""What streams share is taken out of each as far as it is more than chance."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.drift.scan import LEVEL_VARIANCE
from freshet.online.drift.streams import Streams
from freshet.stream.arrays import Floats
from freshet.stream.units import HOUR_MS

HOURS, STREAMS = 200, 8


def departures(shared: float) -> tuple[Floats, Floats]:
    """What went into some streams that move together, and what came out."""
    rng = np.random.default_rng(3)
    given_TN = rng.normal(size=(HOURS, STREAMS)) + shared * rng.normal(size=(HOURS, 1))
    streams = Streams(STREAMS, LEVEL_VARIANCE)
    ones = np.ones(STREAMS)
    found_TN = [
        streams.take(hour * HOUR_MS, value_N, ones, ones > 0)[0]
        for hour, value_N in enumerate(given_TN)
    ]
    return given_TN[HOURS // 2 :], np.array(found_TN)[HOURS // 2 :]


def test_what_the_middle_one_does_by_chance_is_left_to_each() -> None:
    given, found = departures(shared=0.0)
    # Taking all of the middle one out would change a value by 0.45 deviations.
    assert np.sqrt(((found - given) ** 2).mean()) < 0.25


def test_what_all_do_together_is_held_against_none() -> None:
    given, found = departures(shared=1.5)
    assert given.mean(1).std() > 1.3
    assert found.mean(1).std() < 0.4


def test_a_sudden_hour_of_the_whole_shop_is_the_shops() -> None:
    streams, ones = Streams(STREAMS, LEVEL_VARIANCE), np.ones(STREAMS)
    rng = np.random.default_rng(4)
    for hour in range(HOURS):
        streams.take(hour * HOUR_MS, rng.normal(size=STREAMS), ones, ones > 0)
    found_TN = [
        streams.take(hour * HOUR_MS, 2.0 + rng.normal(size=STREAMS), ones, ones > 0)[0]
        for hour in range(HOURS, HOURS + 12)
    ]
    assert np.mean(found_TN) == pytest.approx(0.0, abs=0.6)


def test_of_few_streams_nothing_is_shared() -> None:
    streams, few = Streams(4, LEVEL_VARIANCE), np.ones(4)
    found_N, _ = streams.take(0, 2.0 * few, few, few > 0)
    assert found_N.tolist() == [2.0] * 4
