"""Fine-tuning learns, repeats itself exactly, and leaves the base as it was."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from model.batch import KNOWN_SLOTS, Batch
from model.text import NUM_STATIC
from model.train import FineTuneSettings, fine_tune, held_out_loss, interpolate
from stream.errors import InvalidInputError

SETTINGS = FineTuneSettings(steps=12, learning_rate=3e-3, warmup_steps=2, seed=3)


def sampler(generator: torch.Generator) -> tuple[Batch, torch.Tensor]:
    """A shop that sells about ten units at every step, whatever came before."""
    target = torch.poisson(torch.full((8, 64), 10.0), generator=generator)
    batch = Batch(
        target,
        torch.full((8, 64, 8), math.nan),
        torch.zeros(8, 80, len(KNOWN_SLOTS)),
        torch.zeros(8, NUM_STATIC),
        torch.zeros(8, dtype=torch.int64),
        3_600_000,
    )
    return batch, torch.poisson(torch.full((8, 16), 10.0), generator=generator)


def parameters(network) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_tuned_copy_is_better_and_the_base_is_untouched(tiny_network) -> None:
    before = parameters(tiny_network)
    result = fine_tune(tiny_network, sampler, settings=SETTINGS)
    held_out = sampler(torch.Generator().manual_seed(99))
    assert len(result.losses) == 12
    assert held_out_loss(result.network, *held_out) < 0.8 * held_out_loss(tiny_network, *held_out)
    assert same(before, parameters(tiny_network))
    assert not result.network.training
    assert all(parameter.requires_grad for parameter in result.network.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny_network) -> None:
    first, second = (fine_tune(tiny_network, sampler, settings=SETTINGS) for _ in range(2))
    other = fine_tune(tiny_network, sampler, settings=replace(SETTINGS, seed=4))
    assert same(parameters(first.network), parameters(second.network))
    assert first.losses == second.losses
    assert not same(parameters(first.network), parameters(other.network))


def test_chunks_give_the_same_step_as_one_batch(tiny_network) -> None:
    whole = fine_tune(tiny_network, sampler, settings=replace(SETTINGS, steps=2))
    chunks = fine_tune(tiny_network, sampler, settings=replace(SETTINGS, steps=2, batch_size=3))
    assert whole.losses == pytest.approx(chunks.losses, rel=1e-4)


def test_top_changes_the_head_and_the_last_layer_only(tiny_network) -> None:
    tuned = fine_tune(tiny_network, sampler, settings=replace(SETTINGS, steps=2, freeze="top")).network
    moved = {
        name
        for (name, value), base in zip(tuned.named_parameters(), tiny_network.parameters(), strict=True)
        if not torch.equal(value, base)
    }
    assert {name.split(".")[0] for name in moved} <= {"layers", "head", "final_norm"}
    assert any(name.startswith("head") for name in moved)
    assert not any(name.startswith("layers.0") for name in moved)


def test_a_draw_without_observed_actuals_changes_nothing(tiny_network) -> None:
    def nothing(generator: torch.Generator) -> tuple[Batch, torch.Tensor]:
        batch, actual = sampler(generator)
        return batch, torch.full_like(actual, math.nan)

    result = fine_tune(tiny_network, nothing, settings=replace(SETTINGS, steps=2))
    assert result.losses == (0.0, 0.0)
    assert same(parameters(result.network), parameters(tiny_network))


def test_interpolation_goes_from_the_base_to_the_tuned_network(tiny_network) -> None:
    tuned = copy.deepcopy(tiny_network)
    for parameter in tuned.parameters():
        parameter.data += 1.0
    halfway = parameters(interpolate(tiny_network, tuned, 0.25))
    assert same(parameters(interpolate(tiny_network, tuned, 0.0)), parameters(tiny_network))
    for found, base in zip(halfway, tiny_network.parameters(), strict=True):
        torch.testing.assert_close(found, base.detach() + 0.25)
    with pytest.raises(InvalidInputError, match="factor"):
        interpolate(tiny_network, tuned, 1.5)


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": -1.0}])
def test_settings_that_make_no_sense_are_refused(tiny_network, change) -> None:
    with pytest.raises(InvalidInputError, match="above zero"):
        fine_tune(tiny_network, sampler, settings=replace(SETTINGS, **change))
