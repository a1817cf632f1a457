"""Batches refuse what does not fit together, and say what would."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.stream.errors import InvalidInputError

ROWS, CONTEXT, STEPS, STATIC = 4, 5, 7, 3
NAN, INF = torch.nan, torch.inf


def numbered(*shape: int, first: float = 0.0) -> Tensor:
    """Numbers from `first` on, each its own."""
    return torch.arange(float(torch.tensor(shape).prod())).reshape(shape) + first


def batch_of() -> Batch:
    """Four rows, five steps and two ahead, in groups."""
    return Batch(
        target_BT=numbered(ROWS, CONTEXT),
        past_BTP=numbered(ROWS, CONTEXT, len(PAST_SLOTS), first=1_000.0),
        known_BSK=numbered(ROWS, STEPS, len(KNOWN_SLOTS), first=2_000.0),
        static_BF=numbered(ROWS, STATIC, first=3_000.0),
        start_ms_B=torch.tensor([10, 20, 30, 40]),
        resolution_ms=60_000,
        group_B=torch.tensor([7, 7, 8, 9]),
    )


def test_a_batch_knows_its_lengths_and_gives_its_fields_in_the_networks_order() -> None:
    batch = batch_of()
    assert batch.validate() is batch
    assert (len(batch), batch.context_length, batch.prediction_length) == (4, 5, 2)
    fields = (batch.target_BT, batch.past_BTP, batch.known_BSK, batch.static_BF, batch.start_ms_B)
    found = batch.arguments()
    assert all(one is other for one, other in zip(found[:5], fields, strict=True))
    assert found[5] == 60_000 and found[6] is batch.group_B


def test_slots_are_those_that_the_shipped_weights_were_trained_with() -> None:
    named = ["price_ratio", "promotion", "discount", "event", "closed", "effect"]
    assert list(KNOWN_SLOTS) == [*named, "free_1", "free_2", "free_3", "free_4", "free_5", "free_6"]
    clicks = ["views", "carts", "favourites", "checkouts"]
    assert list(PAST_SLOTS) == [*clicks, "in_stock", "free_1", "free_2", "free_3"]


def test_what_the_mixture_draws_fits(drawn) -> None:
    batch, actual_BH = drawn
    assert batch.validate() is batch
    assert actual_BH.shape == (12, batch.prediction_length) and batch.group_B is None


def test_rows_are_whole_rows_in_the_order_asked_for() -> None:
    batch = batch_of()
    for index in (torch.tensor([3, 1]), slice(1, 4, 2)):
        part = batch.rows(index)
        order = [3, 1] if isinstance(index, Tensor) else [1, 3]
        assert part.resolution_ms == 60_000
        for name in ("target_BT", "past_BTP", "known_BSK", "static_BF", "start_ms_B", "group_B"):
            expected = torch.stack([getattr(batch, name)[row] for row in order])
            assert torch.equal(getattr(part, name), expected), name
    assert replace(batch, group_B=None).rows(slice(2)).group_B is None


def test_every_tensor_goes_to_another_device() -> None:
    moved = batch_of().to("meta")
    tensors = [value for value in moved.arguments() if isinstance(value, Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 6
    assert moved.resolution_ms == 60_000


def with_value(value: float) -> Tensor:
    """The target with one other value in its third row."""
    target_BT = numbered(ROWS, CONTEXT)
    target_BT[2, 1] = value
    return target_BT


K, P = len(KNOWN_SLOTS), len(PAST_SLOTS)
WRONG = {
    "a context too long": (
        {"past_BTP": torch.zeros(4, 6, P)},
        f"past_BTP has shape (4, 6, {P}); expected (4, 5, {P}) to fit target_BT: pad with NaN",
    ),
    "a past slot too many": ({"past_BTP": torch.zeros(4, 5, P + 1)}, f"expected (4, 5, {P})"),
    "a known slot too few": ({"known_BSK": torch.zeros(4, 7, K - 1)}, f"expected (4, 7, {K})"),
    "known of other rows": ({"known_BSK": torch.zeros(3, 7, K)}, f"expected (4, 7, {K})"),
    "static of other rows": ({"static_BF": torch.zeros(5, 3)}, "expected (4, 3)"),
    "a flat target": ({"target_BT": torch.zeros(4)}, "target_BT has shape (4,); expected 2"),
    "a flat known": ({"known_BSK": torch.zeros(4, 7)}, "known_BSK has shape (4, 7); expected 3"),
    "a flat static": ({"static_BF": torch.zeros(4)}, "static_BF has shape (4,); expected 2 dim"),
    "too few starts": ({"start_ms_B": torch.zeros(3)}, "start_ms_B has shape (3,); expected (4,)"),
    "too few groups": ({"group_B": torch.zeros(3)}, "group_B has shape (3,); expected (4,)"),
    "no horizon": (
        {"known_BSK": torch.zeros(4, 5, K)},
        "known_BSK has 5 steps for a context of 5: no horizon",
    ),
    "no length": ({"resolution_ms": 0}, "resolution_ms is 0; expected a positive length"),
    "a negative value": ({"target_BT": with_value(-0.5)}, "target_BT row 2 holds a negative"),
    "an infinite value": (
        {"target_BT": with_value(INF)},
        "target_BT row 2 holds a negative or inf",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named_with_what_would(name: str) -> None:
    change, said = WRONG[name]
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        replace(batch_of(), **change).validate()


def test_missing_values_and_a_horizon_of_one_step_fit() -> None:
    batch = replace(batch_of(), target_BT=with_value(NAN), resolution_ms=1, group_B=None)
    one = replace(batch, known_BSK=batch.known_BSK[:, :6])
    assert one.validate().prediction_length == 1
