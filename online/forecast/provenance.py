"""What a forecast was made from, as one checksum a row.

Dimensions: B rows, W numbers of one kind in a row.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np
import torch

from freshet.model.batch import Batch
from freshet.stream.arrays import Ints, Singles

BLOCK = 16  # rows packed at a time, which a cache holds


def context_sha256(batch: Batch) -> list[str]:
    """The sha256 of every number that each row's forecast is made from, whatever device it is on.

    Each row's bytes in order: all that is measured, as float32, little-endian, with one spelling of
    NaN and of 0 (target, past, known, static, and `factor_B`, `own_B` and `pooled_BHQ` where they
    are given); then what is counted, as int64 (start, resolution, and `group_B` and `local_ms_BS`
    where they are given). The names of the optional ones that are given go before everything.
    """
    singles_BW, ints_BW, given = _numbers(batch)
    begun = hashlib.sha256(" ".join(given).encode())
    ints = np.concatenate(ints_BW, axis=1, dtype="<i8")
    hashes = []
    for first in range(0, len(batch), BLOCK):
        block = slice(first, first + BLOCK)
        singles = _canonical([part[block] for part in singles_BW])
        for measured, counted in zip(singles, ints[block], strict=True):
            digest = begun.copy()
            digest.update(measured)
            digest.update(counted)
            hashes.append(digest.hexdigest())
    return hashes


def _numbers(batch: Batch) -> tuple[list[Singles], list[Ints], list[str]]:
    """The fields as [B, W] in their order, and the names of optional ones that are given."""
    B = len(batch)
    singles_BW: list[Singles] = []
    ints_BW: list[Ints] = []
    given: list[str] = []
    for field in fields(batch):
        value = getattr(batch, field.name)
        if value is None:
            continue
        if field.default is None:
            given.append(field.name)
        tensor = torch.as_tensor(value).expand(B) if isinstance(value, int) else value
        if tensor.is_floating_point():
            singles_BW.append(tensor.float().cpu().numpy().reshape(B, -1))
        else:
            ints_BW.append(tensor.long().cpu().numpy().reshape(B, -1))
    return singles_BW, ints_BW, given


def _canonical(parts_BW: list[Singles]) -> Singles:
    """The parts side by side, with one spelling of NaN; adding 0 makes -0 a 0."""
    singles: Singles = np.concatenate(parts_BW, axis=1, dtype="<f4")
    singles += np.float32(0.0)
    np.copyto(singles, np.float32("nan"), where=np.isnan(singles))
    return singles
