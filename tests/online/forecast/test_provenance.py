"""The checksum of a context, against one packed by hand."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import fields, replace

import torch

from freshet.model.batch import Batch
from freshet.online.forecast.provenance import BLOCK, context_sha256

NAN = math.nan


def batch() -> Batch:
    """Two rows of two context steps and one beyond, with slots of made-up widths."""
    return Batch(
        target_BT=torch.tensor([[1.5, NAN], [0.0, 2.0]]),
        past_BTP=torch.tensor([[[3.0], [4.0]], [[5.0], [NAN]]]),
        known_BSK=torch.tensor([[[6.0], [7.0], [8.0]], [[9.0], [-0.0], [10.0]]]),
        static_BF=torch.tensor([[0.25, NAN], [11.0, 12.0]]),
        start_ms_B=torch.tensor([3_600_000, 7_200_000]),
        resolution_ms=60_000,
    )


def packed(*numbers: float, start_ms: int, resolution_ms: int) -> str:
    """Little-endian float32, then two int64."""
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    return hashlib.sha256(data + struct.pack("<2q", start_ms, resolution_ms)).hexdigest()


def test_a_checksum_covers_every_number_of_its_row_in_order() -> None:
    first = (1.5, NAN, 3.0, 4.0, 6.0, 7.0, 8.0, 0.25, NAN)
    second = (0.0, 2.0, 5.0, NAN, 9.0, 0.0, 10.0, 11.0, 12.0)
    assert context_sha256(batch()) == [
        packed(*first, start_ms=3_600_000, resolution_ms=60_000),
        packed(*second, start_ms=7_200_000, resolution_ms=60_000),
    ]


def test_equal_contexts_have_equal_checksums_however_they_are_laid_out_or_spelled() -> None:
    usual = context_sha256(batch())
    other_nan = torch.tensor([0x7FC0_1234], dtype=torch.int32).view(torch.float32)
    spelled = batch()
    spelled.target_BT[0, 1] = other_nan[0]
    assert context_sha256(spelled) == usual
    laid = replace(batch(), target_BT=batch().target_BT.T.contiguous().T)
    assert not laid.target_BT.is_contiguous() and context_sha256(laid) == usual
    doubled = replace(batch(), static_BF=batch().static_BF.double())
    assert context_sha256(doubled) == usual


def test_another_start_or_resolution_is_another_context() -> None:
    usual = context_sha256(batch())
    later = context_sha256(replace(batch(), start_ms_B=batch().start_ms_B + 1))
    wider = context_sha256(replace(batch(), resolution_ms=60_001))
    assert len({*usual, *later, *wider}) == 6


def whole() -> Batch:
    """The batch with every optional field too."""
    return replace(
        batch(),
        group_B=torch.tensor([0, 1]),
        local_ms_BS=torch.tensor([[0, 60, 120]] * 2) * 1_000,
        factor_B=torch.tensor([20.0, 1.0]),
        own_B=torch.tensor([0.5, 1.0]),
        pooled_BHQ=torch.tensor([[[2.0]], [[0.0]]]),
    )


def test_optional_fields_count_where_they_are_given_and_their_names_tell_them_apart() -> None:
    first = (1.5, NAN, 3.0, 4.0, 6.0, 7.0, 8.0, 0.25, NAN, 20.0, 0.5, 2.0)
    data = b"group_B local_ms_BS factor_B own_B pooled_BHQ" + struct.pack("<12f", *first)
    data += struct.pack("<6q", 3_600_000, 60_000, 0, 0, 60_000, 120_000)
    assert context_sha256(whole())[0] == hashlib.sha256(data).hexdigest()
    assert {field.name for field in fields(Batch) if getattr(whole(), field.name) is None} == set()


def test_no_field_of_a_batch_can_change_and_leave_the_checksum_as_it_was() -> None:
    usual = context_sha256(whole())
    for field in fields(Batch):
        value = getattr(whole(), field.name)
        if isinstance(value, int):
            assert context_sha256(replace(whole(), **{field.name: value + 1}))[1] != usual[1]
            continue
        # The last number of the second row.
        changed = value.clone()
        changed.view(-1)[-1] = 77
        found = context_sha256(replace(whole(), **{field.name: changed}))
        assert found[0] == usual[0] and found[1] != usual[1], field.name


def test_rows_of_a_large_batch_are_those_of_small_ones() -> None:
    rows = torch.arange(BLOCK + 3) % 2
    assert context_sha256(batch().rows(rows)) == [context_sha256(batch())[row] for row in rows]
