"""A window by days against sums that a reader can add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from freshet.model.effects.days import days_of, flag_columns
from freshet.model.tables.panel import Window
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS
from tests.model.tables.windows import window_of

NAN = np.nan
NIGHT, MORNING, NOON, EVENING = range(4)


def quarters(target: list[list[float]], flag: list[list[float]]) -> Window:
    """Steps of six hours from the third day of 1970 on; two of them are the horizon."""
    plain = window_of(np.array(target), horizon=2)
    steps = plain.time_ms_NS.shape[1]
    return replace(
        plain,
        frequency="6h",
        resolution_ms=6 * HOUR_MS,
        time_ms_NS=np.tile(2 * DAY_MS + 6 * HOUR_MS * np.arange(steps), (len(target), 1)),
        known_NSK=np.array(flag)[..., None],
        known_names=("promo",),
    )


def test_a_day_is_the_sum_of_its_hours_and_is_missing_where_hours_are() -> None:
    window = quarters(
        [[1, 2, 3, 4, 5, NAN, 7, 8, 9, 10], [NAN, NAN, NAN, NAN, 1, 1, 1, 1, 1, 1]],
        [[0, 1, 1, 0, 1, 1, NAN, 1, 0, 0, 1, 1], [NAN] * 4 + [0] * 4 + [1, 0, NAN, 0]],
    )
    closed_NS = np.zeros((2, 12), bool)
    closed_NS[0, 8:] = True  # the whole third day, horizon included
    closed_NS[1, 9:] = True  # all of it but the night
    days = days_of(window, closed_NS, [0])
    assert days is not None
    assert (days.length_days, days.day_D.tolist()) == (1, [2, 3, 4])
    assert days.weekday_D.tolist() == [2, 3, 4], "1970-01-01 was a Thursday, and is 0"
    assert days.column_NS[1].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    # Two of four hours of the last day lie before the cutoff, and one of the second is missing.
    np.testing.assert_equal(days.target_ND, [[10.0, NAN, NAN], [NAN, 4.0, NAN]])
    assert days.closed_ND.tolist() == [[False, False, True], [False, False, False]]
    np.testing.assert_allclose(days.flags_NDF[0, :, 0], [0.5, 1.0, 0.5])
    np.testing.assert_allclose(days.flags_NDF[1, :, 0], [NAN, 0.0, 1 / 3])


def test_a_step_of_a_day_is_a_day_and_closed_where_the_step_is() -> None:
    days = days_of(window_of(np.array([[3.0, 4.0]]), horizon=1), np.array([[0, 1, 1]]) > 0, [])
    assert days is not None
    np.testing.assert_equal(days.target_ND, [[3.0, 4.0, NAN]])
    assert days.closed_ND.tolist() == [[False, True, True]]


def test_days_of_all_series_together_are_their_sums_and_shares() -> None:
    window = quarters([[1.0] * 8, [2.0] * 4 + [NAN] * 4], [[1] * 4 + [0] * 6, [0] * 4 + [NAN] * 6])
    closed_NS = np.array([[True] * 10, [False] * 4 + [True] * 6])
    days = days_of(window, closed_NS, [0])
    assert days is not None
    total = days.total()
    np.testing.assert_equal(total.target_ND, [[12.0, 4.0, NAN]])
    assert total.closed_ND.tolist() == [[False, True, True]]
    np.testing.assert_equal(total.flags_NDF[0, :, 0], [0.5, 0.0, 0.0])


def test_a_week_begins_six_days_before_its_label_and_other_steps_are_no_days() -> None:
    daily = window_of(np.array([[3.0, 4.0]]), horizon=1)
    time_ms_NS = WEEK_MS * np.arange(1, 4)[None]
    weekly = replace(daily, frequency="W-SUN", resolution_ms=WEEK_MS, time_ms_NS=time_ms_NS)
    closed_NS = np.zeros((1, 3), bool)
    days = days_of(weekly, closed_NS, [])
    assert days is not None
    assert (days.length_days, days.day_D.tolist()) == (7, [1, 8, 15])
    np.testing.assert_equal(days.target_ND, [[3.0, 4.0, NAN]])
    assert days_of(replace(weekly, resolution_ms=30 * DAY_MS), closed_NS, []) is None


def test_flags_are_columns_of_noughts_and_ones_that_change_on_open_days_before_the_cutoff() -> None:
    steps = 1_100
    columns = {
        "up on two in a thousand": np.arange(steps) < 2,
        "up on one in a thousand": np.arange(steps) < 1,
        "down on two in a thousand": np.arange(steps) >= 2,
        "down on one in a thousand": np.arange(steps) >= 1,
        "up on closed days only": np.arange(steps) >= steps - 100,
        "a number": np.arange(steps) % 3,
    }
    known_KT = np.array([values * 1.0 for values in columns.values()])
    # In the horizon each of them changes; nothing of that may count.
    known_SK = np.vstack([known_KT.T, 1.0 - known_KT.T[-10:]])
    window = replace(
        window_of(np.ones((1, steps)), horizon=10),
        known_NSK=known_SK[None],
        known_names=tuple(columns),
    )
    closed_NS = np.zeros((1, steps + 10), bool)
    # 1,000 open days: two of them are .2 %, which is just enough.
    closed_NS[:, steps - 100 : steps] = True
    assert flag_columns(window, closed_NS) == [0, 2]
    assert flag_columns(replace(window, resolution_ms=WEEK_MS), closed_NS) == []
    many = replace(window, known_NSK=np.repeat(known_SK[None, :, :1], 13, 2))
    assert flag_columns(many, closed_NS) == list(range(12))


def test_rows_of_days_are_whole_series() -> None:
    window = quarters(
        [[1.0] * 8, [2.0] * 8, [3.0] * 8],
        [[0] * 10, [1] * 10, [0] * 4 + [1] * 6],
    )
    closed_NS = np.array([[False] * 10, [True] * 10, [True] * 4 + [False] * 6])
    days = days_of(window, closed_NS, [0])
    assert days is not None
    last = days.rows(slice(None, None, -2))
    np.testing.assert_equal(last.target_ND, [[12.0, 12.0, NAN], [4.0, 4.0, NAN]])
    assert last.closed_ND.tolist() == [[True, False, False], [False, False, False]]
    assert last.flags_NDF[..., 0].tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert last.column_NS.shape == (2, 10) and last.day_D.tolist() == [2, 3, 4]
