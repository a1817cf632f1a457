"""What a promotion would add: the difference of two worlds that share their noise, only that."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.explain.plan import PlannedPromotion
from freshet.model.explain.whatif import compare, likeness, planned_row, what_if
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import QUANTILE_LEVELS
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

CONTEXT, HORIZON = 28, 6
AT = {name: slot for slot, name in enumerate(KNOWN_SLOTS)}
NORMAL = torch.special.ndtri(torch.tensor(QUANTILE_LEVELS))


class FakeForecaster:
    """About 100 a day, times 1 + flag + 2 x discount; promoted days vary by `wider` times more."""

    quantile_levels = QUANTILE_LEVELS

    def __init__(self, wider: float = 1.0) -> None:
        self.wider = wider

    def forecast(self, batch: Batch) -> torch.Tensor:
        known = torch.nan_to_num(batch.known_BSK[:, -HORIZON:])
        flag, discount = known[..., AT["promotion"]], known[..., AT["discount"]]
        mean_BH = 100.0 * (1.0 + flag + 2.0 * discount)
        deviation_BH = 0.1 * mean_BH * torch.where(flag > 0, self.wider, 1.0)
        return (mean_BH[..., None] + deviation_BH[..., None] * NORMAL).clamp(min=0.0)


def row(price: float = math.nan) -> Batch:
    known = torch.full((1, CONTEXT + HORIZON, len(KNOWN_SLOTS)), math.nan)
    known[..., AT["price_ratio"]] = price
    return Batch(
        torch.full((1, CONTEXT), 100.5),
        torch.full((1, CONTEXT, len(PAST_SLOTS)), math.nan),
        known,
        torch.zeros(1, 3),
        torch.zeros(1, dtype=torch.int64),
        DAY_MS,
    )


def test_the_plan_changes_in_its_steps_and_nowhere_else() -> None:
    one = row(price=0.9)
    changed = planned_row(one, range(1, 3), 1.0, 0.25).known_BSK - torch.nan_to_num(one.known_BSK)
    within = slice(CONTEXT + 1, CONTEXT + 3)
    assert changed[0, within, AT["promotion"]].tolist() == [1.0, 1.0]
    assert changed[0, within, AT["discount"]].tolist() == [0.25, 0.25]
    np.testing.assert_allclose(changed[0, within, AT["price_ratio"]], [-0.15, -0.15], atol=1e-6)
    changed[0, within] = 0.0
    assert not torch.nan_to_num(changed).any()
    assert (
        planned_row(row(), range(1, 3), 1.0, 0.25).known_BSK[..., AT["price_ratio"]].isnan().all()
    )


def test_a_sure_effect_is_told_as_sure_and_steps_without_it_as_nothing() -> None:
    found = what_if(FakeForecaster(), row(), 0, PlannedPromotion(range(2, 4), 0.25))
    # Twice 100 without, twice 250 with: 300 more, and as sure as the days themselves.
    np.testing.assert_allclose(found.uplift_P[1], 300.0, rtol=0.01)
    np.testing.assert_allclose([found.with_P[1], found.without_P[1]], [500.0, 200.0], rtol=0.01)
    np.testing.assert_allclose(found.uplift_P, found.surest_P)
    assert not found.uplift_HP[[0, 1, 4, 5]].any()
    np.testing.assert_allclose(found.uplift_all_P, found.uplift_P, atol=1e-3)
    assert found.loosest_P[2] - found.loosest_P[0] > 1.2 * (found.uplift_P[2] - found.uplift_P[0])


def test_an_effect_that_is_not_known_exactly_lies_between_the_extremes() -> None:
    found = what_if(FakeForecaster(wider=2.0), row(), 0, PlannedPromotion(range(0, 1), 0.0))
    low, _, high = found.uplift_HP[0]
    # 200 with a deviation of 40, 100 with one of 10, correlated by 10 % over 20 %: a deviation of
    # 36.1.
    deviation = math.sqrt(40.0**2 + 10.0**2 - 2 * 0.5 * 40.0 * 10.0)
    assert (high - low) / 2 == pytest.approx(1.2816 * deviation, rel=0.04)
    assert (
        found.surest_P[2] - found.surest_P[0] < high - low < found.loosest_P[2] - found.loosest_P[0]
    )


def test_whole_units_and_other_units_are_heeded() -> None:
    counts = replace(row(), target_BT=torch.full((1, CONTEXT), 100.0))
    found = what_if(FakeForecaster(), counts, 0, PlannedPromotion(range(0, 2), 0.1))
    np.testing.assert_allclose(found.uplift_HP, found.uplift_HP.round(), atol=0.51)
    plain, tenth = (
        what_if(FakeForecaster(), row(), 0, PlannedPromotion(range(0, 2), 0.1), factor=f)
        for f in (1.0, 10.0)
    )
    np.testing.assert_allclose(tenth.uplift_P, plain.uplift_P / 10.0, rtol=1e-4)


def test_a_network_forecasts_both_worlds_the_same_way_twice(tiny_network, drawn) -> None:
    forecaster = BatchForecaster(tiny_network, device="cpu", dtype="float32")
    batch, _ = drawn
    first, again = (
        what_if(forecaster, batch, 4, PlannedPromotion(range(3, 9), 0.3)) for _ in range(2)
    )
    assert first.as_dict() == again.as_dict()
    assert np.isfinite(first.uplift_HP).all()
    assert (np.diff(first.uplift_HP) >= 0).all()


def test_the_sentence_says_what_the_numbers_say() -> None:
    found = what_if(FakeForecaster(), row(), 0, PlannedPromotion(range(2, 4), 0.25))
    assert found.sentence().startswith("25 % off for days 3 to 4 would sell about 50")
    assert "more (+150 %), four times in five between" in found.sentence()
    told = json.loads(json.dumps(found.as_dict()))
    assert told["steps"] == [3, 4] and told["uplift"] == found.uplift_P.round(6).tolist()
    assert len(told["uplift_by_step"]) == HORIZON


def test_fewer_is_told_as_fewer() -> None:
    class Backwards(FakeForecaster):
        def forecast(self, batch: Batch) -> torch.Tensor:
            return 300.0 - super().forecast(batch).flip(-1)

    assert (
        "fewer (-" in what_if(Backwards(), row(), 0, PlannedPromotion(range(0, 6), 0.0)).sentence()
    )


def test_impossible_promotions_are_refused() -> None:
    for discount in (-0.1, 1.0, 20.0):
        with pytest.raises(InvalidInputError, match="20 % off"):
            PlannedPromotion(range(0, 1), discount)
    with pytest.raises(InvalidInputError, match="horizon of 6"):
        what_if(FakeForecaster(), row(), 0, PlannedPromotion(range(0, 7), 0.1))
    with pytest.raises(InvalidInputError, match="one row each"):
        compare(
            FakeForecaster(),
            row(),
            row().rows(torch.tensor([0, 0])),
            PlannedPromotion(range(0, 1), 0.1),
        )


def test_nothing_sold_in_either_world_is_alike() -> None:
    assert likeness(torch.zeros(2, 3, 3), (0.1, 0.5, 0.9)) == [1.0, 1.0, 1.0]
