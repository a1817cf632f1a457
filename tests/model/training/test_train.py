"""Fine-tuning learns, repeats itself exactly, and leaves the base as it was."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.text import NUM_STATIC
from freshet.model.training.train import (
    FineTuneSettings,
    average,
    fine_tune,
    held_out_loss,
    interpolate,
)
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS

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
        HOUR_MS,
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
    tuned = fine_tune(
        tiny_network, sampler, settings=replace(SETTINGS, steps=2, tune="top")
    ).network
    moved = {
        name
        for (name, value), base in zip(
            tuned.named_parameters(), tiny_network.parameters(), strict=True
        )
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


def test_training_stops_when_the_hold_out_gets_no_better_and_keeps_the_best(tiny_network) -> None:
    seen: list[tuple[float, list[torch.Tensor], bool]] = []

    def evaluate(network) -> float:
        seen.append((float([3, 1, 2, 2, 0][len(seen)]), parameters(network), network.training))
        return seen[-1][0]

    settings = replace(SETTINGS, check_every_steps=2, patience=2)
    result = fine_tune(tiny_network, sampler, settings=settings, evaluate=evaluate)
    assert len(seen) == 4 and len(result.losses) == 8
    assert not any(training for _, _, training in seen)
    assert same(parameters(result.network), seen[1][1])
    assert not same(seen[1][1], seen[3][1])


def test_a_look_at_a_hold_out_changes_nothing_while_it_gets_better(tiny_network) -> None:
    falling = iter(range(100, 0, -1))
    watched = fine_tune(
        tiny_network, sampler, settings=SETTINGS, evaluate=lambda network: float(next(falling))
    )
    plain = fine_tune(tiny_network, sampler, settings=SETTINGS)
    assert same(parameters(watched.network), parameters(plain.network))


def test_several_seeds_give_the_mean_of_their_weights(tiny_network) -> None:
    short = replace(SETTINGS, steps=3)
    both = fine_tune(tiny_network, sampler, settings=replace(short, num_seeds=2))
    runs = [fine_tune(tiny_network, sampler, settings=replace(short, seed=seed)) for seed in (3, 4)]
    assert both.losses == runs[0].losses + runs[1].losses
    expected = [
        (a + b) / 2 for a, b in zip(*(parameters(run.network) for run in runs), strict=True)
    ]
    for found, mean in zip(parameters(both.network), expected, strict=True):
        torch.testing.assert_close(found, mean)
    assert same(parameters(average([runs[0].network])), parameters(runs[0].network))


def test_dropout_acts_while_training_only(tiny_network) -> None:
    plain, dropped = (
        fine_tune(tiny_network, sampler, settings=replace(SETTINGS, steps=2, dropout=share))
        for share in (0.0, 0.5)
    )
    assert plain.losses != dropped.losses
    assert {
        module.p for module in dropped.network.modules() if type(module) is torch.nn.Dropout
    } == {0.0}


def test_mixed_precision_learns_in_float32_weights(tiny_network) -> None:
    mixed, plain = (
        fine_tune(tiny_network, sampler, settings=replace(SETTINGS, steps=2, mixed_precision=on))
        for on in (True, False)
    )
    assert mixed.losses != plain.losses
    assert mixed.losses == pytest.approx(plain.losses, rel=0.05)
    assert {parameter.dtype for parameter in mixed.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"patience": 0}, {"num_seeds": 0}],
)
def test_settings_that_make_no_sense_are_refused(tiny_network, change) -> None:
    with pytest.raises(InvalidInputError, match="above zero"):
        fine_tune(tiny_network, sampler, settings=replace(SETTINGS, **change))


def test_a_dropout_of_everything_is_refused(tiny_network) -> None:
    with pytest.raises(InvalidInputError, match="dropout=1"):
        fine_tune(tiny_network, sampler, settings=replace(SETTINGS, dropout=1.0))
