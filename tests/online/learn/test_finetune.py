"""A challenger learns what is new, from labels it may see, and is what will be stored."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from freshet.model.batch import Batch
from freshet.model.forecaster import newest
from freshet.model.network import FreshetNetwork
from freshet.model.training.train import FineTuneSettings
from freshet.model.weights import save_weights, verify_weights
from freshet.online.learn import finetune
from freshet.online.learn.finetune import Challenger, as_stored, make_challenger
from freshet.online.trials.evaluation import Evaluation, evaluate
from freshet.online.trials.pools import Pool, Pools
from freshet.stream.config import LearnSettings
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import (
    CONTEXT,
    START_MS,
    PastInMemory,
    pool_at,
    small_network,
    taught_network,
)

TUNING = LearnSettings(steps=60, batch_size=12, learning_rate=8e-3)


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
    network = as_stored(small_network(3))
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


# Which factor is taken ----------------------------------------------------------------------------


def filled(value: float) -> FreshetNetwork:
    """A network all of whose numbers are one."""
    network = small_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


def number_of(network: FreshetNetwork) -> float:
    found: set[float] = set()
    for parameter in network.parameters():
        found.update(parameter.detach().unique().tolist())
    (value,) = found
    return value


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    losses: dict[float, list[float]],
    base: FreshetNetwork | None = None,
) -> tuple[Challenger, list[FineTuneSettings]]:
    """The challenger between a champion of ones and tuned weights of twos, by their losses."""
    past = PastInMemory(200)
    pools = Pools(
        recent=pool_at(past, range(100, 130, 5), 140),
        replay=None,
        validation=pool_at(past, range(140, 150, 5), 150),
        anchors=None,
    )
    champion = filled(1.0)
    asked: list[FineTuneSettings] = []

    def tune(
        network: FreshetNetwork, sampler: object, *, settings: FineTuneSettings
    ) -> SimpleNamespace:
        assert network is champion
        asked.append(settings)
        # A little more than bf16 can hold.
        return SimpleNamespace(network=filled(2.0 + 2.0**-8), losses=(3.0, 2.0))

    def judged(network: FreshetNetwork, pool: Pool) -> Evaluation:
        assert pool is pools.validation
        loss_N1 = np.array(losses[number_of(network)])[:, None]
        return Evaluation(loss_NH=loss_N1, covered_NH=loss_N1)

    monkeypatch.setattr(finetune, "fine_tune", tune)
    monkeypatch.setattr(finetune, "evaluate", judged)
    settings = LearnSettings(steps=7, batch_size=5, learning_rate=0.25, seed=11)
    return make_challenger(champion, pools, settings=settings, base=base), asked


@pytest.mark.parametrize(
    ("whole", "half", "factor", "number"),
    [
        # Summed over windows with a label: 5 against 6, and 6 against 5.
        ([4.0, 1.0], [3.0, 3.0], 1.0, 2.0),
        ([3.0, 3.0], [4.0, 1.0], 0.5, 1.5),
        ([math.nan, 5.0], [3.0, 3.0], 1.0, 2.0),
        # Where both do alike, the further one.
        ([4.0, 2.0], [3.0, 3.0], 1.0, 2.0),
        # What is not finite loses.
        ([math.inf, 0.0], [9.0, 9.0], 0.5, 1.5),
    ],
)
def test_the_factor_that_loses_least_on_validation_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    whole: list[float],
    half: list[float],
    factor: float,
    number: float,
) -> None:
    challenger, _ = chosen(monkeypatch, {2.0: whole, 1.5: half})
    assert (challenger.factor, number_of(challenger.network)) == (factor, number)
    assert challenger.validation == {1.0: np.nansum(whole), 0.5: np.nansum(half)}
    assert challenger.train_losses == (3.0, 2.0)
    assert challenger.seconds > 0.0


def test_a_challenger_is_brought_back_towards_the_shipped_weights_as_far_as_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = filled(0.5)

    def tethered(
        network: FreshetNetwork, champion: FreshetNetwork, base: FreshetNetwork, *, stopped: object
    ) -> tuple[FreshetNetwork, float]:
        assert (number_of(network), number_of(champion)) == (2.0, 1.0) and base is shipped
        return filled(1.25), 0.75

    monkeypatch.setattr(finetune, "tethered", tethered)
    challenger, _ = chosen(monkeypatch, {2.0: [1.0], 1.5: [2.0]}, base=shipped)
    assert (number_of(challenger.network), challenger.kept) == (1.25, 0.75)
    free, _ = chosen(monkeypatch, {2.0: [1.0], 1.5: [2.0]})
    assert (number_of(free.network), free.kept) == (2.0, 1.0)


def test_tuning_is_as_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (settings,) = chosen(monkeypatch, {2.0: [1.0], 1.5: [2.0]})
    found = settings.steps, settings.batch_size, settings.learning_rate, settings.seed
    assert found == (7, 5, 0.25, 11)


def test_a_challenger_is_rounded_as_it_will_be_stored() -> None:
    network = filled(1.0 + 2.0**-9)
    assert number_of(as_stored(network)) == 1.0, "bf16 has eight bits"
    assert number_of(as_stored(filled(1.0 + 2.0**-7))) == 1.0 + 2.0**-7


# What a step learns from --------------------------------------------------------------------------


class Levels(PastInMemory):
    """Items that always sell the same: a base and the number of their row."""

    def __init__(self, base: float, steps: int = 16) -> None:
        super().__init__(200)
        self.steps = steps
        self.units_IN[:] = base + np.arange(len(self.units_IN))[:, None]


def drawn(
    monkeypatch: pytest.MonkeyPatch,
    replay: Pool | None,
    share: float,
    steps: int = 16,
    *,
    held: int = CONTEXT,
    asked: int = CONTEXT,
) -> tuple[Batch, torch.Tensor]:
    """What the first step of a training learns from."""
    found = []

    def tune(base: FreshetNetwork, sampler: Any, *, settings: object) -> SimpleNamespace:
        once, again = (sampler(torch.Generator().manual_seed(1)) for _ in range(2))
        # Of the chance that is given, and of no other.
        assert torch.equal(once[0].start_ms_B, again[0].start_ms_B)
        found.append(once)
        return SimpleNamespace(network=base, losses=())

    monkeypatch.setattr(finetune, "fine_tune", tune)
    recent = pool_at(Levels(100.0, steps), range(100, 103), 200)
    recent = replace(recent, batch=newest(recent.batch, held))
    settings = LearnSettings(batch_size=400, replay_share=share)
    validation = pool_at(Levels(100.0), range(120, 121), 200)
    make_challenger(
        small_network(context_length=asked),
        Pools(recent=recent, replay=replay, validation=validation, anchors=None),
        settings=settings,
    )
    return found[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("share", "older"), [(0.0, 0), (0.25, 100), (0.6, 240)])
def test_of_each_step_so_much_is_replay_as_was_set(
    monkeypatch: pytest.MonkeyPatch, share: float, older: int
) -> None:
    replay = pool_at(Levels(500.0), range(80, 83), 200)
    batch, actual_NH = drawn(monkeypatch, replay, share)
    assert len(batch.target_BT) == len(actual_NH) == 400
    assert int((actual_NH[:, 0] >= 500.0).sum()) == older
    # Each context has its own label: items always sell the same.
    assert torch.equal(batch.target_BT[:, -1], actual_NH[:, 0])
    # Every window is drawn sooner or later, the last one too.
    assert {100.0 + row for row in range(12)} <= set(actual_NH[:, 0].tolist())


def test_without_older_windows_a_step_is_all_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, actual_NH = drawn(monkeypatch, None, 0.5)
    assert len(batch.target_BT) == 400
    assert bool((actual_NH < 500.0).all())
    cutoffs = set(((batch.start_ms_B - START_MS) // HOUR_MS + CONTEXT).tolist())
    assert cutoffs == {100, 101, 102}


def test_a_horizon_that_fills_no_patch_is_padded_after_its_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, actual_NH = drawn(monkeypatch, None, 0.5, steps=12)
    assert (batch.context_length, batch.prediction_length, actual_NH.shape[1]) == (64, 16, 16)
    known_H = torch.isfinite(actual_NH).all(0)
    assert known_H.tolist() == [True] * 12 + [False] * 4
    assert bool(torch.isnan(actual_NH[:, 12:]).all())


@pytest.mark.parametrize(("held", "asked", "missing"), [(64, 48, 0), (61, 64, 3), (61, 80, 3)])
def test_a_context_is_the_newest_that_the_network_takes_in_whole_patches(
    monkeypatch: pytest.MonkeyPatch, held: int, asked: int, missing: int
) -> None:
    batch, actual_NH = drawn(monkeypatch, None, 0.5, held=held, asked=asked)
    length = min(asked, held + missing)
    assert batch.target_BT.shape == (400, length)
    known_T = torch.isfinite(batch.target_BT).all(0)
    assert known_T.tolist() == [False] * missing + [True] * (length - missing)
    hours = set(((batch.start_ms_B - START_MS) // HOUR_MS + length).tolist())
    assert hours == {100, 101, 102}, "contexts end at their cutoffs"
    assert bool(torch.isfinite(actual_NH).all())


def clock_of(pool: Pool, hours_S: list[int]) -> Pool:
    """The pool where the shop's clock shows these hours at the context's last 64 and the steps."""
    shown_BS = torch.tensor(hours_S, dtype=torch.int64).expand(len(pool), -1) * HOUR_MS
    return replace(pool, batch=replace(pool.batch, local_ms_BS=shown_BS))


# At step 3 an hour is left out; steps 2 and 3 show the same one.
SPRING = [*range(CONTEXT + 3), *range(CONTEXT + 4, CONTEXT + 17)]
AUTUMN = [*range(CONTEXT + 3), *range(CONTEXT + 2, CONTEXT + 15)]


@pytest.mark.parametrize(
    ("hours_S", "sold"),
    [
        (list(range(CONTEXT + 16)), [*range(16)]),
        (SPRING, [0, 1, 2, None, *range(3, 16)]),
        (AUTUMN, [0, 1, *range(3, 16)]),
    ],
)
def test_labels_go_where_the_shops_clock_has_their_hour(
    hours_S: list[int], sold: list[int | None]
) -> None:
    past = PastInMemory(200)
    past.units_IN[:, 100:] = np.arange(100.0)
    found = finetune.by_clock(clock_of(pool_at(past, range(100, 101), 200), hours_S))
    assert found.batch.local_ms_BS is None
    assert found.batch.prediction_length == found.actual_NH.shape[1] == len(sold)
    expected = np.array([math.nan if units is None else units for units in sold])
    assert np.array_equal(found.actual_NH.numpy(), np.tile(expected, (12, 1)), equal_nan=True)


def test_windows_over_a_change_of_clocks_are_learnt_beside_those_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay = clock_of(pool_at(Levels(500.0), range(80, 83), 200), SPRING)
    batch, actual_NH = drawn(monkeypatch, replay, 0.5)
    # Seventeen steps are more than a patch of eight times two.
    assert (batch.prediction_length, actual_NH.shape[1]) == (24, 24)
    old_N = actual_NH[:, 0] >= 500.0
    assert int(old_N.sum()) == 200
    assert torch.isfinite(actual_NH[old_N]).sum(1).unique().tolist() == [16]
    assert bool(torch.isnan(actual_NH[old_N, 3]).all())
    assert torch.isfinite(actual_NH[~old_N, :16]).all() and torch.isnan(actual_NH[:, 17:]).all()


def test_training_asks_whether_to_stop_before_each_step_and_each_look_at_validation() -> None:
    calls: list[int] = []
    pool = pool_at(PastInMemory(200), range(100, 101), 140)
    make_challenger(
        small_network(),
        Pools(recent=pool, replay=None, validation=pool, anchors=None),
        settings=TUNING.model_copy(update={"steps": 4}),
        stopped=lambda: calls.append(1),
    )
    assert len(calls) == 4 + 2


# The whole of it ---------------------------------------------------------------------------------


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
    after = champion.state_dict()
    assert after.keys() == before.keys() and len(before) > 10
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert (challenger.factor, len(challenger.train_losses)) in {(1.0, 60), (0.5, 60)}
