"""A challenger learns what is new, from labels it may see, and is what will be stored."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from freshet.model.weights import save_weights, verify_weights
from freshet.online.learn.evaluation import evaluate
from freshet.online.learn.finetune import FACTORS, as_stored, make_challenger
from freshet.online.learn.pools import Pool, Pools
from freshet.stream.config import LearnSettings
from tests.online.learn.learning import PastInMemory, pool_at, small_network, taught_network

TUNING = LearnSettings(steps=60, batch_size=32, learning_rate=2e-3)


def loss(network: torch.nn.Module, pool: Pool) -> float:
    return float(np.nanmean(evaluate(network, pool).loss_NH))  # type: ignore[arg-type]


def test_a_challenger_learns_a_new_day_and_keeps_most_of_the_old_one() -> None:
    past = PastInMemory(400, onset=300)
    champion = taught_network()
    before = copy.deepcopy(champion.state_dict())
    challenger = make_challenger(
        champion,
        Pools(
            recent=pool_at(past, range(310, 350, 3), end=350),
            replay=pool_at(past, range(80, 270, 9), end=300),
            validation=pool_at(past, range(350, 360, 3), end=360),
            anchors=None,
        ),
        settings=TUNING,
    )
    held_out = pool_at(past, range(360, 390, 4), end=400)
    assert loss(challenger.network, held_out) < 0.9 * loss(champion, held_out)
    anchors = pool_at(past, range(75, 270, 31), end=300)
    assert loss(challenger.network, anchors) < 1.25 * loss(champion, anchors)
    assert all(torch.equal(before[name], value) for name, value in champion.state_dict().items())
    assert challenger.factor in FACTORS
    assert challenger.validation[challenger.factor] == min(challenger.validation.values())


def test_the_same_windows_and_seed_give_the_same_challenger() -> None:
    past = PastInMemory(200)
    pools = Pools(
        recent=pool_at(past, range(100, 130, 5), 140),
        replay=None,
        validation=pool_at(past, range(140, 150, 5), 150),
        anchors=None,
    )
    short = TUNING.model_copy(update={"steps": 3})
    once, again = (make_challenger(small_network(), pools, settings=short) for _ in range(2))
    assert once.train_losses == again.train_losses
    for one, other in zip(once.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_the_gate_sees_is_what_is_stored(tmp_path: Path) -> None:
    network = as_stored(copy.deepcopy(taught_network()))
    pool = pool_at(PastInMemory(200), range(100, 110, 5), 140)
    save_weights(network, tmp_path, card="# test\n")
    assert np.array_equal(
        evaluate(verify_weights(tmp_path).network, pool).loss_NH,
        evaluate(network, pool).loss_NH,
        equal_nan=True,
    )


def test_training_stops_when_it_is_asked_to() -> None:
    class Enough(Exception):
        pass

    calls = []

    def stopped() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Enough

    pool = pool_at(PastInMemory(200), range(100, 110, 5), 140)
    with pytest.raises(Enough):
        make_challenger(
            small_network(),
            Pools(recent=pool, replay=None, validation=pool, anchors=None),
            settings=TUNING,
            stopped=stopped,
        )
