"""Sums over hours that end in the days', and first days mixed of two forecasts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freshet.model.quantiles.coherence import mixed, moved_sums, young
from freshet.stream.arrays import Floats


def sums_of(*rows: list[float]) -> Floats:
    """One item, one level."""
    return np.array([rows]).transpose(0, 2, 1).reshape(1, -1, 1)


def test_what_is_missing_at_the_end_of_a_day_comes_in_late_in_it() -> None:
    # Two days of two steps: at 2 there is 4 for 12, at 4 there is 8 for 20.
    goal = np.array([[[12.0], [20.0]]])
    found = moved_sums(sums_of([2.0, 4.0, 5.0, 8.0]), [1, 2, 3, 4], [2, 4], goal)
    # Half a day: an eighth of 8 more. Then 8 and an eighth of the 4 that go from 8 to 12 missing.
    assert found[0, :, 0].tolist() == [3.0, 12.0, 13.5, 20.0]


def test_sums_that_are_too_large_fall_to_the_goal_and_none_passes_it() -> None:
    goal = np.array([[[5.0]]])
    found = moved_sums(sums_of([4.0, 8.0, 9.0, 11.0]), [1, 6, 8, 9], [8], goal)
    # At 1 almost nothing of the 4 too many is gone, at 6 more than the day is left.
    assert found[0, 0, 0] == 4.0 - 4.0 / 8**3
    assert found[0, 1:, 0].tolist() == [5.0, 5.0, 7.0]


def test_levels_stay_in_order_where_they_move_by_different_amounts() -> None:
    sums = np.array([[[3.0, 4.0], [5.0, 6.0]]])
    # Half the day is over: 3 + 80 / 8 and 4 + 80 / 8; the lower level may be 0 at most.
    found = moved_sums(sums, [1, 2], [2], np.array([[[0.0, 86.0]]]))
    assert found[0].tolist() == [[0.0, 14.0], [0.0, 86.0]]


@st.composite
def rising(draw: st.DrawFn, steps: int) -> Floats:
    """Sums that rise with two rows' steps and levels."""
    parts = draw(st.lists(st.floats(0, 1e4), min_size=6 * steps, max_size=6 * steps))
    return np.array(parts).reshape(2, steps, 3).cumsum(1).cumsum(2)


@given(rising(6), rising(2), st.sampled_from([(23, 47), (24, 48), (25, 48)]))
def test_sums_end_in_the_days_and_rise_with_steps_and_levels(
    sums: Floats, goal: Floats, ends: tuple[int, int]
) -> None:
    steps = sorted({1, 6, 12, *ends, 48, 49})[:6]
    found = moved_sums(sums[:, : len(steps)], steps, ends, goal)
    for day, end in enumerate(ends):
        np.testing.assert_array_equal(found[:, steps.index(end)], goal[:, day])
    assert (np.diff(found, axis=1) >= 0).all() and (np.diff(found, axis=2) >= 0).all()
    assert (found >= 0).all()


@given(rising(3))
def test_sums_that_agree_already_stay_as_they_are(sums: Floats) -> None:
    np.testing.assert_allclose(moved_sums(sums, [6, 24, 30], [24], sums[:, 1:2]), sums, atol=1e-8)


def test_a_day_counts_the_more_the_more_days_it_has_seen() -> None:
    days, hours = np.full((3, 1, 1), 10.0), np.zeros((3, 1, 1))
    # 4 days are worth as much as the hours, 12 three times that.
    found = mixed(days, hours, np.array([0, 4, 12]))
    assert found[:, 0, 0].tolist() == [0.0, 5.0, 7.5]


def test_nothing_seen_and_four_weeks_seen_are_left_to_the_day() -> None:
    assert young(np.array([0, 1, 27, 28])).tolist() == [False, True, True, False]
