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
