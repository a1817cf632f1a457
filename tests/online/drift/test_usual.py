"""What is usual is a drawn mean and a bias of each hour and weekday, kept under new weights."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.drift.usual import DAY_PRIOR, HOUR_PRIOR, MEAN_PRIOR, Usual
from freshet.stream.units import DAY_MS, HOUR_MS

ALL = np.array([True])
FAR = np.array([1e9])


def learnt(values: dict[int, float]) -> Usual:
    usual = Usual(1)
    for hour, value in values.items():
        usual.learn(hour * HOUR_MS, np.array([value]), FAR, ALL)
    return usual


def test_nothing_is_usual_of_a_stream_nobody_has_seen() -> None:
    assert Usual(2).expected(7 * HOUR_MS).tolist() == [0.0, 0.0]


def test_one_value_is_drawn_towards_none_by_mean_hour_and_weekday() -> None:
    usual = learnt({3: 9.0})
    of_mean, of_hour, of_day = (9 / (1 + prior) for prior in (MEAN_PRIOR, HOUR_PRIOR, DAY_PRIOR))
    assert usual.expected(3 * HOUR_MS) == pytest.approx([of_mean + of_hour + of_day])
    # Another hour of that day, that hour of another day, and that hour a week later.
    assert usual.expected(4 * HOUR_MS) == pytest.approx([of_mean + of_day])
    assert usual.expected(27 * HOUR_MS) == pytest.approx([of_mean + of_hour])
    assert usual.expected(3 * HOUR_MS + 7 * DAY_MS) == usual.expected(3 * HOUR_MS)


def test_an_hour_that_differs_each_day_and_a_weekday_that_differs_each_week_become_usual() -> None:
    truth = {
        hour: 2.0 * (hour % 24 == 5) - 1.0 * (hour // 24 % 7 == 2) for hour in range(24 * 7 * 8)
    }
    usual = learnt(truth)
    quiet, hour_5 = (usual.expected(hour * HOUR_MS)[0] for hour in (9, 5))
    day_2 = usual.expected((48 + 9) * HOUR_MS)[0]
    assert hour_5 - quiet == pytest.approx(2.0, abs=0.35)
    assert day_2 - quiet == pytest.approx(-1.0, abs=0.35)


def test_of_an_odd_value_only_so_much_is_learnt_and_of_others_nothing() -> None:
    usual = Usual(2)
    both, limit = np.array([100.0, 100.0]), np.array([3.0, 3.0])
    usual.learn(0, both, limit, np.array([True, False]))
    assert usual.mean_N.tolist() == pytest.approx([3.0 / (1 + MEAN_PRIOR), 0.0])
    assert usual.seen_N.tolist() == [1.0, 0.0]


def test_new_weights_keep_the_hours_and_half_of_the_level() -> None:
    usual = learnt({hour: 1.0 + (hour % 24 == 5) for hour in range(24 * 14)})
    mean, bias = usual.mean_N[0], usual.hour_HN[5, 0]
    usual.loosen(np.array([0]))
    assert (usual.mean_N[0], usual.hour_HN[5, 0]) == (mean / 2, bias)
    # And believe the next values more.
    seen = usual.hours_seen_HN[5, 0]
    assert seen == 7.0 and usual.seen_N[0] == pytest.approx(33.6)


def test_a_stream_that_changed_for_good_is_learnt_anew_and_others_are_not() -> None:
    usual = Usual(2)
    for hour in range(48):
        usual.learn(hour * HOUR_MS, np.array([1.0, 1.0]), np.array([9.0, 9.0]), np.ones(2, bool))
    usual.forget(0)
    first, second = usual.expected(0)
    assert first == 0.0 and second > 0.5


def test_an_hour_of_more_noise_counts_as_that() -> None:
    rng = np.random.default_rng(0)
    usual = learnt(
        {hour: float(rng.normal(0, 3.0 if hour % 24 == 12 else 0.5)) for hour in range(2_400)}
    )
    noon, night = (float(usual.roughness(hour * HOUR_MS)[0]) for hour in (12, 3))
    assert noon > 2 * night and night < 0.9
