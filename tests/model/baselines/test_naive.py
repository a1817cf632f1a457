"""The yardstick against statsforecast, gap by gap."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from freshet.model.baselines.naive import SeasonalNaive, seasonal_naive
from tests.model.tables.windows import window_of

LEVELS = (0.1, 0.5, 0.9)


@pytest.mark.parametrize("season_length", [1, 7])
def test_it_is_statsforecasts_seasonal_naive(season_length: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from statsforecast.models import SeasonalNaive as Theirs
    series = np.random.default_rng(0).poisson(20, (3, 70)).astype(float)
    ours = seasonal_naive(series, 15, season_length, LEVELS)
    for mine, history in zip(ours, series, strict=True):
        theirs = Theirs(season_length=season_length).forecast(y=history, h=15, level=[80])
        np.testing.assert_allclose(mine[:, 0], theirs["lo-80"], rtol=1e-6)
        np.testing.assert_allclose(mine[:, 1], theirs["mean"])
        np.testing.assert_allclose(mine[:, 2], theirs["hi-80"], rtol=1e-6)


def test_gaps_are_filled_by_the_value_before_them_and_their_differences_count() -> None:
    forecast = seasonal_naive(
        np.array([[4.0, 1.0, math.nan, math.nan]]), 3, 2, (0.5, 0.8413447460685429)
    )
    assert forecast[0, :, 0].tolist() == [1.0, 1.0, 1.0]
    # Filled: 4, 1, 1, 1, so the seasonal differences are -3 and 0.
    np.testing.assert_allclose(forecast[0, :, 1] - 1.0, math.sqrt(4.5) * np.sqrt([1, 1, 2]))


def test_a_series_without_values_is_forecast_as_zero_and_a_young_one_by_its_mean() -> None:
    forecast = seasonal_naive(np.array([[math.nan] * 3, [math.nan, 2.0, 4.0]]), 7, 7, LEVELS)
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
