"""Batches refuse what does not fit together, and say what would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from freshet.model.batch import Batch
from freshet.stream.errors import InvalidInputError


def test_a_batch_from_the_mixture_is_valid_and_knows_its_lengths(drawn) -> None:
    batch, actual_BH = drawn
    assert batch.validate() is batch
    assert len(batch) == 12
    assert batch.context_length + batch.prediction_length == batch.known_BSK.shape[1]
    assert actual_BH.shape == (12, batch.prediction_length)


def test_rows_keep_their_order_and_their_resolution(drawn) -> None:
    batch, _ = drawn
    part = batch.rows(torch.tensor([3, 1]))
    assert torch.equal(part.start_ms_B, batch.start_ms_B[[3, 1]])
    assert part.resolution_ms == batch.resolution_ms
    assert part.group_B is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda b: {"past_BTP": b.past_BTP[:, 1:]},
            r"past_BTP has shape .* expected .* pad with NaN",
        ),
        (lambda b: {"known_BSK": b.known_BSK[:, : b.context_length]}, "no horizon"),
        (lambda b: {"known_BSK": b.known_BSK[0]}, "3 dimensions"),
        (lambda b: {"start_ms_B": b.start_ms_B[:1]}, "start_ms_B"),
        (lambda b: {"group_B": torch.zeros(2, dtype=torch.int64)}, "group_B"),
        (lambda b: {"target_BT": b.target_BT - 1e6}, "row 0 holds a negative"),
        (lambda b: {"target_BT": b.target_BT + torch.inf}, "infinite"),
        (lambda b: {"resolution_ms": 0}, "positive length"),
    ],
)
def test_what_does_not_fit_is_named_with_the_expected_shape(drawn, change, said) -> None:
    batch: Batch = drawn[0]
    batch = replace(batch, target_BT=torch.nan_to_num(batch.target_BT))
    with pytest.raises(InvalidInputError, match=said):
        replace(batch, **change(batch)).validate()
