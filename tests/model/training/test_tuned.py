"""The network as a model of windows: sane on odd ones, tuned without a look at its judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import Batch
from freshet.model.effects.slots import Dressed, dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetConfig
from freshet.model.tables.panel import Window
from freshet.model.training import tuned
from freshet.model.training.train import FineTuneSettings
from freshet.model.training.tuned import FreshetModel, tune
from freshet.model.training.windows import PastWindows
from freshet.stream.arrays import Floats
from freshet.stream.units import DAY_MS
from tests.model.tables.windows import window_of

LEVELS = (0.1, 0.5, 0.9)
HORIZON = 14
CONFIG = FreshetConfig(context_length=128)
SETTINGS = FineTuneSettings(steps=2, batch_size=128, warmup_steps=1, learning_rate=1e-3)


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


def draws(sampler: PastWindows, rounds: int = 3) -> list[tuple[Batch, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [sampler(generator, 32) for _ in range(rounds)]


def poisoned(dressed: Dressed, since: int, value: float) -> Dressed:
    target_NT, past_NTP = dressed.target_NT.copy(), dressed.past_NTP.copy()
    target_NT[:, since:] = value
    past_NTP[:, since:] = value
    return replace(dressed, target_NT=target_NT, past_NTP=past_NTP)


@pytest.mark.parametrize("value", [9e6, np.nan])
def test_training_windows_never_hold_anything_of_the_hold_out(value: float) -> None:
    dressed = dress(window_of(counts(), horizon=HORIZON))
    clean = draws(PastWindows(dressed, HORIZON, CONFIG))
    other = draws(PastWindows(poisoned(dressed, 120 - HORIZON, value), HORIZON, CONFIG))
    for (batch, actual_BH), (batch_2, actual_2_BH) in zip(clean, other, strict=True):
        assert torch.equal(batch.target_BT.nan_to_num(-1.0), batch_2.target_BT.nan_to_num(-1.0))
        assert torch.equal(batch.past_BTP.nan_to_num(-1.0), batch_2.past_BTP.nan_to_num(-1.0))
        assert torch.equal(actual_BH.nan_to_num(-1.0), actual_2_BH.nan_to_num(-1.0))
        assert actual_BH.isfinite().any(1).all()


def test_the_tuned_weights_do_not_depend_on_the_hold_out_but_the_factor_does(
    tiny_network, monkeypatch
) -> None:
    dressed = dress(window_of(counts(), horizon=HORIZON))
    monkeypatch.setattr(tuned, "FACTORS", (1.0,))
    one = tune(tiny_network, dressed, HORIZON, settings=SETTINGS)
    two = tune(tiny_network, poisoned(dressed, 120 - HORIZON, 40.0), HORIZON, settings=SETTINGS)
    pairs = zip(one.network.parameters(), two.network.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)
    assert one.held_out[1.0] != two.held_out[1.0]


def test_the_hold_out_is_the_newest_horizon() -> None:
    target = counts()
    sampler = PastWindows(dress(window_of(target, horizon=HORIZON)), HORIZON, CONFIG)
    batch, actual_BH = sampler.hold_out(seed=0)
    assert np.array_equal(actual_BH[:, :HORIZON], target[:, -HORIZON:])
    assert actual_BH[:, HORIZON:].isnan().all()
    assert np.array_equal(batch.target_BT[:, -106:], target[:, :-HORIZON])


def test_dates_move_by_whole_weeks_so_that_weekdays_stay() -> None:
    sampler = PastWindows(dress(window_of(counts(1), horizon=HORIZON)), HORIZON, CONFIG)
    starts = torch.cat([batch.start_ms_B for batch, _ in draws(sampler)])
    assert len(starts.unique()) > 60
    one, _ = sampler(torch.Generator().manual_seed(1), 1)
    at = np.flatnonzero(np.isfinite(one.target_BT[0].numpy()))[0]
    # The series begins on day 0, a Thursday: so does its first observed step, in whatever week.
    assert (int(one.start_ms_B) // DAY_MS + at) % 7 == 0


def test_the_factor_with_the_least_loss_on_the_hold_out_is_taken(tiny_network) -> None:
    result = tune(
        tiny_network, dress(window_of(counts(), horizon=HORIZON)), HORIZON, settings=SETTINGS
    )
    assert set(result.held_out) == set(tuned.FACTORS)
    assert result.held_out[result.factor] == min(result.held_out.values())


@pytest.mark.parametrize("steps", [1, HORIZON - 1, HORIZON, HORIZON + 2])
def test_series_too_short_to_learn_from_leave_the_base(steps: int, tiny_network) -> None:
    dressed = dress(window_of(counts(2, steps), horizon=HORIZON))
    result = tune(tiny_network, dressed, HORIZON, settings=SETTINGS)
    assert result.network is tiny_network
    assert (result.factor, result.held_out) == (0.0, {})


def test_only_series_with_enough_past_teach() -> None:
    target = counts(3)
    target[1, :-20] = np.nan
    target[2] = np.nan
    assert PastWindows(
        dress(window_of(target, horizon=HORIZON)), HORIZON, CONFIG
    ).rows.tolist() == [0]


def test_a_model_that_is_not_to_be_tuned_keeps_its_weights(forecaster: BatchForecaster) -> None:
    model = FreshetModel(forecaster, tune=False)
    window = window_of(counts(), horizon=HORIZON)
    model.fit(window)
    assert not model.needs_fit
    assert model.forecaster is forecaster
    assert sane(model.predict(window, LEVELS), window)


def test_fitting_twice_starts_from_the_base_each_time(forecaster: BatchForecaster) -> None:
    window = window_of(counts(), horizon=HORIZON)
    model = FreshetModel(forecaster, tune=True, settings=SETTINGS)
    before = [parameter.clone() for parameter in forecaster.network.parameters()]
    model.fit(window)
    once_NHQ = model.predict(window, LEVELS)
    model.fit(window)
    assert np.array_equal(model.predict(window, LEVELS), once_NHQ)
    assert all(
        torch.equal(a, b) for a, b in zip(before, forecaster.network.parameters(), strict=True)
    )
