"""The forecaster takes whatever a shop has and gives sane quantiles in units."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, QUANTILE_LEVELS, Batch
from freshet.model.forecaster import BatchForecaster, micro_batches
from freshet.model.text import NUM_STATIC, NUM_TEXT
from freshet.model.weights import save_weights
from freshet.stream.errors import InvalidInputError, WeightsError
from freshet.stream.units import HOUR_MS


@pytest.fixture
def forecaster(tiny_network) -> BatchForecaster:
    return BatchForecaster(tiny_network, device="cpu", dtype="float32")


def hours(rows: int, context: int, horizon: int) -> Batch:
    generator = torch.Generator().manual_seed(rows + context)
    return Batch(
        torch.poisson(torch.full((rows, context), 4.0), generator=generator),
        torch.full((rows, context, 8), math.nan),
        torch.zeros(rows, context + horizon, len(KNOWN_SLOTS)),
        torch.zeros(rows, NUM_STATIC),
        torch.arange(rows) * HOUR_MS,
        HOUR_MS,
    )


def test_quantiles_are_sorted_finite_and_not_negative(forecaster, drawn) -> None:
    quantiles = forecaster.forecast(drawn[0])
    assert quantiles.shape == (12, 32, 21)
    assert quantiles.dtype == torch.float32
    assert not quantiles.requires_grad
    assert not quantiles.is_inference()
    assert bool(torch.isfinite(quantiles).all())
    assert bool((quantiles >= 0).all())
    assert bool((quantiles.diff(dim=-1) >= 0).all())


@pytest.mark.parametrize("max_rows", [1, 5, 12, 500])
def test_micro_batches_do_not_change_the_forecast(forecaster, drawn, max_rows) -> None:
    whole = forecaster.forecast(drawn[0])
    parts = forecaster.forecast(drawn[0], max_rows=max_rows)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("context", "horizon"), [(1, 1), (5, 7), (16, 16), (100, 24), (128, 32), (300, 20)]
)
def test_any_context_and_any_horizon_up_to_the_trained_one(forecaster, context, horizon) -> None:
    assert forecaster.forecast(hours(3, context, horizon)).shape == (3, horizon, 21)


def test_only_the_newest_steps_of_a_long_history_count(forecaster) -> None:
    long = hours(2, 300, 16)
    cut = 300 - forecaster.context_length
    short = replace(
        long,
        target_BT=long.target_BT[:, cut:],
        past_BTP=long.past_BTP[:, cut:],
        known_BSK=long.known_BSK[:, cut:],
        start_ms_B=long.start_ms_B + cut * long.resolution_ms,
    )
    assert torch.equal(forecaster.forecast(long), forecaster.forecast(short))


def test_a_row_without_history_gets_a_forecast_and_its_price_moves_it(forecaster) -> None:
    batch = replace(hours(2, 64, 24), target_BT=torch.full((2, 64), math.nan))
    batch.static_BF[1, NUM_TEXT : NUM_TEXT + 2] = torch.tensor([6.0, 1.0])
    batch = replace(batch, start_ms_B=torch.zeros(2, dtype=torch.int64))
    quantiles = forecaster.forecast(batch)
    assert bool(torch.isfinite(quantiles).all())
    assert not torch.allclose(quantiles[0], quantiles[1])


def test_more_steps_than_a_forecast_reaches_are_refused_with_a_way_out(forecaster) -> None:
    with pytest.raises(InvalidInputError, match="reaches 1024; ask for fewer steps"):
        forecaster.forecast(hours(1, 64, 1_025))
    assert forecaster.forecast(hours(1, 64, 1_024)).shape == (1, 1_024, 21)


def test_static_features_of_another_width_are_refused(forecaster) -> None:
    with pytest.raises(InvalidInputError, match=f"expect {NUM_STATIC}"):
        forecaster.forecast(replace(hours(1, 64, 8), static_BF=torch.zeros(1, 3)))


def test_related_rows_stay_in_one_micro_batch() -> None:
    batch = replace(hours(7, 16, 8), group_B=torch.tensor([3, 1, 3, 1, 2, 2, 9]))
    parts = [index.tolist() for index in micro_batches(batch, 4, 32)]
    assert sorted(row for part in parts for row in part) == list(range(7))
    assert all(len(part) <= 4 for part in parts)
    where = {int(batch.group_B[row]): number for number, part in enumerate(parts) for row in part}
    assert all(
        where[int(batch.group_B[row])] == number
        for number, part in enumerate(parts)
        for row in part
    )


def test_a_group_larger_than_the_limit_is_refused() -> None:
    batch = replace(hours(5, 16, 8), group_B=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(InvalidInputError, match="5 related rows"):
        list(micro_batches(batch, 512, 4))


def test_an_unknown_dtype_is_refused_and_bfloat16_is_near_float32(tiny_network, drawn) -> None:
    with pytest.raises(InvalidInputError, match="float16"):
        BatchForecaster(tiny_network, device="cpu", dtype="float16")
    exact = BatchForecaster(tiny_network, device="cpu", dtype="float32").forecast(drawn[0])
    rounded = BatchForecaster(tiny_network, device="cpu", dtype="bfloat16").forecast(drawn[0])
    assert bool(torch.isfinite(rounded).all())
    assert (rounded.median() - exact.median()).abs() < 0.2 * exact.median() + 1.0


def test_it_loads_verified_weights_and_refuses_missing_ones(tiny_network, tmp_path, drawn) -> None:
    sha256 = save_weights(tiny_network, tmp_path / "w", card="")
    loaded = BatchForecaster.from_pretrained(tmp_path / "w", device="cpu", dtype="float32")
    assert loaded.sha256 == sha256
    assert loaded.quantile_levels[0] == 0.01
    assert loaded.quantile_levels[10] == 0.5
    assert (loaded.context_length, loaded.prediction_length_max) == (128, 32)
    with pytest.raises(WeightsError, match="no weights"):
        BatchForecaster.from_pretrained(tmp_path / "nowhere")


def test_compiled_rows_are_padded_to_one_size_and_forecast_the_same(
    tiny_network, drawn, monkeypatch
) -> None:
    sizes: list[int] = []

    def compiled(network, *, dynamic: bool):
        assert not dynamic
        return lambda target_BT, *others: (
            sizes.append(len(target_BT)) or network(target_BT, *others)
        )

    plain = BatchForecaster(tiny_network, device="cpu", dtype="float32")
    monkeypatch.setattr(torch, "compile", compiled)
    fast = BatchForecaster(tiny_network, device="cpu", dtype="float32", compiled=True)
    batch = drawn[0].rows(slice(0, 6))
    expected = plain.forecast(batch)
    torch.testing.assert_close(fast.forecast(batch, max_rows=4), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        fast.forecast(batch.rows(slice(0, 1))), expected[:1], rtol=1e-4, atol=1e-4
    )
    assert sizes == [4, 4, 1]


def test_what_amounts_were_multiplied_by_is_divided_out(forecaster) -> None:
    batch = hours(rows=3, context=40, horizon=8)
    plain_BHQ = forecaster.forecast(batch)
    factor_B = torch.tensor([1.0, 4.0, 100.0])
    divided_BHQ = forecaster.forecast(replace(batch, factor_B=factor_B), max_rows=2)
    expected_BHQ = plain_BHQ / torch.tensor([1.0, 4.0, 100.0])[:, None, None]
    torch.testing.assert_close(divided_BHQ, expected_BHQ)


def test_siblings_count_for_what_a_row_is_not_told_by_itself(forecaster) -> None:
    batch = hours(rows=3, context=40, horizon=8)
    own_BHQ = forecaster.forecast(batch)
    levels = forecaster.quantile_levels
    pooled_BHQ = torch.arange(len(QUANTILE_LEVELS)).float().expand(3, 8, -1)
    mixed = replace(batch, own_B=torch.tensor([0.0, 0.25, 1.0]), pooled_BHQ=pooled_BHQ)
    found_BHQ = forecaster.forecast(mixed, max_rows=2)
    expected_Q = torch.from_numpy(np.interp(levels, QUANTILE_LEVELS, np.arange(21.0))).float()
    torch.testing.assert_close(found_BHQ[0], expected_Q.expand(8, -1))
    torch.testing.assert_close(found_BHQ[1], 0.25 * own_BHQ[1] + 0.75 * expected_Q)
    torch.testing.assert_close(found_BHQ[2], own_BHQ[2])
    # What targets were multiplied by, siblings were too.
    halved_BHQ = forecaster.forecast(replace(mixed, factor_B=torch.full((3,), 2.0)))
    torch.testing.assert_close(halved_BHQ, found_BHQ / 2.0)


def test_a_network_that_says_nothing_of_a_new_row_is_not_asked(forecaster, monkeypatch) -> None:
    batch = hours(rows=2, context=40, horizon=8)
    nothing = torch.full((2, 16, len(forecaster.quantile_levels)), torch.nan)
    monkeypatch.setattr(forecaster, "_compute", lambda *_: nothing)
    pooled_BHQ = torch.ones(2, 8, len(QUANTILE_LEVELS))
    found = forecaster.forecast(replace(batch, own_B=torch.zeros(2), pooled_BHQ=pooled_BHQ))
    assert (found == 1.0).all()
