"""Shapley values are exact, add up, and give nothing to what does nothing."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, QUANTILE_LEVELS, Batch
from freshet.model.explain.groups import Meaning, groups_of
from freshet.model.explain.row import level_columns, one_row
from freshet.model.explain.shapley import shapley, shapley_values
from freshet.model.forecaster import BatchForecaster
from freshet.model.text import NUM_STATIC, NUM_TEXT
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, WEEK_MS

CONTEXT, HORIZON = 28, 6


class FakeForecaster:
    """Median = sales of the newest 7 days and before, plus promotions, half as much with both."""

    quantile_levels = (0.1, 0.5, 0.9)

    def __init__(self) -> None:
        self.calls = 0

    def forecast(self, batch: Batch) -> torch.Tensor:
        self.calls += 1
        recent = torch.nan_to_num(batch.target_BT[:, -7:]).sum(1)
        older = torch.nan_to_num(batch.target_BT[:, :-7]).sum(1)
        promotion = torch.nan_to_num(batch.known_BSK[..., KNOWN_SLOTS.index("promotion")])
        both = (recent > 0) & (promotion.sum(1) > 0)
        base_B = 5.0 + recent + 0.5 * older - 3.0 * both
        median_BH = base_B[:, None] + 10.0 * promotion[:, -HORIZON:]
        return median_BH[..., None] * torch.tensor([0.5, 1.0, 2.0])


def row(**over: torch.Tensor) -> Batch:
    known = torch.full((1, CONTEXT + HORIZON, len(KNOWN_SLOTS)), math.nan)
    known[..., KNOWN_SLOTS.index("promotion")] = 0.0
    known[0, -2:, KNOWN_SLOTS.index("promotion")] = 1.0
    known[..., KNOWN_SLOTS.index("event")] = 0.0
    fields = {
        "target_BT": torch.ones(1, CONTEXT),
        "past_BTP": torch.full((1, CONTEXT, len(PAST_SLOTS)), math.nan),
        "known_BSK": known,
        "static_BF": torch.zeros(1, NUM_STATIC),
        "start_ms_B": torch.zeros(1, dtype=torch.int64),
    }
    return Batch(**(fields | over), resolution_ms=DAY_MS)  # type: ignore[arg-type]


# The numbers --------------------------------------------------------------------------------------


@given(st.integers(0, 5), st.integers(0, 10**6))
def test_the_values_are_averages_over_every_order(num_groups: int, seed: int) -> None:
    worth = np.random.default_rng(seed).normal(size=(2**num_groups, 2))
    expected = np.zeros((num_groups, 2))
    orders = list(itertools.permutations(range(num_groups)))
    for order in orders:
        coalition = 0
        for group in order:
            expected[group] += (worth[coalition | 1 << group] - worth[coalition]) / len(orders)
            coalition |= 1 << group
    np.testing.assert_allclose(shapley_values(worth), expected, atol=1e-12)


def test_a_known_game_is_taken_apart_exactly_in_one_call() -> None:
    forecaster = FakeForecaster()
    found = shapley(forecaster, row(), 0)
    assert forecaster.calls == 1
    units = {part.group.key: part.units_L.tolist() for part in found.contributions}
    # Sums over six days: 42 of the newest week and 63 of the older three; 20 of the promotion, 18
    # less for both.
    assert units == {
        "older": [pytest.approx(63.0), pytest.approx(126.0)],
        "recent": [pytest.approx(42.0 - 9.0), pytest.approx(66.0)],
        "promotion": [pytest.approx(20.0 - 9.0), pytest.approx(22.0)],
        "event": [pytest.approx(0.0, abs=1e-9), pytest.approx(0.0, abs=1e-9)],
    }
    assert [part.group.key for part in found.contributions] == [
        "older",
        "recent",
        "promotion",
        "event",
    ]
    assert found.empty_L.tolist() == [30.0, 60.0]


def test_chosen_steps_and_single_steps_add_up_to_the_same() -> None:
    whole, last = (
        shapley(FakeForecaster(), row(), 0, steps=steps) for steps in (None, range(4, 6))
    )
    for part in last.contributions:
        same = next(other for other in whole.contributions if other.group == part.group)
        np.testing.assert_allclose(part.steps_HL, same.steps_HL)
        np.testing.assert_allclose(part.units_L, same.steps_HL[4:6].sum(0))
    promotion = next(part for part in last.contributions if part.group.key == "promotion")
    assert promotion.units_L[0] == pytest.approx(20.0 - 3.0)


def test_the_factor_brings_amounts_back_to_the_readers_units() -> None:
    plain, scaled = (
        shapley(FakeForecaster(), row(), 0),
        shapley(FakeForecaster(), row(), 0, factor=10.0),
    )
    np.testing.assert_allclose(scaled.full_L, plain.full_L / 10.0)
    np.testing.assert_allclose(
        scaled.contributions[0].units_L, plain.contributions[0].units_L / 10.0
    )


def test_with_a_network_all_of_it_adds_up_and_a_dummy_gets_nothing(tiny_network, drawn) -> None:
    forecaster = BatchForecaster(tiny_network, device="cpu", dtype="float32")
    batch = drawn[0]
    for index in range(len(batch)):
        found = shapley(forecaster, batch, index)
        total = found.empty_L + sum(part.units_L for part in found.contributions)
        np.testing.assert_allclose(total, found.full_L, rtol=1e-5, atol=1e-4)
        full = forecaster.forecast(one_row(batch, index))[0, :, [10, 18]].sum(0)
        np.testing.assert_allclose(found.full_L, full, rtol=1e-3, atol=1e-2)
        again = shapley(forecaster, batch, index)
        assert all(
            (a.units_L == b.units_L).all()
            for a, b in zip(found.contributions, again.contributions, strict=True)
        )


def test_relatives_of_a_row_do_not_change_how_it_is_explained(tiny_network, drawn) -> None:
    forecaster = BatchForecaster(tiny_network, device="cpu", dtype="float32")
    together = replace(drawn[0], group_B=torch.zeros(len(drawn[0]), dtype=torch.int64))
    np.testing.assert_array_equal(
        shapley(forecaster, together, 3).full_L, shapley(forecaster, drawn[0], 3).full_L
    )


def test_what_is_not_there_is_refused() -> None:
    for wrong in (range(0, 7), range(3, 3), range(-1, 2), range(0, 6, 2)):
        with pytest.raises(InvalidInputError, match="0 to 5"):
            shapley(FakeForecaster(), row(), 0, steps=wrong)
    with pytest.raises(InvalidInputError, match="expected 0 to 0"):
        shapley(FakeForecaster(), row(), 1)
    with pytest.raises(InvalidInputError, match="not forecast"):
        level_columns(FakeForecaster.quantile_levels, (0.5, 0.95))


# Groups -------------------------------------------------------------------------------------------


def full_row() -> Batch:
    known = torch.ones(1, CONTEXT + HORIZON, len(KNOWN_SLOTS))
    static = torch.zeros(1, NUM_STATIC)
    static[0, NUM_TEXT] = 2.0
    return row(known_BSK=known, past_BTP=torch.ones(1, CONTEXT, len(PAST_SLOTS)), static_BF=static)


def test_every_slot_belongs_to_one_group() -> None:
    one = full_row()
    groups = groups_of(one)
    assert [group.key for group, _ in groups] == [
        *("recent", "older", "signals", "price", "promotion", "event", "own", "shared", "item")
    ]
    gone = {}
    for group, hide in groups:
        copy = one.rows(torch.tensor([0, 0]))
        hide(copy, torch.tensor([False, True]))
        for name in ("target_BT", "past_BTP", "known_BSK", "static_BF"):
            before, after = getattr(one, name)[0], getattr(copy, name)
            assert torch.equal(after[0], before), f"{group.key} touches a row that keeps it"
            missing = after[1].isnan() & ~before.isnan()
            gone[name] = (
                gone.get(name, torch.zeros_like(missing, dtype=torch.int64)) + missing.long()
            )
    assert all(bool((gone[name] == 1).all()) for name in ("target_BT", "past_BTP", "known_BSK"))
    assert bool((gone["static_BF"][NUM_TEXT:] == 1).all())


def test_a_group_with_nothing_in_it_is_left_out() -> None:
    keys = [group.key for group, _ in groups_of(row())]
    assert keys == ["recent", "older", "promotion", "event"]
    cold = row(
        target_BT=torch.full((1, CONTEXT), math.nan),
        known_BSK=torch.full((1, CONTEXT + HORIZON, len(KNOWN_SLOTS)), math.nan),
    )
    assert groups_of(cold) == []
    found = shapley(FakeForecaster(), cold, 0)
    assert found.contributions == () and found.full_L.tolist() == found.empty_L.tolist() == [
        30.0,
        60.0,
    ]


def test_parts_of_the_shared_effect_leave_with_the_group_that_a_table_names() -> None:
    effect = torch.linspace(-0.5, 0.5, CONTEXT + HORIZON)
    known = row().known_BSK.clone()
    known[0, :, KNOWN_SLOTS.index("effect")] = effect
    one = row(known_BSK=known)
    prices = Meaning(effects={"price": 0.25 * effect})
    hides = {group.key: hide for group, hide in groups_of(one, prices)}
    left = {}
    for keys in (("price",), ("shared",), ("price", "shared")):
        copy = one.rows(torch.tensor([0, 0]))
        for key in keys:
            hides[key](copy, torch.tensor([False, True]))
        kept = copy.known_BSK[0]
        torch.testing.assert_close(kept, known[0], rtol=0, atol=0, equal_nan=True)
        left[keys] = copy.known_BSK[1, :, KNOWN_SLOTS.index("effect")]
    torch.testing.assert_close(left["price",], 0.75 * effect)
    torch.testing.assert_close(left["shared",], 0.25 * effect)
    assert left["price", "shared"].isnan().all()


def test_what_siblings_sell_is_a_group_of_an_item_that_needs_them() -> None:
    pooled = torch.zeros(1, HORIZON, len(QUANTILE_LEVELS))
    alone, helped = (
        replace(row(), own_B=torch.tensor([share]), pooled_BHQ=pooled) for share in (1.0, 0.25)
    )
    assert "siblings" not in [group.key for group, _ in groups_of(alone)]
    hides = {group.key: hide for group, hide in groups_of(helped)}
    copy = helped.rows(torch.tensor([0, 0]))
    hides["siblings"](copy, torch.tensor([False, True]))
    assert copy.own_B is not None and copy.own_B.tolist() == [0.25, 1.0]


def test_words_name_what_is_there() -> None:
    past = torch.full((1, CONTEXT, len(PAST_SLOTS)), math.nan)
    for name in ("views", "carts", "in_stock"):
        past[..., PAST_SLOTS.index(name)] = 1.0
    words = {group.key: group.words for group, _ in groups_of(row(past_BTP=past))}
    assert words["signals"] == "Views, carts and stock"
    assert words["recent"] == "The last week's sales"
    weekly = {
        group.key: group.words for group, _ in groups_of(replace(row(), resolution_ms=WEEK_MS))
    }
    assert weekly["recent"] == "The last 4 weeks' sales"
