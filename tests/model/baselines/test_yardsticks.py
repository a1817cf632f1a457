"""The yardsticks must be fair: a weak baseline makes any network look good."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from freshet.model.baselines.yardsticks import (
    SeasonalNaive,
    moving_average,
    published_naive,
    seasonal_naive,
)
from tests.model.tables.windows import window_of

LEVELS = (0.1, 0.5, 0.9)


def test_it_repeats_the_last_season_and_is_sure_of_a_series_that_repeats_itself() -> None:
    week = np.arange(7.0)
    forecast = seasonal_naive(np.tile(week, 4)[None], 10, 7, LEVELS)
    np.testing.assert_allclose(forecast[0, :, 1], [0, 1, 2, 3, 4, 5, 6, 0, 1, 2])
    np.testing.assert_allclose(forecast[0, :, 0], forecast[0, :, 2])


def test_the_phase_is_counted_from_the_cutoff_when_history_is_no_whole_number_of_seasons() -> None:
    forecast = seasonal_naive(np.array([[9.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]]), 3, 3, LEVELS)
    assert forecast[0, :, 1].tolist() == [2.0, 3.0, 1.0]


def test_the_spread_is_that_of_the_seasonal_differences_and_grows_by_season() -> None:
    history = np.array([[0.0, 10.0, 3.0, 13.0, 0.0, 10.0]])
    forecast = seasonal_naive(history + 100, 4, 2, np.array([0.5, 0.8413447]))
    # Four differences of +-3, one degree of freedom less: sqrt(36 / 3).
    spread = math.sqrt(12.0)
    np.testing.assert_allclose(
        forecast[0, :, 1] - forecast[0, :, 0], spread * np.sqrt([1, 1, 2, 2]), rtol=1e-6
    )


def test_a_missing_value_is_looked_up_a_season_earlier_and_quantiles_stop_at_zero() -> None:
    history = np.array([[4.0, 1.0, math.nan, 2.0], [math.nan] * 4])
    forecast = seasonal_naive(history, 2, 2, LEVELS)
    assert forecast[0, :, 1].tolist() == [4.0, 2.0]
    assert (forecast[0] >= 0).all()
    assert np.isnan(forecast[1]).all()


def test_the_moving_average_is_flat_and_ignores_gaps() -> None:
    forecast = moving_average(np.array([[100.0, 2.0, math.nan, 4.0]]), 3, 3, LEVELS)
    assert forecast[0, :, 1].tolist() == [3.0, 3.0, 3.0]
    assert forecast[0, 0, 2] - 3.0 == pytest.approx(math.sqrt(2.0) * 1.2815516)


def test_seasonal_naive_agrees_with_statsforecast_up_to_a_degree_of_freedom() -> None:
    models = pytest.importorskip("statsforecast.models", reason="the bench extra is not installed")
    series = np.random.default_rng(0).poisson(20, (3, 70)).astype(float)
    ours = seasonal_naive(series, 15, 7, LEVELS)
    for mine, history in zip(ours, series, strict=True):
        theirs = models.SeasonalNaive(season_length=7).forecast(y=history, h=15, level=[80])
        np.testing.assert_array_equal(mine[:, 1], theirs["mean"])
        above, below = mine[:, 2] - mine[:, 1], mine[:, 1] - mine[:, 0]
        np.testing.assert_allclose(above, theirs["hi-80"] - theirs["mean"], rtol=0.01)
        np.testing.assert_allclose(below, theirs["mean"] - theirs["lo-80"], rtol=0.01)


@pytest.mark.parametrize("season_length", [1, 7])
def test_the_published_one_is_statsforecasts(season_length: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from statsforecast.models import SeasonalNaive as Theirs
    series = np.random.default_rng(0).poisson(20, (3, 70)).astype(float)
    ours = published_naive(series, 15, season_length, LEVELS)
    for mine, history in zip(ours, series, strict=True):
        theirs = Theirs(season_length=season_length).forecast(y=history, h=15, level=[80])
        np.testing.assert_allclose(mine[:, 0], theirs["lo-80"], rtol=1e-6)
        np.testing.assert_allclose(mine[:, 1], theirs["mean"])
        np.testing.assert_allclose(mine[:, 2], theirs["hi-80"], rtol=1e-6)


def test_gaps_are_filled_by_the_value_before_them_and_their_differences_count() -> None:
    forecast = published_naive(
        np.array([[4.0, 1.0, math.nan, math.nan]]), 3, 2, (0.5, 0.8413447460685429)
    )
    assert forecast[0, :, 0].tolist() == [1.0, 1.0, 1.0]
    # Filled: 4, 1, 1, 1, so the seasonal differences are -3 and 0.
    np.testing.assert_allclose(forecast[0, :, 1] - 1.0, math.sqrt(4.5) * np.sqrt([1, 1, 2]))


def test_a_series_without_values_is_forecast_as_zero_and_a_young_one_by_its_mean() -> None:
    forecast = published_naive(np.array([[math.nan] * 3, [math.nan, 2.0, 4.0]]), 7, 7, LEVELS)
    assert (forecast[0] == 0.0).all()
    assert forecast[1, :, 1].tolist() == [3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 4.0]


def test_missing_values_at_the_start_of_a_series_count_as_zero_but_padding_does_not() -> None:
    target = np.array([[math.nan, math.nan, 6.0, 6.0]])
    begun = window_of(target, horizon=1, length=np.array([3]))
    spread = SeasonalNaive("naive", 1).predict(begun, (0.5, 0.8413447460685429))[0, 0]
    # 0, 6, 6: the differences are 6 and 0.
    assert spread[1] - spread[0] == pytest.approx(math.sqrt(18.0))
    unknown = window_of(target, horizon=1)
    assert SeasonalNaive("naive", 1).predict(unknown, LEVELS)[0, 0].tolist() == [6.0, 6.0, 6.0]
