"""Spikes that do not come again, peaks that do, and clicks with and without orders."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from freshet.model.effects.outliers import bought_clicks, without_spikes
from freshet.model.effects.slots import dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.predict.out import mean_weights
from freshet.model.predict.windows import forecast
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from freshet.stream.units import HOUR_MS
from tests.model.tables.windows import window_of


@functools.cache
def forecaster() -> BatchForecaster:
    return BatchForecaster.from_pretrained(device="cpu", dtype="float32")


def quantiles(window: Window) -> Floats:
    return forecast(forecaster(), dress(window), window.horizon, forecaster().quantile_levels)


def test_one_spike_in_ninety_nine_tens_does_not_make_the_mean() -> None:
    for place in (40, 92, 99):
        target_NT = np.full((1, 100), 10.0)
        target_NT[0, place] = 1e6
        found_NHQ = quantiles(window_of(target_NT, horizon=14))
        mean_NH = found_NHQ @ mean_weights(np.array(forecaster().quantile_levels))
        assert mean_NH.max() < 15.0
        assert found_NHQ[..., -1].max() < 100.0


def test_peaks_of_promotions_and_those_that_come_again_stay() -> None:
    target_NT = np.full((2, 100), 10.0)
    target_NT[0, 50] = 300.0
    told_NT = np.zeros((2, 100), bool)
    told_NT[0, 50] = True
    target_NT[1, [20, 50, 80]] = 300.0  # more than one of a hundred and the one
    np.testing.assert_array_equal(without_spikes(target_NT, told_NT), target_NT)
    cut_NT = without_spikes(target_NT, np.zeros((2, 100), bool))
    assert cut_NT[0, 50] == 50.0
    np.testing.assert_array_equal(cut_NT[1], target_NT[1])


def test_an_only_sale_is_no_spike_and_what_is_missing_stays_so() -> None:
    target_NT = np.zeros((1, 60))
    target_NT[0, [3, 30]] = np.nan, 70.0
    np.testing.assert_array_equal(without_spikes(target_NT, target_NT < 0), target_NT)


@pytest.fixture
def shop() -> Window:
    """Twelve items by the hour, four weeks, with views before sales."""
    draw = np.random.default_rng(3)
    hours = np.arange(28 * 24 + 24)
    rate_S = 4.0 * (1.1 + np.sin(hours * 2 * np.pi / 24))
    rate_NS = rate_S * draw.uniform(0.5, 2.0, (12, 1))
    window = window_of(draw.poisson(rate_NS[:, :-24]).astype(float), horizon=24, season_length=24)
    views_NT = draw.poisson(20.0 * rate_NS[:, :-24]).astype(float)
    return replace(
        window,
        frequency="h",
        resolution_ms=HOUR_MS,
        time_ms_NS=np.tile(hours * HOUR_MS, (12, 1)),
        past_NTP=views_NT[..., None],
        past_names=("views",),
    )


def test_bots_for_six_hours_hardly_move_the_next_day(shop: Window) -> None:
    before_NHQ = quantiles(shop)
    bots_NTP = shop.past_NTP.copy()
    bots_NTP[:, -6:] *= 50.0
    after_NHQ = quantiles(replace(shop, past_NTP=bots_NTP))
    for level, most in ((10, 1.1), (19, 1.3)):
        total_N = before_NHQ[..., level].sum(1)
        ratio_N = after_NHQ[..., level].sum(1) / total_N
        assert np.median(ratio_N) <= 1.1
        assert ratio_N.max() <= most, level


def test_a_surge_with_orders_behind_it_keeps_its_clicks(shop: Window) -> None:
    past_NTP = shop.past_NTP.astype(np.float32)
    past_NTP[:, -6:] *= 50.0
    target_NT = shop.target_NT.copy()
    target_NT[:, -6:] = 50.0 * (target_NT[:, -6:] + 10.0)
    kept = bought_clicks(past_NTP, target_NT, (0,), 24)
    assert (kept[:, -6:] > 0.5 * past_NTP[:, -6:]).mean() > 0.9
    cut = bought_clicks(past_NTP, shop.target_NT, (0,), 24)
    assert (cut[:, -6:] < 0.15 * past_NTP[:, -6:]).mean() > 0.9
    np.testing.assert_array_equal(bought_clicks(past_NTP, target_NT, (), 24), past_NTP)
