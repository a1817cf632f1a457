"""A sum of departures: how it climbs, and how high it may climb by chance."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.drift.cusum import Cusum, chance_height


def test_a_bucket_adds_what_exceeds_the_slack_and_never_more_than_three() -> None:
    cusum = Cusum()
    totals = [cusum.update(hour, value, slack=1.0) for hour, value in enumerate([4.0, 50.0, -1.5])]
    assert totals == [3.0, 6.0, 3.5]


def test_a_sum_that_fell_to_nothing_begins_anew_with_its_next_bucket() -> None:
    cusum = Cusum()
    for hour, value in enumerate([3.0, -9.0, 2.0, 4.0]):
        cusum.update(hour, value, slack=1.0)
    assert (cusum.onset_ms, cusum.total, cusum.count, cusum.mean) == (2, 4.0, 2, 3.0)
    cusum.update(4, -30.0, slack=1.0)
    cusum.update(5, 7.0, slack=1.0)
    assert (cusum.onset_ms, cusum.total, cusum.count, cusum.mean) == (5, 3.0, 1, 7.0)
    assert (Cusum().total, Cusum().mean) == (0.0, 0.0)


# Of values that are all the same, every drawn month of 720 hours is the same.
@pytest.mark.parametrize(
    ("value", "two_sided", "height"),
    [
        (1.5, False, 1.25 * 720 * 0.5),
        (9.0, False, 1.25 * 720 * 3.0),
        (-1.5, False, 0.0),
        (-1.5, True, 1.25 * 720 * 0.5),
        (1.5, True, 1.25 * 720 * 0.5),
    ],
)
def test_the_height_is_a_quarter_above_what_a_month_of_such_values_reaches(
    value: float, two_sided: bool, height: float
) -> None:
    assert chance_height(np.full(72, value), slack=1.0, two_sided=two_sided, seed=1) == height


def test_hours_are_drawn_in_whole_days() -> None:
    # One day of twelve hours up and twelve down: each drawn day climbs to 24 and is back at 0.
    day = np.repeat([2.0, -2.0], 12)
    assert chance_height(day, slack=0.0, two_sided=False, seed=1) == 1.25 * 24.0


def test_one_calm_month_in_ten_may_pass_the_height() -> None:
    # 30 days, each of which holds the only 1 or not, at even odds: in nine months of ten it is
    # drawn 18 or 19 times at most, in every other month 15 times.
    values = np.append(np.zeros(24), 1.0)
    height = chance_height(values, slack=0.0, two_sided=False, seed=1)
    assert 1.25 * 18 <= height <= 1.25 * 20


def test_both_sides_of_one_month_count_as_one() -> None:
    # A day holds the 1 or the -1: one of the two sums passes more often than either by itself.
    values = np.concatenate([[1.0], np.zeros(23), [-1.0]])
    one, both = (
        chance_height(values, slack=0.02, two_sided=sides, seed=3) for sides in (False, True)
    )
    assert both > one
    assert chance_height(values, slack=0.02, two_sided=True, seed=3) == both


def test_the_seed_decides_what_is_drawn() -> None:
    values = np.random.default_rng(0).normal(size=100)
    first, second, third = (
        chance_height(values, slack=1.0, two_sided=True, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second != third
