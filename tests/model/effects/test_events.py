"""Effects that series share are found, unseen ones are nothing, no half-year teaches itself."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from freshet.model.effects import events as events_module
from freshet.model.effects.closed import closed_steps
from freshet.model.effects.days import days_of
from freshet.model.effects.events import Events, fit_events, half_years
from freshet.model.effects.features import calendar_features, series_features
from freshet.model.effects.shared import shared_effects
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

FIRST = date(2022, 1, 3)  # a Monday
NAN = math.nan


def day_number(year: int, month: int, day: int) -> int:
    return date(year, month, day).toordinal() - FIRST.toordinal()


def window(
    target_NT: np.ndarray, *, horizon: int = 28, known_NSK: np.ndarray | None = None, days: int = 1
) -> Window:
    """A window that starts on Monday, 2022-01-03; a step is `days` days."""
    series, context = target_NT.shape
    shape = (series, context + horizon)
    known_NSK = np.zeros((*shape, 0)) if known_NSK is None else known_NSK
    first = (FIRST - date(1970, 1, 1)).days
    time_NS = np.broadcast_to((first + days * np.arange(shape[1])) * DAY_MS, shape)
    names = tuple(f"k{column}" for column in range(known_NSK.shape[2]))
    ids = tuple(str(row) for row in range(series))
    past = np.zeros((series, context, 0))
    frequency = {1: "D", 7: "W-SUN", 30: "MS"}[days]
    return Window(
        ids, frequency, days * DAY_MS, 7, time_NS, target_NT, known_NSK, past, names, (), {}
    )


def sales(steps: int, effect_S: np.ndarray, *, series: int = 30, seed: int = 0) -> np.ndarray:
    """Sales of about 200 with a weekly shape, noise of a tenth, and an effect in log units."""
    random = np.random.default_rng(seed)
    level_N1 = random.uniform(4.5, 6.0, (series, 1))
    weekly_S = 0.3 * np.sin(2 * np.pi * np.arange(steps) / 7)
    log_NT = level_N1 + weekly_S + effect_S[:steps] + 0.1 * random.normal(size=(series, steps))
    return np.asarray(np.exp(log_NT).round())


def christmas(steps: int) -> np.ndarray:
    """The ten days up to Christmas Eve of 2022 and 2023 sell 65 % more."""
    effect_S = np.zeros(steps)
    for year in (2022, 2023):
        effect_S[day_number(year, 12, 15) : day_number(year, 12, 25)] = 0.5
    return effect_S


CUTOFF = day_number(2023, 12, 12)


def fitted(window: Window) -> Events:
    return fit_events(window, closed_steps(window))


def both_effects(window: Window) -> tuple[Floats, Floats]:
    return fitted(window).effects(window, closed_steps(window))


def event_effects(window: Window) -> Floats:
    return both_effects(window)[0]


def test_the_run_up_to_christmas_is_expected_again_after_one_year() -> None:
    effect_S = christmas(CUTOFF + 28)
    found_NS = event_effects(window(sales(CUTOFF, effect_S)))
    eve = day_number(2023, 12, 20)
    assert found_NS[:, eve].min() > 0.35
    assert np.abs(found_NS[:, day_number(2023, 6, 1) : day_number(2023, 11, 1)]).max() < 0.1


def test_what_only_one_half_year_taught_is_not_given_back_to_it() -> None:
    target_NT = sales(CUTOFF, christmas(CUTOFF + 28))
    shifted_NT = target_NT.copy()
    winter = slice(day_number(2022, 8, 1), day_number(2023, 2, 1))
    shifted_NT[:, winter] = np.round(
        target_NT[:, winter] * np.linspace(0.5, 2.0, winter.stop - winter.start)
    )
    events, shifted = fitted(window(target_NT)), fitted(window(shifted_NT))
    row = events.half_years_B.tolist().index(2 * 2022 + 1)
    # Residuals are taken from running levels, which reach a quarter into the neighbouring
    # half-years.
    np.testing.assert_allclose(events.weights_BK[row], shifted.weights_BK[row], atol=0.05)
    assert np.abs(events.weights_K - shifted.weights_K).max() > 0.1
    known_NS, crossed_NS = both_effects(window(target_NT))
    assert np.abs(crossed_NS[:, day_number(2022, 12, 20)]).max() < 0.1
    np.testing.assert_array_equal(crossed_NS[:, CUTOFF:], known_NS[:, CUTOFF:])


def with_flags(seed: int = 6) -> Window:
    """Thirty shops over 700 days: open or not, a flag in runs, and the price; 28 days ahead."""
    random = np.random.default_rng(seed)
    steps = 700
    open_S = np.arange(steps + 28) % 41 != 40
    run_S = np.arange(steps + 28) // 15 % 2 == 1
    price_NS = random.uniform(1.0, 2.0, (30, steps + 28))
    shared_NSK = np.broadcast_to(np.stack([open_S, run_S], -1), (30, steps + 28, 2))
    known_NSK = np.concatenate([shared_NSK, price_NS[..., None]], -1)
    target_NT = np.round(sales(steps, 0.4 * run_S) / price_NS[:, :steps]) * open_S[:steps]
    return window(target_NT, known_NSK=known_NSK)


@pytest.mark.parametrize("ahead", ["flags up", "flags down", "closed", "price", "unknown"])
def test_whatever_is_known_of_the_days_ahead_the_past_teaches_and_shows_the_same(
    ahead: str,
) -> None:
    whole = with_flags()
    T = whole.context_length
    known_NSK = whole.known_NSK.copy()
    # The day after the cutoff stays: it tells whether a run ends or the shop closes at the cutoff.
    later = slice(T + 3, None)
    if ahead in ("flags up", "flags down"):
        known_NSK[:, later, 1] = float(ahead == "flags up")
    elif ahead == "closed":
        known_NSK[:, later, 0] = 0.0
    elif ahead == "price":
        known_NSK[:, later, 2] = 1e6
    else:
        known_NSK[:, later] = np.nan
    other = replace(whole, known_NSK=known_NSK)
    events, changed = fitted(whole), fitted(other)
    assert events.weights_K.any() and events.flags == (1,)
    assert changed.flags == events.flags and changed.flag_in_cells == events.flag_in_cells
    np.testing.assert_array_equal(changed.weights_K, events.weights_K)
    np.testing.assert_array_equal(changed.weights_BK, events.weights_BK)
    shown, shown_changed = (
        shared_effects(each, closed_steps(each))[0][:, :T] for each in (whole, other)
    )
    np.testing.assert_array_equal(shown_changed, shown)


def test_a_horizon_longer_by_whole_weeks_changes_nothing_before_it() -> None:
    whole = with_flags()
    end = whole.context_length + 7
    short = replace(whole, time_ms_NS=whole.time_ms_NS[:, :end], known_NSK=whole.known_NSK[:, :end])
    # Whole weeks, since levels are medians of weeks that are counted back from the horizon's end.
    np.testing.assert_array_equal(fitted(short).weights_K, fitted(whole).weights_K)
    # The last day of the shorter one does not know whether its run goes on.
    last = end - 1
    np.testing.assert_array_equal(event_effects(short)[:, :last], event_effects(whole)[:, :last])


def test_each_context_step_sees_what_the_other_half_years_taught_and_the_horizon_all() -> None:
    plain = window(np.full((2, 800), 5.0))
    events = fitted(window(sales(800, np.zeros(828), series=2)))
    half_years_S = half_years(plain.time_ms_NS[0] // DAY_MS)
    assert events.half_years_B.tolist() == sorted(set(half_years_S[:800].tolist()))
    # The half-year b teaches the others b times what all together teach.
    times_B1 = np.arange(len(events.half_years_B))[:, None]
    events = replace(
        events,
        weights_K=np.ones_like(events.weights_K),
        weights_BK=times_B1 * np.ones_like(events.weights_BK),
    )
    known_NS, taught_NS = events.effects(plain, np.zeros((2, 828), bool))
    assert np.abs(known_NS[0]).min() > 0.1
    expected = [
        events.half_years_B.tolist().index(number) if step < 800 else 1
        for step, number in enumerate(half_years_S.tolist())
    ]
    np.testing.assert_allclose(taught_NS / known_NS, [expected] * 2, rtol=1e-5)


def test_what_a_half_year_taught_is_missing_from_the_weights_of_the_others() -> None:
    """Ridge regression of each half-year's complement, written as one loop over days."""
    target_NT = sales(420, np.zeros(448), series=3)
    target_NT[2, :150] = np.nan
    target_NT[0, 200] *= 50.0  # counts as an effect of 1.5 and no more
    whole = window(target_NT)
    days = days_of(whole, closed_steps(whole), [])
    assert days is not None
    left_ND, _ = events_module._residuals(days)
    assert left_ND[0, 200] > 3.0
    events = fitted(whole)
    calendar_DK = calendar_features(days.day_D, 1).astype(np.float32)
    features_NDK = np.concatenate(
        [np.broadcast_to(calendar_DK, (3, 448, 44)), series_features(days, ())], -1
    ).astype(float)
    K = features_NDK.shape[2]
    # Of two series a value is worth 2 / (2 + 3) of a day, of three as usual a third.
    worth_D = np.where(np.arange(420) < 150, 2 / (2 + 3), 1 / 3)
    mean_D = np.nansum(left_ND[:, :420] * worth_D, 0)
    noise = 1.4826 * np.median(np.abs(mean_D - np.median(mean_D)))
    ridge = noise**2 / 0.15**2
    assert 0.1 < ridge < 50.0
    half_years_D = half_years(days.day_D)
    assert len(events.half_years_B) == 4
    for left_out, found_K in [
        (None, events.weights_K),
        *zip(events.half_years_B, events.weights_BK, strict=True),
    ]:
        squares_KK = ridge * events_module._penalty([20, 12, 12], K)
        product_K = np.zeros(K)
        for day in range(420):
            if half_years_D[day] == left_out:
                continue
            for row in np.flatnonzero(np.isfinite(left_ND[:, day])):
                feature_K = features_NDK[row, day]
                squares_KK += np.outer(feature_K, feature_K) * worth_D[day]
                product_K += feature_K * np.clip(left_ND[row, day], -1.5, 1.5) * worth_D[day]
        np.testing.assert_allclose(found_K, np.linalg.solve(squares_KK, product_K), atol=1e-6)


def test_a_day_of_a_feast_leans_on_its_neighbours_and_on_nothing_else() -> None:
    tenths = events_module._penalty([2, 3], 6) * 10
    expected = [
        [6, -3, 0, 0, 0, 0],
        [-3, 6, 0, 0, 0, 0],
        [0, 0, 6, -3, 0, 0],
        [0, 0, -3, 9, -3, 0],
        [0, 0, 0, -3, 6, 0],
        [0, 0, 0, 0, 0, 10],
    ]
    np.testing.assert_allclose(tenths, expected, atol=1e-12)
    calm_ND, one_D = np.zeros((2, 9)), np.ones(9)
    assert events_module._ridge(calm_ND, one_D) == 0.1
    assert events_module._ridge(calm_ND + 9.0 * np.arange(9), one_D) == 50.0


def test_residuals_lack_the_usual_of_their_kind_of_day_and_the_level_of_half_a_year() -> None:
    random = np.random.default_rng(3)
    target_NT = np.round(np.exp(4 + 0.02 * np.arange(297) + random.normal(size=(2, 297))))
    target_NT[1, 40:90] = np.nan
    whole = window(target_NT, horizon=4)
    closed_NS = np.zeros((2, 301), bool)
    closed_NS[0, ::23] = True
    days = days_of(whole, closed_NS, [])
    assert days is not None
    found_ND, in_cells = events_module._residuals(days)
    assert in_cells == []
    for row in range(2):
        log_D = [
            NAN if closed_NS[row, day] else math.log1p(target_NT[row, day]) for day in range(297)
        ] + [NAN] * 4
        usual = [
            statistics.mean(value for value in log_D[weekday::7] if not math.isnan(value))
            for weekday in range(7)
        ]
        left_D = [value - usual[day % 7] for day, value in enumerate(log_D)]
        # 43 weeks, counted back from the end of the horizon, each with its median.
        weeks = [left_D[day : day + 7] for day in range(0, 301, 7)]
        medians = [
            statistics.median(seen) if (seen := [x for x in week if not math.isnan(x)]) else NAN
            for week in weeks
        ]
        for day, value in enumerate(left_D):
            # Thirteen weeks on either side.
            around = medians[max(0, day // 7 - 13) : day // 7 + 14]
            level = statistics.median(x for x in around if not math.isnan(x))
            assert found_ND[row, day] == pytest.approx(value - level, nan_ok=True), (row, day)


@pytest.mark.parametrize("chunk", [2, 256])
def test_of_many_series_some_at_equal_distances_teach_and_all_are_told(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target_NT = sales(200, np.zeros(228), series=5)
    whole = window(target_NT)
    few = fitted(window(target_NT[[0, 3]]))
    plain_NS = few.effects(whole, closed_steps(whole))[0]
    monkeypatch.setattr(events_module, "MAX_SERIES", 2)
    monkeypatch.setattr(events_module, "CHUNK", chunk)
    many = fitted(whole)
    np.testing.assert_allclose(many.weights_K, few.weights_K, atol=1e-9)
    known_NS, _ = many.effects(whole, closed_steps(whole))
    np.testing.assert_allclose(known_NS, plain_NS, atol=1e-9)
    monkeypatch.setattr(events_module, "MAX_SERIES", 5)
    assert np.abs(fitted(whole).weights_K - few.weights_K).max() > 1e-4


def test_series_that_sell_on_three_days_of_five_teach_alone_and_rarer_ones_together() -> None:
    random = np.random.default_rng(2)
    closed_NS = np.zeros((3, 228), bool)
    closed_NS[:, 11::20] = True  # days that nobody could sell on do not make a series rare
    open_T = np.flatnonzero(~closed_NS[0, :200])
    for rare, together in ((0.39, False), (0.4, False), (0.41, True)):
        target_NT = random.poisson(9, (3, 200)) + 1.0
        target_NT[:, closed_NS[0, :200]] = 0.0
        target_NT[:, open_T[: round(rare * len(open_T))]] = 0.0
        alone = fit_events(window(target_NT), closed_NS).weights_K
        total = fit_events(window(target_NT.sum(0)[None]), closed_NS[:1]).weights_K
        assert np.allclose(alone, total) == together, rare


@pytest.mark.parametrize(("days", "fewest"), [(1, 49), (7, 20)])
def test_so_many_days_or_weeks_teach_events_and_one_fewer_does_not(days: int, fewest: int) -> None:
    for steps in (fewest, fewest - 1):
        events = fit_events(
            window(sales(steps, np.zeros(steps), series=3), days=days),
            np.zeros((3, steps + 28), bool),
        )
        assert bool(len(events.weights_K)) == (steps == fewest)


def test_a_flag_that_tells_kinds_of_days_apart_has_edges_only() -> None:
    run_S = np.arange(228) // 4 % 2 == 1
    known_NSK = np.broadcast_to(run_S[None, :, None] * 1.0, (5, 228, 1))
    for size, in_cells in ((0.5, True), (0.0, False)):
        events = fitted(window(sales(200, size * run_S, series=5), known_NSK=known_NSK))
        assert events.flags == (0,) and events.flag_in_cells == (in_cells,)
        # Three feasts, two days on either side of a closure, the flag's four edges and the flag.
        assert len(events.weights_K) == 44 + 4 + 4 + (not in_cells)


@pytest.mark.parametrize(("share", "in_cells"), [(0.5, []), (0.75, [0])])
def test_a_day_is_one_of_a_flag_where_it_is_up_for_more_than_half_of_it(
    share: float, in_cells: list[int]
) -> None:
    up_S = np.arange(228) // 4 % 2 == 1
    whole = window(sales(200, 0.5 * up_S, series=5))
    days = days_of(whole, closed_steps(whole), [])
    assert days is not None
    flags_NDF = np.broadcast_to(share * up_S[None, :, None], (5, 228, 1))
    assert events_module._residuals(replace(days, flags_NDF=flags_NDF))[1] == in_cells


def test_half_years_begin_in_february_and_august() -> None:
    days = [date(2023, 1, 31), date(2023, 2, 1), date(2023, 7, 31), date(2023, 8, 1)]
    days += [date(2023, 12, 31), date(2024, 1, 31), date(2024, 2, 1)]
    numbers = half_years(np.array([(day - date(1970, 1, 1)).days for day in days]))
    assert numbers.tolist() == [4045, 4046, 4046, 4047, 4047, 4047, 4048]


def test_chance_is_not_taken_for_an_event() -> None:
    random = np.random.default_rng(5)
    target_NT = np.round(np.exp(3 + 0.6 * random.normal(size=(1, 400))))
    assert np.abs(event_effects(window(target_NT))).max() < 0.35


def test_month_ends_the_day_before_a_closure_and_the_first_day_of_a_run_are_found() -> None:
    steps = 700
    dates = np.arange(steps + 28) + (FIRST - date(1970, 1, 1)).days
    is_last = np.array([date.fromordinal(int(day) + 719_164).day == 1 for day in dates])
    closed = np.isin(np.arange(steps + 28) % 41, [40]) & (np.arange(steps + 28) % 7 != 6)
    before = np.roll(closed, -1)
    run = (np.arange(steps + 28) // 15) % 2 == 1
    rises = run & ~np.roll(run, 1)
    effect_S = 0.2 * is_last + 0.4 * before + 0.3 * run + 0.25 * rises
    known_NSK = np.broadcast_to(np.stack([1.0 - closed, run], -1), (30, steps + 28, 2))
    target_NT = sales(steps, effect_S) * ~closed[:steps]
    found_S = np.median(event_effects(window(target_NT, known_NSK=known_NSK)), 0)
    usual = ~(is_last | before | rises | closed)
    assert found_S[is_last & ~before & ~rises & ~closed].mean() - found_S[usual].mean() > 0.12
    assert found_S[before & ~closed].mean() - found_S[usual].mean() > 0.25
    assert found_S[rises & ~before & ~closed].mean() - found_S[usual].mean() > 0.15


@pytest.mark.parametrize(("days", "steps"), [(1, 700), (7, 100)])
def test_the_weeks_around_pay_day_are_found_and_the_middle_of_the_month_is_quiet(
    days: int, steps: int
) -> None:
    horizon = 182 // days
    dates = [FIRST.toordinal() + days * step for step in range(steps + horizon)]
    # Spending swings through the month: high from the 27th to the 4th, low from the 15th to the
    # 24th.
    day_SD = np.array(
        [[date.fromordinal(first + day).day for day in range(days)] for first in dates]
    )
    effect_S = (
        0.2 * ((day_SD >= 27) | (day_SD <= 4)) - 0.1 * ((day_SD >= 15) & (day_SD <= 24))
    ).mean(1)
    noise_NT = 0.1 * np.random.default_rng(5).normal(size=(30, steps))
    target_NT = np.round(np.exp(6 + effect_S[:steps] + noise_NT))
    found_S = np.median(event_effects(window(target_NT, horizon=horizon, days=days)), 0)[steps:]
    true_S = effect_S[steps:]
    assert np.corrcoef(found_S, true_S)[0, 1] > 0.8
    assert found_S[true_S > 0.1].mean() - found_S[true_S < -0.05].mean() > 0.1


def test_hours_take_the_effect_of_their_day_and_thin_series_that_of_all_together() -> None:
    effect_S = christmas(CUTOFF + 28)
    random = np.random.default_rng(1)
    thin_NT = random.poisson(0.15 * np.exp(effect_S[:CUTOFF]), (400, CUTOFF)).astype(float)
    assert event_effects(window(thin_NT))[:, day_number(2023, 12, 20)].min() > 0.25
    daily_NT = sales(CUTOFF, effect_S, series=4)
    hourly_NT = np.repeat(daily_NT, 24, 1) / 24
    hourly = replace(
        window(hourly_NT, horizon=24 * 28),
        frequency="h",
        resolution_ms=DAY_MS // 24,
        time_ms_NS=np.broadcast_to(
            (FIRST - date(1970, 1, 1)).days * DAY_MS + np.arange(24 * (CUTOFF + 28)) * DAY_MS // 24,
            (4, 24 * (CUTOFF + 28)),
        ),
    )
    np.testing.assert_allclose(
        event_effects(hourly)[:, ::24], event_effects(window(daily_NT)), atol=1e-9
    )


def test_weeks_know_christmas_and_months_know_nothing() -> None:
    weeks = 100
    effect_S = np.zeros(weeks + 13)
    effect_S[[50, 102]] = 0.5  # the weeks that begin on 19 December 2022 and 18 December 2023
    target_NT = np.round(
        np.exp(6 + effect_S[:weeks] + 0.1 * np.random.default_rng(2).normal(size=(30, weeks)))
    )
    found_NS = event_effects(window(target_NT, horizon=13, days=7))
    assert found_NS[:, 102].min() > 0.3
    assert np.abs(found_NS[:, 105:110]).max() < 0.05
    assert not event_effects(window(sales(60, np.zeros(88)), days=30)).any()


def test_public_holidays_of_a_country_are_known_when_it_is_named() -> None:
    effect_S = np.zeros(CUTOFF + 28)
    for year, month, day in (
        (2022, 7, 4),
        (2023, 7, 4),
        (2022, 11, 24),
        (2023, 11, 23),
        (2022, 9, 5),
        (2023, 9, 4),
    ):
        effect_S[day_number(year, month, day)] = 0.6
    named = window(sales(CUTOFF, effect_S))
    independence_day = day_number(2023, 7, 4)
    known, unknown = event_effects(replace(named, country="US")), event_effects(named)
    assert known[:, independence_day].min() > unknown[:, independence_day].max() + 0.1
    with pytest.raises(InvalidInputError, match="'Atlantis'"):
        event_effects(replace(named, country="Atlantis"))


@pytest.mark.parametrize(
    "target", [np.full((2, 200), np.nan), np.zeros((2, 200)), np.full((2, 200), 7.0), [[3.0]]]
)
def test_empty_zero_constant_and_one_point_series_have_no_events(target: object) -> None:
    found_NS = event_effects(window(np.array(target, dtype=float)))
    assert found_NS.shape == (len(np.array(target)), np.array(target).shape[1] + 28)
    np.testing.assert_allclose(found_NS, 0.0, atol=1e-9)
