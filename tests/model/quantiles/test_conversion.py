"""Units per view: what the past may have been, and the forecast of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import PAST_SLOTS, Batch
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.conversion import TYPICAL, conversion, conversion_rates
from freshet.model.weights import verify_weights
from freshet.stream.units import HOUR_MS


@pytest.fixture(scope="module")
def forecaster() -> BatchForecaster:
    return BatchForecaster(verify_weights(BASE_WEIGHTS).network, device="cpu", dtype="float32")


def shop(rate_BS: np.ndarray, views: float, horizon: int = 24, seed: int = 1) -> Batch:
    """Rows whose units are Poisson around views times the given rate."""
    random = np.random.default_rng(seed)
    rows, steps = rate_BS.shape
    views_BT = random.poisson(views, (rows, steps - horizon)).astype(np.float32)
    units_BT = random.poisson(views_BT * rate_BS[:, : steps - horizon]).astype(np.float32)
    past_BTP = torch.full((rows, steps - horizon, len(PAST_SLOTS)), torch.nan)
    past_BTP[..., PAST_SLOTS.index("views")] = torch.from_numpy(views_BT)
    known_BSK = torch.full((rows, steps, 12), torch.nan)
    start_ms_B = torch.full((rows,), 1_764_547_200_000)
    return Batch(
        torch.from_numpy(units_BT),
        past_BTP,
        known_BSK,
        torch.full((rows, 262), torch.nan),
        start_ms_B,
        HOUR_MS,
    )


def test_a_steady_rate_is_found_behind_noisy_ratios(forecaster: BatchForecaster) -> None:
    batch = shop(np.repeat([[0.02], [0.2]], 360, 1), views=20.0)
    own_BT = batch.target_BT / batch.past_BTP[..., 0]
    rates_BT, usual_B = conversion_rates(batch)
    assert float(own_BT.std(1).min()) > 5 * float(rates_BT.std(1).max())
    np.testing.assert_allclose(usual_B, [0.02, 0.2], rtol=0.15)
    found_BHQ = conversion(forecaster, batch)
    assert found_BHQ.shape == (2, 24, 21)
    assert bool((found_BHQ.diff(dim=-1) >= 0).all()) and bool((found_BHQ >= 0).all())
    np.testing.assert_allclose(found_BHQ[..., 10].mean(1), [0.02, 0.2], rtol=0.15)


def test_a_daily_swing_of_the_rate_is_forecast(forecaster: BatchForecaster) -> None:
    hour = np.arange(24 * 21)
    rate_BS = 0.1 * np.exp(0.8 * np.sin(2 * np.pi * hour / 24))[None].repeat(4, 0)
    found_BH = conversion(forecaster, shop(rate_BS, views=200.0))[..., 10].numpy()
    assert np.abs(np.log(found_BH / rate_BS[:, -24:])).mean() < 0.12


def test_a_row_depends_on_no_other_and_one_without_views_is_missing(
    forecaster: BatchForecaster,
) -> None:
    batch = shop(np.repeat([[0.05], [0.3]], 200, 1), views=50.0)
    past_BTP = batch.past_BTP.clone()
    past_BTP[1, :, 0] = torch.nan
    some = replace(batch, past_BTP=past_BTP)
    found_BHQ = conversion(forecaster, some)
    assert bool(found_BHQ[1].isnan().all()) and bool(found_BHQ[0].isfinite().all())
    torch.testing.assert_close(
        found_BHQ[:1], conversion(forecaster, batch.rows(slice(0, 1))), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("views", [0.0, 1.0, 1e9])
def test_hardly_any_views_and_very_many_give_sane_rates(views: float) -> None:
    batch = shop(np.full((3, 100), 0.0), views=views)
    rates_BT, usual_B = conversion_rates(batch)
    assert bool((usual_B > 0).all()) and float(usual_B.max()) <= TYPICAL + 1e-6
    seen = batch.past_BTP[..., 0] > 0
    assert bool(rates_BT[seen].isfinite().all()) and bool(rates_BT[~seen].isnan().all())
