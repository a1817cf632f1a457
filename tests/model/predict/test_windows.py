"""Forecasts of dressed windows: sane on odd ones, at any levels, beyond the network's reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from freshet.model.effects.slots import dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.predict import windows
from freshet.model.predict.windows import forecast, forecast_window
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from tests.model.tables.windows import window_of

LEVELS = (0.1, 0.5, 0.9)
HORIZON = 14


def counts(items: int = 4, steps: int = 120) -> Floats:
    rate = 4.0 + 3.0 * (np.arange(steps) % 7 == 5)
    return np.random.default_rng(3).poisson(rate, (items, steps)).astype(float)


def with_flag(window: Window, values: Floats) -> Window:
    flag = np.broadcast_to(values, window.time_ms_NS.shape)[..., None].copy()
    return replace(window, known_NSK=flag, known_names=("promo",))


def sane(quantiles_NHQ: Floats, window: Window) -> bool:
    shape = (len(window), window.horizon, len(LEVELS))
    return bool(
        quantiles_NHQ.shape == shape
        and np.isfinite(quantiles_NHQ).all()
        and (quantiles_NHQ >= 0).all()
        and (np.diff(quantiles_NHQ, axis=-1) >= 0).all()
    )


@pytest.fixture
def forecaster(tiny_network) -> BatchForecaster:
    return BatchForecaster(tiny_network, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    "target",
    [
        np.full((1, 1), 3.0),
        np.full((1, 1), np.nan),
        np.zeros((2, 40)),
        np.full((2, 40), np.nan),
        np.full((2, 40), 5.0),
        np.full((2, 40), 1e12),
        np.full((2, 40), 1e-9),
        np.where(np.arange(150) % 3, np.nan, 4.5)[None],
    ],
    ids=["one step", "one missing step", "zeros", "missing", "constant", "huge", "tiny", "gaps"],
)
def test_odd_windows_get_sane_forecasts(target: Floats, forecaster: BatchForecaster) -> None:
    window = window_of(target, horizon=HORIZON)
    for changed in (
        window,
        with_flag(window, np.full(1, np.nan)),
        with_flag(window, np.arange(1.0) + 1.0),
    ):
        assert sane(forecast(forecaster, dress(changed), HORIZON, LEVELS), changed)


def test_a_horizon_beyond_the_networks_reach_goes_on_where_a_shorter_one_ends(
    forecaster: BatchForecaster,
) -> None:
    window = window_of(counts(), horizon=100)
    long_NHQ = forecast(forecaster, dress(window), 100, LEVELS)
    assert sane(long_NHQ, window)
    first_NHQ = forecast(forecaster, dress(window), 32, LEVELS)
    assert np.allclose(long_NHQ[:, :32], first_NHQ, rtol=1e-5)


def test_a_rows_forecast_does_not_hang_on_the_others(forecaster: BatchForecaster) -> None:
    dressed = dress(window_of(counts(), horizon=HORIZON))
    together_NHQ = forecast(forecaster, dressed, HORIZON, LEVELS)
    assert np.allclose(
        forecast(forecaster, dressed.rows(np.array([2])), HORIZON, LEVELS)[0],
        together_NHQ[2],
        rtol=1e-4,
    )


def test_forecasts_of_small_amounts_come_back_in_their_own_size(
    forecaster: BatchForecaster,
) -> None:
    amounts = counts(2) * 0.01
    amounts_NHQ = forecast(forecaster, dress(window_of(amounts, horizon=HORIZON)), HORIZON, LEVELS)
    brought = 100.0 / amounts.mean(1, keepdims=True)
    scaled_NHQ = forecast(
        forecaster, dress(window_of(amounts * brought, horizon=HORIZON)), HORIZON, LEVELS
    )
    assert np.allclose(amounts_NHQ, scaled_NHQ / brought[..., None], rtol=1e-3, atol=1e-6)


def test_closed_steps_are_forecast_as_nothing(forecaster: BatchForecaster) -> None:
    window = window_of(
        np.where(np.arange(140) % 7 == 3, 0.0, 6.0) * np.ones((3, 1)), horizon=HORIZON
    )
    quantiles_NHQ = forecast(forecaster, dress(window), HORIZON, LEVELS)
    closed = np.arange(140, 154) % 7 == 3
    assert quantiles_NHQ[:, closed].max() < 1e-5
    assert quantiles_NHQ[:, ~closed, -1].min() > 0.01


def test_the_networks_own_levels_come_through_unchanged(forecaster: BatchForecaster) -> None:
    dressed = dress(window_of(counts(1), horizon=16))
    batch, _ = dressed.batch(np.zeros(1, np.int64), np.array([120]), context=128, horizon=16)
    own_NHQ = forecast(forecaster, dressed, 16, forecaster.quantile_levels)
    assert np.allclose(own_NHQ, forecaster.forecast(batch).numpy(), rtol=1e-6)


def test_a_table_is_forecast_in_portions_as_in_one(
    monkeypatch: pytest.MonkeyPatch, forecaster: BatchForecaster
) -> None:
    flag = np.arange(120 + HORIZON) % 9 == 0
    window = with_flag(window_of(counts(items=70), horizon=HORIZON), flag.astype(float))
    whole_NHQ = forecast_window(forecaster, window, LEVELS)
    assert sane(whole_NHQ, window)
    # The network computes 32 rows of a CPU at a time, whatever it is given.
    monkeypatch.setattr(windows, "ROWS", 32)
    np.testing.assert_array_equal(forecast_window(forecaster, window, LEVELS), whole_NHQ)
