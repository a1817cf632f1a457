"""Features of days against a calendar on the wall."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from freshet.model.effects.days import Days
from freshet.model.effects.features import (
    CHRISTMAS,
    EASTER,
    EPOCH,
    MONTH,
    bridged,
    calendar_features,
    feast_lengths,
    series_features,
)


def number(year: int, month: int, day: int) -> int:
    return (date(year, month, day) - EPOCH).days


def test_a_day_is_told_by_the_knots_between_which_it_lies() -> None:
    days = np.arange(number(2023, 3, 1), number(2024, 2, 1))
    features_DK = calendar_features(days, 1)
    assert feast_lengths(1) == [20, 12, 12]
    assert features_DK.shape == (len(days), 44)

    def told(day: date) -> dict[tuple[str, int], float]:
        """The knots, as days from the feast, of which a day has a share."""
        knots = [
            (name, knot)
            for name, feast in (("christmas", CHRISTMAS), ("easter", EASTER), ("month", MONTH))
            for knot in feast.tents[1:-1]
        ]
        row_K = features_DK[(day - EPOCH).days - days[0]]
        return {
            knot: round(float(value), 4)
            for knot, value in zip(knots, row_K, strict=True)
            if value > 0
        }

    assert told(date(2023, 12, 24)) == {
        ("christmas", -1): 1.0,
        ("month", -7): 0.75,
        ("month", -11): 0.25,
    }
    assert told(date(2023, 12, 5)) == {
        ("christmas", -21): 0.8571,
        ("christmas", -14): 0.1429,
        ("month", 4): 1.0,
    }
    # 9 April 2023 was Easter Sunday; Good Friday is two days before.
    assert told(date(2023, 4, 7)) == {
        ("easter", -2): 1.0,
        ("month", 4): 0.3333,
        ("month", 7): 0.6667,
    }
    assert told(date(2023, 6, 1)) == {("month", 0): 1.0}
    # 12 January is 18 days from Christmas, where the outermost tent has its foot.
    assert told(date(2024, 1, 12)) == {("month", 11): 1.0}
    assert told(date(2024, 1, 10)) == {
        ("christmas", 13): 0.4,
        ("month", 7): 0.5,
        ("month", 11): 0.5,
    }


@pytest.mark.parametrize(
    ("place", "feast", "knots", "feet"),
    [
        (
            0,
            date(2023, 12, 25),
            (-28, -21, -14, -10, -7, -5, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13),
            (-35, 18),
        ),
        (20, date(2023, 4, 9), (-14, -9, -6, -4, -3, -2, -1, 0, 1, 2, 4, 7), (-21, 12)),
        (32, date(2023, 8, 1), (-11, -7, -4, -3, -2, -1, 0, 1, 2, 4, 7, 11), (-16, 16)),
    ],
)
def test_at_each_knot_of_a_feast_its_own_tent_stands_whole_and_ends_at_its_feet(
    place: int, feast: date, knots: tuple[int, ...], feet: tuple[int, int]
) -> None:
    first = (feast - EPOCH).days - 40
    features_DK = calendar_features(np.arange(first, first + 81), 1)
    own_DK = features_DK[:, place : place + len(knots)]
    np.testing.assert_array_equal(own_DK[[40 + knot for knot in knots]], np.eye(len(knots)))
    for outermost, knot in ((0, knots[0]), (-1, knots[-1])):
        foot = feet[outermost]
        inside = foot + 1 if foot < 0 else foot - 1
        assert own_DK[40 + inside, outermost] == pytest.approx(1.0 / abs(knot - foot))


@pytest.mark.parametrize(
    ("place", "first", "expected"),
    [
        # Christmas of 2023, a Monday: from five weeks before it to two after.
        (
            0,
            date(2023, 11, 20),
            [
                [0, 0, 0, 0, 0, 0, 0],
                [7, 0, 0, 0, 0, 0, 0],
                [0, 7, 0, 0, 0, 0, 0],
                [0, 0, 7, 0, 0, 0, 0],
                [0, 0, 0, 7, 0, 0, 0],
                [0, 0, 0, 0, 2, 5, 0],
                [0, 0, 0, 0, 0, 0, 7],
                [0, 0, 0, 0, 0, 0, 0],
            ],
        ),
        # Easter was on Sunday 9 April 2023.
        (
            7,
            date(2023, 3, 13),
            [[0] * 4, [1, 0, 0, 0], [6, 1, 0, 0], [0, 6, 1, 0], [0, 0, 1, 6], [0, 0, 0, 1]],
        ),
        # The first of August, a Tuesday.
        (11, date(2023, 7, 17), [[0] * 4, [5, 2, 0, 0], [0, 1, 3, 3], [0, 0, 0, 2]]),
        # The fourth of July, a Tuesday too; Juneteenth is over.
        (15, date(2023, 6, 26), [[2, 0, 0], [1, 1, 3], [0, 0, 0]]),
    ],
)
def test_the_days_of_weeks_lie_in_the_spans_around_a_feast(
    place: int, first: date, expected: list[list[int]]
) -> None:
    mondays = (first - EPOCH).days + 7 * np.arange(len(expected))
    found_DK = 7.0 * calendar_features(mondays, 7, "US")
    np.testing.assert_allclose(found_DK[:, place : place + len(expected[0])], expected)


def test_a_week_is_told_by_how_many_of_its_days_lie_in_a_span() -> None:
    monday = number(2023, 12, 18)
    christmas_week, week_after = calendar_features(np.array([monday, monday + 7]), 7)
    assert feast_lengths(7) == [7, 4, 4]
    # 18 to 24 December: all in the week before the feast. 25 and 26: the feast, then five days.
    np.testing.assert_allclose(christmas_week[:7], [0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(week_after[:7], [0, 0, 0, 0, 2 / 7, 5 / 7, 0])
    # 24 December is eight days before the first of January, 25 to 28 seven to four.
    np.testing.assert_allclose(christmas_week[11:], [1 / 7, 0, 0, 0])
    np.testing.assert_allclose(week_after[11:], [4 / 7, 3 / 7, 0, 0])


def days_of_flag(flag: list[float], closed: list[int]) -> Days:
    """One series from a Thursday on, all of its open days seen."""
    closed_ND = np.array([closed]) > 0
    return Days(
        length_days=1,
        first_day=0,
        column_NS=np.arange(len(flag))[None],
        target_ND=np.where(closed_ND, 0.0, 5.0),
        closed_ND=closed_ND,
        flags_NDF=np.array(flag)[None, :, None],
    )


def test_a_run_has_a_day_before_it_a_first_a_last_and_a_day_after() -> None:
    #          before first  .  last after
    flag = [0, 0, 1, 1, 1, 0, 0, 0]
    days = days_of_flag(flag, [0] * 8)
    edges = {"before": [1], "first": [2], "last": [4], "after": [5]}
    columns_KD = series_features(days, (True,))[0].T
    assert [np.flatnonzero(row).tolist() for row in columns_KD[4:]] == list(edges.values())
    whole_KD = series_features(days, (False,))[0].T
    assert whole_KD[4].tolist() == flag
    assert whole_KD[5:].tolist() == columns_KD[4:].tolist()


def test_an_unusual_closure_has_two_open_days_on_either_side_and_a_usual_one_none() -> None:
    days = 28
    closed = [0] * days
    for sunday in range(3, days, 7):
        closed[sunday] = 1
    closed[11], closed[12] = 1, 1  # a Monday and a Tuesday, after the Sunday of day 10
    columns_KD = series_features(days_of_flag([0.0] * days, closed), (True,))[0].T
    found = [np.flatnonzero(row).tolist() for row in columns_KD[:4]]
    # The closure from 10 to 12 is unusual as a whole: the last open day is 9, the first one 13.
    assert found == [[9], [8], [13], [14]]
    # Closed on every other of its Mondays, the shop surprises nobody.
    closed = [0] * days
    closed[4], closed[18] = 1, 1
    columns_KD = series_features(days_of_flag([0.0] * days, closed), (True,))[0].T
    assert not columns_KD[:4].any()


def test_a_flag_goes_on_over_closed_days_that_it_has_on_both_sides() -> None:
    flag_ND = np.array([[np.nan, 1.0, 0.0, 1.0, np.nan, 0.0, 1.0, 0.0, np.nan]])
    closed_ND = np.array([[0, 0, 1, 0, 0, 0, 0, 1, 0]]) > 0
    # Before the first open day and after the last one there is no other side.
    assert bridged(flag_ND, closed_ND).tolist() == [[0, 1, 1, 1, 0, 0, 1, 0, 0]]
    depth_ND = np.array([[0.4, np.nan, 0.2]])
    assert bridged(depth_ND, np.zeros((1, 3), bool)).tolist() == [[0.4, 0.2, 0.2]]


def test_a_promotion_that_pauses_on_a_closed_day_is_one_run() -> None:
    flag = [0, 1, 1, 0, 1, 0, 0, 0]
    closed = [0, 0, 0, 1, 0, 0, 0, 0]
    columns_KD = series_features(days_of_flag(flag, closed), (False,))[0].T
    found = [np.flatnonzero(row).tolist() for row in columns_KD[4:]]
    # The flag itself, the day before, the first, the last and the day after.
    assert found == [[1, 2, 3, 4], [0], [1], [4], [5]]


def test_closures_of_the_days_ahead_tell_how_usual_one_is() -> None:
    for mondays, unusual in (([18, 25], False), ([18], True)):
        closed = [int(day in mondays) for day in range(28)]
        days = days_of_flag([0.0] * 28, closed)
        # The cutoff is day 14: of the days after it nothing was sold yet.
        target_ND = np.where(np.arange(28) < 14, 5.0, np.nan)[None]
        columns_KD = series_features(replace(days, target_ND=target_ND), (True,))[0].T
        assert bool(columns_KD[:4].any()) == unusual
        assert not unusual or [np.flatnonzero(row).tolist() for row in columns_KD[:4]] == [
            *([17], [16], [19], [20])
        ]


def test_holidays_are_those_of_the_country_and_the_nearest_feast_may_lie_in_another_year() -> None:
    days = np.array([number(2023, 7, 3), number(2023, 7, 4), number(2023, 7, 5)])
    plain_DK, german_DK, american_DK = (
        calendar_features(days, 1, country) for country in (None, "DE", "US")
    )
    assert feast_lengths(1, "US") == [20, 12, 12, 5] and feast_lengths(7, "US") == [7, 4, 4, 3]
    np.testing.assert_array_equal(american_DK[:, :44], plain_DK)
    # Tents two days before the feast to two days after it; Germany has none in July.
    assert american_DK[:, 44:].tolist() == [
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
    ]
    assert not german_DK[:, 44:].any()
    edges = np.array([number(2023, 7, 4) + distance for distance in (-3, -2, 2, 3)])
    assert calendar_features(edges, 1, "US")[:, 44:].tolist() == [
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    new_year_K = calendar_features(np.array([number(2024, 1, 1)]), 1)[0]
    # Seven days after Christmas, whose own tent that is, and the first of a month.
    assert np.flatnonzero(new_year_K).tolist() == [
        CHRISTMAS.tents[1:-1].index(7),
        32 + MONTH.tents[1:-1].index(0),
    ]
