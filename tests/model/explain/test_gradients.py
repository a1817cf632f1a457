"""Integrated gradients add up to the forecast, and what is missing gets nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.explain.gradients import integrated_gradients
from freshet.model.explain.row import one_row
from freshet.model.forecaster import BatchForecaster


@pytest.fixture
def forecaster(tiny_network) -> BatchForecaster:
    return BatchForecaster(tiny_network, device="cpu", dtype="float32")


def sales(batch: Batch, row: int) -> Batch:
    """A row with a whole history: a weekly wave around 40, and a promotion in the horizon."""
    one = one_row(batch, row)
    steps = torch.arange(one.context_length)
    target = 40.0 + 20.0 * torch.sin(2 * math.pi * steps / 7) + (steps % 5)
    known = torch.nan_to_num(one.known_BSK)
    known[..., KNOWN_SLOTS.index("price_ratio")] = 1.0
    known[..., KNOWN_SLOTS.index("closed")] = 0.0
    known[:, -8:, KNOWN_SLOTS.index("promotion")] = 1.0
    return replace(one, target_BT=target[None].float(), known_BSK=known)


@pytest.mark.parametrize("row", range(6))
def test_what_every_number_adds_sums_to_the_forecast(forecaster, drawn, row) -> None:
    one = sales(drawn[0], row)
    found = integrated_gradients(forecaster, one, 0)
    assert found.full == pytest.approx(float(forecaster.forecast(one)[0, :, 10].sum()), rel=1e-4)
    assert abs(found.gap) < 0.02 * abs(found.full - found.empty) + 0.01
    total = np.nansum(found.target_T) + np.nansum(found.known_SK)
    assert total == pytest.approx(found.full - found.empty - found.gap, rel=1e-3, abs=1e-2)


def test_missing_sales_stay_missing_and_get_nothing(forecaster, drawn) -> None:
    one = sales(drawn[0], 0)
    target = one.target_BT.clone()
    target[0, 3:9] = math.nan
    found = integrated_gradients(forecaster, replace(one, target_BT=target), 0)
    assert np.isnan(found.target_T[3:9]).all()
    assert np.isfinite(np.delete(found.target_T, np.s_[3:9])).all()
    assert abs(found.gap) < 0.02 * abs(found.full - found.empty) + 0.01
    assert found.full == pytest.approx(
        float(forecaster.forecast(replace(one, target_BT=target))[0, :, 10].sum()), rel=1e-4
    )


def test_steps_are_those_of_the_row_whatever_the_network_pads_or_cuts(forecaster, drawn) -> None:
    one = sales(drawn[0], 0)
    short = replace(
        one,
        target_BT=one.target_BT[:, -37:],
        past_BTP=one.past_BTP[:, -37:],
        known_BSK=one.known_BSK[:, -57:],
    )
    found = integrated_gradients(forecaster, short, 0)
    assert found.target_T.shape == (37,) and found.known_SK.shape == (57, len(KNOWN_SLOTS))
    assert np.isfinite(found.target_T).all()
    twice = replace(
        one,
        target_BT=one.target_BT.repeat(1, 2),
        past_BTP=one.past_BTP.repeat(1, 2, 1),
        known_BSK=torch.cat([one.known_BSK[:, : one.context_length], one.known_BSK], 1),
    )
    found = integrated_gradients(forecaster, twice, 0)
    beyond = twice.context_length - forecaster.context_length
    assert np.isnan(found.target_T[:beyond]).all() and np.isfinite(found.target_T[beyond:]).all()


def test_covariates_at_their_neutral_value_add_nothing_and_a_promotion_may(
    forecaster, drawn
) -> None:
    one = sales(drawn[0], 2)
    found = integrated_gradients(forecaster, one, 0)
    assert not found.known_SK[:, KNOWN_SLOTS.index("price_ratio")].any()
    promotion = found.known_SK[:, KNOWN_SLOTS.index("promotion")]
    assert np.abs(promotion[-8:]).max() > 1e-6


def test_the_factor_and_the_steps_are_heeded(forecaster, drawn) -> None:
    one = sales(drawn[0], 1)
    whole, part, scaled = (
        integrated_gradients(forecaster, one, 0, steps=steps, factor=factor)
        for steps, factor in ((None, 1.0), (range(0, 4), 1.0), (None, 4.0))
    )
    assert 0 < part.full < whole.full
    np.testing.assert_allclose(scaled.target_T, whole.target_T / 4.0, rtol=1e-5)
