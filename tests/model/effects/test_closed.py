"""Closed steps: a covariate's word, the calendar's pattern, and what must stay open."""

from __future__ import annotations

import numpy as np

from freshet.model.effects.closed import closed_steps
from freshet.model.tables.panel import Window
from freshet.stream.units import DAY_MS, HOUR_MS


def window(
    target_NT: np.ndarray,
    known_NSK: np.ndarray | None = None,
    horizon: int = 14,
    resolution_ms: int = DAY_MS,
) -> Window:
    """A window that starts on a Thursday, 1970-01-01."""
    series, context = target_NT.shape
    known_NSK = np.zeros((series, context + horizon, 0)) if known_NSK is None else known_NSK
    time_NS = np.broadcast_to(
        np.arange(context + horizon) * resolution_ms, (series, context + horizon)
    )
    names = tuple(f"k{column}" for column in range(known_NSK.shape[2]))
    ids = tuple(f"item{row}" for row in range(series))
    return Window(
        ids,
        "D",
        resolution_ms,
        7,
        time_NS,
        target_NT,
        known_NSK,
        np.zeros((series, context, 0)),
        names,
        (),
        {},
    )


def shop(*, series: int = 6, days: int = 140, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sales and the flag `open`, 0 on about one day in eight, over context and 14 more days."""
    random = np.random.default_rng(seed)
    open_NS = (random.random((series, days + 14)) > 0.12).astype(float)
    return random.poisson(20, (series, days)) * open_NS[:, :days], open_NS


def test_days_flagged_closed_are_closed_in_context_and_horizon() -> None:
    target_NT, open_NS = shop()
    assert (closed_steps(window(target_NT, open_NS[..., None])) == (open_NS == 0)).all()


def test_a_promotion_flag_and_a_price_close_nothing() -> None:
    target_NT, open_NS = shop()
    random = np.random.default_rng(1)
    other_NSK = np.stack(
        [random.integers(0, 2, open_NS.shape), random.random(open_NS.shape)], -1
    ).astype(float)
    assert not closed_steps(
        window(np.random.default_rng(2).poisson(20, target_NT.shape) + 1.0, other_NSK)
    ).any()


def test_a_flag_in_thin_data_closes_nothing_however_rarely_it_sold() -> None:
    random = np.random.default_rng(3)
    target_NT = (random.random((20, 200)) < 0.05).astype(float)
    flag_NS = (random.random((20, 214)) < 0.02).astype(float)
    target_NT[flag_NS[:, :200] == 1] = 0
    assert not closed_steps(window(target_NT, flag_NS[..., None])).any()


def test_one_day_without_sales_anywhere_is_no_rule() -> None:
    target_NT = np.full((80, 60), 5.0)
    flag_NS = np.zeros((80, 74))
    flag_NS[:, [30, 65]] = 1
    target_NT[:, 30] = 0
    assert not closed_steps(window(target_NT, flag_NS[..., None])).any()


def test_a_series_that_sells_under_the_flag_stays_open_and_so_does_a_step_with_sales() -> None:
    target_NT, open_NS = shop(series=40)
    target_NT[0] = 7  # sells whatever its flag says
    stray = int(np.flatnonzero(open_NS[1, :140] == 0)[0])
    target_NT[2] = np.where(open_NS[2, :140] == 0, 0, 9)
    closed_NS = closed_steps(window(target_NT, open_NS[..., None]))
    assert not closed_NS[0].any()
    assert closed_NS[1, stray]
    assert (closed_NS[2] == (open_NS[2] == 0)).all()


def test_missing_days_and_missing_flags_do_not_count() -> None:
    target_NT, open_NS = shop()
    target_NT[:, :40] = np.nan
    open_NS[:, 40:60] = np.nan
    closed_NS = closed_steps(window(target_NT, open_NS[..., None]))
    assert not closed_NS[:, 40:60].any()
    assert (closed_NS[:, 140:] == (open_NS[:, 140:] == 0)).all()


def test_a_weekday_without_sales_is_closed_for_thin_series_together() -> None:
    random = np.random.default_rng(4)
    target_NT = (random.random((50, 140)) < 0.1).astype(float)
    target_NT[:, np.arange(140) % 7 == 2] = 0  # Saturdays
    closed_NS = closed_steps(window(target_NT))
    assert (closed_NS == (np.arange(154) % 7 == 2)).all()


def test_a_single_series_rests_on_its_own_weekday() -> None:
    target_NT = np.full((2, 140), 4.0)
    target_NT[1, np.arange(140) % 7 == 3] = 0
    closed_NS = closed_steps(window(target_NT))
    assert not closed_NS[0].any()
    assert (closed_NS[1] == (np.arange(154) % 7 == 3)).all()


def test_the_calendar_is_not_asked_where_a_covariate_knows() -> None:
    target_NT = np.full((3, 140), 4.0)
    sunday = np.arange(154) % 7 == 3
    target_NT[:, sunday[:140]] = 0
    open_NS = np.where(sunday, 0.0, 1.0) * np.ones((3, 1))
    open_NS[:, 150] = 1  # the first Sunday with open doors, a day of the horizon
    assert sunday[150]
    assert not closed_steps(window(target_NT, open_NS[..., None]))[:, 150].any()


def test_nights_are_closed_by_hour_of_the_week() -> None:
    hour = np.arange(24 * 7 * 10 + 24)
    day_time = (hour % 24 >= 8) & (hour % 24 < 18)
    target_NT = np.where(day_time, 3.0, 0.0)[None, : 24 * 7 * 10] * np.ones((8, 1))
    closed_NS = closed_steps(window(target_NT, horizon=24, resolution_ms=HOUR_MS))
    assert (closed_NS == ~day_time).all()


def test_nothing_is_closed_in_empty_zero_or_monthly_series() -> None:
    assert not closed_steps(window(np.full((3, 60), np.nan))).any()
    assert not closed_steps(window(np.zeros((3, 60)), np.zeros((3, 74, 2)))).any()
    assert not closed_steps(window(np.zeros((3, 1)))).any()
    assert not closed_steps(window(np.eye(5, 60), resolution_ms=30 * DAY_MS)).any()


def flagged(
    flagged_days: int, *, days: int = 400, sold_on: int = 0, units: float = 5.0
) -> np.ndarray:
    """Closed steps of one shop that sells 5 a day, with a flag up on every other of its first days.

    It sells some units on `sold_on` of the flagged days. The flag is up in the horizon's second
    half.
    """
    up_S = np.zeros(days + 14)
    up_S[np.arange(flagged_days) * 2] = 1.0
    up_S[days + 7 :] = 1.0
    target_T = np.where(up_S[:days] > 0, 0.0, 5.0)
    target_T[np.arange(sold_on) * 2] = units
    found: np.ndarray = closed_steps(window(target_T[None], up_S[None, :, None]))[0]
    return found


def test_a_dozen_days_without_a_sale_close_a_flag_and_eleven_do_not() -> None:
    assert flagged(12)[400:].tolist() == [False] * 7 + [True] * 7
    assert not flagged(11).any()
    assert not flagged(12, sold_on=1).any()


def test_of_many_days_one_in_two_hundred_may_have_sold() -> None:
    for units in (5.0, 0.5):
        found = flagged(200, sold_on=1, units=units)
        assert found[400:].tolist() == [False] * 7 + [True] * 7
        assert not found[0] and found[2], "the day with sales is open"
    assert not flagged(200, sold_on=2).any()
    # Of fewer than fifty days not one, of fifty or more half a percent: with 199 that is none.
    assert not flagged(199, sold_on=1).any()


def test_what_explains_more_idle_days_is_asked_first() -> None:
    sunday_S = np.arange(154) % 7 == 3
    closed_S = sunday_S | (np.arange(154) % 20 == 1)
    target_NT = np.where(closed_S[:140], 0.0, 4.0) * np.ones((3, 1))
    open_S = ~closed_S
    open_S[150] = True  # the first Sunday with open doors, a day of the horizon
    known_NSK = np.broadcast_to(np.stack([sunday_S, open_S], -1).astype(float), (3, 154, 2))
    for columns in ([0, 1], [1, 0]):
        assert (closed_steps(window(target_NT, known_NSK[..., columns])) == ~open_S).all()


def test_what_the_horizon_holds_changes_no_step_of_the_past_and_closes_nothing_by_itself() -> None:
    target_NT, open_NS = shop()
    price_NS = np.random.default_rng(7).random(open_NS.shape)
    known_NSK = np.stack([open_NS, price_NS], -1)
    other_NSK = known_NSK.copy()
    other_NSK[:, 140:, 0] = 1.0 - open_NS[:, 140:]
    other_NSK[:, 140:, 1] = 0.0
    plain_NS = closed_steps(window(target_NT, known_NSK))
    other_NS = closed_steps(window(target_NT, other_NSK))
    assert (other_NS[:, :140] == plain_NS[:, :140]).all()
    assert (other_NS[:, 140:] == (open_NS[:, 140:] == 1)).all()
    never_NSK = np.zeros((6, 154, 1))
    never_NSK[:, 140:] = 1.0  # a value that was never seen before the cutoff
    assert not closed_steps(window(target_NT + 1.0, never_NSK)).any()


def test_a_weekday_of_one_series_needs_twenty_of_them() -> None:
    for weeks, closed in ((19, False), (20, True)):
        days = 7 * weeks
        target_NT = np.full((2, days), 4.0)
        target_NT[1, np.arange(days) % 7 == 3] = 0
        found_NS = closed_steps(window(target_NT))
        assert found_NS[1].any() == closed and not found_NS[0].any()


def test_a_series_that_sells_on_half_of_its_days_may_rest_by_chance() -> None:
    days = 7 * 20
    weekday_T = np.arange(days) % 7
    others_X = np.flatnonzero(weekday_T != 3)  # six a week
    for selling, closed in ((60, False), (61, True)):
        target_NT = np.zeros((2, days))
        target_NT[0, others_X[::2]] = 4.0
        target_NT[1, others_X[:selling]] = 4.0
        assert closed_steps(window(target_NT))[1].any() == closed, selling


def test_a_weekday_that_sold_more_than_a_year_ago_counts_as_closed() -> None:
    days = 7 * 60
    sunday_T = np.arange(days) % 7 == 3
    for idle_weeks, closed in ((52, True), (51, False)):
        target_NT = np.full((3, days), 4.0)
        target_NT[:, sunday_T & (np.arange(days) >= days - 7 * idle_weeks)] = 0
        found_NS = closed_steps(window(target_NT))
        assert found_NS[0, days:].sum() == 2 * closed, idle_weeks
        assert not found_NS[:, 3].any(), "a day with sales is open"


def test_a_slot_of_all_series_together_needs_seven_weeks() -> None:
    for weeks, closed in ((6, False), (7, True)):
        days = 7 * weeks
        target_NT = np.full((20, days), 4.0)
        target_NT[:, np.arange(days) % 7 == 3] = 0
        assert closed_steps(window(target_NT)).any() == closed


def test_a_second_flag_is_judged_by_the_steps_that_the_first_leaves_open() -> None:
    # Open on two days of five; of the open days every ninth is a feast on which nothing sells.
    day_S = np.arange(154)
    open_S = day_S % 5 < 2
    feast_S = open_S & (day_S % 9 == 0)
    target_NT = np.where(open_S & ~feast_S, 4.0, 0.0)[:140] * np.ones((3, 1))
    known_NSK = np.broadcast_to(np.stack([open_S, feast_S], -1) * 1.0, (3, 154, 2))
    # Of all days not on a feast less than half sell, of the open ones all do.
    assert (closed_steps(window(target_NT, known_NSK)) == (~open_S | feast_S)).all()


def test_a_flag_under_which_more_than_a_tenth_sells_closes_nothing() -> None:
    flag_S = np.arange(154) % 6 == 0
    flag_NS = np.broadcast_to(flag_S * 1.0, (20, 154))[..., None]
    for selling, some in ((2, True), (3, False)):
        target_NT = np.where(flag_S[:140], 0.0, 4.0) * np.ones((20, 1))
        target_NT[:selling] = 4.0
        closed_NS = closed_steps(window(target_NT, flag_NS))
        assert not closed_NS[:selling].any()
        assert (closed_NS[selling:] == (flag_S & some)).all()


def test_in_thin_data_a_weekday_that_sells_a_third_of_the_others_is_open() -> None:
    weekday_T = np.arange(140) % 7
    for saturday, closed in ((6, False), (0, True)):
        sold_NT = np.zeros((100, 140))
        for weekday in range(7):
            # Twenty of two thousand steps sell on other weekdays: one in a hundred.
            number = saturday if weekday == 2 else 20
            days_X = np.flatnonzero(weekday_T == weekday)
            sold_NT[5 * np.arange(number), days_X[np.arange(number)]] = 1.0
        assert closed_steps(window(sold_NT)).any() == closed


def test_an_hour_of_the_week_of_a_single_series_is_too_little_to_close() -> None:
    hours = 168 * 21
    target_NT = np.full((2, hours), 3.0)
    target_NT[0, np.arange(hours) % 168 == 99] = 0.0
    assert not closed_steps(window(target_NT, horizon=24, resolution_ms=HOUR_MS)).any()
