"""What all series share is found from short histories; nothing after the cutoff is looked at."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from datetime import date, timedelta

import numpy as np
import pytest

from freshet.model.batch import PAST_SLOTS
from freshet.model.effects import shared as shared_module
from freshet.model.effects.closed import closed_steps
from freshet.model.effects.events import fit_events
from freshet.model.effects.shared import (
    SharedEffects,
    _holds_amounts,
    find_shared,
    shared_effects,
    sized,
)
from freshet.model.effects.slopes import STRONGEST, fit_slopes
from freshet.model.effects.slots import Dressed, dress, dressed_for
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS
from tests.model.tables.windows import window_of

MONDAY_MS = 19_723 * DAY_MS  # 1 January 2024


def weeks(known_NSK: Floats, target_NT: Floats, names: tuple[str, ...]) -> Window:
    """A table by week, first week from 1 January 2024 on."""
    time_ms_NS = np.broadcast_to(
        MONDAY_MS + WEEK_MS * np.arange(known_NSK.shape[1]), known_NSK.shape[:2]
    )
    past_NTP = np.zeros((*target_NT.shape, 0))
    ids = tuple(f"s{row}" for row in range(len(target_NT)))
    return Window(
        ids, "W-SUN", WEEK_MS, 1, time_ms_NS, target_NT, known_NSK, past_NTP, names, (), {}
    )


def shops(seed: int = 0, context: int = 20, horizon: int = 6) -> tuple[Window, Floats]:
    """Shops that sell by their open days and by price; and the log effect of both: [N, S]."""
    draw = np.random.default_rng(seed)
    shape = (80, context + horizon)
    days_NS, price_NS = (
        7.0 - draw.integers(0, 4, shape) * (draw.random(shape) < 0.3),
        draw.uniform(1.0, 3.0, shape),
    )
    effect_NS = np.log(days_NS / 7.0) - 0.8 * np.log(price_NS)
    level_N1 = draw.uniform(3.0, 8.0, (80, 1))
    log_NT = (level_N1 + effect_NS + draw.normal(0.0, 0.2, shape))[:, :context]
    window = weeks(
        np.stack([days_NS, price_NS], -1), np.rint(np.exp(log_NT)), ("open_days", "price")
    )
    return window, effect_NS


def test_twenty_weeks_of_eighty_shops_tell_what_open_days_and_prices_do() -> None:
    window, effect_NS = shops()
    found_NS, _ = shared_effects(window, closed_steps(window))
    wanted_NS = effect_NS - effect_NS[:, :20].mean(1, keepdims=True)
    error_NH = (found_NS - wanted_NS)[:, 20:]
    assert np.abs(error_NH).mean() < 0.25 * np.abs(wanted_NS[:, 20:]).mean()


def test_of_too_many_series_evenly_chosen_ones_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    window, _ = shops()
    few = find_shared(window.rows(np.arange(0, 80, 3)))
    monkeypatch.setattr(shared_module, "MAX_SERIES", 30)
    sampled = find_shared(window)
    np.testing.assert_array_equal(sampled.slopes.weights_2C, few.slopes.weights_2C)
    np.testing.assert_array_equal(sampled.events.weights_K, few.events.weights_K)


def test_what_is_known_of_the_horizon_counts_and_its_sales_do_not_exist() -> None:
    window, _ = shops()
    slopes = fit_slopes(window, closed_steps(window), [0, 1])
    closed_NSK = window.known_NSK.copy()
    closed_NSK[:, 20:, 0] = 4.0
    other = weeks(closed_NSK, window.target_NT, window.known_names)
    assert (
        fit_slopes(other, closed_steps(other), [0, 1]).weights_2C.tolist()
        == slopes.weights_2C.tolist()
    )
    assert (slopes.apply(other)[:, 20:] <= slopes.apply(window)[:, 20:] + 1e-9).all()


def test_beyond_what_was_seen_an_effect_stays_as_it_was() -> None:
    window, _ = shops()
    slopes = fit_slopes(window, closed_steps(window), [0, 1])
    far_NSK, edge_NSK = window.known_NSK.copy(), window.known_NSK.copy()
    far_NSK[:, 20:, 1], edge_NSK[:, 20:, 1] = 1e9, slopes.high_C[1]
    far, edge = (
        slopes.apply(weeks(known_NSK, window.target_NT, ())) for known_NSK in (far_NSK, edge_NSK)
    )
    assert far.tolist() == edge.tolist()
    assert np.abs(far).max() <= STRONGEST


@pytest.mark.parametrize("spoil", ["constant", "missing", "one value", "no sales"])
def test_a_covariate_that_says_nothing_does_nothing(spoil: str) -> None:
    window, _ = shops()
    known_NSK, target_NT = window.known_NSK[..., :1].copy(), window.target_NT.copy()
    if spoil == "constant":
        known_NSK[:] = 5.0
    elif spoil == "missing":
        known_NSK[:] = np.nan
    elif spoil == "one value":
        known_NSK[1:] = np.nan
        known_NSK[0] = 3.0
    else:
        target_NT[:] = np.nan
    bare = weeks(known_NSK, target_NT, ("open_days",))
    slopes = fit_slopes(bare, closed_steps(bare), [0])
    assert slopes.columns == ()
    assert not slopes.apply(bare).any()


def test_a_missing_value_has_no_effect_but_a_finite_one() -> None:
    window, _ = shops()
    known_NSK = window.known_NSK.copy()
    known_NSK[::3, ::2] = np.nan
    gappy = weeks(known_NSK, window.target_NT, window.known_names)
    assert np.isfinite(shared_effects(gappy, closed_steps(gappy))).all()


def test_slopes_are_a_ridge_regression_within_series_and_their_ends_are_the_pasts() -> None:
    window, _ = shops()
    ahead_NSK = window.known_NSK.copy()
    ahead_NSK[:, 20:] = 1e6
    other = weeks(ahead_NSK, window.target_NT, window.known_names)
    slopes = fit_slopes(other, np.zeros((80, 26), bool), [0, 1])
    past_NTK = window.known_NSK[:, :20]
    low_K, high_K = past_NTK.min((0, 1)), past_NTK.max((0, 1))
    assert slopes.low_C.tolist() == low_K.tolist() and slopes.high_C.tolist() == high_K.tolist()
    np.testing.assert_allclose(slopes.mean_C, past_NTK.mean((0, 1)))
    place_NTK = (past_NTK - low_K) / (high_K - low_K)
    features = np.concatenate([place_NTK, np.log(0.1 + place_NTK)], -1)[..., [0, 2, 1, 3]]
    features = (features - features.mean(1, keepdims=True)).reshape(-1, 4)
    spread_K = features.std(0)
    log_NT = np.log1p(window.target_NT)
    log_X = (log_NT - log_NT.mean(1, keepdims=True)).ravel()
    features = features / spread_K
    weights_K = np.linalg.solve(features.T @ features + 10.0 * np.eye(4), features.T @ log_X)
    # Twenty dates taught them, beside which stand two on which nothing happened.
    trusted_K = weights_K / spread_K * 20 / 22
    np.testing.assert_allclose(slopes.weights_2C.T.ravel(), trusted_K, rtol=1e-6)
    # The effect is zero on average before the cutoff, whatever comes after it.
    effect_NS = slopes.apply(other)
    np.testing.assert_allclose(effect_NS[:, :20].mean(1), 0.0, atol=1e-9)
    np.testing.assert_array_equal(effect_NS[:, :20], slopes.apply(window)[:, :20])


def test_two_hundred_steps_teach_slopes_and_fewer_do_not() -> None:
    window, _ = shops()
    ten = window.rows(slice(10))
    closed_NS = np.zeros((10, 26), bool)
    assert fit_slopes(ten, closed_NS, [0, 1]).columns == (0, 1)
    closed_NS[3, 4] = True
    assert fit_slopes(ten, closed_NS, [0, 1]).columns == ()
    assert not fit_slopes(ten, closed_NS, [0, 1]).apply(ten).any()


def days(seed: int = 2) -> Window:
    """Six shops by day from 1 January 2024 on, with a price and a flag in runs; 14 days ahead."""
    draw = np.random.default_rng(seed)
    steps = 314
    price_NS = draw.uniform(1.0, 3.0, (6, steps))
    price_NS[0, :9] = 1.0  # a number may be 1 at times
    run_S = np.arange(steps) // 5 % 3 == 1
    known_NSK = np.stack([price_NS, np.broadcast_to(run_S, price_NS.shape)], -1)
    log_NS = 5.0 - 0.8 * np.log(price_NS) + 0.3 * run_S + draw.normal(0.0, 0.1, price_NS.shape)
    target_NT = np.rint(np.exp(log_NS[:, :300]))
    window = weeks(known_NSK, target_NT, ("price", "promo"))
    time_ms_NS = np.broadcast_to(MONDAY_MS + DAY_MS * np.arange(steps), (6, steps))
    return replace(window, frequency="D", resolution_ms=DAY_MS, time_ms_NS=time_ms_NS)


def test_events_are_learnt_from_what_slopes_leave_and_training_gets_those_of_other_half_years() -> (
    None
):
    window = days()
    closed_NS = closed_steps(window)
    slopes_NS = fit_slopes(window, closed_NS, [0]).apply(window)  # by day a flag is no number
    left = replace(window, target_NT=window.target_NT / np.exp(slopes_NS[:, :300]))
    known_NS, taught_NS = fit_events(left, closed_NS).effects(window, closed_NS)
    for_forecast_NS, for_training_NS = shared_effects(window, closed_NS)
    np.testing.assert_allclose(for_forecast_NS, slopes_NS + known_NS, atol=1e-9)
    np.testing.assert_allclose(for_training_NS, slopes_NS + taught_NS, atol=1e-9)
    # None of the parts is nothing, and the two differ before the cutoff alone.
    assert np.abs(slopes_NS).max() > 0.3 and np.abs(known_NS).max() > 0.05
    assert np.abs(for_forecast_NS - for_training_NS)[:, :300].max() > 0.01
    np.testing.assert_array_equal(for_forecast_NS[:, 300:], for_training_NS[:, 300:])


def test_a_feast_on_which_prices_fall_is_told_once() -> None:
    window = days()
    known_NSK, target_NT = window.known_NSK[..., :1].copy(), window.target_NT.copy()
    # Prices of 1, 2 and 3 in turn, and of .5 in the first days of every month, where twice as much
    # sells as at 1: the price says it all.
    day_S = np.array([(date(2024, 1, 1) + timedelta(step)).day for step in range(314)])
    price_S = np.where(day_S <= 3, 0.5, np.arange(314) % 3 + 1.0)
    known_NSK[:] = price_S[:, None]
    target_NT[:] = np.rint(600.0 / price_S[:300])
    bare = replace(window, known_NSK=known_NSK, target_NT=target_NT, known_names=("price",))
    found_NS = shared_effects(bare, closed_steps(bare))[0]
    usual_NH = found_NS[:, 300:][:, price_S[300:] == 1.0].mean()
    # From 27 October on: 1 to 3 November are among the days ahead.
    feast_NH = found_NS[:, 300:][:, price_S[300:] == 0.5].mean()
    assert feast_NH - usual_NH == pytest.approx(math.log(2.0), abs=0.12)


def test_flags_are_numbers_of_weeks_and_events_of_days() -> None:
    window, _ = shops(context=19)  # too few for events
    flag_NS = (window.known_NSK[..., 1] > 2.0) * 1.0
    weekly = replace(window, known_NSK=flag_NS[..., None], known_names=("promo",))
    closed_NS = np.zeros((80, 25), bool)
    found_NS = shared_effects(weekly, closed_NS)[0]
    np.testing.assert_allclose(
        found_NS, fit_slopes(weekly, closed_NS, [0]).apply(weekly), atol=1e-9
    )
    assert np.abs(found_NS).max() > 0.2


def _equal(one: Dressed, other: Dressed) -> None:
    """To the last bit, missing values too."""
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert left.tobytes() == right.tobytes(), field.name
        else:
            assert left == right


@pytest.mark.parametrize("resolution_ms", [DAY_MS, HOUR_MS, WEEK_MS])
def test_a_part_of_the_series_is_dressed_as_all_of_them_are(resolution_ms: int) -> None:
    random = np.random.default_rng(11)
    N, T, H = 40, 240, 24
    S = T + H
    known_NSK = np.stack(
        [
            random.random((N, S)) < 0.1,
            (np.arange(S) % 30 == 3) * np.ones((N, 1)),
            random.random((N, S)) * 9.0 + 1.0,
            (random.random((N, S)) < 0.08) * 0.2,
        ],
        -1,
    ).astype(float)
    target_NT = random.poisson(8.0, (N, T)) * (1.0 - known_NSK[:, :T, 1])
    target_NT[3, :90], target_NT[5, 40:60] = np.nan, 0.0
    plain = window_of(target_NT, horizon=H)
    whole = replace(
        plain,
        resolution_ms=resolution_ms,
        time_ms_NS=plain.time_ms_NS // DAY_MS * resolution_ms + MONDAY_MS,
        known_NSK=known_NSK,
        known_names=("promo", "holiday", "price", "discount"),
        static={"area": random.random(N), "brand": np.array(["a", "b"] * 20, object)},
        country="DE",
    )
    shared = find_shared(whole)
    assert shared.closing.states
    assert len(shared.slopes.columns)
    everyone = dress(whole)
    for rows in ([3], [5, 39], [7]):
        _equal(dress(whole.rows(np.array(rows)), shared), everyone.rows(np.array(rows)))


def test_effects_of_other_columns_are_refused() -> None:
    window = window_of(np.ones((2, 30)), horizon=3)
    with pytest.raises(InvalidInputError, match="promo"):
        dress(window, SharedEffects(("promo",)))


def test_how_long_a_history_is_read_makes_no_difference_to_its_newest_steps() -> None:
    random = np.random.default_rng(5)
    long = window_of(random.poisson(5.0, (6, 300)).astype(float), horizon=10)
    long = replace(long, known_NSK=(random.random((6, 310, 1)) < 0.1) * 1.0, known_names=("promo",))
    shared = find_shared(long)
    _equal(dressed_for(long, 64, shared), dressed_for(long.newest(100), 64, shared))
    short = long.newest(40)
    padded = dressed_for(short, 64, shared)
    assert np.isnan(padded.target_NT[:, :24]).all()
    assert np.array_equal(padded.target_NT[:, 24:], long.target_NT[:, -40:])
    assert (np.diff(padded.time_ms_NS) == DAY_MS).all()
    assert np.array_equal(padded.time_ms_NS[:, -50:], long.time_ms_NS[:, -50:])


def test_small_amounts_are_brought_to_a_mean_of_a_hundred_and_all_else_stays() -> None:
    gap = np.nan
    target_NT = np.array([[gap, 20.0, 30.0], [0.0, 0.0, 0.0], [150.0, 250.5, gap], [gap] * 3])
    window, factor_N = sized(window_of(target_NT, horizon=1), continuous=True)
    assert factor_N.tolist() == [4.0, 1.0, 1.0, 1.0]
    np.testing.assert_equal(window.target_NT, [[gap, 80.0, 120.0], *target_NT[1:].tolist()])
    counts, factor_N = sized(window_of(target_NT, horizon=1), continuous=False)
    np.testing.assert_equal(counts.target_NT, target_NT)
    assert factor_N.tolist() == [1.0] * 4


def test_one_broken_value_of_a_hundred_is_an_error_among_counts_and_two_are_amounts() -> None:
    target_NT = np.tile(np.arange(60.0), (2, 1))
    target_NT[:, 50:] = np.nan
    for row, amounts in ((0, False), (1, True)):
        target_NT[row, 3] += 0.25
        assert _holds_amounts(target_NT) == amounts
    assert not _holds_amounts(np.full((2, 3), np.nan))


def test_an_empty_shelf_is_no_demand() -> None:
    target_NT = np.array([[3.0, 0.0, 0.0, 2.0]])
    on_hand_NT = np.array([[9.0, 0.0, 4.0, 0.0]])
    window = replace(
        window_of(target_NT, horizon=1), past_NTP=on_hand_NT[..., None], past_names=("on_hand",)
    )
    # Nothing sold on the second day since there was nothing; on the third nobody came.
    expected = np.array([[3.0, math.nan, 0.0, 2.0]], np.float32)
    np.testing.assert_array_equal(dress(window).target_NT, expected)
    stock_T = dress(window).past_NTP[0, :, PAST_SLOTS.index("in_stock")]
    assert stock_T.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_a_share_of_a_step_in_stock_stays_one() -> None:
    share_NT = np.array([[1.0, 0.5, 0.0, 0.25]])
    window = replace(
        window_of(np.ones((1, 4)), horizon=1), past_NTP=share_NT[..., None], past_names=("stock",)
    )
    stock_T = dress(window).past_NTP[0, :, PAST_SLOTS.index("in_stock")]
    assert stock_T.tolist() == [1.0, 0.5, 0.0, 0.25]


def test_calendars_follow_the_clock_of_the_place() -> None:
    # Open from 9 to 17 by a clock that is six hours behind UTC.
    shown_ms = MONDAY_MS + np.arange(70 * 24) * HOUR_MS
    sold = 4.0 * ((shown_ms // HOUR_MS % 24 >= 9) & (shown_ms // HOUR_MS % 24 < 17))
    long = replace(
        window_of(np.tile(sold[: 69 * 24], (8, 1)), horizon=24),
        resolution_ms=HOUR_MS,
        time_ms_NS=np.tile(shown_ms + 6 * HOUR_MS, (8, 1)),
        local_ms_NS=np.tile(shown_ms, (8, 1)),
    )
    found = {slot % 24 for slot in find_shared(long).closing.slots}
    assert found == set(range(9)) | set(range(17, 24))
    batch, _ = dress(long).batch(np.array([1]), np.array([69 * 24]), context=48, horizon=24)
    assert batch.local_ms_BS is not None
    assert batch.local_ms_BS[0].tolist() == shown_ms[-72:].tolist()
