"""The network keeps its promises whatever its weights are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.features import CLOSED
from freshet.model.forecaster import padded
from freshet.model.network import FreshetConfig, FreshetNetwork


def run(network: FreshetNetwork, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return network(*batch.arguments()).z_BHQ


def test_all_levels_of_all_steps_come_out_of_one_pass(tiny_network, drawn) -> None:
    batch, _ = drawn
    assert run(tiny_network, batch).shape == (12, 32, 21)


def test_rows_do_not_influence_each_other(tiny_network, drawn) -> None:
    batch, _ = drawn
    together = run(tiny_network, batch)
    alone = torch.cat(
        [run(tiny_network, batch.rows(slice(row, row + 1))) for row in range(len(batch))]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_missing_steps_before_the_history_change_nothing(tiny_network, drawn) -> None:
    batch = replace(drawn[0])
    longer = padded(batch, left=32, right=0)
    torch.testing.assert_close(
        run(tiny_network, batch), run(tiny_network, longer), rtol=1e-4, atol=1e-4
    )


def test_missing_covariates_are_told_from_zero(tiny_network, drawn) -> None:
    batch, _ = drawn
    blind = replace(batch, known_BSK=torch.full_like(batch.known_BSK, math.nan))
    zeros = replace(batch, known_BSK=torch.zeros_like(batch.known_BSK))
    assert bool(torch.isfinite(run(tiny_network, blind)).all())
    assert not torch.equal(run(tiny_network, zeros), run(tiny_network, blind))


def test_a_known_promotion_reaches_the_step_that_it_is_for(tiny_network, drawn) -> None:
    batch, _ = drawn
    known = torch.nan_to_num(batch.known_BSK)
    changed = known.clone()
    changed[:, batch.context_length + 5, 1] += 1.0
    before, after = (
        run(tiny_network, replace(batch, known_BSK=slots)) for slots in (known, changed)
    )
    moved = (after - before).abs()
    assert moved[:, 5].mean() > moved[:, 6].mean()


def test_closed_steps_are_forecast_as_nothing_at_every_level_and_teach_nothing(
    tiny_network, drawn
) -> None:
    batch, _ = drawn
    closed = batch.known_BSK.clone()
    closed[..., CLOSED] = 0.0
    closed[:, batch.context_length - 3, CLOSED] = 1.0
    closed[:, batch.context_length + 2, CLOSED] = 1.0
    batch = replace(batch, known_BSK=closed)
    other = batch.target_BT.clone()
    other[:, -3] = 1e6
    with torch.no_grad():
        units, unmoved = (
            tiny_network(*one.arguments()).units()
            for one in (batch, replace(batch, target_BT=other))
        )
    assert float(units[:, 2].abs().max()) == 0.0
    assert float(units[:, 3].max()) > 0.0
    assert torch.equal(units, unmoved)


@pytest.mark.parametrize(
    "row", [[math.nan] * 64, [0.0] * 64, [5.0] * 64, [1e12] * 64, [0.0] * 63 + [1e9]]
)
def test_odd_histories_give_finite_forecasts(tiny_network, drawn, row) -> None:
    batch = drawn[0].rows(slice(0, 1))
    batch = replace(
        batch,
        target_BT=torch.tensor([row]),
        past_BTP=torch.full((1, 64, 8), math.nan),
        known_BSK=torch.full((1, 96, len(KNOWN_SLOTS)), math.nan),
    )
    assert bool(torch.isfinite(run(tiny_network, batch)).all())


def test_an_untrained_group_mixer_changes_nothing_and_a_trained_one_joins_only_relatives(
    tiny_config, drawn
) -> None:
    torch.manual_seed(0)
    network = FreshetNetwork(tiny_config)
    network.train(mode=False)
    batch, _ = drawn
    grouped = replace(batch, group_B=torch.arange(12) // 2)
    torch.testing.assert_close(run(network, grouped), run(network, batch))
    torch.nn.init.normal_(network.group_mixer.attention.out.weight)
    louder = grouped.target_BT.clone()
    louder[0] = 2.0 * louder[0] + 3.0 * torch.arange(louder.shape[1]) % 17
    moved = (
        (run(network, grouped) - run(network, replace(grouped, target_BT=louder)))
        .abs()
        .amax((1, 2))
    )
    assert moved[1] > 1e-4
    assert bool((moved[2:] < 1e-4).all())


def test_the_shipped_size_stays_small() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in FreshetNetwork(FreshetConfig()).parameters())
    assert count < 6.5e6, "bf16 weights of the default size must stay below 13 MB"


def test_the_last_layer_computes_the_horizons_tokens_as_if_it_computed_all(tiny_network) -> None:
    layer, width = tiny_network.layers[-1], tiny_network.config.width
    hidden = torch.randn(3, 9, width, generator=torch.Generator().manual_seed(0))
    keep = (torch.arange(9) > 2).expand(3, 1, 1, 9)
    rotary = tiny_network._rotary(hidden)
    with torch.no_grad():
        whole, end = layer(hidden, keep, rotary), layer(hidden, keep, rotary, last=2)
    torch.testing.assert_close(end, whole[:, -2:])


def test_forecasts_are_the_same_with_gradients_and_without(tiny_network, drawn) -> None:
    with_gradients = tiny_network(*drawn[0].arguments()).z_BHQ
    assert with_gradients.requires_grad
    torch.testing.assert_close(
        with_gradients.detach(), run(tiny_network, drawn[0]), rtol=1e-4, atol=1e-4
    )
