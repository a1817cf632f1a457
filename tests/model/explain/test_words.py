"""An explanation in words says what its numbers say."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import PAST_SLOTS
from freshet.model.explain.attention import Looked
from freshet.model.explain.groups import Group
from freshet.model.explain.row import one_row
from freshet.model.explain.shapley import Contribution, Shapley
from freshet.model.explain.words import (
    contribution_sentence,
    explain,
    looked_sentence,
    noticeable,
    quiet_sentence,
    span,
)
from freshet.model.forecaster import BatchForecaster
from freshet.stream.units import DAY_MS, HOUR_MS


@pytest.fixture
def forecaster(tiny_network) -> BatchForecaster:
    return BatchForecaster(tiny_network, device="cpu", dtype="float32")


def taken_apart(*parts: tuple[Group, float], empty: float = 10.0) -> Shapley:
    found = tuple(
        Contribution(group, np.array([units, 2 * units]), np.zeros((24, 2)))
        for group, units in parts
    )
    full = empty + sum(units for _, units in parts)
    return Shapley(
        (0.5, 0.9), range(0, 24), HOUR_MS, np.array([empty, 0.0]), np.array([full, 0.0]), found
    )


SALES = Group("recent", "The last week's sales", many=True)
PROMOTION = Group("promotion", "The promotion")
EVENTS = Group("event", "Holidays and events", many=True)


def test_a_merchant_reads_what_adds_how_much_and_against_what() -> None:
    found = taken_apart((SALES, 20.0), (PROMOTION, 12.0), (EVENTS, -5.0))
    assert [contribution_sentence(part, found) for part in found.contributions] == [
        "The last week's sales add 20 units (+118 %).",
        "The promotion adds 12 units (+48 %).",
        "Holidays and events take 5 units away (-12 %).",
    ]
    alone = taken_apart((SALES, 1.0), (PROMOTION, -30.0), empty=40.0)
    assert (
        contribution_sentence(alone.contributions[1], alone) == "The promotion takes 30 units away."
    )


def test_what_hardly_matters_shares_one_sentence() -> None:
    found = taken_apart((SALES, 200.0), (PROMOTION, 0.4), (EVENTS, -0.1))
    assert noticeable(found) == [found.contributions[0]]
    assert quiet_sentence(found) == ["The promotion and holidays and events hardly change it."]
    assert quiet_sentence(taken_apart((SALES, 200.0), (PROMOTION, 0.4))) == [
        "The promotion hardly changes it."
    ]
    assert quiet_sentence(taken_apart((SALES, 200.0))) == []


def test_where_it_looked_is_told_as_dates_and_as_no_cause() -> None:
    looked = (
        Looked(-32, -17, "past", 0.1),
        Looked(-16, -1, "past", 0.5),
        Looked(None, None, "item", 0.1),
        Looked(None, None, "plan", 0.3),
    )
    told = looked_sentence(looked, 1_700_006_400_000, HOUR_MS)
    assert told == (
        "The network looked most at 14 Nov 08:00 to 14 Nov 23:00 (50 %), 13 Nov 16:00 to 14 "
        "Nov 07:00 (10 %), "
        "the plan ahead (30 %) and the item (10 %). That is attention, not a cause."
    )
    assert "past" not in looked_sentence(looked[2:], 0, HOUR_MS)


def test_an_explanation_holds_together_and_is_the_same_each_time(forecaster, drawn) -> None:
    batch, _ = drawn
    row = int(torch.nan_to_num(batch.target_BT).mean(1).argmax())
    found = explain(forecaster, batch, row, name="shoe", steps=range(0, 16))
    told = found.as_dict()
    assert json.loads(json.dumps(told)) == json.loads(
        json.dumps(explain(forecaster, batch, row, name="shoe", steps=range(0, 16)).as_dict())
    )
    assert told["steps"] == [1, 16]
    total = told["empty"][0] + sum(part["units"][0] for part in told["contributions"])
    assert total == pytest.approx(told["full"][0], rel=1e-4, abs=1e-3)
    forecast = forecaster.forecast(one_row(batch, row))[0]
    np.testing.assert_allclose(found.quantiles_HQ, forecast, rtol=1e-5)
    assert told["full"][0] == pytest.approx(float(forecast[:16, 10].sum()), rel=1e-3)
    low, middle, high = found.total
    assert low < middle < high
    assert float(forecast[:16, 2].sum()) < low and high < float(forecast[:16, 18].sum()), (
        "a sum varies less than its parts"
    )
    assert found.sentences()[0].startswith("shoe: about ")
    assert len(told["history"]) == batch.context_length
    missing = batch.target_BT[row].isnan().numpy()
    assert [value is None for value in told["history"]] == missing.tolist()


def test_an_item_without_history_is_explained_by_what_there_is(forecaster, drawn) -> None:
    one = one_row(drawn[0], 3)
    bare = replace(
        one,
        target_BT=torch.full_like(one.target_BT, math.nan),
        past_BTP=torch.full((1, one.context_length, len(PAST_SLOTS)), math.nan),
    )
    found = explain(forecaster, bare, 0)
    assert {part.group.key for part in found.shapley.contributions}.isdisjoint(
        {"recent", "older", "signals"}
    )
    assert all(sentence for sentence in found.sentences())
    assert found.total[0] <= found.total[1] <= found.total[2]


def test_amounts_come_back_in_the_readers_units(forecaster, drawn) -> None:
    plain, scaled = (explain(forecaster, drawn[0], 2, factor=factor) for factor in (1.0, 8.0))
    np.testing.assert_allclose(scaled.quantiles_HQ, plain.quantiles_HQ / 8.0, rtol=1e-5)
    np.testing.assert_allclose(scaled.target_T, plain.target_T / 8.0)
    np.testing.assert_allclose(scaled.shapley.full_L, plain.shapley.full_L / 8.0, rtol=1e-5)
    np.testing.assert_allclose(
        scaled.gradients.target_T, plain.gradients.target_T / 8.0, rtol=1e-3, atol=1e-5
    )


def test_steps_without_a_name_are_steps() -> None:
    assert span(range(0, 4), 900_000) == "the next 4 steps"
    assert span(range(0, 1), 30 * DAY_MS) == "the next month"
